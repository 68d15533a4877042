"""From flags to a verdict: trustworthy, suspect or illusory."""

from dataclasses import replace

from unperturbed.audit.record import Flag, Verdict

MOST = 0.5  # of what the plain attack left
ENOUGH = 0.1  # points of accuracy, as a fraction: an illusion of a network that has hardly any robustness is none

# What a working adversary clears up. The other doubts stay until their own check is silent.
CLEARED = {
    *("P1", "R1", "B1", "O1", "E1", "E2", "E4", "I1", "I2", "I3", "I4", "I5", "I6"),
    *("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C10", "C11", "C12"),
}


def resolve(flags: list[Flag], *, works: bool, still: set[str]) -> list[Flag]:
    """Return the flags with those resolved that no longer stand in the way.

    Args:
        flags: all checks.
        works: whether the final adversary passes the checks of a working attack: it breaks everything without a bound,
            accuracy falls with eps, and the black box finds nothing that it missed.
        still: ids of checks that fire for the final adversary too.
    """
    return [
        replace(flag, resolved=flag.fired and works and flag.id in CLEARED and flag.id not in still) for flag in flags
    ]


def decide(flags: list[Flag], *, plain: float, robust: float) -> tuple[Verdict, list[str]]:
    """Return the verdict and its reasons."""
    lost = plain - robust
    left = [flag for flag in flags if flag.left]
    names = ", ".join(f"{flag.id} ({flag.name})" for flag in left)
    if lost >= MOST * plain and lost >= ENOUGH:
        reasons = [
            f"The plain attack left {plain:.1%}; attacks that know better leave {robust:.1%}: most was an illusion."
        ]
        if left:
            reasons.append(f"Doubts are left: {names}. Even {robust:.1%} is an upper bound only.")
        return "illusory", reasons
    if left:
        return "suspect", [f"Doubts are left: {names}. {robust:.1%} is an upper bound only."]
    fired = [flag for flag in flags if flag.fired]
    if fired:
        told = ", ".join(flag.id for flag in fired)
        return "trustworthy", [
            f"Doubts arose ({told}); an attack that answers them works, and leaves {robust:.1%} of {plain:.1%}."
        ]
    return "trustworthy", [f"No check fired. The strongest attacks leave {robust:.1%}, a plain one {plain:.1%}."]
