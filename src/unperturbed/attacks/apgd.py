r"""Auto-PGD: projected gradient ascent with momentum that finds its own step size, untargeted and towards classes.

Source: Croce & Hein (2020), arXiv:2003.01690, section 3 and algorithm 1: :math:`z^{(k+1)} = P(x^{(k)} + \eta^{(k)}
g)`, :math:`x^{(k+1)} = P(x^{(k)} + \alpha (z^{(k+1)} - x^{(k)}) + (1 - \alpha)(x^{(k)} - x^{(k-1)}))` with
:math:`\alpha = 0.75`. Every image starts with :math:`\eta = 2 \epsilon`; at a checkpoint :math:`w_j` it halves
:math:`\eta` and returns to its best point if fewer than :math:`\rho (w_j - w_{j-1})` of its steps since the last
checkpoint raised the objective, or if it neither halved there nor found a better point since. Towards classes: the
same, section 4, with equation 7. For ``l1``: Croce & Hein (2021), arXiv:2103.01208, sections 2 and 3: steps along the
signs of the largest part of the gradient, the exact projection onto the ball within the box, radii of 3, 2 and 1
times eps.
Departs from the source: an image that is misclassified leaves the batch at once; the gradient of a confident network
does not vanish (see :mod:`unperturbed.attacks.objectives`); the released code compares the first step with a loss of 0,
takes "at most" for "fewer than", and after a return to the best point compares with the point it came from. In ``l1``
it moves intensities against the walls of the box, where they count among the largest and stay; here they do not count.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, Losses, Slope, losses, predict
from unperturbed.attacks.contract import pure
from unperturbed.attacks.inputs import ROUND_OFF
from unperturbed.attacks.objectives import Loss, objective
from unperturbed.attacks.problem import Images, Problem, together
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length, project, steepest

Decision = Literal["mean", "last"]

ALPHA = 0.75  # share of the new step, against the last one
STAGES = {"linf": ((1, 100),), "l2": ((1, 100),), "l1": ((3, 30), (2, 30), (1, 40))}  # radius in eps, steps in %

SPARSE_START = 0.2  # share of the intensities that an l1 step moves at first
SPARSER = 1.5  # what it is then divided by, and the step size as well
SPARSE_CHECK = 4  # steps between two checkpoints, in %
SHARED = "margin"  # by which points of runs towards different classes are compared
SLACK = 1e-6  # of the radius: a sum over thousands of rounded numbers may be that much larger


@pure
def apgd(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,
    *,
    norm: Literal["linf", "l2", "l1"] = "linf",
    eps: float | int,
    steps: int = 100,
    loss: Loss = "ce",
    random_start: bool = True,
    restarts: int = 1,
    rho: float = 0.75,
    eot: int = 1,
    decide: Decision = "mean",
    targets: Tensor | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return the worst images found within ``eps`` of ``images``, without a step size to choose.

    An image costs at most ``steps`` backwards and ``steps + 1`` forwards for every restart (``l1``: 2 forwards more),
    and one forward more with a random start, all of them ``eot`` times; one that is broken costs nothing more.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: the centres of the balls, floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        seed: decides the random starts, for each image apart.
        norm: of the ball.
        eps: radius of the ball, as a fraction of full scale (8/255 = 0.0314).
        steps: gradient evaluations per image and restart.
        loss: what is climbed, see :mod:`unperturbed.attacks.objectives`.
        random_start: whether the first step starts at a random point on the surface of the ball.
        restarts: how often it is tried, each time from another random start.
        rho: share of rising steps below which the step size is halved.
        eot: draws of a random classifier at every step; gradients are means over them.
        decide: what counts as a success on a random classifier. ``mean``: the class of the mean logits over the draws,
            so that no lucky draw ends the attack of an image. ``last``: as in the ``rand`` version of AutoAttack: the
            last of the draws gives the loss and decides, the image stays to the last step, and the last point that was
            misclassified is returned. With one lucky draw in 100 that is nearly every image, and many are classified
            right again in the next draw.
        targets: the classes that the images shall be taken for; ``None``: any but the true one.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Returns:
        Images of the same type in [0, 1], each within ``eps`` of its centre; a misclassified one where one was seen,
        else the one with the largest loss, never smaller than that of the centre.

    Raises:
        SpecError: images, labels, settings or the classifier's logits are not as described.
    """
    plan = _Plan(norm, eps, steps, loss, rho, eot, decide, random_start)
    _check("apgd", plan, restarts)
    problem = _problem(classifier, images, labels, seed, plan, targets, mask)
    if random_start or eps == 0:
        problem.keep(images, problem.look(images))
    for restart in range(restarts):
        if not (problem.finished or eps == 0):
            _run(classifier, problem, plan, None, "start", restart)
    return problem.images


