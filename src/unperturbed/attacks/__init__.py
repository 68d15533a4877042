"""Attacks, the judge that checks them, and the sweep over radii.

An attack is a function ``(classifier, images, labels, seed, *, norm, ...) -> images``. One *within a budget* takes
``eps`` and returns images in the ball of that radius; one that looks for the *smallest* perturbation has no ``eps`` and
returns the nearest misclassified image found, or the image itself. All return images of the same type in [0, 1] and
leave the classifier's mode, its parameters, their ``.grad`` and the global random numbers as they were. A classifier
takes the images in the type in which they are given; casting them to the type of its weights is its own business.
"""

from collections.abc import Sequence

import torch

from unperturbed import registry
from unperturbed.attacks.apgd import apgd, apgd_targeted
from unperturbed.attacks.carlini_wagner import carlini_wagner
from unperturbed.attacks.classifier import Classifier, Passes, guided
from unperturbed.attacks.ddn import ddn
from unperturbed.attacks.deepfool import deepfool
from unperturbed.attacks.evidence import Evidence
from unperturbed.attacks.fab import fab, fab_targeted
from unperturbed.attacks.fgsm import fgsm
from unperturbed.attacks.fmn import fmn
from unperturbed.attacks.inputs import check_radii
from unperturbed.attacks.judge import Judgement, judge
from unperturbed.attacks.noise import gaussian_noise, noise_search, uniform_noise
from unperturbed.attacks.pgd import pgd
from unperturbed.attacks.square import square
from unperturbed.attacks.sweep import PLUGS, Attack, sweep, within_budget
from unperturbed.records import Spec

__all__ = [
    "ATTACKS",
    "Attack",
    "Classifier",
    "Evidence",
    "Judgement",
    "Passes",
    "apgd",
    "apgd_targeted",
    "carlini_wagner",
    "check_spec",
    "complete",
    "ddn",
    "deepfool",
    "fab",
    "fab_targeted",
    "fgsm",
    "fmn",
    "gaussian_noise",
    "guided",
    "judge",
    "noise_search",
    "pgd",
    "square",
    "sweep",
    "uniform_noise",
    "within_budget",
]

ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "apgd": apgd,
    "apgd_targeted": apgd_targeted,
    "square": square,
    "uniform_noise": uniform_noise,
    "gaussian_noise": gaussian_noise,
    "noise_search": noise_search,
    "carlini_wagner": carlini_wagner,
    "deepfool": deepfool,
    "ddn": ddn,
    "fmn": fmn,
    "fab": fab,
    "fab_targeted": fab_targeted,
}


def complete(spec: Spec) -> Spec:
    """Return the attack with every default of its signature written out, ``eps`` left out.

    >>> complete(Spec(name="fgsm")).settings
    {'norm': 'linf', 'clip': True, 'exact': True}

    Raises:
        SpecError: no attack of this name, a setting that it does not have, or a value of the wrong kind.
    """
    return registry.complete("attack", ATTACKS, spec, apart=PLUGS)


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
        budget = {"eps": radius} if within_budget(ATTACKS[spec.name]) else {}
        ATTACKS[spec.name](_never_zero, pixel, label, **budget, **settings)


def _never_zero(images: torch.Tensor) -> torch.Tensor:
    return torch.stack([images.sum(dim=(1, 2, 3)) * 0, 1 + images.sum(dim=(1, 2, 3)) * 0], dim=1)
