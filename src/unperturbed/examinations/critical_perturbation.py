r"""The smallest perturbation that changes the answer about an image that was classified correctly.

Source: Holzhausen et al. (2024), arXiv:2405.00679, and its code: for each of 400 log-spaced :math:`\epsilon` an attack
is made on the image that has been divided by its own norm already; the *critical perturbation* is the :math:`L^2` norm
of what was added at the first :math:`\epsilon` that changes the answer. Noise is :math:`\epsilon\,\mathcal N(0, 1)`,
FGSM one step along the sign of the gradient of the cross-entropy, PGD 20 steps of 0.01 (of a tenth of a smaller
:math:`\epsilon`) from the image itself, cut to [0, 1] once at the end.

Departs from the source: the grid of the noise ends at 2.5, where the code took the exponent of ten for a natural
logarithm and ended at 8.2; the sign of a gradient that is 0 is 0.

That protocol lets a perturbation change the length of the vector, which no image can do, and takes the gradient of a
loss that is flat where the network is sure. :func:`critical_perturbation` asks the same of the image, in intensities,
through the normalisation, with an attack that looks for the smallest perturbation, or along the gradient (FGSM) or
along random directions.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor, nn

from unperturbed.attacks import ATTACKS, Passes, sweep
from unperturbed.examinations.contract import BATCH_SIZE, FAR, Found, Subject, measured
from unperturbed.mechanisms.installing import hidden_layered
from unperturbed.records import SpecError
from unperturbed.tensors.streams import Streams, generator, seed_for, undisturbed

LARGEST = {"noise": 2.5, "fgsm": 10**-1.5, "pgd": 10**-1.5}
SMALLEST = 1e-6
STEPS = 20
STEP_SIZE = 1e-2
LENGTHS = tuple(np.geomspace(0.01, 100.0, 121).tolist())  # L2, in intensities, each 8 % longer than the one before
RAYS = 20


def critical_perturbation(subject: Subject, *, attack: Literal["fmn", "ddn", "fgsm", "noise"] = "fmn") -> Found:
    """Return the median L2 distance, in intensities, to the nearest image found that is classified otherwise.

    Args:
        subject: what is examined.
        attack: what looks for it. ``fmn`` and ``ddn`` have their default settings; ``fgsm`` tries the lengths 0.01 to
            100 along the gradient at the image, each 8 % longer than the one before, ``noise`` from 0.1 on, each 17 %
            longer, along 20 random directions, and the first one that changes the answer counts.

    Returns:
        ``f0`` and ``critical_l2``, the median over the images that are classified correctly, where half of them were
        broken; the array ``critical_l2`` has every image: 0 where it was wrong from the start, infinity where nothing
        was found.
    """
    if attack == "noise":
        return _along_rays(subject)
    evidence = sweep(
        subject.network,
        subject.images,
        subject.labels,
        ATTACKS[attack],
        eps=(0.0, *(LENGTHS if attack == "fgsm" else (FAR,))),
        seed=seed_for("critical-perturbation", attack, subject.seed),
        batch_size=BATCH_SIZE,
        keep=0,
        progress=subject.look,
        norm="l2",
        inherit=True,  # what broke is not attacked again
    )
    return _nearest(evidence.correct[0], evidence.critical_eps, evidence.forwards, evidence.backwards)


def _nearest(right: NDArray[np.bool_], distances: NDArray[np.float64], forwards: int, backwards: int) -> Found:
    values = {"f0": float(right.mean())} | _median("critical_l2", distances[right])
    return Found(
        measured(values, len(right)),
        arrays={"critical_l2": distances, "right": right},
        forwards=forwards,
        backwards=backwards,
    )


def _along_rays(subject: Subject) -> Found:
    """Look along random directions, the same ones at every length; a random network answers in one draw."""
    passes, images, labels = Passes(subject.network), subject.images, subject.labels
    streams = Streams.of(images, seed_for("critical-perturbation", "noise", subject.seed))
    drawn = torch.stack([streams.normal(tuple(images.shape[1:]), "ray", ray) for ray in range(RAYS)], dim=1)
    rays = drawn / drawn.flatten(2).norm(dim=2)[..., None, None, None]

    def answers(points: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for batch in points.split(BATCH_SIZE):
            subject.look()
            parts.append(passes(batch).argmax(dim=1))
        return torch.cat(parts)

    with undisturbed("critical-perturbation", subject.seed, device=images.device), torch.no_grad():
        right = answers(images) == labels
        distances = torch.where(right, torch.inf, 0.0).double()
        for length in LENGTHS[30::2]:
            left = distances.isinf().nonzero().squeeze(1)
            if not len(left):
                break
            points = (images[left, None] + length * rays[left]).clamp(0, 1)
            wrong = answers(points.flatten(0, 1)).view(len(left), RAYS) != labels[left, None]
            rows, columns = wrong.nonzero(as_tuple=True)
            moved = (points[rows, columns] - images[left[rows]]).flatten(1).double().norm(dim=1)
            distances.scatter_reduce_(0, left[rows], moved, "amin")
    return _nearest(right.cpu().numpy(), distances.cpu().numpy(), passes.forwards, 0)


def published_perturbation(
    subject: Subject, *, attack: Literal["noise", "fgsm", "pgd"] = "fgsm", grid: int = 400
) -> Found:
    """Return the median critical perturbation as published: of the vector behind the normalisation.

    Args:
        subject: what is examined; the model ``hidden-layer``.
        attack: see above.
        grid: how many eps, log-spaced.

    Returns:
        ``f0`` and ``critical_l2_published``, in units of the normalised vector, where half of the correct images were
        broken. Arrays: ``eps``, ``relative_accuracy`` (the share of the correct images that are still correct at each),
        and for every image ``critical_eps`` and ``critical_l2``, 0 where it was wrong from the start and infinity where
        it was never broken.

    Raises:
        SpecError: another model, or a grid of fewer than 2.
    """
    if grid < 2:
        raise SpecError(f"published-perturbation: expected a grid of at least 2 eps; got {grid}")
    network = hidden_layered(subject.network, "published-perturbation")
    behind = Passes(nn.Sequential(network.hidden, network.activation, network.readout))
    eps = np.geomspace(SMALLEST, LARGEST[attack], grid)
    with torch.no_grad():
        vectors = torch.cat([network.inputs(batch) for batch in subject.images.split(BATCH_SIZE)])
        right = torch.cat([behind(batch) for batch in vectors.split(BATCH_SIZE)]).argmax(dim=1) == subject.labels
    places = right.nonzero().flatten()
    critical_eps = torch.where(right, torch.inf, 0.0).double()
    critical_l2 = critical_eps.clone()
    perturb = _perturb(attack, behind, vectors, subject)
    for radius in eps:
        subject.look()
        if not len(places):
            break
        added = perturb(float(radius), places)
        with torch.no_grad():
            broken = behind(vectors[places] + added).argmax(dim=1) != subject.labels[places]
        critical_eps[places[broken]] = float(radius)
        critical_l2[places[broken]] = added[broken].norm(dim=1).double()
        places = places[~broken]
    reached, chosen = critical_eps.cpu().numpy(), right.cpu().numpy()
    distances = critical_l2.cpu().numpy()
    values = {"f0": float(chosen.mean())} | _median("critical_l2_published", distances[chosen])
    still = (reached[chosen][None, :] > eps[:, None]).mean(axis=1) if chosen.any() else np.full(grid, np.nan)
    return Found(
        measured(values, len(chosen)),
        arrays={
            "eps": eps,
            "relative_accuracy": still,
            "critical_eps": reached,
            "critical_l2": distances,
            "right": chosen,
        },
        forwards=behind.forwards,
        backwards=behind.backwards,
    )


def _median(name: str, distances: NDArray[np.float64]) -> dict[str, float]:
    """Return the median where it is a number: an examination has no infinite measures."""
    middle = float(np.median(distances)) if len(distances) else np.inf
    return {name: middle} if np.isfinite(middle) else {}


def _perturb(attack: str, behind: Passes, vectors: Tensor, subject: Subject) -> Callable[[float, Tensor], Tensor]:
    """Return a function from eps and the places of the images still correct to what is added to them."""
    if attack == "noise":
        stream = generator("critical-perturbation", "noise", subject.seed)
        return lambda eps, places: eps * torch.randn(len(places), vectors.shape[1], generator=stream).to(vectors)
    if attack == "fgsm":
        signs = _signs(behind, vectors, subject.labels)
        return lambda eps, places: eps * signs[places]

    def descend(eps: float, places: Tensor) -> Tensor:
        centres, labels = vectors[places], subject.labels[places]
        points = centres
        for _ in range(STEPS):
            subject.look()
            step = STEP_SIZE if eps >= STEP_SIZE else 0.1 * eps
            points = centres + (points + step * _signs(behind, points, labels) - centres).clamp(-eps, eps)
        return points.clamp(0, 1) - centres

    return descend


def _signs(behind: Passes, vectors: Tensor, labels: Tensor) -> Tensor:
    """Return the sign of the gradient of every cross-entropy."""
    parts: list[Tensor] = []
    for points, own in zip(vectors.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True):
        leaves = points.detach().requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(behind(leaves), own, reduction="sum")
            parts.append(torch.autograd.grad(loss, leaves)[0].sign())
    return torch.cat(parts)
