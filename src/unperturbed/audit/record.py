"""What an audit found: plain values that become JSON, a card in the terminal and a page."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Norm = Literal["linf", "l2"]
Stage = Literal["plain", "suite", "check", "adaptive"]
Verdict = Literal["trustworthy", "suspect", "illusory"]

ITSELF = "the model itself"


@dataclass(frozen=True)
class Attempt:
    """One attack on the images that stood when it began."""

    name: str
    stage: Stage
    through: str  # whose gradient led: the model itself, or the name of a variant
    settings: dict[str, Any]
    before: float  # accuracy, as a fraction of all images
    after: float
    attacked: int
    broke: int  # images that stood before it and fell to it
    forwards: int
    backwards: int
    seconds: float
    remark: str = ""


@dataclass(frozen=True)
class Flag:
    """One check: a way in which the result may be an illusion."""

    id: str
    name: str
    says: str
    value: float | None
    threshold: float | None
    fired: bool
    evidence: str
    remedy: str
    resolved: bool = False  # it fired, and what was done about it removed the doubt
    applies: bool = True

    @property
    def left(self) -> bool:
        """Whether the doubt remains."""
        return self.fired and not self.resolved


class Point(NamedTuple):
    """Accuracy at a radius."""

    eps: float
    accuracy: float


class Randomness(NamedTuple):
    """Accuracy of a random classifier, clean and on the worst images, over fresh draws."""

    draws: int
    clean_mean: float
    clean_sd: float
    clean_vote: float
    robust_mean: float
    robust_sd: float
    robust_vote: float
    interval: tuple[float, float]


class Standing(NamedTuple):
    """A variant whose gradients were considered."""

    name: str
    says: str
    clean_accuracy: float
    cosine: float | None
    sign_agreement: float | None
    chance: float | None
    attacked: bool
    after: float | None  # accuracy of the deployed classifier on the trial images after an attack through it


class Picture(NamedTuple):
    """An image, what it was turned into, and what the classifier makes of that."""

    label: int
    prediction: int
    attack: str
    original: list[Any]  # (C, H, W)
    adversarial: list[Any]


@dataclass(frozen=True)
class Audit:
    """The result; ``plain()`` is its JSON."""

    name: str
    data: str
    n: int
    classes: int
    norm: str
    eps: float
    budget: str
    clean_accuracy: float
    robust_accuracy: float
    interval: tuple[float, float]
    plain_accuracy: float
    suite_accuracy: float
    random: Randomness | None
    curve: tuple[Point, ...]
    R: float | None
    R_upto: float
    critical_eps: tuple[float, ...]  # of each image; 0: misclassified when clean; inf: never broken
    attacks: tuple[Attempt, ...]
    flags: tuple[Flag, ...]
    verdict: Verdict
    reasons: tuple[str, ...]
    broken_by: str | None
    variants: tuple[Standing, ...]
    pictures: tuple[Picture, ...]
    remarks: tuple[str, ...]
    forwards: int
    backwards: int
    seconds: float
    versions: dict[str, str] = field(default_factory=dict[str, str])
    digest: str = ""

    def flag(self, id: str) -> Flag:
        """Return the check of this id."""
        return next(flag for flag in self.flags if flag.id == id)

    @property
    def fired(self) -> tuple[str, ...]:
        """Ids of the checks that fired."""
        return tuple(flag.id for flag in self.flags if flag.fired)

    def plain(self) -> dict[str, Any]:
        """Return the audit as JSON knows it: no tuples of its own, no infinite numbers."""
        plain = _plain(dataclasses.asdict(self))
        known = sorted(self.critical_eps)
        quartiles = [known[min(int(part * len(known)), len(known) - 1)] for part in (0.25, 0.5, 0.75)]
        plain["critical_eps"] = {"quartiles": _plain(quartiles), "values": _plain(self.critical_eps)}
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
