r"""Projected gradient ascent on the cross-entropy inside a ball.

Source: Madry et al. (2018), arXiv:1706.06083, section 2.1:
:math:`x^{t+1} = \Pi_{x+S}(x^t + \alpha\,\mathrm{sgn}\,\nabla_x L(x^t, y))`; for ``l2`` with
:math:`g / \lVert g \rVert_2` in place of the sign.
Departs from the source: returns the best iterate seen, the clean image and the last iterate among them, not the last
one; an image that is misclassified leaves the batch at once; the gradient of a confident network does not vanish (see
:mod:`unperturbed.attacks.classifier`).
"""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, Losses, losses, predict, slope
from unperturbed.attacks.inputs import check_eps, check_images, check_labels
from unperturbed.records import SpecError
from unperturbed.tensors.norms import check_norm, project, steepest, towards, uniform_in_ball, wide

# How far the default steps go in all, in radii. In many dimensions a random start is almost orthogonal to the gradient,
# and an l2 step of a along the edge shortens it only by eps / (eps + a): with 2.5 radii, what is left of it after 40
# steps made the attack 1 to 2 points weaker than without a random start (three networks on digits, eps = 0.5 to 1).
TRAVEL = {"linf": 2.5, "l2": 10.0}


def pgd(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    generator: torch.Generator | None = None,
    *,
    norm: str = "linf",
    eps: float | int,
    steps: int = 40,
    step_size: float | None = None,
    random_start: bool = True,
    published: bool = False,
) -> Float[Tensor, "batch channel height width"]:
    """Return the worst images found within ``eps`` of ``images``.

    An image costs at most ``steps`` backwards, and ``steps + 1`` forwards (``steps + 2`` with a random start); one that
    is misclassified costs nothing more.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: the centres of the balls, floating-point intensities in [0, 1].
        labels: the true classes, whole numbers.
        generator: source of the random start; ``None`` starts at ``images``.
        norm: ``linf`` or ``l2``.
        eps: radius of the ball, as a fraction of full scale (8/255 = 0.0314).
        steps: gradient evaluations per image.
        step_size: length of a step in ``norm``; ``None`` means ``2.5 * eps / steps`` for ``linf`` and
            ``10 * eps / steps`` for ``l2``. The edge of the ball is ``eps`` away from the image, and its far side up to
            ``2 * eps`` from a random start.
        random_start: whether the first step starts at a point drawn uniformly from the ball.
        published: accept ``steps`` and ``step_size`` that cannot reach the edge of the ball, as a source used them.

    Returns:
        Images of the same type in [0, 1], each within ``eps`` of its centre; a misclassified one where one was seen,
        else the one with the largest loss, never smaller than that of the centre.

    Raises:
        SpecError: images, labels, settings or the classifier's logits are not as described, or
            ``steps * step_size < eps``.
    """
    check_images(images)
    check_labels(labels, len(images))
    check_norm(norm)
    check_eps(eps)
    step_size = _step_size(norm, eps, steps, step_size, published)
    best = _Best(images, labels)
    if generator is not None and random_start:
        best.see(images, losses(predict(classifier, images, labels), labels))
        offset = _into_box(best.centres, uniform_in_ball(best.centres, generator, norm=norm, eps=eps))
    else:
        offset = torch.zeros_like(best.centres, dtype=wide(images.dtype))
    for _ in range(steps):
        if best.finished:
            break
        seen = slope(classifier, _at(best.centres, offset), best.labels)
        left = best.see(seen.images.detach(), seen.losses)
        if best.finished:
            break
        offset = offset[left] + step_size * steepest(seen.gradient()[left], norm=norm)
        offset = _into_box(best.centres, project(offset, norm=norm, eps=eps))
    if not best.finished:
        last = _at(best.centres, offset)
        best.see(last, losses(predict(classifier, last, best.labels), best.labels))
    return best.images


class _Best:
    """The best iterate of every image, and the images that are still to be broken."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images.clone().clamp_(0, 1)
        self.centres = images
        self.labels = labels
        self._rows = torch.arange(len(images), device=images.device)
        self._margin = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)

    @property
    def finished(self) -> bool:
        return len(self._rows) == 0

    def see(self, points: Tensor, seen: Losses) -> Bool[Tensor, " batch"]:
        """Keep the points that beat what was seen before; return which images are still to be broken."""
        better = seen.wrong | (seen.margin > self._margin)
        self.images[self._rows[better]] = points[better]
        left = ~seen.wrong
        self._margin = torch.maximum(self._margin, seen.margin.double())[left]
        self._rows, self.centres, self.labels = self._rows[left], self.centres[left], self.labels[left]
        return left


def _at(centres: Tensor, offset: Tensor) -> Tensor:
    return towards(centres, (centres.to(offset.dtype) + offset).clamp(0, 1))


def _into_box(centres: Tensor, offset: Tensor) -> Tensor:
    centres = centres.to(offset.dtype)
    return (centres + offset).clamp(0, 1) - centres


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
