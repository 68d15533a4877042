"""The images that an attack has still to break, how it looks at the classifier there, and the best point seen of each.

An image that is broken leaves at once and costs nothing more. What is returned for the others is the point with the
largest objective, the image itself and the last point among them.
"""

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, Losses, Slope, losses, predict, slope, succeeded
from unperturbed.tensors.norms import towards as rounded_towards
from unperturbed.tensors.norms import wide
from unperturbed.tensors.streams import Streams

Images = Float[Tensor, "batch channel height width"]


class Problem:
    """State of one attack; ``images`` is its result, the other attributes hold the images left only."""

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int,
        loss: str = "ce",
        targets: Tensor | None = None,
        mask: Tensor | None = None,
        eot: int = 1,
        persist: bool = False,
    ) -> None:
        self.images = images.clone().clamp_(0, 1)  # of all: the best point seen
        self.centres = images
        self.labels = labels
        self.targets = targets
        self.mask = None if mask is None else mask.expand_as(images)
        self.streams = Streams.of(images, seed)
        self.lanes = 1  # runs for each image, one row after the other; see ``split``
        self.rows = torch.arange(len(images), device=images.device)  # where the images left stand in ``images``
        self._best = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)
        self._classifier = classifier
        self._seed = seed
        self._loss = loss
        self._eot = eot
        self._persist = persist  # whether a broken image stays, to be broken more clearly

    @property
    def finished(self) -> bool:
        """Whether every image is broken."""
        return len(self.rows) == 0

    def slope(self, points: Images, *, towards: Integer[Tensor, " batch"] | None = None) -> Slope:
        """Return the losses at one point for each image left, and the way to their gradient."""
        return slope(
            self._classifier,
            points,
            self.labels,
            loss=self._loss,
            targets=self.targets,
            towards=towards,
            eot=self._eot,
        )

    def gradient(self, seen: Slope, rows: Tensor | None) -> Images:
        """Return the gradients of those images of ``seen`` that are left, 0 where the mask forbids a change."""
        gradient = seen.gradient()
        gradient = gradient if rows is None else gradient[rows]
        return gradient if self.mask is None else gradient * self.mask

    def look(self, points: Images, *, towards: Integer[Tensor, " batch"] | None = None) -> Losses:
        """Return the losses at one point for each image left, from forwards alone."""
        drawn = [predict(self._classifier, points, self.labels) for _ in range(self._eot)]
        each = [losses(logits, self.labels, loss=self._loss, targets=self.targets, towards=towards) for logits in drawn]
        if self._eot == 1:
            return each[0]
        # As ``slope`` has them, or the points of forwards could not be compared with those of gradients.
        value = torch.stack([one.value for one in each]).mean(dim=0)
        return Losses(value, succeeded(torch.stack(drawn).mean(dim=0).argmax(dim=1), self.labels, self.targets))

    def keep(self, points: Images, seen: Losses) -> Integer[Tensor, " left"] | None:
        """Keep the points that beat what was seen before, and let the broken images go.

        Returns:
            Which of the images are still left, for the caller to choose from its own state; ``None``: all.
        """
        better = seen.value > self._best
        better = better if self._persist else better | seen.broken
        self.images[self.rows[better]] = points[better]
        self._best = torch.maximum(self._best, seen.value.double())
        if self._persist or not bool(seen.broken.any()):
            return None
        gone = seen.broken if self.lanes == 1 else seen.broken | outrun(self.rows, seen.broken, lanes=self.lanes)
        left = (~gone).nonzero().squeeze(1)
        self._best = self._best[left]
        self.rows, self.centres, self.labels = self.rows[left], self.centres[left], self.labels[left]
        self.streams = self.streams[left]
        self.targets = None if self.targets is None else self.targets[left]
        self.mask = None if self.mask is None else self.mask[left]
        return left

    def split(self, lanes: int) -> "Problem":
        """Return the images left with ``lanes`` rows for each; the first row that breaks its image decides.

        Rows behind it leave, rows before it stay: what comes out is what one run after the other would find.
        """
        repeated = [each if each is None else each.repeat_interleave(lanes, 0) for each in (self.targets, self.mask)]
        problem = Problem(
            self._classifier,
            self.centres.repeat_interleave(lanes, 0),
            self.labels.repeat_interleave(lanes),
            seed=self._seed,
            loss=self._loss,
            targets=repeated[0],
            mask=repeated[1],
            eot=self._eot,
        )
        problem.lanes = lanes
        return problem

    def join(self, split: "Problem") -> None:
        """Keep of every image left the point of the row that decides, or of the one with the largest objective."""
        value = torch.full((len(split.images),), torch.inf, dtype=torch.float64, device=self.rows.device)
        value[split.rows] = split._best.nan_to_num(nan=-torch.inf)  # nothing is known of it; another row may decide
        best, lane = value.view(-1, split.lanes).max(dim=1)
        first = torch.arange(len(best), device=lane.device) * split.lanes
        self.keep(split.images[first + lane], Losses(best, best == torch.inf))

    def allowed(self, offset: Images) -> Images:
        """Return the offset, 0 where the mask forbids a change."""
        return offset if self.mask is None else offset * self.mask

    def at(self, offset: Images) -> Images:
        """Return the images left, moved by ``offset``, in [0, 1] and in the type of the images."""
        moved = (self.centres.to(offset.dtype) + offset).clamp_(0, 1)
        return rounded_towards(self.centres, moved)

    def in_box(self, offset: Images) -> Images:
        """Return the part of the offset that stays in [0, 1]."""
        centres = self.centres.to(offset.dtype)
        return (centres + offset).clamp_(0, 1).sub_(centres)

    def nowhere(self) -> Images:
        """Return an offset of 0 for each image left."""
        return torch.zeros_like(self.centres, dtype=wide(self.centres.dtype))


def outrun(rows: Integer[Tensor, " left"], broken: Bool[Tensor, " left"], *, lanes: int) -> Bool[Tensor, " left"]:
    """Return which rows stand behind a broken one of the same image, of which ``lanes`` follow each other.

    >>> outrun(torch.arange(6), torch.tensor([False, True, False, False, False, True]), lanes=3)
    tensor([False, False,  True, False, False, False])
    """
    image, lane = rows // lanes, rows % lanes
    none = torch.full((int(image.amax()) + 1,), lanes, device=rows.device)
    first = none.scatter_reduce(0, image, torch.where(broken, lane, lanes), "amin")
    return lane > first[image]


def together(rows: int, at_once: int | None, *, most: int) -> int:
    """Return how many runs of each image are done at once, so that no more than ``at_once`` rows are.

    >>> together(4, 128, most=9), together(50, 128, most=9), together(500, 128, most=9)
    (9, 2, 1)
    """
    return max(1, min(most, (at_once or rows) // max(rows, 1)))
