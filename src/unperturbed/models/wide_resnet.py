"""Wide residual networks with pre-activation, for 32x32 images.

Source: Zagoruyko and Komodakis (2016), arXiv:1605.07146, table 1, as TRADES and the winner-take-all networks use them:
depth 34 is five blocks in each of three stages; widen factor 1 has 466,714 parameters for 10 classes. Initial weights:
He et al. (2015) with the fan out.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor, nn

from unperturbed.models.resnet import Thinned
from unperturbed.records import SpecError


class PreactivatedBlock(nn.Module):
    """Two 3x3 convolutions, each behind normalisation and rectifier, beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(channels_in), nn.ReLU()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(channels_out), nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.shortcut = None
        if channels_in != channels_out:
            self.shortcut = Thinned(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """Return the features of the next block."""
        active = self.relu1(self.bn1(x))
        hidden = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return hidden + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """Images (batch, 3, 32, 32) to logits (batch, classes)."""

    def __init__(self, depth: int, widen: int, classes: int) -> None:
        super().__init__()
        self.start = "he-out"
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        channels, blocks = 16, list[nn.Module]()
        for stage in range(3):
            for repeat in range((depth - 4) // 6):
                width = 16 * widen * 2**stage
                blocks.append(PreactivatedBlock(channels, width, 2 if stage > 0 and repeat == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.bn, self.relu = nn.BatchNorm2d(channels), nn.ReLU()
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        hidden = self.relu(self.bn(self.blocks(self.conv1(images))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(hidden, 1), 1))


def wide_resnet(*, depth: int = 34, widen: int = 1, classes: int = 10) -> nn.Module:
    """Return an untrained wide residual network.

    Args:
        depth: 6 n + 4 layers, n blocks in each of three stages.
        widen: channels of the first stage, as a multiple of 16.
        classes: number of logits.

    Raises:
        SpecError: a depth of another form, or a widen factor below 1.
    """
    if depth < 10 or (depth - 4) % 6:
        raise SpecError(f"wide-resnet: depth must be 10, 16, 22, 28, 34 ..., got {depth}.")
    if widen < 1:
        raise SpecError(f"wide-resnet: widen must be at least 1, got {widen}.")
    return WideResNet(depth, widen, classes)
