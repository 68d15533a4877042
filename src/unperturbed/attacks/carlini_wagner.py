r"""Carlini and Wagner's attack: the smallest Euclidean perturbation, by Adam on distance plus margin and a search of c.

Source: Carlini & Wagner (2017), arXiv:1608.04644, section V-A, and the authors' ``l2_attack.py``: over :math:`w`, with
:math:`x'` in the box whatever :math:`w` is, minimise

.. math:: \lVert x' - x \rVert_2^2 + c \max(0, z_y(x') - \max_{i \ne y} z_i(x') + \kappa),

and search the smallest :math:`c` that succeeds: halved towards the largest that failed, ten times larger while none
has succeeded. Parameters as published: 9 searches, 10,000 steps, step size 0.01, :math:`c = 10^{-3}` at first; Adam
anew in every search; every tenth of the steps a search ends where its loss is not below 0.9999 of what it was.
Departs from the source, always for each image apart and never for the batch: :math:`x' = (1 + \sin w) / 2` in place of
the hyperbolic tangent, in which an intensity of exactly 0 or 1 moves at once and not after 450 steps; a search that has
a broken point starts at the nearest one, and none of its steps is longer than a tenth of that distance (the published
step may be as long as the whole perturbation); without confidence the nearest point is drawn to its image along the
straight line at the end. With ``initial_const=None`` the first c is that at which the linearised problem has its
solution, times 3, and an image leaves when two searches in turn have brought it less than a thousandth nearer.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, slope
from unperturbed.attacks.contract import pure
from unperturbed.attacks.nearest import Nearest
from unperturbed.records import SpecError
from unperturbed.tensors.norms import length, wide

EDGE = 1e-3  # how far from the turning point of the sine a saturated intensity starts, where its slope is not 0
LARGEST = 1e10
STALLED = 0.9999
GAIN = 1e-3
AHEAD = 3.0
STRIDE = 0.1


@pure
def carlini_wagner(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    seed: int = 0,  # noqa: ARG001 (every attack takes one)
    *,
    norm: Literal["l2"] = "l2",
    binary_search_steps: int = 9,
    steps: int = 10_000,
    step_size: float = 0.01,
    initial_const: float | None = 1e-3,
    confidence: float = 0.0,
    abort_early: bool = True,
    targets: Tensor | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Return the nearest broken point found for every image.

    At most ``binary_search_steps * steps`` forwards and backwards for each image and 11 forwards more, far fewer as a
    rule; 1 forward for one that is broken from the start.

    Args:
        classifier: images in [0, 1] to logits; not modified, not switched to another mode.
        images: floating-point intensities in [0, 1].
        labels: the true classes.
        seed: not used; nothing here is random.
        norm: in which the perturbation is small.
        binary_search_steps: values of c that are tried.
        steps: gradient evaluations for each of them, at most.
        step_size: of Adam, in radians.
        initial_const: the first c; ``None``: told by the gradient at the image, for each image apart.
        confidence: by how much another logit shall exceed the true one.
        abort_early: whether a search ends where its loss stalls.
        targets: the classes that the images shall be taken for; ``None``: any but the true one.
        mask: 1 where an intensity may change, else 0; broadcast to the images; ``None``: everywhere.

    Returns:
        Images of the same type in [0, 1], misclassified; the image itself where nothing was found.

    Raises:
        SpecError: an argument or the classifier's logits are not as described.
    """
    if min(binary_search_steps, steps) < 1 or not step_size > 0 or confidence < 0:
        raise SpecError(
            "carlini_wagner: expected binary_search_steps and steps of at least 1, step_size above 0 and confidence of "
            f"at least 0; got {binary_search_steps}, {steps}, {step_size:g} and {confidence:g}"
        )
    if initial_const is not None and not initial_const > 0:
        raise SpecError(f"carlini_wagner: expected initial_const above 0, or None; got {initial_const:g}")
    nearest = Nearest(classifier, images, labels, norm=norm, targets=targets, mask=mask)
    search = _Search(classifier, nearest, initial_const, confidence=confidence, step_size=step_size)
    idle = torch.zeros_like(nearest.rows)
    for _ in range(binary_search_steps):
        before = nearest.best()
        search.run((idle < 2).nonzero().squeeze(1), steps, abort_early=abort_early)
        if initial_const is None:
            improved = nearest.best() < before * (1 - GAIN)
            idle = torch.where(improved | nearest.best().isinf(), 0, idle + 1)
    if confidence == 0 and not nearest.finished:
        nearest.draw_in(classifier)
    return nearest.images


