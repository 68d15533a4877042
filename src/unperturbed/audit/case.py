"""The case under audit: the images, the worst image found of each so far, and what every attack did to them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unperturbed.attacks import ATTACKS, Classifier, Passes, guided, judge, within_budget
from unperturbed.attacks.batches import in_batches
from unperturbed.attacks.judge import predictions
from unperturbed.audit.record import ITSELF, Attempt, Norm, Stage
from unperturbed.records import SpecError
from unperturbed.tensors.streams import seed_for

WRONG_ENOUGH = 0.15  # an image that a random classifier still gets right more often than this is attacked on
RANDOM_BATCH = 250  # fixed, because what a random classifier draws depends on it


class Guide:
    """Whose gradient leads an attack: a name, and a classifier whose passes are counted.

    Alone, it also says how far the attack is, and the deployed classifier is asked at the end only. That goes further
    where the deployed classifier's answers contradict every step, as when it moves its input away from the boundary.
    """

    def __init__(
        self, name: str, classifier: Classifier | None, *, says: str = "", eot: int = 1, alone: bool = False
    ) -> None:
        self.name = name
        self.says = says
        self.eot = eot
        self.alone = alone
        self.passes = None if classifier is None else Passes(classifier)

    def by_itself(self) -> "Guide":
        """Return the same guide, alone; its passes are counted with those of this one."""
        guide = Guide(f"{self.name}, alone", None, says=self.says, eot=self.eot, alone=True)
        guide.passes = self.passes
        return guide


@dataclass
class Case:
    """State of one audit. ``right`` is the fraction of draws in which the worst image is classified correctly."""

    deployed: Passes
    images: Tensor
    labels: Tensor
    norm: Norm
    eps: float
    seed: int
    votes: int  # 1: the answers do not depend on chance
    batch_size: int | None
    worst: Tensor = field(init=False)
    right: Tensor = field(init=False)
    clean_right: Tensor = field(init=False)
    prediction: Tensor = field(init=False)
    broken_by: list[str | None] = field(init=False)
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    guides: list[Guide] = field(default_factory=list[Guide])
    stopped: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.worst = self.images.clone()
        drawn = self.drawn(self.images, self.labels, "clean")
        self.right = (drawn == self.labels).double().mean(dim=0)
        self.clean_right = self.right.clone()
        self.prediction = drawn.mode(dim=0).values
        self.broken_by = [None] * len(self.labels)

    @property
    def random(self) -> bool:
        """Whether the answers depend on chance."""
        return self.votes > 1

    @property
    def accuracy(self) -> float:
        """Accuracy on the worst images; of a random classifier its mean over draws."""
        return float(self.right.mean())

    @property
    def clean_accuracy(self) -> float:
        """The same on the images as given."""
        return float(self.clean_right.mean())

    @property
    def chance(self) -> float:
        """Accuracy of the best constant answer."""
        return float(self.labels.bincount().max() / len(self.labels))

    def standing(self, limit: int | None = None) -> Tensor:
        """Return the images that are not broken yet, the first ``limit`` of them."""
        rows = (self.right > (WRONG_ENOUGH if self.random else 0.5)).nonzero().squeeze(1)
        return rows if limit is None else rows[:limit]

    def correct(self, limit: int | None = None) -> Tensor:
        """Return the images that are classified correctly when clean."""
        rows = (self.clean_right > 0.5).nonzero().squeeze(1)
        return rows if limit is None else rows[:limit]

    def drawn(self, images: Tensor, labels: Tensor, *purpose: str | int) -> Tensor:
        """Return the classes in ``votes`` fresh draws, (votes, batch)."""
        parts: list[Tensor] = []

        def work(part: slice) -> int:
            seed = seed_for("audit", self.seed, *purpose)
            found = predictions(self.deployed, images[part], labels[part], votes=self.votes, seed=seed)
            parts.append(found)
            return found.numel()

        in_batches(len(images), work, batch_size=RANDOM_BATCH if self.random else self.batch_size)
        return torch.cat(parts, dim=1)

    def perturb(
        self, name: str, rows: Tensor, *, guide: Guide | None = None, eps: float | None = None, **settings: Any
    ) -> Tensor:
        """Return what an attack makes of these images, unjudged.

        Raises:
            SpecError: the attack cannot run on this classifier, most often because it has no gradient.
        """
        attack = ATTACKS[name]
        if within_budget(attack):
            settings["eps"] = self.eps if eps is None else eps
        classifier = self._seen_through(guide, alone=within_budget(attack))
        if guide is not None and guide.eot > 1 and "eot" not in settings:
            settings["eot"] = guide.eot
        parts: list[Tensor] = []
        seed = seed_for("audit", self.seed, name, guide.name if guide else ITSELF)

        def work(part: slice) -> int:
            self.stopped()
            before = sum(self.passes)
            chosen = rows[part]
            try:
                found = attack(classifier, self.images[chosen], self.labels[chosen], seed, norm=self.norm, **settings)
            except SpecError:
                raise
            except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise SpecError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
            parts.append(found)
            return sum(self.passes) - before

        in_batches(len(rows), work, batch_size=RANDOM_BATCH if self.random else self.batch_size)
        return torch.cat(parts) if parts else self.images[rows]

    def _seen_through(self, guide: Guide | None, *, alone: bool) -> Classifier:
        if guide is None or guide.passes is None:
            return self.deployed
        if all(guide.passes is not other.passes for other in self.guides):
            self.guides.append(guide)
        # A random classifier decides by many votes at the end; asking it at every step would cost more than it tells.
        return guide.passes if self.random or (guide.alone and alone) else guided(self.deployed, guide.passes)

    def fraction_right(
        self, rows: Tensor, found: Tensor, *purpose: str | int, eps: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return how often each image is classified correctly, and its class; 1 where the judge refuses it."""
        verdict = judge(
            lambda images: torch.zeros(len(images), 2),  # the box and the ball are asked for, not the prediction
            self.images[rows].cpu(),
            torch.zeros(len(rows), dtype=torch.int64),
            found.cpu(),
            norm=self.norm,
            eps=self.eps if eps is None else eps,
        )
        drawn = self.drawn(found, self.labels[rows], *purpose)
        right = (drawn == self.labels[rows]).double().mean(dim=0)
        allowed = (verdict.in_ball & verdict.in_box).to(right.device)
        return torch.where(allowed, right, 1.0), drawn.mode(dim=0).values

    def attempt(
        self,
        name: str,
        *,
        stage: Stage,
        guide: Guide | None = None,
        rows: Tensor | None = None,
        label: str | None = None,
        **settings: Any,
    ) -> Attempt:
        """Attack the images that stand, keep what is worse than before, and write down what it did."""
        began = time.perf_counter()
        passes = self.passes
        rows = self.standing() if rows is None else rows
        before, remark, broke = self.accuracy, "", 0
        try:
            if len(rows):
                found = self.perturb(name, rows, guide=guide, **settings)
                broke = self.take(rows, found, label or name, guide)
        except SpecError as error:
            remark = str(error)
        attempt = Attempt(
            label or name,
            stage,
            guide.name if guide else ITSELF,
            settings,
            before,
            self.accuracy,
            len(rows),
            broke,
            self.passes[0] - passes[0],
            self.passes[1] - passes[1],
            time.perf_counter() - began,
            remark,
        )
        self.attempts.append(attempt)
        return attempt

    def take(self, rows: Tensor, found: Tensor, label: str, guide: Guide | None) -> int:
        """Judge images, keep those that are worse than before, and return how many of the standing ones fell."""
        right, prediction = self.fraction_right(rows, found, label, len(self.attempts))
        better = right < self.right[rows]
        if self.random and bool(better.any()):
            # Of many attacks the luckiest would win: what seems worse is asked again, and only that answer counts.
            again, _ = self.fraction_right(rows[better], found[better], label, len(self.attempts), "again")
            right[better] = again
            better = right < self.right[rows]
        stood = self.right[rows] > 0.5
        into = rows[better]
        self.worst[into], self.right[into] = found[better], right[better]
        self.prediction[into] = prediction[better]
        fell = better & stood & (right <= 0.5)
        words = label if guide is None else f"{label} through {guide.name}"
        for row in rows[fell].tolist():
            self.broken_by[row] = words
        return int(fell.sum())

    def refresh(self) -> None:
        """Ask a random classifier about its worst images again, with draws that have chosen nothing."""
        rows = self.correct()
        if self.random and len(rows):
            self.right[rows], self.prediction[rows] = self.fraction_right(
                rows, self.worst[rows], "refresh", len(self.attempts)
            )

    def adopt(self, other: "Case") -> None:
        """Take over what was done to the same images by another case, and judge its worst images here."""
        self.attempts += other.attempts
        self.guides += [Guide("in company", None)]
        self.guides[-1].passes = other.deployed
        rows = other.correct()
        self.take(rows, other.worst[rows], "plain pgd", None)

    @property
    def passes(self) -> tuple[int, int]:
        """Forwards and backwards so far, of the deployed classifier and of all that stood in for it."""
        others = [guide.passes for guide in self.guides if guide.passes is not None]
        everything = [self.deployed, *others]
        return sum(each.forwards for each in everything), sum(each.backwards for each in everything)
