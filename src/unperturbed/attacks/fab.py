r"""FAB, fast adaptive boundary: the smallest perturbation, by steps onto the boundary that lean back to the image.

Source: Croce & Hein (2020), arXiv:1907.02044, algorithm 1. The boundary of the label's class against another one is
straightened out at the point :math:`x`; with :math:`d` and :math:`d_0` the smallest steps onto it within the box from
:math:`x` and from the image :math:`x_0` (section 2.2), the next point is

.. math:: (1 - \alpha)(x + \eta d) + \alpha (x_0 + \eta d_0), \qquad
   \alpha = \min\Big(\frac{\lVert d \rVert}{\lVert d \rVert + \lVert d_0 \rVert}, \alpha_{\max}\Big),

and where it is broken the search goes on from :math:`x_0 + \beta (x - x_0)` (sections 3.1 to 3.3). Restarts begin at
half the radius (section 3.4), and the end is a search on the line between the image and its nearest broken point.
FAB-T, against one class at a time: Croce & Hein (2020), arXiv:2003.01690, appendix A.
Departs from the source: points that were moved back are kept too where they are still broken; the search on the line
takes 10 forwards instead of 3; with ``within``, an image that is broken inside that radius leaves at once.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier
from unperturbed.attacks.contract import pure
from unperturbed.attacks.inputs import check_eps
from unperturbed.attacks.nearest import Boundary, Images, Nearest, boundary, onto
from unperturbed.attacks.problem import outrun, together
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length, wide
from unperturbed.tensors.streams import Streams

START = {"linf": 0.3, "l2": 1.0, "l1": 5.0}  # the authors' radii of random starts


@pure
def fab(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,
    *,
    norm: Literal["linf", "l2", "l1"] = "linf",
    steps: int = 100,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    within: float | int | None = None,
    targets: Tensor | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return the nearest broken point found for every image, against all other classes at once.

    For each image at most ``2 * steps`` forwards and ``steps`` backwards for every wrong class (with ``targets``:
    ``steps`` backwards) in each restart, and 11 forwards; 1 forward for one that is broken from the start.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        seed: decides the random starts of the second restart and later ones, for each image apart.
        norm: in which the perturbation is small.
        steps: gradient evaluations per image, restart and class.
        restarts: how often it is tried; the first time from the image.
        alpha_max: largest share of the step that leans back to the image, from 0 to 1.
        eta: how much too far a step goes, 1 or more.
        beta: which part of its offset a broken point keeps, above 0 and below 1.
        within: a radius, as a fraction of full scale, inside of which an image counts as done, and whose half is that
            of random starts. ``None``: the smallest perturbation is looked for to the end, and random starts have half
            of 0.3 (``linf``), 1 (``l2``) or 5 (``l1``), never more than half of the best distance so far.
        targets: the classes that the images shall be taken for; ``None``: any but the true one.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Returns:
        Images of the same type in [0, 1], misclassified; the image itself where nothing was found.

    Raises:
        SpecError: an argument or the classifier's logits are not as described.
    """
    plan = _Plan(steps, restarts, alpha_max, eta, beta, within)
    plan.check("fab")
    nearest = Nearest(classifier, images, labels, norm=norm, targets=targets, mask=mask)
    for restart in range(restarts):
        rivals = None if targets is not None else nearest.rivals
        _run(classifier, nearest, plan, rivals, _start(nearest, plan, seed, restart))
    nearest.draw_in(classifier)
    return nearest.images


