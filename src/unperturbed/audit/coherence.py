r"""Coherence: do single draws of a random classifier's gradient point the same way?

Source: the check E1 of randomised networks, after Athalye, Carlini & Wagner (2018), arXiv:1802.00420, section 4.2. From
:math:`n` gradients :math:`g_i` of the margin :math:`\max_{j \ne y} z_j - z_y` at the same image: the mean cosine of all
pairs, and :math:`|\frac1n \sum_i \mathrm{sgn}\, g_i|`, averaged over intensities. Signs thrown by a coin give

.. math:: c_n = \binom{n}{\lceil n/2 \rceil} \frac{\lceil n/2 \rceil}{n} \, 2^{1-n}, \qquad c_{20} = 0.1762.

At chance no affordable average over draws helps: the attack needs another gradient.
Departs from the source: an intensity whose gradient is 0 in some draws is compared with the chance of the others.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from unperturbed.attacks.classifier import Classifier
from unperturbed.tensors.streams import undisturbed


@dataclass(frozen=True)
class Coherence:
    """How well the gradients of single draws agree."""

    cosine: float  # mean over pairs of draws, -1 to 1; 0 where there is no gradient
    sign_agreement: float  # mean |mean sign|, 0 to 1
    chance: float  # what coins give
    standard_error: float  # of the sign agreement, over images
    zero_fraction: float  # gradients of an image that are 0 everywhere, 0 to 1
    deterministic: bool  # all draws gave the same logits and the same gradients

    @property
    def coherent(self) -> bool:
        """Whether the signs agree by more than three standard errors above chance."""
        return self.deterministic or self.sign_agreement > self.chance + 3 * self.standard_error


def chance_agreement(draws: int) -> float:
    """Return the expected size of the mean of ``draws`` fair signs.

    >>> round(chance_agreement(20), 4)
    0.1762
    """
    half = (draws + 1) // 2
    return math.comb(draws, half) * half / draws * 2.0 ** (1 - draws)


def margin_gradient(
    classifier: Classifier, images: Float[Tensor, "batch channel height width"], labels: Integer[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch channel height width"]]:
    """Return logits, and the gradient of largest other logit minus true one; 0 where there is no path or no number."""
    leaves = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = classifier(leaves)
        true = labels.long().unsqueeze(1)
        margins = logits.scatter(1, true, -torch.inf).amax(dim=1) - logits.gather(1, true).squeeze(1)
        if not margins.requires_grad:
            return logits.detach(), torch.zeros_like(images)
        gradient = torch.autograd.grad(margins.sum(), leaves, allow_unused=True, materialize_grads=True)[0]
    return logits.detach(), gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def coherence(
    classifier: Classifier,
    images: Float[Tensor, "batch channel height width"],
    labels: Integer[Tensor, " batch"],
    *,
    draws: int = 20,
    seed: int = 0,
) -> Coherence:
    """Return how well the gradients of ``draws`` forward passes agree.

    Two passes are enough for a classifier that gives the same twice and draws no global random number.

    Args:
        classifier: images in [0, 1] to logits; random or not.
        images: where.
        labels: the true classes.
        draws: gradients of every image.
        seed: of the global random numbers during the draws; they are put back afterwards.
    """
    return measure(classifier, images, labels, draws=draws, seed=seed)[0]


def measure(
    classifier: Classifier,
    images: Float[Tensor, "batch channel height width"],
    labels: Integer[Tensor, " batch"],
    *,
    draws: int = 20,
    seed: int = 0,
) -> tuple[Coherence, Float[Tensor, "batch channel height width"]]:
    """Return the coherence, and the mean of the draws' gradients, each of unit length."""
    total = torch.zeros_like(images, dtype=torch.float64)
    signs, present = torch.zeros_like(total), torch.zeros_like(total)
    alive = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    done, constant = 0, True
    first: tuple[Tensor, Tensor] | None = None
    with undisturbed("coherence", seed, device=images.device):
        before = _states(images.device)
        while done < draws:
            drawn = margin_gradient(classifier, images, labels)
            done += 1
            # To round-off: some kernels add in another order every time.
            constant = constant and (first is None or all(map(_same, drawn, first)))
            first = first or drawn
            gradient = drawn[1].to(torch.float64)
            length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            total += torch.where(length > 0, gradient / length.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
            signs += gradient.sign()
            present += gradient != 0
            alive += length.flatten() > 0
            if done >= 2 and constant and before == _states(images.device):
                break
    cosine = _mean_cosine(total, alive)
    agreement, chance, error = _agreement(signs, present, draws=done)
    if constant and done < draws:
        cosine, agreement, chance = float((alive > 0).any()), float((alive > 0).any()), chance_agreement(draws)
    zero = 1 - float(alive.sum()) / (done * len(images))
    return Coherence(cosine, agreement, chance, error, zero, constant), (total / done).to(images.dtype)


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(torch.equal(a, b)) or bool((a - b).abs().max() <= 1e-5 * b.abs().max())


def _states(device: torch.device) -> list[bytes]:
    """Return the states of the global generators, to see whether anything was drawn."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (the global state is what is looked at)
    states = [torch.get_rng_state().numpy().tobytes(), repr(random.getstate()).encode(), repr((name, rest)).encode()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device).numpy().tobytes())
    return [*states, np.asarray(keys).tobytes()]


def _mean_cosine(total: Tensor, alive: Tensor) -> float:
    """Return the mean cosine of pairs from the sum of the unit vectors: |sum|^2 = n + twice the sum over pairs."""
    pairs = alive * (alive - 1)
    squared = total.flatten(1).square().sum(dim=1)
    usable = pairs > 0
    return float(((squared - alive) / pairs)[usable].mean()) if bool(usable.any()) else 0.0


def _agreement(signs: Tensor, present: Tensor, *, draws: int) -> tuple[float, float, float]:
    """Return the agreement, its value by chance, and its standard error over images."""
    table = torch.tensor([0.0, *map(chance_agreement, range(1, draws + 1))], dtype=torch.float64, device=signs.device)
    counted = (present > 0).flatten(1)
    each = (signs.abs() / present.clamp_min(1)).flatten(1)
    by_chance = table[present.long()].flatten(1)
    rows = counted.any(dim=1)
    if not bool(rows.any()):
        return 0.0, chance_agreement(draws), 0.0
    per_image, number = (each.sum(dim=1) / counted.sum(dim=1).clamp_min(1))[rows], int(rows.sum())
    chance = float((by_chance.sum(dim=1) / counted.sum(dim=1).clamp_min(1))[rows].mean())
    if number > 1:
        error = float(per_image.std()) / math.sqrt(number)
    else:  # one image: its intensities as if they were independent
        error = math.sqrt(max(1 / draws - chance**2, 0.0) / int(counted.sum()))
    return float(per_image.mean()), chance, error
