"""Spatial smoothing: a median or Gaussian filter on the image, in training and at inference.

Source: Xu, Evans and Qi (2018), arXiv:1704.01155, section 3.2 (feature squeezing). The median passes its gradient to
the intensity in the middle, so that it shatters nothing.
Matched control: the network without the filter.
"""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from unperturbed.mechanisms.contract import Mechanism
from unperturbed.mechanisms.installing import in_front
from unperturbed.records import SpecError


class SpatialFilter(nn.Module):
    """Every intensity becomes the median, or a weighted mean, of its neighbourhood; edges are mirrored."""

    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        self.kind = kind
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Return the filtered images, of the same shape."""
        margin = self.size // 2
        padded = F.pad(images, (margin,) * 4, mode="reflect")
        patches = padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        if self.kind == "median":
            return patches.median(dim=4).values
        offsets = torch.arange(self.size, dtype=images.dtype, device=images.device) - margin
        bell = torch.exp(-offsets.square() / (2 * (self.size / 4) ** 2))
        weights = torch.outer(bell, bell).flatten()
        return patches @ (weights / weights.sum())


def spatial_smoothing(*, kind: Literal["median", "gaussian"] = "median", size: int = 3) -> Mechanism:
    """Return a filter in front of the network.

    Args:
        kind: ``median`` or ``gaussian`` (standard deviation a quarter of the size).
        size: side of the neighbourhood in pixels, odd.

    Raises:
        SpecError: an even size, or one below 3.
    """
    if size < 3 or size % 2 == 0:
        raise SpecError(f"spatial-smoothing: size must be odd and at least 3, got {size}")

    def install(network: nn.Module) -> None:
        in_front(network, "spatial_filter", SpatialFilter(kind, size))

    return Mechanism(install=install)
