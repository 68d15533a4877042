"""Mechanisms by name: settings become a record of functions that act on a network, its loss or its deployment."""

from collections.abc import Callable, Sequence

from unperturbed.mechanisms.adversarial_training import adversarial_training
from unperturbed.mechanisms.contract import NOTHING, InnerAttack, Mechanism, Tools, Traits, compose
from unperturbed.mechanisms.dropout import dropout
from unperturbed.mechanisms.fast_training import fast_training
from unperturbed.mechanisms.indian_buffet import indian_buffet
from unperturbed.mechanisms.label_smoothing import label_smoothing
from unperturbed.mechanisms.mixed_training import mixed_training
from unperturbed.mechanisms.noise_augmentation import noise_augmentation
from unperturbed.mechanisms.noise_injection import half_adversarial, noise_injection
from unperturbed.mechanisms.randomised_smoothing import randomised_smoothing
from unperturbed.mechanisms.spatial_smoothing import spatial_smoothing
from unperturbed.mechanisms.trades import trades
from unperturbed.mechanisms.winner_take_all import winner_take_all
from unperturbed.records import Spec
from unperturbed.registry import complete

__all__ = ["MECHANISMS", "NOTHING", "InnerAttack", "Mechanism", "Tools", "Traits", "build", "compose"]

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
    "dropout": dropout,
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
