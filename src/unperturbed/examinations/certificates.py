"""What randomised smoothing provably withstands; see :mod:`unperturbed.measures.certificates`.

Source: Cohen, Rosenfeld & Kolter (2019), arXiv:1902.02918; the mean radius is that of Zhai et al. (2020),
arXiv:2001.02378. The certificates are those of the ideal smoothed classifier, of infinitely many draws, not of the
deployed mean over a few.
"""

import math
from copy import deepcopy

import numpy as np
import torch
from torch import nn

from unperturbed.examinations.contract import Found, Subject, measured
from unperturbed.measures.certificates import (
    average_certified_radius,
    certified_accuracy,
    certify,
    check_draws,
    largest_radius,
)
from unperturbed.mechanisms.installing import Draws
from unperturbed.mechanisms.randomised_smoothing import GaussianNoise
from unperturbed.records import SpecError
from unperturbed.tensors.streams import undisturbed

STEP = 0.125  # between the radii of the curve
DRAWS, NOISE = "smoothing", "smoothing_noise"  # the parts that randomised smoothing installs
PROBED = 16  # images whose answers are compared to see whether there is other noise


def certificates(subject: Subject, *, n: int = 1000, n0: int = 100, alpha: float = 0.001) -> Found:
    """Return how far the smoothed classifier is certified; ``n + n0`` forwards for each image and no backward.

    Args:
        subject: what is examined; trained and deployed with ``randomised-smoothing``, whose sigma counts.
        n: draws that bound the probability; the source takes 100,000.
        n0: draws that choose the class.
        alpha: probability of a wrong certificate, for each image.

    Returns:
        ``average_certified_radius`` and ``certified_0_25``, which n and sigma limit; the curve is the certified
        accuracy over L2 radii from 0 on, where to abstain counts as wrong, up to the first one beyond what n draws can
        certify.

    Raises:
        SpecError: the network has no draws of randomised smoothing, or other noise besides, or the settings are not as
            described.
    """
    check_draws(n, n0, alpha=alpha)
    base, sigma = _base(subject.network)
    _check_silent(subject, base)

    found = certify(subject.watched(base), subject.images, sigma=sigma, n=n, n0=n0, alpha=alpha, seed=subject.seed)
    labels = subject.labels.cpu().numpy()
    points = math.floor(largest_radius(n, sigma=sigma, alpha=alpha) / STEP) + 2
    radii = STEP * np.arange(points, dtype=np.float64)
    accuracy = certified_accuracy(found, labels, radii)
    values = {
        "average_certified_radius": average_certified_radius(found, labels),
        "certified_0_25": float(certified_accuracy(found, labels, np.array([0.25]))[0]),
    }
    return Found(
        measured(values, len(labels)),
        arrays={"predicted": found.predicted, "radius": found.radius, "votes": found.votes, "labels": labels},
        curves=[(float(radius), float(value), len(labels)) for radius, value in zip(radii, accuracy, strict=True)],
        forwards=len(labels) * (n + n0),
    )


def _base(network: nn.Module) -> tuple[nn.Module, float]:
    """Return a copy of the network that adds no noise of its own, and the sigma of what it added."""
    noise = dict(network.named_children()).get(NOISE)
    if not isinstance(noise, GaussianNoise):
        raise SpecError(
            f"certificates: expected a network with randomised-smoothing; {type(network).__name__} has no {NOISE!r}"
        )
    base = deepcopy(network)
    base.add_module(NOISE, nn.Identity())
    draws = base.get_submodule(DRAWS)
    assert isinstance(draws, Draws)
    draws.draws = 1
    return base, noise.sigma


def _check_silent(subject: Subject, base: nn.Module) -> None:
    images = subject.images[:PROBED]
    with undisturbed("certificates", subject.seed, device=images.device), torch.no_grad():
        first, second = base(images), base(images)
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
        raise SpecError(
            "certificates: expected no noise but that of randomised-smoothing, as no other is known to be independent "
            "from row to row; without it, equal images get unequal answers"
        )
