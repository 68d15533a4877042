"""Attacked blindly: images that were made against another network, judged on this one.

Source: Athalye, Carlini & Wagner (2018), arXiv:1802.00420, section 2.3, and Carlini et al. (2019), arXiv:1902.06705,
where a network that falls to a transferred attack and not to its own hides its gradients.
"""

from typing import Literal

from unperturbed.attacks import check_spec as check_attack
from unperturbed.attacks import pgd, sweep
from unperturbed.examinations.contract import BATCH_SIZE, Found, Subject, measured
from unperturbed.records import Spec, SpecError

VOTES = 9  # draws that decide about an image of a random network


def transfer(
    subject: Subject,
    *,
    norm: Literal["linf", "l2"] = "linf",
    eps: float = 8 / 255,
    steps: int = 40,
    restarts: int = 1,
    eot: int = 1,
) -> Found:
    """Return the accuracy on images that projected gradient ascent made against the network beside.

    The attack climbs to the end where the other network is already wrong: what barely misleads one misleads no other.

    Args:
        subject: what is examined, with a network beside it.
        norm: of the ball.
        eps: its radius, as a fraction of full scale.
        steps: gradients for each image and restart.
        restarts: random starts; the image with the largest loss of the other network is kept.
        eot: draws of a random network beside, at every step.

    Returns:
        ``f0`` and ``A_eps``, both by the majority of nine draws if the network is random, the curve through them, and
        the evidence of the sweep.

    Raises:
        SpecError: there is no network beside, or the settings are not as ``pgd`` has them.
    """
    check_attack(Spec(name="pgd", settings={"norm": norm, "steps": steps, "restarts": restarts, "eot": eot}), (eps,))
    if subject.beside is None:
        raise SpecError("transfer: expected a network beside the one that is examined; name a condition as 'beside'")

    evidence = sweep(
        subject.watched(subject.network),
        subject.images,
        subject.labels,
        pgd,
        eps=(0.0, eps),
        seed=subject.seed,
        norm=norm,
        batch_size=BATCH_SIZE,
        votes=VOTES if subject.random else 1,
        surrogate=subject.watched(subject.beside()),
        steps=steps,
        restarts=restarts,
        eot=eot,
    )
    clean, robust = (float(accuracy) for accuracy in evidence.accuracy)
    count = len(subject.labels)
    return Found(
        measured({"f0": clean, "A_eps": robust}, count),
        arrays=evidence.arrays(),
        curves=[(0.0, clean, count), (eps, robust, count)],
        forwards=evidence.forwards,
        backwards=evidence.backwards,
    )