@pure
def apgd_targeted(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,
    *,
    norm: Literal["linf", "l2", "l1"] = "linf",
    eps: float | int,
    steps: int = 100,
    target_classes: int = 9,
    loss: Literal["dlr", "margin"] = "dlr",
    random_start: bool = True,
    restarts: int = 1,
    rho: float = 0.75,
    eot: int = 1,
    decide: Decision = "mean",
    mask: Tensor | None = None,
    at_once: int | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return the worst images found within ``eps`` of ``images``, climbing towards one wrong class after the other.

    Any wrong class is a success. An image costs at most what ``apgd`` costs, for every class. When few images are left,
    several classes are tried at once, and the first of them that succeeds decides, as if they had waited for it.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: the centres of the balls, floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        seed: decides the random starts, for each image apart.
        norm: of the ball.
        eps: radius of the ball, as a fraction of full scale (8/255 = 0.0314).
        steps: gradient evaluations per image, class and restart.
        target_classes: how many of the wrong classes are tried, the most likely first; all if there are fewer.
        loss: what is climbed; ``dlr`` becomes the margin if there are fewer than 4 classes.
        random_start: as in ``apgd``.
        restarts: tries for every class.
        rho: as in ``apgd``.
        eot: as in ``apgd``.
        decide: as in ``apgd``.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.
        at_once: rows of a batch for the classes of few images. Of a network without chance no result depends on it.
            ``None``: as many as images.

    Returns:
        As ``apgd``; where nothing was misclassified, the one in which a wrong class comes nearest to the true one.

    Raises:
        SpecError: images, labels, settings or the classifier's logits are not as described.
    """
    plan = _Plan(norm, eps, steps, loss, rho, eot, decide, random_start)
    _check("apgd_targeted", plan, restarts)
    if target_classes < 1:
        raise SpecError(f"apgd_targeted: expected target_classes of at least 1; got {target_classes}")
    problem = _problem(classifier, images, labels, seed, plan, None, mask)
    logits = _mean_logits(classifier, images, labels, plan.draws)
    likely = logits.scatter(1, labels.long().unsqueeze(1), -torch.inf).argsort(dim=1, descending=True, stable=True)
    problem.keep(images, losses(logits, labels, loss=SHARED))
    rank, last = 0, min(target_classes, logits.shape[1] - 1)
    while rank < last and not (problem.finished or eps == 0):
        many = together(len(problem.rows), at_once or len(images), most=last - rank)
        split = problem.split(many)
        towards = likely[problem.rows, rank : rank + many].flatten()
        for restart in range(restarts):
            if not split.finished:
                _run(classifier, split, plan, towards[split.rows], "start towards", rank, restart)
        problem.join(split)
        rank += many
    return problem.images


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return the steps after which an image may halve its step size.

    >>> checkpoints(100)
    (22, 41, 57, 70, 80, 87, 93, 99)
    """
    percent = [0, 22]
    while percent[-1] < 100:
        percent.append(percent[-1] + max(percent[-1] - percent[-2] - 3, 6))
    return tuple(dict.fromkeys(-(-share * steps // 100) for share in percent[1:-1]))


class _Plan(NamedTuple):
    norm: str
    eps: float | int
    steps: int
    loss: str
    rho: float
    eot: int
    decide: str
    random_start: bool

    @property
    def draws(self) -> int:
        """How many are averaged for a decision."""
        return self.eot if self.decide == "mean" else 1

    @property
    def stages(self) -> list[tuple[float | int, int]]:
        """Radius and steps of each; the last one has what rounding up left."""
        *first, (_, _) = STAGES[self.norm]
        stages = [(multiple * self.eps, -(-share * self.steps // 100)) for multiple, share in first]
        return [*stages, (self.eps, self.steps - sum(steps for _, steps in stages))]


def _check(name: str, plan: _Plan, restarts: int) -> None:
    least = len(STAGES[plan.norm])
    if plan.stages[-1][1] < 1 or plan.steps < least:
        raise SpecError(f"{name}: expected steps of at least {5 if least > 1 else 1}; got {plan.steps}")
    if restarts < 1 or plan.eot < 1:
        raise SpecError(f"{name}: expected restarts and eot of at least 1; got {restarts} and {plan.eot}")
    if restarts > 1 and not plan.random_start:
        raise SpecError(f"{name}: {restarts} restarts without a random start are all the same; set random_start")
    if not 0 <= plan.rho <= 1:
        raise SpecError(f"{name}: expected rho from 0 to 1; got {plan.rho:g}")


def _problem(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    seed: int,
    plan: _Plan,
    targets: Tensor | None,
    mask: Tensor | None,
) -> Problem:
    return Problem(classifier, images, labels, seed=seed, loss=plan.loss, targets=targets, mask=mask, eot=plan.draws)


def _mean_logits(classifier: Classifier, images: Tensor, labels: Tensor, draws: int) -> Tensor:
    total = predict(classifier, images, labels)
    for _ in range(draws - 1):
        total = total + predict(classifier, images, labels)
    return total / draws


class _Ascent(NamedTuple):
    """Where one run is, for every image left."""

    offset: Images
    before: Images  # one step earlier
    gradient: Images
    value: Float[Tensor, " left"]
    best: Images
    best_gradient: Images
    best_value: Float[Tensor, " left"]
    rises: Float[Tensor, " left"]  # steps since the last checkpoint that raised the objective
    # The step size, and what the checkpoints compare: for l1 how many intensities the best point changes, else the
    # best objective; and whether the image halved its step at the last one.
    step_size: Float[Tensor, " left"]
    compared: Float[Tensor, " left"]
    halved: Shaped[Tensor, " left"]
    towards: Integer[Tensor, " left"] | None

    def only(self, rows: Tensor | None) -> "_Ascent":
        return self if rows is None else _Ascent(*(None if each is None else each[rows] for each in self))  # pyright: ignore[reportArgumentType]

    def moved(self, offset: Images, gradient: Images, value: Tensor) -> "_Ascent":
        better = value > self.best_value
        return self._replace(
            offset=offset,
            before=self.offset,
            gradient=gradient,
            value=value,
            best=_where(better, offset, self.best),
            best_gradient=_where(better, gradient, self.best_gradient),
            best_value=torch.maximum(value, self.best_value),
            rises=self.rises + (value > self.value),
        )

    def back_to_best(self, which: Tensor) -> "_Ascent":
        return self._replace(
            offset=_where(which, self.best, self.offset),
            gradient=_where(which, self.best_gradient, self.gradient),
            value=torch.where(which, self.best_value, self.value),
            rises=torch.zeros_like(self.rises),
        )


class _Tracker:
    """What a run sees and remembers: where the images go that it breaks, and which draws decide that."""

    def __init__(self, classifier: Classifier, problem: Problem, plan: _Plan) -> None:
        self.problem = problem
        self._classifier, self._plan = classifier, plan
        self._stay = plan.decide == "last"
        self._points = problem.centres.clone() if self._stay else problem.centres
        self._broken = torch.zeros(len(problem.rows), dtype=torch.bool, device=problem.rows.device)

    def slope(self, points: Images, towards: Tensor | None) -> Slope:
        """Return the losses and the way to the gradient; with separate draws, those of the last one."""
        separate = self._plan.eot // self._plan.draws
        earlier: Tensor | float = 0.0
        for _ in range(separate - 1):
            earlier = earlier + self.problem.slope(points, towards=towards).gradient()
        last = self.problem.slope(points, towards=towards)
        return dataclasses.replace(last, earlier=earlier, draws=separate) if separate > 1 else last

    def look(self, points: Images, towards: Tensor | None) -> tuple[Losses, Tensor]:
        """Return the losses and the logits, from forwards alone."""
        labels, targets = self.problem.labels, self.problem.targets
        logits = _mean_logits(self._classifier, points, labels, self._plan.draws)
        return losses(logits, labels, loss=self._plan.loss, targets=targets, towards=towards), logits

    def keep(self, points: Images, seen: Losses, logits: Tensor, *, targeted: bool, inside: bool) -> Tensor | None:
        """Remember the points; return which images are left, or ``None`` if all of them are."""
        if not inside:
            return None
        if targeted:
            seen = seen._replace(value=objective(logits, self.problem.labels, loss=SHARED))
        if not self._stay:
            return self.problem.keep(points, seen)
        self._points[seen.broken] = points[seen.broken]
        self._broken |= seen.broken
        return self.problem.keep(points, seen._replace(broken=torch.zeros_like(seen.broken)))

    def finish(self) -> None:
        """Let the images go that have stayed although they were broken."""
        if self._stay:
            nothing = torch.full((len(self._broken),), -torch.inf, device=self._broken.device)
            self.problem.keep(self._points, Losses(nothing, self._broken))


def _run(
    classifier: Classifier, problem: Problem, plan: _Plan, towards: Tensor | None, name: str, *purpose: int
) -> None:
    """Climb once from one start; in stages for l1, of which only the last one is inside the ball."""
    tracker = _Tracker(classifier, problem, plan)
    offset = _start(problem, plan, name, *purpose)
    lane = problem.rows % problem.lanes
    for ahead in range(1, problem.lanes):
        rank, restart = purpose
        offset = _where(lane == ahead, _start(problem, plan, name, rank + ahead, restart), offset)
    for radius, steps in plan.stages:
        offset = offset if plan.norm != "l1" else _project(problem, offset, norm="l1", eps=radius)
        ascent = _ascend(tracker, plan, offset, radius, steps, towards)
        if problem.finished:
            return
        offset = ascent.best
    tracker.finish()


def _start(problem: Problem, plan: _Plan, *purpose: int | str) -> Images:
    offset = problem.nowhere()
    if not plan.random_start:
        return offset
    shape = tuple(offset.shape[1:])
    if plan.norm == "l1":  # is projected onto the ball within the box before it is looked at
        return problem.allowed(problem.streams.normal(shape, *purpose, dtype=offset.dtype))
    if plan.norm == "l2":
        direction = steepest(problem.streams.normal(shape, *purpose, dtype=offset.dtype), norm="l2")
    else:
        direction = problem.streams.uniform(shape, *purpose, dtype=offset.dtype) * 2 - 1
        direction = direction / _spread(length(direction, norm="linf"), direction)
    return problem.in_box(problem.allowed(plan.eps * direction))


def _ascend(
    tracker: _Tracker, plan: _Plan, offset: Images, radius: float | int, steps: int, towards: Tensor | None
) -> _Ascent:
    """Return the run after ``steps`` steps; only points within ``eps`` count for the result."""
    problem, sparse = tracker.problem, plan.norm == "l1"
    keep = functools.partial(tracker.keep, targeted=towards is not None, inside=radius == plan.eps)
    seen = tracker.slope(problem.at(offset), towards)
    left = keep(seen.images.detach(), seen.losses, seen.logits)
    ascent = _first(plan, offset, seen, radius, towards).only(left)
    if problem.finished:
        return ascent
    gradient = problem.gradient(seen, left)
    ascent = ascent._replace(gradient=gradient, best_gradient=gradient)
    checks = range(steps)[:: max(SPARSE_CHECK * steps // 100, 1)][1:] if sparse else checkpoints(steps)
    last_check = 0
    for step in range(1, steps + 1):
        moved = _sparse_step(problem, ascent, radius) if sparse else _step(problem, ascent, plan, first=step == 1)
        points = problem.at(moved)
        if step == steps:  # no gradient is needed any more
            final, logits = tracker.look(points, ascent.towards)
            left = keep(points, final, logits)
            return ascent.moved(moved, ascent.gradient, final.value).only(left)
        seen = tracker.slope(points, ascent.towards)
        left = keep(points, seen.losses, seen.logits)
        if problem.finished:
            return ascent
        moved, value = (moved, seen.losses.value) if left is None else (moved[left], seen.losses.value[left])
        ascent = ascent.only(left).moved(moved, problem.gradient(seen, left), value)
        if step in checks:
            ascent = _sparse_check(ascent, radius) if sparse else _check_step(ascent, plan.rho * (step - last_check))
            last_check = step
    return ascent


def _first(plan: _Plan, offset: Images, seen: Slope, radius: float | int, towards: Tensor | None) -> _Ascent:
    value = seen.losses.value
    nothing, no = torch.zeros_like(value), torch.zeros_like(seen.losses.broken)
    step_size = torch.full_like(value, radius if plan.norm == "l1" else 2 * radius)
    compared = value if plan.norm != "l1" else (offset != 0).flatten(1).sum(dim=1).to(value.dtype)
    return _Ascent(offset, offset, offset, value, offset, offset, value, nothing, step_size, compared, no, towards)


def _step(problem: Problem, ascent: _Ascent, plan: _Plan, *, first: bool) -> Images:
    new = ascent.offset + _spread(ascent.step_size, ascent.offset) * steepest(ascent.gradient, norm=plan.norm)
    new = _project(problem, new, norm=plan.norm, eps=plan.eps)
    if first:
        return new
    new = ascent.offset + ALPHA * (new - ascent.offset) + (1 - ALPHA) * (ascent.offset - ascent.before)
    return _project(problem, new, norm=plan.norm, eps=plan.eps)


def _check_step(ascent: _Ascent, needed: float) -> _Ascent:
    halve = (ascent.rises < needed) | (~ascent.halved & (ascent.best_value == ascent.compared))
    ascent = ascent._replace(
        step_size=torch.where(halve, ascent.step_size / 2, ascent.step_size), compared=ascent.best_value, halved=halve
    )
    return ascent.back_to_best(halve)


def _sparse_step(problem: Problem, ascent: _Ascent, radius: float | int) -> Images:
    """Move the share with the largest gradient, of the intensities that the box lets move, by equal parts of a step."""
    points = problem.centres.to(ascent.offset.dtype) + ascent.offset
    blocked = torch.where(ascent.gradient > 0, points >= 1 - ROUND_OFF, points <= ROUND_OFF)
    gradient = ascent.gradient.masked_fill(blocked, 0)
    sizes = gradient.flatten(1).abs()
    numbers = sizes.shape[1]
    share = torch.where(ascent.compared > 0, ascent.compared / numbers / SPARSER, SPARSE_START)
    # Rounded down: two intensities that always move alike could never become one.
    many = (share * numbers).long().clamp_(1, numbers).unsqueeze(1)
    threshold = sizes.sort(dim=1, descending=True).values.gather(1, many - 1)
    direction = gradient.sign() * (sizes >= threshold).view_as(gradient)
    moving = length(direction, norm="l1").clamp_min(1).to(ascent.step_size.dtype)
    new = ascent.offset + _spread(ascent.step_size / moving, direction) * direction
    return _project(problem, new, norm="l1", eps=radius)


def _sparse_check(ascent: _Ascent, radius: float | int) -> _Ascent:
    changed = (ascent.best != 0).flatten(1).sum(dim=1).to(ascent.value.dtype)
    sparser = changed / ascent.compared.clamp_min(1) < 0.95
    step_size = torch.where(sparser, radius, (ascent.step_size / SPARSER).clamp_min(radius / 10))
    return ascent._replace(step_size=step_size, compared=changed).back_to_best(sparser)


def _project(problem: Problem, offset: Images, *, norm: str, eps: float | int) -> Images:
    if norm == "l1":
        return project_l1_in_box(offset, problem.centres, eps=eps * (1 - SLACK))
    return problem.in_box(project(offset, norm=norm, eps=eps))


def project_l1_in_box(
    offset: Images, centres: Shaped[Tensor, "batch channel height width"], *, eps: float | int
) -> Images:
    """Return the nearest offset of l1 length at most ``eps`` that keeps the images in [0, 1].

    Every number shrinks by the same amount, down to 0 or to what the box allows. The length is piecewise linear in
    that amount, with two knots for every number; sorting them finds it exactly.

    >>> project_l1_in_box(torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[[0.5, 0.5]]]]), eps=0.75)
    tensor([[[[0.5000, 0.2500]]]])
    """
    flat, x = offset.flatten(1).double(), centres.flatten(1).double()
    sizes, room = flat.abs(), torch.where(flat > 0, 1 - x, x)
    knots, order = torch.cat([sizes, (sizes - room).clamp_min(0)], dim=1).sort(dim=1, descending=True, stable=True)
    moving = torch.where(order < flat.shape[1], 1.0, -1.0).to(knots.dtype).cumsum(dim=1)
    gained = (moving[:, :-1] * (knots[:, :-1] - knots[:, 1:])).cumsum(dim=1)
    reached = torch.cat([torch.zeros_like(gained[:, :1]), gained], dim=1)
    last = ((reached <= eps).sum(dim=1, keepdim=True) - 1).clamp_min(0)
    beyond = (eps - reached.gather(1, last)) / moving.gather(1, last).clamp_min(1)
    shrink = (knots.gather(1, last) - beyond).clamp_min(0)
    return (torch.minimum((sizes - shrink).clamp_min(0), room) * flat.sign()).to(offset.dtype).view_as(offset)


def _spread(numbers: Tensor, images: Images) -> Float[Tensor, "batch 1 1 1"]:
    return numbers.to(images.dtype).view(-1, 1, 1, 1)


def _where(which: Tensor, yes: Images, no: Images) -> Images:
    return torch.where(which.view(-1, 1, 1, 1), yes, no)
