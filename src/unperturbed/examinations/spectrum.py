"""The eigenspectrum of what a layer says of the images, and its exponent; see :mod:`unperturbed.measures.spectra`.

Source: Holzhausen et al. (2024), arXiv:2405.00679: pre-activations of the hidden layer on 10,000 test images, ranks 11
to 500, or on as many images of white noise, ranks 11 to 100. Units that are never active count in the published spectra
although nothing behind them sees them; here the exponent without them stands beside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unperturbed.attacks import Passes
from unperturbed.examinations.contract import BATCH_SIZE, Found, Subject, measured
from unperturbed.measures.activity import activity
from unperturbed.measures.spectra import (
    FEWEST,
    PowerLaw,
    Spectrum,
    check_range,
    cross_validated_spectrum,
    effective_rank,
    eigenspectrum,
    held_out_spectrum,
    marchenko_pastur_edges,
    marchenko_pastur_spectrum,
    participation_ratio,
    positive_ranks,
    power_law,
    power_laws,
)
from unperturbed.mechanisms.installing import weighted
from unperturbed.models import HiddenLayerNet
from unperturbed.records import SpecError
from unperturbed.registry import lookup
from unperturbed.tensors.streams import generator, undisturbed

INPUT = "input"  # the images as they enter, instead of a layer


def spectrum(
    subject: Subject, *, layer: str | None = None, noise: bool = False, first: int = 11, last: int = 500
) -> Found:
    """Return how the variance of a layer's pre-activations is spread, and the exponent with which it falls.

    One forward for each image, of a random network two. The range of a fit ends earlier where samples, units or
    eigenvalues above 0 do; where fewer than three ranks are left, an exponent is left out.

    Args:
        subject: what is examined.
        layer: its name in the network; ``None``: the last convolution or full layer before the readout, in the order of
            the network's parts, which puts a shortcut behind the convolutions of its block; ``input``: the images, as
            the part ``inputs`` of a network passes them on if it has one.
        noise: whether white noise, standard normal and so mostly outside [0, 1], is looked at instead of the images.
        first: rank at which the fit begins, from 1.
        last: rank at which it ends.

    Returns:
        ``spectrum_alpha`` and ``spectrum_alpha_weighted`` with ``spectrum_r2`` of the first, the least and the greatest
        exponent over other ranges, ``participation_ratio``, ``effective_rank``, the share of ``dead_units``, which are
        never above 0, and the exponent without them. Of a random network ``spectrum_alpha_draws``, cross-validated
        with two draws as repeats. Two draws of any other are equal, so it has ``spectrum_alpha_halves``: the variance
        of every second image along the principal components of the others. The arrays have the spectra, the ranges
        that were used (0 to 0 if none), and the edges and the exponent of white data of as many samples and units.
        Where the activations are constant, as those of a network that collapsed, ``dead_units`` is all.

    Raises:
        SpecError: a range or a layer that there is not, or activations that are not finite.
    """
    check_range(first, last)
    passes = Passes(subject.network)
    images = _white(subject) if noise else subject.images
    seen = representation(subject, passes, images, layer=layer)
    alive = np.asarray((seen > 0).any(axis=0))
    found = {"dead_units": 1 - float(alive.mean())}
    if not _vary(seen):
        return Found(measured(found, len(seen)), arrays={"alive": alive}, forwards=passes.forwards)
    spectra = {"": eigenspectrum(seen)}
    subject.look()
    if _vary(seen[:, alive]):
        spectra["_alive"] = spectra[""] if alive.all() else eigenspectrum(seen[:, alive])
    subject.look()
    if subject.random and layer != INPUT:
        spectra["_draws"] = cross_validated_spectrum(seen, representation(subject, passes, images, layer=layer, draw=1))
    elif len(seen) >= 4 and _vary(seen[::2]) and _vary(seen[1::2]):
        spectra["_halves"] = held_out_spectrum(seen[::2], seen[1::2])

    laws = {name: _law(values, first, last) for name, values in spectra.items()}
    found["participation_ratio"] = participation_ratio(spectra[""])
    found["effective_rank"] = effective_rank(spectra[""])
    found |= {f"spectrum_alpha{name}": law.alpha for name, law in laws.items() if law is not None}
    arrays: dict[str, NDArray[Any]] = {f"eigenvalues{name}": values for name, values in spectra.items()}
    arrays |= {f"range{name}": np.array((0, 0) if law is None else (law.first, law.last)) for name, law in laws.items()}
    arrays["alive"] = alive
    arrays["white_edges"] = np.array(marchenko_pastur_edges(*seen.shape)) * spectra[""].sum() / seen.shape[1]
    if (plain := laws[""]) is not None:
        start, end, white = plain.first, plain.last, marchenko_pastur_spectrum(*seen.shape)
        found["spectrum_r2"] = plain.r2
        found["spectrum_alpha_weighted"] = power_law(spectra[""], first=start, last=end, weights="1/n").alpha
        arrays["white_alpha"] = np.array(power_law(white, first=start, last=end).alpha)
    if compared := power_laws(spectra[""]):
        alphas = [law.alpha for law in compared]
        found |= {"spectrum_alpha_least": min(alphas), "spectrum_alpha_greatest": max(alphas)}
        arrays["ranges"] = np.array([(law.first, law.last) for law in compared])
        arrays["range_alphas"] = np.array(alphas)
    return Found(measured(found, len(seen)), arrays=arrays, forwards=passes.forwards)


def layer_of(network: nn.Module, name: str | None, examination: str) -> nn.Module:
    """Return a layer by its name, or the last convolution or full layer before the readout.

    Raises:
        SpecError: there is none.
    """
    if name is not None:
        return lookup("layer", {place: layer for place, layer in network.named_modules() if place}, name)
    if isinstance(network, HiddenLayerNet):  # whatever its readout is
        return network.hidden
    layers = weighted(network, examination)
    if len(layers) < 2:
        raise SpecError(
            f"{examination}: expected a network with a layer before its readout; {type(network).__name__} has none: "
            f"name a layer"
        )
    return layers[-2]


def representation(
    subject: Subject,
    passes: Passes,
    images: Tensor,
    *,
    layer: str | None,
    draw: int = 0,
    examination: str = "spectrum",
) -> NDArray[np.floating[Any]]:
    """Return what a layer says of the images, (images, units).

    Args:
        subject: whose network it is.
        passes: the network, counted.
        images: what it looks at.
        layer: as in ``spectrum``.
        draw: of a random network; another one gets other numbers.
        examination: in whose name a layer is refused.
    """
    name = ("inputs" if "inputs" in dict(subject.network.named_children()) else None) if layer == INPUT else layer
    part = None if layer == INPUT and name is None else layer_of(subject.network, name, examination)
    rows: list[NDArray[np.floating[Any]]] = []
    for start in range(0, len(images), BATCH_SIZE):
        subject.look()
        batch = images[start : start + BATCH_SIZE]
        with undisturbed("representation", subject.seed, draw, start, device=images.device):
            seen = batch.flatten(1) if part is None else activity(passes, part, batch)
        rows.append(seen.cpu().numpy())
    return np.concatenate(rows)


def _white(subject: Subject) -> Tensor:
    drawn = torch.randn(subject.images.shape, generator=generator("white noise", subject.seed))
    return drawn.to(subject.images)


def _vary(activity: NDArray[Any]) -> bool:
    return activity.size > 0 and bool((activity != activity[0]).any())


def _law(eigenvalues: Spectrum, first: int, last: int) -> PowerLaw | None:
    """Return the exponent over the ranks of the range that are there, if they are enough."""
    end = min(last, positive_ranks(eigenvalues))
    return power_law(eigenvalues, first=first, last=end) if end - first + 1 >= FEWEST else None
