r"""Projected gradient ascent on a loss inside a ball.

Source: Madry et al. (2018), arXiv:1706.06083, section 2.1:
:math:`x^{t+1} = \Pi_{x+S}(x^t + \alpha\,\mathrm{sgn}\,\nabla_x L(x^t, y))`; for ``l2`` with
:math:`g / \lVert g \rVert_2` in place of the sign. Averaged gradients of random classifiers: Athalye, Carlini & Wagner
(2018), arXiv:1802.00420, section 4.1.2 (EOT).
Departs from the source: returns the best iterate seen, the clean image and the last iterate among them, not the last
one; an image that is misclassified leaves the batch at once; the gradient of a confident network does not vanish (see
:mod:`unperturbed.attacks.objectives`).
"""

from typing import Literal

from jaxtyping import Float, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier
from unperturbed.attacks.contract import pure
from unperturbed.attacks.objectives import Loss
from unperturbed.attacks.problem import Problem
from unperturbed.records import SpecError
from unperturbed.tensors.norms import project, steepest, uniform_in_ball

# How far the default steps go in all, in radii. In many dimensions a random start is almost orthogonal to the gradient,
# and an l2 step of a along the edge shortens it only by eps / (eps + a): with 2.5 radii, what is left of it after 40
# steps made the attack 1 to 2 points weaker than without a random start (three networks on digits, eps = 0.5 to 1).
TRAVEL = {"linf": 2.5, "l2": 10.0}


@pure
def pgd(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,
    *,
    norm: Literal["linf", "l2"] = "linf",
    eps: float | int,
    steps: int = 40,
    step_size: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    loss: Loss = "ce",
    eot: int = 1,
    persist: bool = False,
    shrinking: bool = False,
    published: bool = False,
    targets: Tensor | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return the worst images found within ``eps`` of ``images``.

    An image costs at most ``steps`` backwards and ``steps + 1`` forwards for every restart, and one forward more with a
    random start, all of them ``eot`` times; one that is broken costs nothing more.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: the centres of the balls, floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        seed: decides the random starts, for each image apart.
        norm: of the ball.
        eps: radius of the ball, as a fraction of full scale (8/255 = 0.0314).
        steps: gradient evaluations per image and restart.
        step_size: length of a step in ``norm``; ``None`` means ``2.5 * eps / steps`` for ``linf`` and
            ``10 * eps / steps`` for ``l2``. The edge of the ball is ``eps`` away from the image, and its far side up to
            ``2 * eps`` from a random start.
        random_start: whether the first step starts at a point drawn uniformly from the ball.
        restarts: how often it is tried, each time from another random start.
        loss: what is climbed, see :mod:`unperturbed.attacks.objectives`.
        eot: draws of a random classifier at every step; gradients, losses and logits are means over them.
        persist: go on with an image that is broken, to the largest loss: a random classifier may have been wrong by
            luck.
        shrinking: steps fall evenly from twice their length to 0, so that the last ones average over the draws of a
            random classifier.
        published: accept ``steps`` and ``step_size`` that cannot reach the edge of the ball, as a source used them.
        targets: the classes that the images shall be taken for; ``None``: any but the true one.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Returns:
        Images of the same type in [0, 1], each within ``eps`` of its centre; a misclassified one where one was seen,
        else the one with the largest loss, never smaller than that of the centre.

    Raises:
        SpecError: images, labels, settings or the classifier's logits are not as described, or
            ``steps * step_size < eps``.
    """
    step_size = _step_size(norm, eps, steps, step_size, published)
    if restarts < 1 or eot < 1:
        raise SpecError(f"pgd: expected restarts and eot of at least 1; got {restarts} and {eot}")
    if restarts > 1 and not random_start:
        raise SpecError(f"pgd: {restarts} restarts without a random start are all the same; set random_start")
    problem = Problem(
        classifier, images, labels, seed=seed, loss=loss, targets=targets, mask=mask, eot=eot, persist=persist
    )
    if random_start:
        problem.keep(images, problem.look(images))
    for restart in range(restarts):
        if problem.finished:
            break
        offset = problem.nowhere()
        if random_start:
            start = uniform_in_ball(problem.centres, problem.streams, "start", restart, norm=norm, eps=eps)
            offset = problem.in_box(problem.allowed(start))
        _climb(problem, offset, norm=norm, eps=eps, steps=steps, step_size=step_size, shrinking=shrinking)
    return problem.images


def _climb(
    problem: Problem,
    offset: Tensor,
    *,
    norm: str,
    eps: float | int,
    steps: int,
    step_size: float,
    shrinking: bool,
) -> None:
    for step in range(steps):
        seen = problem.slope(problem.at(offset))
        left = problem.keep(seen.images.detach(), seen.losses)
        if problem.finished:
            return
        offset = offset if left is None else offset[left]
        size = 2 * step_size * (1 - step / steps) if shrinking else step_size
        offset = offset + size * steepest(problem.gradient(seen, left), norm=norm)
        offset = problem.in_box(project(offset, norm=norm, eps=eps))
    last = problem.at(offset)
    problem.keep(last, problem.look(last))


def _step_size(norm: str, eps: float | int, steps: int, step_size: float | None, published: bool) -> float:
    if steps < 1:
        raise SpecError(f"pgd: expected steps of at least 1; got {steps}")
    if step_size is None:
        return TRAVEL[norm] * eps / steps
    if not step_size > 0:
        raise SpecError(f"pgd: expected step_size above 0; got {step_size:g}")
    travel = steps * step_size
    # 100 steps of 0.003 are meant to reach 0.3, whatever their sum is in binary.
    if travel < eps * (1 - 1e-9) and not published:
        raise SpecError(
            f"pgd: {steps} steps of {step_size:g} move at most {travel:g}, less than eps={eps:g}; "
            "give more or larger steps, or mark it published=True"
        )
    return step_size
