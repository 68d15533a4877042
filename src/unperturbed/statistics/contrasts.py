"""One comparison of two cells at one epoch: what was measured, the tests, and what the source printed for the same.

A paired contrast is computed on the seeds that both cells have: interval and p are those of the differences. An
unpaired one uses all seeds of each cell. Welch's p, as the source computed it, is given for both. Where the right side
is a sweep, each seed has the sweep's value at equal match (`matching`), and the contrast is paired; where it is a
number, every seed has that number, and the paired test is that of one sample.

The power is that of *this* design: its number of seeds and its test, for the published difference and standard
deviations, before any correction for many tests. The source prints no correlation between cells over seeds; for a
paired contrast it is taken to be 0: the true power is higher where seeds that do well in one cell do well in the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unperturbed.records import Cell, Claim, Contrast, Expectation, Outcome, PublishedValue, Study, Sweep, Variable
from unperturbed.statistics.effects import d_z, hedges_g
from unperturbed.statistics.intervals import Interval, paired_bootstrap, unpaired_bootstrap
from unperturbed.statistics.matching import matched
from unperturbed.statistics.power import paired_power, unpaired_power
from unperturbed.statistics.samples import all_equal, sample, spread
from unperturbed.statistics.significance import paired_t, sign_flip, welch, welch_from_summary
from unperturbed.statistics.values import CellValues, SeedValues, Values, at


class Arm(NamedTuple):
    """One side of a contrast: a cell at one epoch and its mean, standard deviation (n - 1) and number of seeds."""

    architecture: str
    condition: str
    epoch: int
    mean: float
    sd: float
    n: int
    attack: str = ""  # where a contrast names one that is not the claim's

    @property
    def what(self) -> str:
        """The condition, and the attack where it is not the claim's."""
        return f"{self.condition} under {self.attack}" if self.attack else self.condition


class Published(NamedTuple):
    """What the source prints for the two cells; ``p`` is Welch's, computed here from the printed values, else NaN."""

    left: Arm
    right: Arm
    p: float

    @property
    def difference(self) -> float:
        """Mean left - mean right."""
        return self.left.mean - self.right.mean


class Match(NamedTuple):
    """In what the sweep on the right was matched to the networks on the left, and for how many seeds."""

    on: Variable
    seeds: int
    of: int

    @property
    def words(self) -> str:
        """The same as part of a sentence."""
        return f"matched in {self.on} ({self.seeds} of {self.of} seeds)"


@dataclass(frozen=True)
class Row:
    """A contrast at one epoch. Numbers that do not exist for it are NaN; parts that do not apply are ``None``."""

    claim: str
    position: Literal["first", "last", "early", "middle"] | int
    expect: Expectation
    primary: bool
    paired: bool
    left: Arm
    right: Arm
    n: int  # pairs; of an unpaired contrast the smaller number of seeds
    difference: float  # mean left - mean right, in the unit of the measure
    interval: Interval  # of the difference, confidence 1 - alpha
    equivalence: Interval | None  # the same with confidence 1 - 2 alpha, where no difference is expected
    p: float  # paired t, or Welch's of an unpaired contrast; decides
    p_welch: float
    p_sign_flip: float | None  # None: unpaired
    effect_size: float  # d_z of a paired contrast, Hedges' g of an unpaired one
    power: float | None  # None: nothing is published, or fewer than two seeds
    published: Published | None
    match: Match | None = None  # None: the right side is a cell, not a sweep
    tied: bool = False  # equal at every matched seed, of which there are two at least
    exact: bool = False  # without chance: the difference decides by itself
    reason: str = ""  # why nothing can be tested, or which seeds were left out
    p_adjusted: float = math.nan
    detected: Literal["greater", "less"] | None = None  # the direction found after correction
    outcome: Outcome = "undecided"
    margin: float = math.nan  # the largest difference that counts as none, where none is expected

    @property
    def effect(self) -> float:
        """The difference."""
        return self.difference

    @property
    def words(self) -> str:
        """Which two cells are compared, and when; of a sweep, at equal what."""
        return "".join(self.parts)

    @property
    def parts(self) -> tuple[str, str, str]:
        """The same as what stands before the right side, the right side, and what stands behind it."""
        left, right = self.left, self.right
        match = "" if self.match is None else f" {self.match.words}"
        if (left.architecture, left.epoch) == (right.architecture, right.epoch):
            return f"{left.architecture} {left.what} vs ", f"{right.what}{match}", f" at epoch {left.epoch}"
        first, second = (f"{arm.architecture} {arm.what} at epoch {arm.epoch}" for arm in (left, right))
        return f"{first} vs ", second, ""


