"""Attacks within a budget, the judge that checks them, and the sweep over radii.

An attack is a function ``(classifier, images, labels, generator, *, norm, eps, ...) -> images``. It returns images of
the same type in [0, 1] and in the ball of radius ``eps``, and leaves the classifier's mode, its parameters, their
``.grad`` and the global random numbers as they were. A classifier takes the images in the type in which they are given;
casting them to the type of its weights is its own business.
"""

from collections.abc import Sequence

import torch

from unperturbed import registry
from unperturbed.attacks.classifier import Classifier, Passes
from unperturbed.attacks.evidence import Evidence
from unperturbed.attacks.fgsm import fgsm
from unperturbed.attacks.inputs import check_radii
from unperturbed.attacks.judge import Judgement, judge
from unperturbed.attacks.noise import gaussian_noise, uniform_noise
from unperturbed.attacks.pgd import pgd
from unperturbed.attacks.sweep import Attack, sweep
from unperturbed.records import Spec

__all__ = [
    "ATTACKS",
    "Attack",
    "Classifier",
    "Evidence",
    "Judgement",
    "Passes",
    "check_spec",
    "complete",
    "fgsm",
    "gaussian_noise",
    "judge",
    "pgd",
    "sweep",
    "uniform_noise",
]

ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "uniform_noise": uniform_noise,
    "gaussian_noise": gaussian_noise,
}


def complete(spec: Spec) -> Spec:
    """Return the attack with every default of its signature written out, ``eps`` left out.

    >>> complete(Spec(name="fgsm")).settings
    {'norm': 'linf', 'clip': True, 'exact': True}

    Raises:
        SpecError: no attack of this name, a setting that it does not have, or a value of the wrong kind.
    """
    return registry.complete("attack", ATTACKS, spec, apart=("eps",))


def check_spec(spec: Spec, eps: Sequence[float | int] = ()) -> None:
    """Refuse an attack that could not run, before anything runs.

    The attack is rehearsed on one pixel that is misclassified from the start, so that its own checks decide and nothing
    is computed.

    Args:
        spec: the attack and its settings.
        eps: the radii at which it will run, if known: a schedule of steps may be too short for a large one.

    Raises:
        SpecError: as ``complete``, or radii that do not increase, or values that the attack refuses.

    >>> check_spec(Spec(name="fgsm", settings={"clipp": False}))
    Traceback (most recent call last):
    unperturbed.records.SpecError: fgsm has no setting 'clipp'. It has: norm, clip, exact. Did you mean 'clip'?
    """
    settings = complete(spec).settings
    if eps:
        check_radii(eps)
    pixel, label = torch.zeros(1, 1, 1, 1), torch.tensor([0])
    for radius in eps or (0.0,):
        ATTACKS[spec.name](_never_zero, pixel, label, torch.Generator(), eps=radius, **settings)


def _never_zero(images: torch.Tensor) -> torch.Tensor:
    return torch.stack([images.sum(dim=(1, 2, 3)) * 0, 1 + images.sum(dim=(1, 2, 3)) * 0], dim=1)
