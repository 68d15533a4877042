"""What attacks that look for the smallest perturbation share: the nearest broken point of each image so far, the
boundary between two classes as it looks from a point, and the smallest step onto it that stays in the box.
"""

import copy
from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, Losses, Slope, losses, predict, slope
from unperturbed.tensors.norms import length, wide

Images = Float[Tensor, "batch channel height width"]

ROUNDINGS = 16  # how many units in the last place of its logits a margin must exceed

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


class Nearest:
    """State of one attack; ``images`` is its result. Images broken from the start are at distance 0 and left alone."""

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        norm: str,
        targets: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        self.images = images.clone().clamp_(0, 1)  # of all
        self.distance = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)  # of all
        self.norm = norm
        self.lanes = 1  # runs for each image, one row after the other; see ``split``
        logits = predict(classifier, images, labels)
        seen = losses(logits, labels, loss="margin", targets=targets)
        self.distance[seen.broken] = 0.0
        self.rows = (~seen.broken).nonzero().squeeze(1)
        self.centres, self.labels = images[self.rows], labels[self.rows]
        self.margin = seen.value[self.rows].double()  # of the images: 0 on the boundary, negative before it
        # The wrong classes, the most likely one of each image first.
        without = logits[self.rows].scatter(1, self.labels.long().unsqueeze(1), -torch.inf)
        self.rivals = without.argsort(dim=1, descending=True, stable=True)[:, :-1]
        self.targets = None if targets is None else targets[self.rows]
        self.mask = None if mask is None else mask.expand_as(images)[self.rows]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.rows) == 0

    def at(self, offset: Images) -> Images:
        """Return the images left, moved by ``offset`` where the mask allows it, in [0, 1] and in their own type."""
        offset = offset if self.mask is None else offset * self.mask
        return (self.centres.to(offset.dtype) + offset).clamp_(0, 1).to(self.centres.dtype)

    def offset(self, points: Images) -> Images:
        """Return how far the points are from their images."""
        precise = wide(points.dtype)
        return points.to(precise) - self.centres.to(precise)

    def keep(self, points: Images, seen: Losses) -> Float[Tensor, " left"]:
        """Keep the broken points that are nearer than what was seen before; return the distance of every point."""
        distance = length(self.offset(points), norm=self.norm)
        nearer = seen.broken & (distance < self.distance[self.rows])
        self.images[self.rows[nearer]] = points[nearer]
        self.distance[self.rows[nearer]] = distance[nearer]
        return distance

    def best(self) -> Float[Tensor, " left"]:
        """Return the distance of the nearest broken point of each image left; infinite where there is none."""
        return self.distance[self.rows]

    def gradient(self, gradient: Images) -> Images:
        """Return the gradient, 0 where the mask forbids a change."""
        return gradient if self.mask is None else gradient * self.mask

    def look(self, classifier: Classifier, points: Images) -> Losses:
        """Return the margins at one point for each image left, from one forward.

        A margin that another order of sums could turn counts as not broken: the judge may see another batch.
        """
        logits = predict(classifier, points, self.labels)
        seen = losses(logits, self.labels, loss="margin", targets=self.targets)
        rounding = ROUNDINGS * torch.finfo(logits.dtype).eps * logits.abs().amax(dim=1)
        return seen._replace(broken=seen.broken & (seen.value > rounding))

    def draw_in(self, classifier: Classifier, *, looks: int = 10) -> None:
        """Look for nearer broken points between the best one and its image, ``looks`` forwards for each image.

        One for the margin of the best point; then two where the margin would vanish if it were straight between the
        nearest points of either side and one in the middle, which is never far wrong; and so on. Images without a
        broken point leave.
        """
        self.leave(self.best().isfinite().nonzero().squeeze(1))
        if self.finished:
            return
        whole = self.offset(self.images[self.rows])
        standing, broken = torch.zeros_like(self.margin), torch.ones_like(self.margin)
        before, beyond = self.margin, self.look(classifier, self.at(whole)).value.double()
        for turn in range(looks - 1):
            share = before / (before - beyond) if turn % 3 < 2 else torch.full_like(before, 0.5)
            # Not quite at an end, or its own side would be seen again and again.
            share = share.nan_to_num(nan=0.5).clamp(1e-3, 1 - 1e-3)
            middle = standing + share * (broken - standing)
            points = self.at(middle.to(whole.dtype).view(-1, 1, 1, 1) * whole)
            seen = self.look(classifier, points)
            self.keep(points, seen)
            value = seen.value.double()
            broken, beyond = torch.where(seen.broken, middle, broken), torch.where(seen.broken, value, beyond)
            standing, before = torch.where(seen.broken, standing, middle), torch.where(seen.broken, before, value)

    def leave(self, left: Integer[Tensor, " left"]) -> None:
        """Let all images go but these."""
        self.rows, self.centres, self.labels = self.rows[left], self.centres[left], self.labels[left]
        self.margin, self.rivals = self.margin[left], self.rivals[left]
        self.targets = None if self.targets is None else self.targets[left]
        self.mask = None if self.mask is None else self.mask[left]

    def split(self, lanes: int) -> "Nearest":
        """Return the images left with ``lanes`` rows for each, as if nothing had been found of them yet."""
        split = copy.copy(self)
        split.leave(torch.arange(len(self.rows), device=self.rows.device).repeat_interleave(lanes))
        split.rows = torch.arange(len(split.labels), device=self.rows.device)
        split.images, split.lanes = split.centres.clone().clamp_(0, 1), lanes
        split.distance = torch.full_like(self.distance[:1], torch.inf).repeat(len(split.rows))
        return split

    def join(self, split: "Nearest", *, within: float | int | None) -> None:
        """Keep of every image left the nearest point of its rows, or of the first that came ``within``; it leaves."""
        distance = split.distance.view(-1, split.lanes)
        near = distance <= (-1 if within is None else within)
        # The first of the largest: nothing comes before a row that came within, and it is the first of them.
        lane = torch.where(near, torch.inf, -distance).argmax(dim=1, keepdim=True)
        first = torch.arange(len(distance), device=lane.device) * split.lanes
        found, done = distance.gather(1, lane).squeeze(1), near.any(dim=1)
        nearer = found < self.best()
        self.images[self.rows[nearer]] = split.images[(first + lane.squeeze(1))[nearer]]
        self.distance[self.rows[nearer]] = found[nearer]
        self.leave((~done).nonzero().squeeze(1))


