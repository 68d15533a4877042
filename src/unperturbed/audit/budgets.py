"""What an audit spends: attacks and sizes, by name.

Source of the sizes: smoke, standard and headline budgets as recommended by Carlini et al. (2019), arXiv:1902.06705, and
used in practice: PGD-20 with 5 restarts, C&W with 9 times 1,000 steps, Square with 1,000 queries; AutoAttack.
"""

from dataclasses import dataclass
from typing import Any, Literal

from unperturbed.records import SpecError


@dataclass(frozen=True)
class Budget:
    """Sizes of one audit."""

    name: str
    images: int | None  # taken from a data set unless told otherwise; None: all
    suite: tuple[tuple[str, dict[str, Any]], ...]  # attacks in the order in which they run, with their settings
    queries: int  # of Square, when gradients are in doubt
    noise: int  # random points of the ball
    subset: int  # images of a check
    steps: int  # of an adaptive attack
    restarts: int  # of an adaptive attack
    routes: int  # variants that are followed to the end
    rounds: int  # repeats with more steps while the number falls
    votes: int  # draws that decide about an image of a random classifier
    fresh: int  # draws of the final accuracy of a random classifier
    protocol: Literal["standard"] | None = None  # AutoAttack version, or None


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="quick",
            images=500,
            suite=(
                ("pgd", {"steps": 20, "loss": "ce", "restarts": 2}),
                ("apgd", {"steps": 50, "loss": "ce"}),
                ("apgd_targeted", {"steps": 20, "target_classes": 9}),
            ),
            queries=300,
            noise=100,
            subset=64,
            steps=60,
            restarts=2,
            routes=3,
            rounds=2,
            votes=21,
            fresh=50,
        ),
        Budget(
            name="standard",
            images=1000,
            suite=(
                ("pgd", {"steps": 20, "loss": "ce", "restarts": 5}),
                ("apgd", {"steps": 100, "loss": "ce"}),
                ("apgd_targeted", {"steps": 100, "target_classes": 9}),
            ),
            queries=1000,
            noise=1000,
            subset=128,
            steps=100,
            restarts=3,
            routes=5,
            rounds=3,
            votes=21,
            fresh=100,
        ),
        Budget(
            name="headline",
            images=None,
            suite=(
                ("pgd", {"steps": 20, "loss": "ce", "restarts": 5}),
                ("apgd", {"steps": 100, "loss": "dlr"}),
            ),
            queries=5000,
            noise=10_000,
            subset=256,
            steps=100,
            restarts=5,
            routes=8,
            rounds=4,
            votes=21,
            fresh=100,
            protocol="standard",
        ),
    )
}


def budget(name: str) -> Budget:
    """Return the budget of this name.

    >>> budget("fast")
    Traceback (most recent call last):
    unperturbed.records.SpecError: budget: expected one of quick, standard, headline; got 'fast'
    """
    if name not in BUDGETS:
        raise SpecError(f"budget: expected one of {', '.join(BUDGETS)}; got {name!r}")
    return BUDGETS[name]