class Measured(NamedTuple):
    """The rows of one contrast, and what kept further ones from being computed."""

    rows: tuple[Row, ...]
    gaps: tuple[str, ...]


class Settings(NamedTuple):
    """How intervals and power are computed."""

    alpha: float
    resamples: int
    seed: int


def measure(study: Study, claim: Claim, contrast: Contrast, values: Values, *, settings: Settings) -> Measured:
    """Return one row per epoch of a contrast, before correction for many tests and without an outcome."""
    sweep, not_run = _as_far_as_run(study.sweeps.get(contrast.right.condition), contrast.left.architecture, values)
    needed = _needed(claim, contrast, sweep)
    gaps = list(dict.fromkeys(values.gap(*each) for each in needed if not values.of(*each)))
    if gaps:
        return Measured((), tuple(gaps))
    counts = [values.images(*each) for each in needed[:2]]
    if contrast.left.attack != contrast.right.attack and len({*counts}) > 1:
        # Two attacks on one network: other images would make the same difference at every seed.
        words = f"{_words(contrast.left)} has {counts[0]} images and {_words(contrast.right)} has {counts[1]}"
        return Measured((), (f"{words}: give both attacks the same number",))
    left, right = values.of(*needed[0]), values.of(*needed[-1])
    if contrast.right.number is not None:
        right = {epoch: dict.fromkeys(seeds, contrast.right.number) for epoch, seeds in left.items()}
    elif sweep is not None:
        right = matched(sweep, needed[1][0], contrast.left, values)
    if contrast.left.architecture == contrast.right.architecture:
        # A cell that was stopped early must not lend its last epoch to a comparison with the other's.
        left_evaluated = right_evaluated = sorted({*left, *right})
    else:
        left_evaluated, right_evaluated = sorted(left), sorted(right)
    left_epochs, right_epochs = at(contrast.epoch, left_evaluated), at(contrast.epoch, right_evaluated)
    if not left_epochs or len(left_epochs) != len(right_epochs):
        return Measured((), (_no_epoch(contrast, left_evaluated, right_evaluated),))
    rows: list[Row] = []
    for left_epoch, right_epoch in zip(left_epochs, right_epochs, strict=True):
        sides = ((contrast.left, left_epoch, left), (contrast.right, right_epoch, right))
        missing = [problem for side in sides if (problem := _problem(claim, *side))]
        if not missing and contrast.paired and not left[left_epoch].keys() & right[right_epoch].keys():
            missing = [f"{_words(contrast.left)} and {_words(contrast.right)} share no seed at epoch {left_epoch}"]
            if sweep is not None:
                missing = [_beyond(contrast, sweep, left_epoch, values)]
        gaps += missing
        if not missing:
            rows.append(
                _row(
                    claim,
                    contrast,
                    (left_epoch, right_epoch),
                    (left[left_epoch], right[right_epoch]),
                    sweep=sweep,
                    remark=not_run,
                    published=_published(study, claim, contrast, (left_epoch, right_epoch)),
                    settings=settings,
                )
            )
    return Measured(tuple(rows), tuple(gaps))


def _as_far_as_run(sweep: Sweep | None, architecture: str, values: Values) -> tuple[Sweep | None, str]:
    """Return the sweep through those of its conditions that were run, if two were, and which were not."""
    if sweep is None:
        return None, ""
    run = values.cells(architecture)
    there = tuple(condition for condition in sweep.conditions if (architecture, condition) in run)
    gone = [condition for condition in sweep.conditions if condition not in there]
    if len(there) < 2 or not gone:
        return sweep, ""
    return sweep.model_copy(update={"conditions": there}), f"without {', '.join(gone)}, which was not run"


