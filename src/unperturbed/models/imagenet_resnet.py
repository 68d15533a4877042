"""Residual networks as torchvision builds them for ImageNet, so that its published weights load whole.

Source: He et al. (2016), arXiv:1512.03385, table 1, with torchvision's stride in the 3x3 convolution of a bottleneck
(its "V1.5"): a 7x7 stem of stride 2, then 3x3 max-pooling of stride 2. ResNet-50 has 25,557,032 parameters for 1,000
classes. Images are normalised inside, by the mean and standard deviation of the colours of ImageNet that torchvision's
weights were trained with: (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225).

Departs from the source: images of another size are enlarged inside (bilinear), so that perturbations are measured on
the images as they were given, and pictures of 32x32 keep what they have lost.
"""

from pathlib import Path

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor, nn

from unperturbed.models.published import SUFFIXES
from unperturbed.models.resnet import ResNet, layout
from unperturbed.records import SpecError

MEAN = (0.485, 0.456, 0.406)  # of red, green and blue
DEVIATION = (0.229, 0.224, 0.225)


class Intake(nn.Module):
    """Images of any size to normalised ones of ``size``; it has no parameters."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = (size, size)

    def forward(self, images: Float[Tensor, "batch 3 _ _"]) -> Float[Tensor, "batch 3 size size"]:
        """Return what the first convolution sees."""
        if tuple(images.shape[-2:]) != self.size:
            images = F.interpolate(images, size=self.size, mode="bilinear", align_corners=False)
        mean, deviation = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        return (images - mean) / deviation


def imagenet_resnet(
    *, depth: int = 50, width: int = 64, classes: int = 1000, size: int = 224, weights: str = ""
) -> nn.Module:
    """Return an untrained residual network of torchvision's layers and names.

    Args:
        depth: 10, 18, 34 (basic blocks), 50 or 101 (bottlenecks), as torchvision counts; 8 has three stages.
        width: channels of the first stage; 64 in the source.
        classes: number of logits; 1,000 are those of ImageNet.
        size: rows and columns that images are enlarged, or reduced, to; 224 in the source.
        weights: the name of a file of published weights that training begins with (``models.published``), which lies
            in the folder ``imagenet-weights`` of the data; none begins with random weights.

    Raises:
        SpecError: a depth that is not in the table, a size below 32, or weights that are no name of such a file.
    """
    if size < 32:
        raise SpecError(f"imagenet-resnet: size must be at least 32, got {size}.")
    if weights and (Path(weights).name != weights or Path(weights).suffix not in SUFFIXES):
        raise SpecError(
            f"imagenet-resnet: weights must be the name of a file that ends in {', '.join(SUFFIXES)}, got {weights!r}; "
            "`unperturbed data fetch imagenet-weights` says where it is looked for."
        )
    bottleneck, blocks = layout("imagenet-resnet", depth)
    network = ResNet(bottleneck=bottleneck, blocks=blocks, width=width, classes=classes, start="he-out")
    network.intake = Intake(size)
    network.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
    network.pool = nn.MaxPool2d(3, 2, padding=1)
    return network