@pure
def fab_targeted(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,
    *,
    norm: Literal["linf", "l2", "l1"] = "linf",
    steps: int = 100,
    target_classes: int = 9,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    within: float | int | None = None,
    mask: Tensor | None = None,
    at_once: int | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return the nearest broken point found for every image, by the most likely wrong classes one after the other.

    For each image at most ``2 * steps`` forwards and ``steps`` backwards for every class and restart, and 11 forwards;
    1 forward for one that is broken from the start. When few images are left, several classes are tried at once unless
    there are restarts, whose starts depend on what was found before.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        seed: decides the random starts of the second restart and later ones, for each image apart.
        norm: in which the perturbation is small.
        steps: gradient evaluations per image, restart and class.
        target_classes: how many wrong classes are tried, those with the largest logits at the image first; all of them
            where there are fewer. Any wrong class is a success.
        restarts: how often each class is tried; the first time from the image.
        alpha_max: as in ``fab``.
        eta: as in ``fab``.
        beta: as in ``fab``.
        within: as in ``fab``.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.
        at_once: rows of a batch for the classes of few images. Of a network without chance no result depends on it.
            ``None``: as many as images.

    Returns:
        Images of the same type in [0, 1], misclassified; the image itself where nothing was found.

    Raises:
        SpecError: an argument or the classifier's logits are not as described.
    """
    plan = _Plan(steps, restarts, alpha_max, eta, beta, within)
    plan.check("fab_targeted")
    if target_classes < 1:
        raise SpecError(f"fab_targeted: expected target_classes of at least 1; got {target_classes}")
    nearest = Nearest(classifier, images, labels, norm=norm, mask=mask)
    rank, last = 0, min(target_classes, nearest.rivals.shape[1])
    while rank < last and not nearest.finished:
        many = 1 if restarts > 1 else together(len(nearest.rows), at_once or len(images), most=last - rank)
        split = nearest if many == 1 else nearest.split(many)
        for restart in range(restarts):
            lane = (rank + split.rows % many).unsqueeze(1)
            _run(classifier, split, plan, split.rivals.gather(1, lane), _start(split, plan, seed, restart, rank))
        if many > 1:
            nearest.join(split, within=within)
        rank += many
    nearest.draw_in(classifier)
    return nearest.images


class _Plan(NamedTuple):
    steps: int
    restarts: int
    alpha_max: float
    eta: float
    beta: float
    within: float | int | None

    def check(self, name: str) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise SpecError(f"{name}: expected steps and restarts of at least 1; got {self.steps} and {self.restarts}")
        if not (0 <= self.alpha_max <= 1 and self.eta >= 1 and 0 < self.beta < 1):
            raise SpecError(
                f"{name}: expected alpha_max from 0 to 1, eta of at least 1 and beta between 0 and 1; got "
                f"{self.alpha_max:g}, {self.eta:g} and {self.beta:g}"
            )
        if self.within is not None:
            check_eps(self.within)


def _start(nearest: Nearest, plan: _Plan, seed: int, restart: int, *purpose: int) -> Images:
    """Return the offset of the first point: none at first, later a random one at half the radius."""
    dtype = wide(nearest.centres.dtype)
    if restart == 0 or nearest.finished:
        return torch.zeros_like(nearest.centres, dtype=dtype)
    streams, shape = Streams.of(nearest.centres, seed), tuple(nearest.centres.shape[1:])
    if nearest.norm == "linf":
        direction = streams.uniform(shape, "start", restart, *purpose, dtype=dtype) * 2 - 1
    else:
        direction = streams.normal(shape, "start", restart, *purpose, dtype=dtype)
    radius = nearest.best().clamp_max(START[nearest.norm] if plan.within is None else plan.within) / 2
    scale = radius / length(direction, norm=nearest.norm).clamp_min(1e-12)
    return nearest.offset(nearest.at(direction * _broadcast(scale, direction)))


def _run(
    classifier: Classifier,
    nearest: Nearest,
    plan: _Plan,
    rivals: Integer[Tensor, "left classes"] | None,
    offset: Images,
) -> None:
    for _ in range(plan.steps):
        if nearest.finished:
            return
        points = nearest.at(offset)
        seen = boundary(classifier, nearest, points, rivals)
        nearest.keep(points, seen.losses)
        points = nearest.at(_step(nearest, plan, offset, seen))
        looked = nearest.look(classifier, points)
        nearest.keep(points, looked)
        offset = nearest.offset(points)
        offset = torch.where(looked.broken.view(-1, 1, 1, 1), plan.beta * offset, offset)
        if plan.within is not None and bool((nearest.best() <= plan.within).any()):
            done = nearest.best() <= plan.within
            done = done if nearest.lanes == 1 else done | outrun(nearest.rows, done, lanes=nearest.lanes)
            left = (~done).nonzero().squeeze(1)
            nearest.leave(left)
            offset, rivals = offset[left], None if rivals is None else rivals[left]


def _step(nearest: Nearest, plan: _Plan, offset: Images, seen: Boundary) -> Images:
    """Return the offset of the next point."""
    centres = nearest.centres.to(offset.dtype)
    at_image = seen.value - (seen.gradient.double() * offset).flatten(1).sum(dim=1)
    ahead = onto(centres + offset, seen.gradient, seen.value, norm=nearest.norm)
    back = onto(centres, seen.gradient, at_image, norm=nearest.norm)
    near, far = (length(each, norm=nearest.norm).clamp_min(1e-8) for each in (ahead, back))
    alpha = _broadcast((near / (near + far)).clamp_max(plan.alpha_max), offset)
    return (1 - alpha) * (offset + plan.eta * ahead) + alpha * plan.eta * back


def _broadcast(numbers: Float[Tensor, " batch"], images: Images) -> Tensor:
    return numbers.to(images.dtype).view(-1, 1, 1, 1)
