"""What a study asks, what a trial is, and what it returned: frozen values with a canonical text and a digest.

Everything that identifies a result is one of these records. Two records are the same exactly when their canonical
texts are; the digest of that text is the key under which the ledger keeps the result. Nothing here computes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
)

Setting = bool | int | float | str | None
Expectation = Literal["greater", "less", "none"]
Outcome = Literal["supported", "contradicted", "undecided"]


class SpecError(ValueError):
    """Input that the user can mend; the message says what came, what was expected and what to do."""


class NotFinite(SpecError):
    """A classifier answered with NaN or infinity."""


class Record(BaseModel):
    """A frozen value; unknown fields are refused.

    ``later`` names fields that a record has got since ledgers were first written: one with its default is left out, so
    that what was recorded before is still found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _written(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialise(self)
        fields = type(self).model_fields
        unchanged = [name for name in self.later if getattr(self, name) == fields[name].default]
        return {name: value for name, value in written.items() if name not in unchanged}

    def canonical(self) -> str:
        """Return the record as JSON with sorted keys and no spaces, the same text for equal records.

        >>> Spec(name="pgd", settings={"steps": 40, "norm": "linf"}).canonical()
        '{"name":"pgd","settings":{"norm":"linf","steps":40}}'
        """
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def digest(self) -> str:
        """Return the SHA-256 of the canonical text, 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


class Spec(Record):
    """The name of a data set, model or attack, with all its settings written out."""

    name: str
    settings: dict[str, Setting] = Field(default_factory=dict)


class Recipe(Record):
    """Stochastic gradient descent as PyTorch's ``SGD`` or ``Adam`` defines it, and its schedule.

    Adam has no momentum of its own here: its two averages are PyTorch's, 0.9 and 0.999. ``schedule`` has pairs (share
    of the epochs, factor): after that share the learning rate is this many times the first one; it takes the place of
    ``drop_at`` and ``drop_by``. ``crop`` is by how many pixels a training image is moved at most, ``flip`` whether it
    is mirrored half of the time.
    """

    later = ("optimiser", "schedule", "clip", "crop", "flip")

    epochs: PositiveInt
    optimiser: Literal["sgd", "adam"] = "sgd"
    batch_size: PositiveInt = 125
    learning_rate: PositiveFloat = 0.01
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    drop_at: float = Field(default=0.5, gt=0, le=1)  # fraction of the epochs after which the rate is divided
    drop_by: PositiveFloat = 10.0
    schedule: tuple[tuple[float, PositiveFloat], ...] = ()
    clip: PositiveFloat | None = None  # greatest L2 norm of the gradient of a network; a longer one is shortened to it
    crop: int = Field(default=0, ge=0)
    flip: bool = False
    precision: Literal["float32", "bfloat16", "float64"] = "float32"


class LearningStage(Record):
    """The hidden weights that a rule without labels has learned."""

    kind: Literal["learning"] = "learning"
    revision: int
    model: Spec
    mechanism: Spec
    data: Spec
    data_digest: str
    seed: int


class TrainingStage(Record):
    """The weights of one network after ``epoch`` epochs; ``start`` is the stage whose weights it began with."""

    later = ("learned", "weights_digest")

    kind: Literal["training"] = "training"
    revision: int
    model: Spec
    mechanisms: tuple[Spec, ...] = ()  # the first one innermost
    data: Spec
    data_digest: str
    recipe: Recipe
    seed: int
    epoch: int
    start: TrainingStage | None = None
    learned: LearningStage | None = None  # whose hidden weights it began with
    weights_digest: str | None = None  # of the file of published weights that it began with, which the model names


class AttackStage(Record):
    """What one attack did to one network, over increasing ``eps``, on the first ``images`` test images."""

    kind: Literal["attack"] = "attack"
    revision: int
    attack: Spec
    eps: tuple[float, ...]
    grid: tuple[float, ...] | None = None  # the radii among eps over which R integrates; None: all of them
    images: PositiveInt
    through: dict[str, Setting] = Field(default_factory=dict)  # attributes of the layers of the copy that is attacked
    votes: PositiveInt = 1  # draws that decide about an image
    weights: TrainingStage


class ExaminationStage(Record):
    """What one examination found about one network, on the first ``images`` test images."""

    kind: Literal["examination"] = "examination"
    revision: int
    examination: Spec
    images: PositiveInt
    random: bool = False  # as the mechanisms declare: equal images get unequal answers
    beside: TrainingStage | None = None  # another network that the examination needs
    weights: TrainingStage


class AttackPlan(Record):
    """An attack as a study names it: the function, its settings, the radii and how many test images."""

    attack: Spec
    eps: tuple[float, ...]
    grid: tuple[float, ...] | None = None
    images: PositiveInt | None = None  # None: the whole test set
    seeds: PositiveInt | None = None  # how many of the networks, the first ones; None: all
    epochs: Literal["all", "last"] = "all"
    through: dict[str, Setting] = Field(default_factory=dict)  # attributes of the layers of the copy that is attacked
    votes: PositiveInt = 1  # draws that decide about an image


class ExaminationPlan(Record):
    """An examination as a study names it; it follows the last evaluated epoch."""

    examination: Spec
    images: PositiveInt | None = None  # None: the whole test set
    seeds: PositiveInt | None = None  # how many of the networks, the first ones; None: all
    beside: Trial | None = None  # whose network of the same seed the examination needs


class Trial(Record):
    """One cell of a study: a network trained on one kind of images for one task, at matched seeds."""

    later = ("weights_digest", "subjects")

    architecture: str
    condition: str
    model: Spec
    mechanisms: tuple[Spec, ...] = ()
    data: Spec
    pretraining: Spec | None = None
    pretraining_epochs: PositiveInt | None = None  # None: as many as the recipe has
    recipe: Recipe
    epochs: tuple[PositiveInt, ...]  # the epochs after which the network is evaluated, increasing
    attacks: dict[str, AttackPlan]
    examinations: dict[str, ExaminationPlan] = Field(default_factory=dict)
    seeds: tuple[int, ...]
    weights_digest: str | None = None  # of the file of published weights that the model names, once it was read
    subjects: tuple[
        str, ...
    ] = ()  # whose responses belong to the network of each seed, where images were recorded with


class Cell(Record):
    """Where a contrast looks: one condition of one architecture, under the claim's attack or another one.

    On the right, the name of a sweep may stand for the condition, or a number.
    """

    architecture: str
    condition: str
    attack: str | None = None

    @property
    def number(self) -> float | None:
        """The number that stands for the condition, if one does.

        >>> Cell(architecture="lenet", condition="0.98").number
        0.98
        """
        try:
            return float(self.condition)
        except ValueError:
            return None


class Contrast(Record):
    """``left`` against ``right`` at one epoch: the published outcome is ``expect``.

    ``epoch`` is a position among the evaluated epochs (``first``, ``last``, ``early``: all but the last, ``middle``:
    neither the first nor the last) or a number. Only primary contrasts decide a claim. ``paired`` contrasts share
    their seeds (the same initial weights).
    """

    left: Cell
    right: Cell
    expect: Expectation
    epoch: Literal["first", "last", "early", "middle"] | int = "last"
    primary: bool = True
    paired: bool = True


class Variable(Record):
    """One number of each network: a measure under the label of an attack or examination; written ``f0[fgsm]``."""

    measure: str
    attack: str

    def __str__(self) -> str:
        return f"{self.measure}[{self.attack}]"


class Sweep(Record):
    """Conditions along which one setting changes, in this order: the right side of a contrast at equal ``match``."""

    conditions: tuple[str, ...]
    match: Variable


class Association(Record):
    """Whether ``x`` and ``y`` rise together (``greater``) or against each other (``less``) over many networks.

    The networks are those of all conditions of one architecture, or of all architectures (``None``), at one epoch; what
    ``control`` explains of both is taken out. With a ``rival`` the question is whether the correlation of ``x`` with
    ``y`` is greater, or less, than that of the rival with ``y``.
    """

    x: Variable
    y: Variable
    expect: Literal["greater", "less"]
    control: Variable | None = None
    rival: Variable | None = None
    architecture: str | None = None
    epoch: Literal["first", "last"] | int = "last"
    primary: bool = True


class Claim(Record):
    """A published sentence that statistical tests decide; attack and measure are those of its contrasts.

    ``margin``, in the unit of the measure, is the largest difference that counts as none; ``None``: that of all claims.
    ``exact`` is said of numbers without chance, such as a property of the data: where they are the same at every seed,
    they decide by themselves.
    """

    later = ("margin", "exact")

    id: str
    says: str
    contrasts: tuple[Contrast, ...] = ()
    associations: tuple[Association, ...] = ()
    attack: str = "fgsm"
    measure: str = "R"
    margin: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    exact: bool = False


class PublishedValue(Record):
    """A mean as printed in a source, with its standard deviation where it has one."""

    table: str
    architecture: str
    condition: str
    epoch: int
    measure: str = "R"
    attack: str = "fgsm"
    mean: float
    sd: float | None = None
    n: int = 1


class Study(Record):
    """A question with its design and its claims, resolved for one scale: every default is written out."""

    name: str
    title: str
    question: str
    source: str
    scale: str
    settings: dict[str, Setting] = Field(default_factory=dict)
    seeds: tuple[int, ...]
    architectures: dict[str, str]  # label -> one sentence, in the order of the report
    conditions: dict[str, str]
    controls: tuple[str, ...] = ()  # the conditions that the source lacks
    trials: tuple[Trial, ...]
    sweeps: dict[str, Sweep] = Field(default_factory=dict)
    claims: tuple[Claim, ...]
    published: tuple[PublishedValue, ...] = ()
    comparable: bool = False  # the recipe, data and epochs are the published ones, so numbers may be set side by side
    classes: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # condition -> names of its classes
    remarks: tuple[str, ...] = ()  # what a reader must know, e.g. inexact data files


class CurvePoint(NamedTuple):
    """Accuracy of one trained network under one attack of one strength."""

    architecture: str
    condition: str
    seed: int
    epoch: int
    attack: str
    eps: float
    accuracy: float  # fraction of n
    n: int


class Measurement(NamedTuple):
    """One measured quantity of one trained network."""

    architecture: str
    condition: str
    seed: int
    epoch: int
    attack: str  # "" where no attack is involved
    measure: str
    value: float
    unit: str
    better: str  # "higher", "lower" or ""
    n: int


@dataclass(frozen=True)
class StageCost:
    """What a stage took, for the table of costs."""

    architecture: str
    condition: str
    seed: int
    epoch: int
    kind: str  # "training" or the attack's label
    seconds: float
    forwards: int
    backwards: int
    device: str
    versions: dict[str, Any]