def _needed(claim: Claim, contrast: Contrast, sweep: Sweep | None) -> list[tuple[Variable, str, str]]:
    """Return which variable of which cell a contrast is made of; first the outcomes of the left and of the right."""
    left, right = contrast.left, contrast.right
    outcomes = [Variable(measure=claim.measure, attack=cell.attack or claim.attack) for cell in (left, right)]
    if right.number is not None:
        return [(outcomes[0], left.architecture, left.condition)]
    if sweep is None:
        return [(outcomes[0], left.architecture, left.condition), (outcomes[1], right.architecture, right.condition)]
    along = [(variable, condition) for condition in sweep.conditions for variable in (outcomes[1], sweep.match)]
    return [
        (variable, left.architecture, condition)
        for variable, condition in ((outcomes[0], left.condition), *along, (sweep.match, left.condition))
    ]


def _row(
    claim: Claim,
    contrast: Contrast,
    epochs: tuple[int, int],
    values: tuple[SeedValues, SeedValues],
    *,
    sweep: Sweep | None,
    remark: str,
    published: Published | None,
    settings: Settings,
) -> Row:
    left_seeds, right_seeds = sorted(values[0]), sorted(values[1])
    remarks = [remark] if remark else []
    if contrast.paired:
        left_out = sorted(set(left_seeds) ^ set(right_seeds))
        left_seeds = right_seeds = sorted(set(left_seeds) & set(right_seeds))
        if left_out:
            partner = "match" if sweep else "partner"
            remarks.append(f"seeds without a {partner} are left out: {', '.join(map(str, left_out))}")
    left = sample([values[0][seed] for seed in left_seeds], name=_words(contrast.left))
    right = sample([values[1][seed] for seed in right_seeds], name=_words(contrast.right))
    bootstrap = paired_bootstrap if contrast.paired else unpaired_bootstrap

    def interval(confidence: float) -> Interval:
        return bootstrap(left, right, confidence=confidence, resamples=settings.resamples, seed=settings.seed)

    p_welch = welch(left, right).p
    p = paired_t(left, right).p if contrast.paired else p_welch
    n = min(left.size, right.size)
    tied = contrast.paired and n > 1 and all_equal(left, right)
    exact = claim.exact and contrast.paired and math.isnan(p)
    if exact:
        remarks.append("a number without chance, which decides by itself")
    elif n < 2:
        remarks.append("one seed only: nothing can be tested, run at least 2")
    elif tied:
        remarks.append(f"equal at all {n} seeds: a t test is not defined")
    elif math.isnan(p):
        remarks.append(f"the {n} seeds do not differ at all: a t test is not defined")
    return Row(
        claim=claim.id,
        position=contrast.epoch,
        expect=contrast.expect,
        primary=contrast.primary,
        paired=contrast.paired,
        left=_arm(contrast.left, epochs[0], left),
        right=_arm(contrast.right, epochs[1], right),
        n=n,
        difference=float(left.mean() - right.mean()),
        interval=interval(1 - settings.alpha),
        equivalence=interval(1 - 2 * settings.alpha) if contrast.expect == "none" else None,
        p=p,
        p_welch=p_welch,
        p_sign_flip=sign_flip(left, right) if contrast.paired else None,
        effect_size=d_z(left, right) if contrast.paired else hedges_g(left, right),
        power=_power(published, left.size, right.size, contrast.paired, settings.alpha),
        published=published,
        match=Match(sweep.match, n, len(values[0])) if sweep else None,
        tied=tied,
        exact=exact,
        reason="; ".join(remarks),
    )


