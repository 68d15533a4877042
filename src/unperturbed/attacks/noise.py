"""Random perturbations: the baseline that every attack on a classifier has to beat.

Source: Fawzi, Moosavi-Dezfooli & Frossard (2016), arXiv:1608.08967, who compare random with worst-case perturbations of
the same length. Departs from the source: noise inside the whole ball, not only on its surface, and clipped to [0, 1].
"""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier
from unperturbed.attacks.fgsm import along
from unperturbed.attacks.inputs import check_eps, check_images, check_labels
from unperturbed.records import SpecError
from unperturbed.tensors.norms import check_norm, gaussian, uniform_in_ball


def uniform_noise(
    classifier: Classifier,  # noqa: ARG001 (every attack takes one)
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    generator: torch.Generator | None,
    *,
    norm: str = "linf",
    eps: float | int,
) -> Float[Tensor, "batch channel height width"]:
    """Return one point for each image, drawn uniformly from the ball of radius ``eps`` and then clipped to [0, 1].

    Args:
        classifier: not asked.
        images: floating-point intensities in [0, 1].
        labels: not used, but checked.
        generator: source of the noise.
        norm: ``linf`` (every intensity moves by U(-eps, eps)) or ``l2`` (uniform in the Euclidean ball).
        eps: radius, as a fraction of full scale.

    Raises:
        SpecError: an argument is not as described.
    """
    source = _source("uniform_noise", images, labels, generator, norm, eps)
    return along(images, uniform_in_ball(images, source, norm=norm, eps=1.0), eps=eps)


def gaussian_noise(
    classifier: Classifier,  # noqa: ARG001 (every attack takes one)
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    generator: torch.Generator | None,
    *,
    norm: str = "linf",
    eps: float | int,
) -> Float[Tensor, "batch channel height width"]:
    """Return every image with independent normal noise of the scale ``eps``, clipped to [0, 1].

    Not confined to the ball of radius ``eps``: under ``linf`` about a third of the intensities move by more.

    Args:
        classifier: not asked.
        images: floating-point intensities in [0, 1].
        labels: not used, but checked.
        generator: source of the noise.
        norm: ``linf``: the standard deviation of every intensity is ``eps``; ``l2``: it is ``eps / sqrt(d)``, so that
            the length of the noise is about ``eps``.
        eps: scale of the noise, as a fraction of full scale.

    Raises:
        SpecError: an argument is not as described.
    """
    source = _source("gaussian_noise", images, labels, generator, norm, eps)
    scale = 1.0 if norm == "linf" else 1 / math.sqrt(images[0].numel())
    return along(images, scale * gaussian(images, source), eps=eps)


def _source(
    name: str, images: Tensor, labels: Tensor, generator: torch.Generator | None, norm: str, eps: float | int
) -> torch.Generator:
    check_images(images)
    check_labels(labels, len(images))
    check_norm(norm)
    check_eps(eps)
    if generator is None:
        raise SpecError(f"{name}: expected a torch.Generator to draw the noise from; got None")
    return generator
