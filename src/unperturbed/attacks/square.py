r"""Square: a random search for a misclassified image that changes one square at a time and needs no gradient.

Source: Andriushchenko et al. (2020), arXiv:1912.00049, algorithms 1 to 3 and section 4: a square of side :math:`s =
\sqrt{p\,h\,w}` at a random place, :math:`p` halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries; a
change is kept if the margin loss falls. ``linf``: the start is vertical stripes, a square is moved by
:math:`\pm 2 \epsilon` in each channel and projected. ``l2``: two pyramids of opposite sign in a square take over the
length of another square. ``l1``: the same with lengths in that norm, from the code of the authors of AutoAttack, after
Croce & Hein (2021), arXiv:2103.01208.
Departs from the source: places and signs are drawn for every image apart; a proposal that changes nothing is not looked
at (its loss is known); the released code never puts a square at the last row or column, the paper does, and so do we.
"""

import functools
import math
from typing import Literal

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from unperturbed.attacks.apgd import project_l1_in_box
from unperturbed.attacks.classifier import Classifier, Losses, losses, predict
from unperturbed.attacks.contract import pure
from unperturbed.attacks.objectives import Loss
from unperturbed.attacks.problem import Images, Problem
from unperturbed.records import SpecError
from unperturbed.tensors.norms import steepest

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of REFERENCE queries
REFERENCE = 10_000
BLOCK = 64  # queries whose random numbers are drawn together
TILES = 5  # squares along each side of the start in l2 and l1
SLACK = 1e-6  # of the radius: a sum over thousands of rounded numbers may be that much larger


