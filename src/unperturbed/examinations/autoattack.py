"""AutoAttack on one network, in the version that its authors ask for; see :mod:`unperturbed.attacks.protocols`."""

from typing import Literal

from unperturbed.attacks.protocols import autoattack as run
from unperturbed.examinations.contract import BATCH_SIZE, Found, Subject, measured


def autoattack(
    subject: Subject,
    *,
    version: Literal["fitting", "standard", "plus", "rand"] = "fitting",
    norm: Literal["linf", "l2", "l1"] = "linf",
    eps: float = 8 / 255,
) -> Found:
    """Return the accuracy that AutoAttack leaves; of ``rand``, over fresh draws, and its authors' number beside it.

    They count an image as broken by the draw that an attack ended with, which is a lucky one.

    Args:
        subject: what is examined.
        version: of the protocol; ``fitting`` is ``rand`` for a random network and ``standard`` for any other.
        norm: of the ball.
        eps: its radius, as a fraction of full scale.
    """
    chosen = ("rand" if subject.random else "standard") if version == "fitting" else version
    found = run(
        subject.watched(subject.network),
        subject.images,
        subject.labels,
        version=chosen,
        norm=norm,
        eps=eps,
        seed=subject.seed,
        batch_size=BATCH_SIZE,
    )
    left = found.robust_accuracy if found.fresh is None else found.fresh.mean
    values = {"f0": found.clean_accuracy, "A_eps": left}
    if found.fresh is not None:
        values["A_eps_drawn"] = found.robust_accuracy
    count = len(subject.labels)
    return Found(
        measured(values, count),
        arrays={"robust": found.robust.cpu().numpy()},
        curves=[(0.0, found.clean_accuracy, count), (eps, left, count)],
        forwards=found.forwards,
        backwards=found.backwards,
    )
