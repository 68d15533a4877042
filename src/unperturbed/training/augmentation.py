"""Training images moved and mirrored at random, as is usual for small photographs.

Source: He et al. (2016), arXiv:1512.03385, section 4.2: four black pixels on each side, a window of the former size at
random, mirrored half of the time; as the published trainings on CIFAR-10 that this lab repeats.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float, Int
from torch import Tensor

from unperturbed.tensors.streams import generator


def places(seeds: Sequence[int], epoch: int, images: int, *, crop: int, flip: bool) -> Int[Tensor, "networks images 3"]:
    """Return where the window of each image of an epoch begins, from the top and from the left, and if it is mirrored.

    Args:
        seeds: one for each network.
        epoch: which has numbers of its own.
        images: how many an epoch has.
        crop: greatest move in pixels.
        flip: whether images are mirrored half of the time.
    """
    drawn: list[Tensor] = []
    for seed in seeds:
        random = generator("augmentation", seed, epoch)
        begins = torch.randint(2 * crop + 1, (images, 2), generator=random)
        drawn.append(torch.cat([begins, torch.randint(2, (images, 1), generator=random) * int(flip)], dim=1))
    return torch.stack(drawn)


def moved(
    images: Float[Tensor, "batch channel height width"], windows: Int[Tensor, "batch 3"], *, crop: int
) -> Float[Tensor, "batch channel height width"]:
    """Return the window of each image, of the image's own size, with ``crop`` black pixels around it.

    >>> moved(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[1, 0, 1]]), crop=1)
    tensor([[[[1., 0.]]]])
    """
    padded = F.pad(images, (crop, crop, crop, crop))
    count, channels, height, width = images.shape
    device = images.device
    rows = windows[:, :1] + torch.arange(height, device=device)
    columns = windows[:, 1:2] + torch.arange(width, device=device)
    columns = torch.where(windows[:, 2:] == 1, columns.flip(1), columns)
    return padded[
        torch.arange(count, device=device).view(-1, 1, 1, 1),
        torch.arange(channels, device=device).view(1, -1, 1, 1),
        rows.view(count, 1, height, 1),
        columns.view(count, 1, 1, width),
    ]
