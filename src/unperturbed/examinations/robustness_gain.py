r"""How much larger a perturbation a network withstands than the network of the same seed that stands beside it.

Source: Guo et al. (2024), arXiv:2409.03646, measure the mean size of the perturbation that fools a network, with PGD in
L2 (50 steps) and Linf (40 steps) and with C&W. The formula of the gain and the eps are ours, since only the abstract is
known. With :math:`s_i` the smallest perturbation that fools a network about image i:

.. math:: \mathrm{gain} = \frac{\sum_i s_i(\text{network})}{\sum_i s_i(\text{beside})} - 1

over the images that *both* classify correctly. ``grid`` takes for :math:`s_i` the smallest eps of a grid at which PGD
fools the network about the image; one that is never fooled has the largest eps, which is less than it deserves and is
counted as censored. ``smallest`` takes the distance of the nearest adversarial image that an attack finds, which needs
no grid. Departs from the source: what broke at one eps is not attacked at the next, and the steps of PGD are as long as
``attacks.pgd`` makes them.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unperturbed.attacks import ATTACKS, pgd, sweep
from unperturbed.attacks import check_spec as check_attack
from unperturbed.examinations.contract import BATCH_SIZE, FAR, Found, Subject, measured
from unperturbed.records import Spec
from unperturbed.tensors.streams import seed_for

GRIDS = {
    "l2": (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2),
    "linf": tuple(step / 255 for step in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)),
}
STEPS = {"l2": 50, "linf": 40}
RESAMPLES = 10_000
UNDEFINED = np.full(2, np.nan)


def robustness_gain(
    subject: Subject,
    *,
    form: Literal["smallest", "grid"] = "smallest",
    norm: Literal["l2", "linf"] = "l2",
    attack: Literal["fmn", "ddn", "carlini_wagner", "fab"] = "fmn",
) -> Found:
    """Return by which share the perturbations that fool the network are larger than those that fool the one beside.

    The one beside is attacked once, whatever is compared with it: its sizes are what this examination found of it.

    Args:
        subject: what is examined, with a network beside it; without one there is no gain.
        form: of what is compared.
        norm: in which a perturbation is small; ``ddn`` has ``l2`` only, and so has ``carlini_wagner``.
        attack: what looks for the smallest, with its default settings; the grid is that of PGD.

    Returns:
        ``f0`` of the network; ``robustness_excluded``, the share of images that one of both gets wrong, which are left
        out; ``robustness_censored``, the share of the others about which one of both was never fooled;
        ``robustness_gain``, of means, left out by ``smallest`` where an image is censored; ``robustness_gain_median``,
        of medians, where neither is censored. Without a network beside: ``f0`` and, in L2, ``critical_l2``. Arrays:
        ``right`` and ``sizes`` of all images (infinite where never fooled); over the images left, ``images`` (their
        places), ``s``, ``s_beside``, and ``interval``, the 95 % percentile bootstrap of the gain over pairs of images.

    Raises:
        SpecError: the attack lacks the norm.
    """
    grid = form == "grid"
    if not grid:
        check_attack(Spec(name=attack, settings={"norm": norm}))
    chosen: dict[str, Any] = {"steps": STEPS[norm]} if grid else {}
    evidence = sweep(
        subject.watched(subject.network),
        subject.images,
        subject.labels,
        pgd if grid else ATTACKS[attack],
        eps=(0.0, *(GRIDS[norm] if grid else (FAR,))),
        seed=seed_for("robustness-gain", subject.seed),
        norm=norm,
        batch_size=BATCH_SIZE,
        **chosen,
    )
    right, sizes = evidence.correct[0], evidence.critical_eps
    values = {"f0": float(right.mean())}
    arrays: dict[str, NDArray[Any]] = {"right": right, "sizes": sizes}
    if subject.found_beside is None:
        if norm == "l2" and right.any() and np.isfinite(median := np.median(sizes[right])):
            values["critical_l2"] = float(median)
    else:
        other = subject.found_beside()
        left = np.flatnonzero(right & other["right"])
        pair = sizes[left], other["sizes"][left]
        values["robustness_excluded"] = 1 - len(left) / len(subject.images)
        gains, interval = _gains(*pair, largest=GRIDS[norm][-1] if grid else np.inf, seed=subject.seed)
        values |= gains
        arrays |= {"images": left, "s": pair[0], "s_beside": pair[1], "interval": interval}
    return Found(
        measured(values, len(subject.images)),
        arrays=arrays,
        forwards=evidence.forwards,
        backwards=evidence.backwards,
    )


def _gains(
    sizes: NDArray[np.float64], beside: NDArray[np.float64], *, largest: float, seed: int
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Return the gains that are defined, and the interval of that of the means."""
    if not len(sizes):
        return {}, UNDEFINED
    values = {"robustness_censored": float((np.isinf(sizes) | np.isinf(beside)).mean())}
    first, second = np.median(sizes), np.median(beside)
    if np.isfinite(first) and np.isfinite(second):
        values["robustness_gain_median"] = float(first / second) - 1
    pairs = np.minimum(np.stack([sizes, beside]), largest)
    if not np.isfinite(pairs).all():
        return values, UNDEFINED
    values["robustness_gain"] = float(pairs[0].mean() / pairs[1].mean()) - 1
    random = np.random.default_rng(seed_for("robustness-gain", "bootstrap", seed))
    drawn = np.array([pairs[:, row].mean(axis=1) for row in random.integers(0, len(sizes), (RESAMPLES, len(sizes)))])
    return values, np.quantile(drawn[:, 0] / drawn[:, 1] - 1, [0.025, 0.975])
