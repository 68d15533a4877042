"""Random perturbations: the baseline that every attack on a classifier has to beat.

Source: Fawzi, Moosavi-Dezfooli & Frossard (2016), arXiv:1608.08967, who compare random with worst-case perturbations of
the same length. Departs from the source: noise inside the whole ball, not only on its surface, and clipped to [0, 1].
The search over many draws: Athalye, Carlini & Wagner (2018), arXiv:1802.00420, section 3.1; where it finds what a
gradient attack did not, the gradients are obfuscated.
"""

import math
from typing import Literal

from jaxtyping import Float, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier
from unperturbed.attacks.contract import pure
from unperturbed.attacks.fgsm import along
from unperturbed.attacks.problem import Problem
from unperturbed.records import SpecError
from unperturbed.tensors.norms import uniform_in_ball, wide
from unperturbed.tensors.streams import Streams


@pure
def uniform_noise(
    classifier: Classifier,  # noqa: ARG001 (every attack takes one)
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,  # noqa: ARG001
    seed: int = 0,
    *,
    norm: Literal["linf", "l2", "l1"] = "linf",
    eps: float | int,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return one point for each image, drawn uniformly from the ball of radius ``eps`` and then clipped to [0, 1].

    Args:
        classifier: not asked.
        images: floating-point intensities in [0, 1].
        labels: not used, but checked.
        seed: decides the noise, for each image apart; the same at every eps up to its scale.
        norm: ``linf`` (every intensity moves by U(-eps, eps)), ``l2`` or ``l1`` (uniform in that ball).
        eps: radius, as a fraction of full scale.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Raises:
        SpecError: an argument is not as described.
    """
    noise = uniform_in_ball(images, Streams.of(images, seed), "noise", norm=norm, eps=1.0)
    return along(images, noise if mask is None else noise * mask, eps=eps)


@pure
def gaussian_noise(
    classifier: Classifier,  # noqa: ARG001 (every attack takes one)
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,  # noqa: ARG001
    seed: int = 0,
    *,
    norm: Literal["linf", "l2"] = "linf",
    eps: float | int,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return every image with independent normal noise of the scale ``eps``, clipped to [0, 1].

    Not confined to the ball of radius ``eps``: under ``linf`` about a third of the intensities move by more.

    Args:
        classifier: not asked.
        images: floating-point intensities in [0, 1].
        labels: not used, but checked.
        seed: decides the noise, for each image apart.
        norm: ``linf``: the standard deviation of every intensity is ``eps``; ``l2``: it is ``eps / sqrt(d)``, so that
            the length of the noise is about ``eps``.
        eps: scale of the noise, as a fraction of full scale.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Raises:
        SpecError: an argument is not as described.
    """
    shape = tuple(images.shape[1:])
    noise = Streams.of(images, seed).normal(shape, "noise", dtype=wide(images.dtype))
    noise = noise * (1.0 if norm == "linf" else 1 / math.sqrt(images[0].numel()))
    return along(images, noise if mask is None else noise * mask, eps=eps)


@pure
def noise_search(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,
    *,
    norm: Literal["linf", "l2", "l1"] = "linf",
    eps: float | int,
    draws: int = 1000,
    targets: Tensor | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return for every image the worst of ``draws`` random points of the ball, the image itself among them.

    At most ``draws + 1`` forwards for each image, none once it is broken, and no backward. Under ``linf`` every second
    draw is a corner of the ball, where every intensity moves by ``eps``.

    Args:
        classifier: images in [0, 1] to logits.
        images: floating-point intensities in [0, 1].
        labels: the true classes.
        seed: decides the points, for each image apart.
        norm: of the ball.
        eps: its radius, as a fraction of full scale.
        draws: points tried.
        targets: the classes that the images shall be taken for; ``None``: any but the true one.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Raises:
        SpecError: an argument is not as described.
    """
    if draws < 1:
        raise SpecError(f"noise_search: expected draws of at least 1; got {draws}")
    problem = Problem(classifier, images, labels, seed=seed, loss="margin", targets=targets, mask=mask)
    problem.keep(images, problem.look(images))
    for draw in range(draws):
        if problem.finished:
            break
        offset = uniform_in_ball(problem.centres, problem.streams, "search", draw, norm=norm, eps=eps)
        if norm == "linf" and draw % 2:
            offset = offset.sign() * eps
        points = problem.at(problem.allowed(offset))
        problem.keep(points, problem.look(points))
    return problem.images
