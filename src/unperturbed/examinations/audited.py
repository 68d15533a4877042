"""An audit of one network: is its robustness real? See :mod:`unperturbed.audit`."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
from torch.nn.modules.module import register_module_forward_pre_hook

from unperturbed.audit import audit
from unperturbed.audit.record import Verdict
from unperturbed.examinations.contract import BATCH_SIZE, Found, Subject, measured

VERDICTS: tuple[str, ...] = get_args(Verdict)  # from the best to the worst


def audited(
    subject: Subject,
    *,
    budget: Literal["quick", "standard", "headline"] = "quick",
    norm: Literal["linf", "l2"] = "linf",
    eps: float = 8 / 255,
) -> Found:
    """Return what an audit leaves of the accuracy, and whether that number can be believed.

    Args:
        subject: what is examined; a network beside it counts as the same one without the defence, through which it is
            attacked, too.
        budget: what the audit spends, see :mod:`unperturbed.audit.budgets`.
        norm: of the ball.
        eps: its radius, as a fraction of full scale.

    Returns:
        ``f0``, ``A_eps``, ``A_eps_plain``, ``audit_flags`` and ``audit_verdict`` (0 trustworthy, 1 suspect, 2
        illusory); the curve, of a random network by the majority of its draws; and as arrays the critical eps of every
        image, the ids of the checks that fired, and the reasons for the verdict.

    Raises:
        SpecError: eps is 0, or the network's answers are not as described.
    """
    with _interruptible(subject):
        found = audit(
            subject.network,
            subject.images,
            subject.labels,
            eps=eps,
            norm=norm,
            budget=budget,
            twin=None if subject.beside is None else subject.beside(),
            traits=["random"] if subject.random else [],
            seed=subject.seed,
            batch_size=BATCH_SIZE,
            on_update=subject.look,
        )
    values = {
        "f0": found.clean_accuracy,
        "A_eps": found.robust_accuracy,
        "A_eps_plain": found.plain_accuracy,
        "audit_flags": len(found.fired),
        "audit_verdict": VERDICTS.index(found.verdict),
    }
    return Found(
        measured(values, found.n),
        arrays={
            "critical_eps": np.array(found.critical_eps),
            "flags": np.array(found.fired, dtype=np.str_),
            "reasons": np.array(found.reasons, dtype=np.str_),
        },
        curves=[(point.eps, point.accuracy, found.n) for point in found.curve],
        forwards=found.forwards,
        backwards=found.backwards,
    )


@contextmanager
def _interruptible(subject: Subject) -> Generator[None]:
    """Look whether the user asked to stop at every pass of every module.

    Neither a hook on the network nor a wrapper around it, which an audit would take for parts of it.
    """
    hook = register_module_forward_pre_hook(lambda _module, _arguments: subject.look())
    try:
        yield
    finally:
        hook.remove()
    subject.look()  # an audit expects a classifier to fail, and may have taken the interruption for that