class Boundary(NamedTuple):
    """A boundary between two classes, straightened out at one point for each image left."""

    losses: Losses  # at the point
    value: Float[Tensor, " left"]  # logit of the class beyond the boundary less that of the class before it
    gradient: Images  # of the value


def boundary(
    classifier: Classifier, nearest: Nearest, points: Images, rivals: Integer[Tensor, "left classes"] | None
) -> Boundary:
    """Return the nearest boundary of the class of each image against one of its ``rivals``.

    One forward for each image left, and one backward for each of its rivals.

    Args:
        classifier: images to logits.
        nearest: the images left.
        points: one for each of them.
        rivals: classes; ``None``: the boundary of the targets against whichever class is the largest other one.
    """
    if rivals is None or rivals.shape[1] == 1:
        towards = None if rivals is None else rivals[:, 0]
        seen = slope(classifier, points, nearest.labels, loss="margin", targets=nearest.targets, towards=towards)
        return Boundary(seen.losses, seen.losses.value.double() - _rounding(seen), nearest.gradient(seen.gradient()))
    held: list[Tensor] = []

    def holding(images: Tensor) -> Tensor:
        held.append(classifier(images))
        return held[-1]

    seen = slope(holding, points, nearest.labels, loss="margin")
    return _first_of_many(nearest, seen, held[0], rivals)


def _first_of_many(nearest: Nearest, seen: Slope, logits: Tensor, rivals: Tensor) -> Boundary:
    of_label = seen.logits.gather(1, nearest.labels.long().unsqueeze(1)).double()
    values = seen.logits.gather(1, rivals).double() - of_label
    chosen = torch.zeros_like(seen.images, dtype=wide(seen.images.dtype))
    value, best = values[:, 0], torch.full_like(values[:, 0], torch.inf)
    for place, rival in enumerate(rivals.unbind(1)):
        weight = torch.zeros_like(logits).scatter_(1, rival.unsqueeze(1), 1.0)
        weight = weight.scatter_(1, nearest.labels.long().unsqueeze(1), -1.0)
        (gradient,) = torch.autograd.grad(
            *(logits, seen.images, weight),
            retain_graph=place + 1 < rivals.shape[1],
            allow_unused=True,
            materialize_grads=True,
        )
        gradient = nearest.gradient(gradient.to(chosen.dtype).nan_to_num_(nan=0.0))
        distance = values[:, place].abs() / length(gradient, norm=DUAL[nearest.norm])
        nearer = distance.nan_to_num(nan=torch.inf) < best
        best, value = torch.where(nearer, distance, best), torch.where(nearer, values[:, place], value)
        chosen = torch.where(nearer.view(-1, 1, 1, 1), gradient, chosen)
    return Boundary(seen.losses, value - _rounding(seen), chosen)