@pure
def square(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,
    *,
    norm: Literal["linf", "l2", "l1"] = "linf",
    eps: float | int,
    queries: int = 5000,
    p_init: float = 0.8,
    rescale: bool = False,
    restarts: int = 1,
    loss: Loss = "margin",
    targets: Tensor | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return the worst images that a random search within ``eps`` of ``images`` found.

    At most ``queries + 1`` forwards for every restart and one more for the image; none once it is broken, none for a
    proposal that changes nothing, and no backward. Where few images are left, a forward of more costs little: in
    ``linf`` the next proposals of each are then looked at together. What is found stays the same, and a proposal behind
    an accepted one costs a second forward.

    Args:
        classifier: images in [0, 1] to logits.
        images: the centres of the balls, floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        seed: decides the proposals, for each image apart.
        norm: of the ball.
        eps: its radius, as a fraction of full scale (8/255 = 0.0314).
        queries: proposals for every image and restart.
        p_init: share of the image that the first squares cover, in (0, 1].
        rescale: whether the halvings of that share are squeezed into ``queries``; AutoAttack leaves them where they are
            for 10,000, so that 5,000 see seven of the nine.
        restarts: how often it is tried.
        loss: what has to grow for a proposal to be kept, see :mod:`unperturbed.attacks.objectives`.
        targets: the classes that the images shall be taken for; ``None``: any but the true one.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Returns:
        Images of the same type in [0, 1], each within ``eps`` of its centre; a misclassified one where one was seen,
        else the one with the largest loss, never smaller than that of the centre.

    Raises:
        SpecError: images, labels, settings or the classifier's logits are not as described.
    """
    if queries < 1 or restarts < 1:
        raise SpecError(f"square: expected queries and restarts of at least 1; got {queries} and {restarts}")
    if not 0 < p_init <= 1:
        raise SpecError(f"square: expected p_init above 0 and at most 1; got {p_init:g}")
    problem = Problem(classifier, images, labels, seed=seed, loss=loss, targets=targets, mask=mask)
    problem.keep(images, problem.look(images))
    for restart in range(restarts):
        if problem.finished or eps == 0:
            break
        search = _Corners(problem, eps, restart) if norm == "linf" else _Pyramids(problem, eps, restart, norm=norm)
        _search(classifier, problem, search, restart, loss=loss, queries=queries, p_init=p_init, rescale=rescale)
    return problem.images


def share(query: int, *, p_init: float = 0.8) -> float:
    """Return the share of the image that the square of a query covers, of ``REFERENCE`` queries counted from 0.

    >>> [share(query) for query in (0, 10, 11, 4999)]
    [0.8, 0.8, 0.4, 0.00625]
    """
    return p_init / 2 ** sum(query > halving for halving in HALVINGS)


def _search(
    classifier: Classifier,
    problem: Problem,
    search: "_Corners | _Pyramids",
    restart: int,
    *,
    loss: str,
    queries: int,
    p_init: float,
    rescale: bool,
) -> None:
    seen = problem.look(search.points)
    left = problem.keep(search.points, seen)
    search.only(left)
    value = (seen.value if left is None else seen.value[left]).clone()
    draws = value
    pixels = problem.centres.shape[2] * problem.centres.shape[3]
    query, ahead = 0, 1
    while query < queries and not problem.finished:
        if query % BLOCK == 0:
            draws = problem.streams.uniform((BLOCK, search.numbers), "square", restart, query // BLOCK)
        sides = [
            math.sqrt(share(each * REFERENCE // queries if rescale else each, p_init=p_init) * pixels)
            for each in range(query, min(query + ahead, queries, (query // BLOCK + 1) * BLOCK))
        ]
        count = sides.count(sides[0])
        given = draws[:, query % BLOCK : query % BLOCK + count]
        seen = _several(classifier, problem, search, value, given, sides[0], loss)
        query += count
        ahead = 1 if seen is not None else ahead * 2
        if seen is not None:
            left = problem.keep(search.points, seen)
            if left is not None:
                search.only(left)
                value, draws = value[left], draws[left]
        ahead = max(min(ahead, search.rows // max(len(value), 1)), 1)


def _several(
    classifier: Classifier,
    problem: Problem,
    search: "_Corners | _Pyramids",
    value: Tensor,
    draws: Float[Tensor, "left queries numbers"],
    side: float,
    loss: str,
) -> Losses | None:
    """Do the next queries of all images left, and return their losses where any proposal was accepted.

    The proposals of an image start from the same point until one is accepted, so those of several queries are looked at
    together, and again from there if one was: the same points come out as of one query after another. ``value`` is
    brought up to date in place.
    """
    images, queries = _pairs(len(value), draws.shape[1], value.device)
    broken = torch.zeros_like(value, dtype=torch.bool)
    moved = False
    while len(images) > 0:
        points, changed = search.propose(images, side, draws[images, queries])
        seen = _look(classifier, problem, points, images, changed, loss)
        accepted = (seen.value > value[images]) | seen.broken
        if not bool(accepted.any()):
            break
        moved = True
        first = torch.full_like(value, draws.shape[1], dtype=torch.int64)
        first = first.scatter_reduce(0, images[accepted], queries[accepted], "amin")
        chosen = (accepted & (queries == first[images])).nonzero().squeeze(1)
        search.settle(images[chosen], chosen)
        value[images[chosen]] = seen.value[chosen].to(value.dtype)
        broken[images[chosen]] = seen.broken[chosen]
        owed = (queries > first[images]) & ~broken[images]
        images, queries = images[owed], queries[owed]
    return Losses(value, broken) if moved else None


@functools.lru_cache(maxsize=64)
def _pairs(images: int, queries: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return every image with every query, the queries of one image behind each other."""
    pairs = torch.arange(images * queries, device=device)
    return pairs // queries, pairs % queries


def _look(
    classifier: Classifier, problem: Problem, points: Images, images: Tensor, changed: Tensor, loss: str
) -> Losses:
    """Return the losses of proposals for these images, and one that nobody wants where nothing has changed."""
    rows = changed.nonzero().squeeze(1)
    value = torch.full((len(points),), -torch.inf, dtype=torch.float64, device=points.device)
    broken = torch.zeros_like(changed)
    if len(rows) > 0:
        whose = images[rows]
        labels, targets = problem.labels[whose], None if problem.targets is None else problem.targets[whose]
        asked = points if len(rows) == len(points) else points[rows]
        seen = losses(predict(classifier, asked, labels), labels, loss=loss, targets=targets)
        value[rows], broken[rows] = seen.value.double(), seen.broken
    return Losses(value, broken)


class _Corners:
    """The search in ``linf``: every intensity is as far up or down as it may go."""

    rows = 32  # proposals that are looked at together while few images are left; more images go one query at a time

    def __init__(self, problem: Problem, eps: float | int, restart: int) -> None:
        everywhere = torch.full_like(problem.nowhere(), eps)
        self._high = problem.at(problem.allowed(everywhere)).flatten(2)
        self._low = problem.at(problem.allowed(-everywhere)).flatten(2)
        self._shape = problem.centres.shape[1:]
        channels, _, width = self._shape
        self.numbers = 2 + channels
        stripes = problem.streams.uniform((channels, 1, width), "square start", restart).expand(-1, *self._shape)
        self._flat = torch.where(stripes.flatten(2) < 0.5, self._low, self._high).contiguous()
        self._proposed = self._flat

    @property
    def points(self) -> Images:
        return self._flat.view(-1, *self._shape)

    def propose(self, images: Tensor, side: float, draws: Float[Tensor, "rows numbers"]) -> tuple[Images, Tensor]:
        """Return a changed point for each of these images, and whether that made a difference."""
        channels, height, width = self._shape
        window = _window(draws[:, 0], draws[:, 1], min(max(round(side), 1), height, width), height, width)
        place = window.expand(-1, channels, -1)
        own, high, low = (_rows(each, images) for each in (self._flat, self._high, self._low))
        up = (draws[:, 2:] >= 0.5).unsqueeze(2)
        new = torch.where(up, high.gather(2, place), low.gather(2, place))
        changed = (new != own.gather(2, place)).flatten(1).any(dim=1)
        self._proposed = own.scatter(2, place, new)
        return self._proposed.view(-1, *self._shape), changed

    def settle(self, images: Tensor, chosen: Tensor) -> None:
        """Move these images to the chosen rows of the last proposal."""
        self._flat[images] = self._proposed[chosen]

    def only(self, left: Tensor | None) -> None:
        if left is not None:
            self._flat, self._high, self._low = self._flat[left], self._high[left], self._low[left]


class _Pyramids:
    """The search in ``l2`` and ``l1``: the whole length is spent, and moved from one square to another."""

    rows = 1  # one query at a time

    def __init__(self, problem: Problem, eps: float | int, restart: int, *, norm: str) -> None:
        self._problem, self._eps, self._norm = problem, eps, norm
        self.numbers = 5 + problem.centres.shape[1]
        self._offset = self._within(self._tiles(restart))
        self.points = problem.at(self._offset)
        self._proposed = self._offset, self.points

    def propose(self, images: Tensor, side: float, draws: Float[Tensor, "left numbers"]) -> tuple[Images, Tensor]:
        """Return a changed point for each image, and whether it is worth a look."""
        assert len(images) == len(self.points), "one query at a time is one of every image left"
        _, channels, height, width = self._offset.shape
        odd = min(max(round(side), 3) // 2 * 2 + 1, height, width)
        grown = _window(draws[:, 0], draws[:, 1], odd, height, width).expand(-1, channels, -1)
        spent = _window(draws[:, 2], draws[:, 3], odd, height, width).expand(-1, channels, -1)
        offset = self._offset.flatten(2)
        old, without = offset.gather(2, grown), offset.scatter(2, grown, 0)
        new = self._pyramids(odd, draws[:, 4:], like=offset) + old / self._size(old).clamp_min(1e-12)
        available = self._available(offset, without.gather(2, spent), old)
        new = new * (available / self._size(new).clamp_min(1e-12))
        proposal = without.scatter(2, spent, 0).scatter(2, grown, new)
        within = self._within(proposal.view_as(self._offset))
        self._proposed = within, self._problem.at(within)
        return self._proposed[1], torch.ones_like(images, dtype=torch.bool)

    def settle(self, images: Tensor, chosen: Tensor) -> None:
        """Move these images to the chosen rows of the last proposal."""
        self._offset[images] = self._proposed[0][chosen]
        self.points[images] = self._proposed[1][chosen]

    def only(self, left: Tensor | None) -> None:
        if left is not None:
            self._offset, self.points = self._offset[left], self.points[left]

    def _available(self, offset: Tensor, spent: Tensor, old: Tensor) -> Tensor:
        """Return the length for each channel of the square that grows: of both squares, and of what is not used."""
        channels = offset.shape[1]
        if self._norm == "l1":
            unused = (self._eps - offset.abs().sum(dim=(1, 2), keepdim=True)).clamp_min(0)
            return channels * (unused / channels + self._size(spent) + self._size(old))
        unused = (self._eps**2 - offset.square().sum(dim=(1, 2), keepdim=True)).clamp_min(0)
        return (unused / channels + self._size(spent).square() + self._size(old).square()).sqrt()

    def _size(self, window: Tensor) -> Tensor:
        return torch.linalg.vector_norm(window, ord=1 if self._norm == "l1" else 2, dim=2, keepdim=True)

    def _pyramids(self, side: int, draws: Tensor, *, like: Tensor) -> Tensor:
        """Return the pattern of this side, lying or standing, with a random sign in each channel."""
        lying = pyramids(side, norm=self._norm).to(like)
        standing = (draws[:, :1] >= 0.5).unsqueeze(2)
        signs = torch.where(draws[:, 1:] >= 0.5, 1.0, -1.0).to(lying.dtype).unsqueeze(2)
        return signs * torch.where(standing, lying.T.flatten(), lying.flatten())

    def _tiles(self, restart: int) -> Images:
        offset = self._problem.nowhere()
        channels, height, width = offset.shape[1:]
        side = max(min(height, width) // TILES, 1)
        edge = max(min(height, width) - side * TILES, 0) // 2
        for top in range(edge, height - side + 1, side):
            for left in range(edge, width - side + 1, side):
                draws = self._problem.streams.uniform((1 + channels,), "square start", restart, top, left)
                tile = self._pyramids(side, draws, like=offset)
                offset[:, :, top : top + side, left : left + side] = tile.view(len(offset), channels, side, side)
        return offset

    def _within(self, offset: Images) -> Images:
        offset = self._problem.allowed(offset)
        if self._norm == "l1":
            return project_l1_in_box(offset, self._problem.centres, eps=self._eps * (1 - SLACK))
        return self._problem.in_box(self._eps * steepest(offset, norm="l2"))


def _rows(values: Tensor, images: Tensor) -> Tensor:
    """Return the rows of these images, without a copy where they are all."""
    return values if torch.equal(images, _pairs(len(values), 1, images.device)[0]) else values[images]


@functools.cache
def pyramids(side: int, *, norm: str) -> Float[Tensor, "side side"]:
    """Return two pyramids of opposite sign, one above the other, of length 1 in ``norm``."""
    power, order = (4, 1) if norm == "l1" else (2, 2)
    halves = [_pyramid(rows, side, power, order) for rows in (side // 2, side - side // 2) if rows > 0]
    both = torch.cat([halves[0], -halves[-1]]) if len(halves) == 2 else -halves[0]
    return both / torch.linalg.vector_norm(both, ord=order)


def _pyramid(rows: int, columns: int, power: int, order: int) -> Tensor:
    down, across = torch.arange(rows) - rows // 2, torch.arange(columns) - columns // 2
    from_top = torch.maximum(down.abs().unsqueeze(1), across.abs().unsqueeze(0))
    layers = (torch.arange(max(rows // 2, columns // 2) + 1) + 1.0) ** -power
    heights = layers.flip(0).cumsum(0).flip(0)[from_top]
    return heights / torch.linalg.vector_norm(heights, ord=order)


def _window(down: Tensor, across: Tensor, side: int, height: int, width: int) -> Integer[Tensor, "left 1 pixels"]:
    """Return where the pixels of a square at a random place of each image stand in its flattened channels."""
    top, left = (down * (height - side + 1)).long(), (across * (width - side + 1)).long()
    return ((top * width + left).unsqueeze(1) + _inside(side, width, down.device)).unsqueeze(1)


@functools.lru_cache(maxsize=64)
def _inside(side: int, width: int, device: torch.device) -> Integer[Tensor, " pixels"]:
    reach = torch.arange(side, device=device)
    return (reach.unsqueeze(1) * width + reach).flatten()