def _power(published: Published | None, left_n: int, right_n: int, paired: bool, alpha: float) -> float | None:
    if published is None or min(left_n, right_n) < 2:
        return None
    if math.isnan(published.left.sd + published.right.sd) or not max(published.left.sd, published.right.sd) > 0:
        return None
    sd1, sd2 = published.left.sd, published.right.sd
    if paired:
        return paired_power(published.difference, math.hypot(sd1, sd2), left_n, alpha=alpha)
    return unpaired_power(published.difference, sd1, left_n, sd2, right_n, alpha=alpha)


def _published(study: Study, claim: Claim, contrast: Contrast, epochs: tuple[int, int]) -> Published | None:
    """Return the printed values at the epochs that stand for ours, or ``None``.

    Of a comparable study, the same epochs; of another one, whose epochs differ, its first and last stand for the
    published first and last, and any other epoch for the one with its number.
    """
    arms: list[Arm] = []
    for cell, epoch in zip((contrast.left, contrast.right), epochs, strict=True):
        printed = _printed(study.published, claim, cell)
        mapped = epoch if study.comparable else _standing_for(contrast.epoch, epoch, printed)
        if mapped not in printed:
            return None
        value = printed[mapped]
        sd = math.nan if value.sd is None else value.sd
        arms.append(Arm(value.architecture, value.condition, value.epoch, value.mean, sd, value.n, cell.attack or ""))
    left, right = arms
    if math.isnan(left.sd + right.sd):
        return Published(left, right, math.nan)
    return Published(left, right, welch_from_summary(left.mean, left.sd, left.n, right.mean, right.sd, right.n).p)


def _standing_for(position: str | int, epoch: int, printed: Iterable[int]) -> int:
    if position == "first":
        return min(printed, default=epoch)
    return max(printed, default=epoch) if position == "last" else epoch


def _printed(published: Iterable[PublishedValue], claim: Claim, cell: Cell) -> dict[int, PublishedValue]:
    wanted = (cell.architecture, cell.condition, claim.measure, cell.attack or claim.attack)
    return {row.epoch: row for row in published if (row.architecture, row.condition, row.measure, row.attack) == wanted}


def _problem(claim: Claim, cell: Cell, epoch: int, values: CellValues) -> str:
    if epoch not in values:
        return f"{_words(cell)} was not evaluated at epoch {epoch}"
    undefined = sorted(seed for seed, value in values[epoch].items() if not np.isfinite(value))
    if undefined:
        seeds = ", ".join(map(str, undefined))
        return f"{claim.measure} of {_words(cell)} is not defined at epoch {epoch} for seeds {seeds}"
    return ""


def _beyond(contrast: Contrast, sweep: Sweep, epoch: int, values: Values) -> str:
    """Return why no network of the left is matched: where the two lie in the matching measure."""

    def span(conditions: Sequence[str]) -> str:
        cells = (values.of(sweep.match, contrast.left.architecture, condition) for condition in conditions)
        found = [value for cell in cells for value in cell.get(epoch, {}).values() if math.isfinite(value)]
        return f"{min(found):.4g} to {max(found):.4g}" if found else "not defined"

    return (
        f"{_words(contrast.left)} has no match in {contrast.right.condition} at epoch {epoch}: its {sweep.match} is "
        f"{span([contrast.left.condition])}, that of the sweep {span(sweep.conditions)}"
    )


def _no_epoch(contrast: Contrast, left_evaluated: Sequence[int], right_evaluated: Sequence[int]) -> str:
    evaluated = ", ".join(map(str, left_evaluated))
    if list(left_evaluated) != list(right_evaluated):
        evaluated += f" and {', '.join(map(str, right_evaluated))}"
    sides = f"{_words(contrast.left)} and {_words(contrast.right)}"
    return f"{sides}: no epoch answers to {contrast.epoch!r} among those evaluated ({evaluated})"


def _arm(cell: Cell, epoch: int, values: NDArray[np.float64]) -> Arm:
    mean, attack = float(values.mean()), cell.attack or ""
    return Arm(cell.architecture, cell.condition, epoch, mean, spread(values), values.size, attack)


def _words(cell: Cell) -> str:
    return f"{cell.architecture}/{cell.condition}" + (f" under {cell.attack}" if cell.attack else "")