def _rounding(seen: Slope) -> Float[Tensor, " batch"] | float:
    """Return by how much rounding may hide a margin: in types of 8 or 11 bits, two logits are equal before they are.

    Aimed at without this, such a boundary is never crossed.
    """
    if seen.images.dtype not in (torch.bfloat16, torch.float16):
        return 0.0
    return torch.finfo(seen.images.dtype).eps * seen.logits.abs().amax(dim=1).double()


def onto(points: Images, gradient: Images, value: Float[Tensor, " batch"], *, norm: str) -> Images:
    r"""Return the smallest offsets that bring a linear function to 0 while the points stay in [0, 1].

    :math:`\min \lVert d \rVert_p` such that :math:`v + \langle g, d \rangle = 0` and :math:`0 \le x + d \le 1`. All
    intensities go the way that helps; with :math:`u_i` the room that intensity i has on that way, for ``linf``
    :math:`|d_i| = \min(\lambda, u_i)`, for ``l2`` :math:`|d_i| = \min(\lambda |g_i|, u_i)`, and for ``l1`` the rooms
    are used up one after the other, those with the largest :math:`|g_i|` first. Where all room is not enough, all of
    it is used; where the gradient is 0, the offset is.

    Args:
        points: in [0, 1].
        gradient: of the function.
        value: of the function at the points.
        norm: ``linf``, ``l2`` or ``l1``.
    """
    slopes, here = gradient.flatten(1), points.to(gradient.dtype).flatten(1)
    slopes = slopes * -value.sign().to(slopes.dtype).unsqueeze(1)
    # Divided by the largest slope first: the square of a small one is 0.
    peak = slopes.abs().amax(dim=1, keepdim=True)
    sizes = (slopes / peak).abs().nan_to_num_(nan=0.0)
    needed = value.abs().unsqueeze(1) / peak.double()
    room = torch.where(slopes > 0, 1 - here, here) * (slopes != 0)
    distance = _greedy(sizes, room, needed) if norm == "l1" else _even(sizes, room, needed, norm)
    return (distance * slopes.sign()).view_as(gradient)


def _even(sizes: Tensor, room: Tensor, needed: Tensor, norm: str) -> Tensor:
    """Find the multiplier from below, by Newton's steps: what is gained is concave in it, with finitely many bends."""
    speed = sizes if norm == "l2" else (sizes > 0).to(sizes.dtype)
    gains = sizes * speed
    full = torch.zeros_like(room, dtype=torch.bool)
    filled = torch.full((len(room), 1), -1, device=room.device)
    multiplier = torch.zeros_like(needed)
    while True:
        used = full.sum(dim=1, keepdim=True)
        if torch.equal(used, filled):
            break
        filled = used
        rest = needed - (sizes * room * full).sum(dim=1, keepdim=True, dtype=torch.float64)
        multiplier = rest / (gains * ~full).sum(dim=1, keepdim=True, dtype=torch.float64)
        # Neither a gradient of 0 nor an image without room left has a multiplier: all of no room is used.
        multiplier = multiplier.nan_to_num(nan=torch.inf, posinf=torch.inf).clamp_min(0)
        full = full | ~(multiplier.to(room.dtype) * speed < room)
    return torch.where(full, room, (multiplier.to(room.dtype) * speed).nan_to_num(nan=0.0))


def _greedy(sizes: Tensor, room: Tensor, needed: Tensor) -> Tensor:
    order = sizes.argsort(dim=1, descending=True, stable=True)
    gain = (sizes * room).double().gather(1, order)
    after = gain.cumsum(dim=1)
    taken = torch.minimum((needed - (after - gain)).clamp_min(0).nan_to_num(nan=0.0), gain)
    share = torch.where(gain > 0, taken / gain, 0.0).to(room.dtype)
    return room * torch.zeros_like(room).scatter_(1, order, share)
