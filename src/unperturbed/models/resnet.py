"""Residual networks for 32x32 images, with torchvision's parameter names.

Source: He et al. (2016), arXiv:1512.03385, table 1, with the usual changes for small images: a 3x3 stem of stride 1 and
no max-pooling. ResNet50 has 23,520,842 parameters for 10 classes. Names are torchvision's (``conv1``, ``bn1``,
``layer1.0.conv1``, ``layer2.0.downsample.0``, ``fc``); the shapes are too, but for ``conv1`` (``imagenet_resnet``).
Initial weights: He et al. (2015) with the fan out for ``start="he-out"`` (torchvision), PyTorch's layer defaults for
``start="default"`` (the recipe that the published hyperparameters are taken to come from).
"""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor, nn

from unperturbed.records import SpecError

# depth: (bottleneck blocks?, blocks per stage); 10 and 18 to 152 as torchvision counts, 8 has three stages
DEPTHS: dict[int, tuple[bool, tuple[int, ...]]] = {
    8: (False, (1, 1, 1)),
    10: (False, (1, 1, 1, 1)),
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels_in, width, stride)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """Return the features of the next layer."""
        hidden = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(hidden)) + self.downsample(x))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 (with the stride) and a 1x1 convolution beside a shortcut."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(channels_in, 4 * width, stride)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """Return the features of the next layer."""
        hidden = self.relu1(self.bn1(self.conv1(x)))
        hidden = self.relu2(self.bn2(self.conv2(hidden)))
        return self.relu3(self.bn3(self.conv3(hidden)) + self.downsample(x))


class ResNet(nn.Module):
    """Images (batch, 3, 32, 32) to logits (batch, classes); ``intake`` and ``pool`` are nothing for small images."""

    def __init__(self, *, bottleneck: bool, blocks: tuple[int, ...], width: int, classes: int, start: str) -> None:
        super().__init__()
        self.start = start
        self.intake: nn.Module = nn.Identity()
        block = Bottleneck if bottleneck else BasicBlock
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool: nn.Module = nn.Identity()
        channels = width
        self.stages = [f"layer{stage + 1}" for stage in range(len(blocks))]
        for stage, (name, repeats) in enumerate(zip(self.stages, blocks, strict=True)):
            layers: list[nn.Module] = []
            for repeat in range(repeats):
                stride = 2 if stage > 0 and repeat == 0 else 1
                layers.append(block(channels, width * 2**stage, stride))
                channels = width * 2**stage * block.expansion
            self.add_module(name, nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        hidden = self.pool(self.relu(self.bn1(self.conv1(self.intake(images)))))
        for name in self.stages:
            hidden = self.get_submodule(name)(hidden)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(hidden, 1), 1))


def resnet(
    *, depth: int = 50, width: int = 64, classes: int = 10, start: Literal["default", "he-out"] = "default"
) -> nn.Module:
    """Return an untrained residual network.

    Args:
        depth: 8, 10, 18, 34 (basic blocks), 50 or 101 (bottlenecks); 8 has three stages, the others four.
        width: channels of the first stage; 64 in the source.
        classes: number of logits.
        start: initial weights of the convolutions.

    Raises:
        SpecError: a depth that is not in the table.
    """
    bottleneck, blocks = layout("resnet", depth)
    return ResNet(bottleneck=bottleneck, blocks=blocks, width=width, classes=classes, start=start)


def layout(model: str, depth: int) -> tuple[bool, tuple[int, ...]]:
    """Return whether a network of this depth has bottlenecks, and its blocks per stage.

    Raises:
        SpecError: a depth that is not in the table.
    """
    if depth not in DEPTHS:
        raise SpecError(f"{model}: depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}.")
    return DEPTHS[depth]


class Thinned(nn.Conv2d):
    """A 1x1 convolution of every ``stride``-th pixel: the same numbers as a strided one, from an unstrided kernel.

    PyTorch 2.13.0 corrupts memory in the backward pass of a strided 1x1 convolution of images that lie channels last
    (docs/decisions/0005), and a caller's images may.
    """

    def forward(self, input: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """Return the features of the shortcut."""
        rows, columns = self.stride
        return F.conv2d(input[:, :, ::rows, ::columns], self.weight)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(Thinned(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))
