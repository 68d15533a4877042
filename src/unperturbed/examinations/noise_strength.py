"""How strong the learned noise of a network is; see :mod:`unperturbed.mechanisms.noise_injection`."""

import numpy as np

from unperturbed.examinations.contract import Found, Subject, measured
from unperturbed.mechanisms.noise_injection import Noise


def noise_strength(subject: Subject) -> Found:
    """Return the mean of alpha over layers with noise, without its sign, which means nothing.

    Where a layer has one alpha for each channel or weight, their mean counts for it. No forward is taken.

    Args:
        subject: what is examined.

    Returns:
        ``noise_alpha``, a fraction of the standard deviation of what is disturbed, and ``alpha`` and ``layers``, layer
        by layer; a network without noise, or with the switch off, has no measure and empty arrays.
    """
    alphas = {
        name: float(layer.alpha.detach().abs().double().mean())
        for name, layer in subject.network.named_modules()
        if isinstance(layer, Noise) and layer.active
    }
    values = {"noise_alpha": sum(alphas.values()) / len(alphas)} if alphas else {}
    return Found(
        measured(values, len(subject.labels)),
        arrays={"alpha": np.array([*alphas.values()], dtype=np.float64), "layers": np.array([*alphas], dtype=np.str_)},
    )