class _Search:
    """The constants and variables of the images left."""

    def __init__(
        self,
        classifier: Classifier,
        nearest: Nearest,
        initial_const: float | None,
        *,
        confidence: float,
        step_size: float,
    ) -> None:
        self.classifier = classifier
        self.nearest = nearest
        self.confidence = confidence
        self.step_size = step_size
        precise = wide(nearest.images.dtype)
        angle = torch.asin((2 * nearest.centres.to(precise) - 1).clamp(-1, 1))
        self.start = angle.clamp(-math.pi / 2 + EDGE, math.pi / 2 - EDGE)
        count = len(nearest.rows)
        self.low = torch.zeros(count, dtype=torch.float64, device=angle.device)
        self.high = torch.full_like(self.low, LARGEST)
        self.c = torch.full_like(self.low, 1.0 if initial_const is None else initial_const)
        if initial_const is None and count:
            seen = slope(classifier, nearest.centres, nearest.labels, loss="margin", targets=nearest.targets)
            steep = length(nearest.gradient(seen.gradient()), norm="l2").clamp_min(1e-30)
            self.c = (AHEAD * 2 * seen.losses.value.double().abs() / steep.square()).clamp(1e-20, LARGEST)

    def run(self, active: Tensor, steps: int, *, abort_early: bool) -> None:
        """Try the present c of the ``active`` images, then choose the next."""
        tried = active
        found = torch.zeros(len(self.c), dtype=torch.bool, device=self.c.device)
        every = math.ceil(steps / 10) if abort_early else steps + 1
        angle = self.start[active]
        adam = _Adam(angle, self._sizes(active).to(angle.dtype).view(-1, 1, 1, 1))
        before = torch.full_like(self.c[active], torch.inf)
        for step in range(steps if len(active) else 0):
            gradient, loss, broken = self._look(active, angle)
            found[active[broken]] = True
            if step % every == 0:
                left = (loss <= STALLED * before).nonzero().squeeze(1)
                if len(left) < len(active):
                    active, angle, gradient, loss = active[left], angle[left], gradient[left], loss[left]
                    adam.leave(left)
                before = loss
                if len(active) == 0:
                    break
            angle = adam.step(angle, gradient)
        c, low, high, broken = self.c[tried], self.low[tried], self.high[tried], found[tried]
        self.high[tried] = high = torch.where(broken, torch.minimum(high, c), high)
        self.low[tried] = low = torch.where(broken, low, torch.maximum(low, c))
        self.c[tried] = torch.where(high < LARGEST, (low + high) / 2, (c * 10).clamp_max(LARGEST))

    def _sizes(self, active: Tensor) -> Tensor:
        """Return the step size of each image: no step is longer than a tenth of the nearest distance found so far."""
        intensities = self.start.shape[1:].numel()  # each moves by at most half the step size, in radians
        longest = 2 * STRIDE * self.nearest.distance[self.nearest.rows[active]] / math.sqrt(intensities)
        return longest.clamp_max(self.step_size)

    def _look(self, active: Tensor, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return gradient and loss of the active images, and which are broken; keep those nearer than before."""
        nearest = self.nearest
        centres = nearest.centres[active]
        points = ((angle.sin() + 1) / 2).to(centres.dtype)
        mask = None if nearest.mask is None else nearest.mask[active]
        points = points if mask is None else torch.where(mask == 1, points, centres)
        targets = None if nearest.targets is None else nearest.targets[active]
        seen = slope(self.classifier, points, nearest.labels[active], loss="margin", targets=targets)
        lacking = (self.confidence - seen.losses.value.double()).clamp_min(0)
        broken = seen.losses.broken & (seen.losses.value >= self.confidence)
        change = points.to(angle.dtype) - centres.to(angle.dtype)
        square = change.flatten(1).double().square().sum(dim=1)
        rows = nearest.rows[active]
        better = broken & (square.sqrt() < nearest.distance[rows])
        nearest.images[rows[better]] = points[better]
        nearest.distance[rows[better]] = square.sqrt()[better]
        self.start[active[better]] = angle[better]
        weight = (self.c[active] * (lacking > 0)).to(angle.dtype).view(-1, 1, 1, 1)
        rise = seen.gradient()
        rise = rise if mask is None else rise * mask
        gradient = (2 * change - weight * rise) * angle.cos() / 2
        return gradient, square + self.c[active] * lacking, broken


class _Adam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) with a state for every image."""

    def __init__(self, angle: Tensor, step_size: Tensor) -> None:
        self.mean, self.square = torch.zeros_like(angle), torch.zeros_like(angle)
        self.step_size = step_size
        self.count = 0

    def leave(self, left: Tensor) -> None:
        """Let all images go but these."""
        self.mean, self.square, self.step_size = self.mean[left], self.square[left], self.step_size[left]

    def step(self, angle: Tensor, gradient: Tensor) -> Tensor:
        """Return the angles one step down the gradient."""
        self.count += 1
        self.mean.mul_(0.9).add_(gradient, alpha=0.1)
        self.square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        size = self.step_size / (1 - 0.9**self.count)
        spread = (self.square / (1 - 0.999**self.count)).sqrt_().add_(1e-12)
        return angle - size * self.mean / spread
