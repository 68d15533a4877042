"""Mechanisms by name: settings become a record of functions that act on a network, its loss or its deployment."""

from collections.abc import Callable, Sequence

from unperturbed.mechanisms.adversarial_training import adversarial_training
from unperturbed.mechanisms.contract import (
    NOTHING,
    Diverged,
    InnerAttack,
    Lesson,
    Mechanism,
    Tools,
    Traits,
    compose,
)
from unperturbed.mechanisms.dropout import dropout
from unperturbed.mechanisms.eeg_cotraining import eeg_cotraining
from unperturbed.mechanisms.fast_training import fast_training
from unperturbed.mechanisms.gaussian_weights import gaussian_weights
from unperturbed.mechanisms.indian_buffet import indian_buffet
from unperturbed.mechanisms.jacobian_regularisation import jacobian_regularisation
from unperturbed.mechanisms.krotov_hopfield import krotov_hopfield
from unperturbed.mechanisms.label_smoothing import label_smoothing
from unperturbed.mechanisms.mixed_training import mixed_training
from unperturbed.mechanisms.noise_augmentation import noise_augmentation
from unperturbed.mechanisms.noise_injection import half_adversarial, noise_injection
from unperturbed.mechanisms.pruning import pruning
from unperturbed.mechanisms.random_features import random_features
from unperturbed.mechanisms.randomised_smoothing import randomised_smoothing
from unperturbed.mechanisms.rectified_power import rectified_power
from unperturbed.mechanisms.spatial_smoothing import spatial_smoothing
from unperturbed.mechanisms.spectral_regularisation import spectral_regularisation
from unperturbed.mechanisms.spherical_kmeans import spherical_kmeans
from unperturbed.mechanisms.tanh_readout import tanh_readout
from unperturbed.mechanisms.trades import trades
from unperturbed.mechanisms.weight_penalty import weight_penalty
from unperturbed.mechanisms.winner_take_all import winner_take_all
from unperturbed.records import Spec
from unperturbed.registry import complete

__all__ = [
    "MECHANISMS",
    "NOTHING",
    "Diverged",
    "InnerAttack",
    "Lesson",
    "Mechanism",
    "Tools",
    "Traits",
    "build",
    "compose",
]

MECHANISMS: dict[str, Callable[..., Mechanism]] = {
    "adversarial-training": adversarial_training,
    "trades": trades,
    "mixed-training": mixed_training,
    "fast-training": fast_training,
    "noise-injection": noise_injection,
    "half-adversarial": half_adversarial,
    "noise-augmentation": noise_augmentation,
    "randomised-smoothing": randomised_smoothing,
    "label-smoothing": label_smoothing,
    "spatial-smoothing": spatial_smoothing,
    "winner-take-all": winner_take_all,
    "indian-buffet": indian_buffet,
    "gaussian-weights": gaussian_weights,
    "dropout": dropout,
    "krotov-hopfield": krotov_hopfield,
    "random-features": random_features,
    "spherical-kmeans": spherical_kmeans,
    "rectified-power": rectified_power,
    "tanh-readout": tanh_readout,
    "weight-penalty": weight_penalty,
    "jacobian-regularisation": jacobian_regularisation,
    "spectral-regularisation": spectral_regularisation,
    "pruning": pruning,
    "eeg-cotraining": eeg_cotraining,
}


def build(specs: Sequence[Spec]) -> Mechanism:
    """Return the composition of the named mechanisms, the first one innermost.

    Raises:
        SpecError: unknown name or setting, or values that the mechanism refuses.

    >>> build([Spec(name="label-smoothing", settings={"amont": 0.2})])
    Traceback (most recent call last):
    unperturbed.records.SpecError: label-smoothing has no setting 'amont'. It has: amount. Did you mean 'amount'?
    """
    full = [complete("mechanism", MECHANISMS, spec) for spec in specs]
    return compose(*(MECHANISMS[spec.name](**spec.settings) for spec in full))
