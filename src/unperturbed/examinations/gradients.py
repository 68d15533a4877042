"""Whether single draws of a random network's gradient point the same way; see :mod:`unperturbed.audit.coherence`.

Source of the question: stochastic local winner-take-all, Panousis et al. (2021), arXiv:2112.02671, is deployed at a
temperature of 0.01 and trained at 0.67; near 0 its gradient is noise, so that an attack through it shows nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import nn

from unperturbed.attacks import Passes
from unperturbed.audit.coherence import coherence
from unperturbed.examinations.contract import Found, Subject, measured
from unperturbed.mechanisms.installing import altered, having
from unperturbed.records import SpecError

TEMPERATURES = {"T_0_01": 0.01, "T_0_1": 0.1, "T_0_67": 0.67, "T_1": 1.0}
AT_ONCE = 100  # fixed, because what a random network draws depends on it


class _Row(NamedTuple):
    """What is found of one network."""

    cosine: float
    agreement: float
    chance: float  # of the agreement


def gradients(subject: Subject, *, draws: int = 20) -> Found:
    """Return how well the gradients at the images agree, as deployed and at temperatures from 0.01 to 1.

    Args:
        subject: what is examined.
        draws: gradients of every image, 2 or more; a network that is not random takes two of them.

    Returns:
        ``gradient_cosine`` and ``gradient_agreement`` of the deployed network; where layers have a temperature, the
        cosine at each of the four as well. Images without any gradient do not count. The arrays have all of it, row by
        row, with what coins would give for the agreement.

    Raises:
        SpecError: draws below 2, or a network whose answers are no logits.
    """
    if draws < 2:
        raise SpecError(f"gradients: expected draws of at least 2; got {draws}")
    passes: list[Passes] = []
    rows: dict[str, _Row] = {}
    for name, network in _networks(subject.network):
        passes.append(Passes(network))
        rows[name] = _row(subject, passes[-1], draws)
    values = {"gradient_cosine": rows["deployed"].cosine, "gradient_agreement": rows["deployed"].agreement}
    values |= {f"gradient_cosine_{name}": rows[name].cosine for name in TEMPERATURES if name in rows}
    columns = {column: np.array([getattr(row, column) for row in rows.values()]) for column in _Row._fields}
    return Found(
        measured(values, len(subject.labels)),
        arrays={"rows": np.array([*rows], dtype=np.str_), **columns},
        forwards=sum(each.forwards for each in passes),
        backwards=sum(each.backwards for each in passes),
    )


def _networks(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    yield "deployed", network
    if having(network, "temperature"):
        for name, temperature in TEMPERATURES.items():
            yield name, altered(network, {"temperature": temperature})


def _row(subject: Subject, passes: Passes, draws: int) -> _Row:
    found, weights = [], []
    for start in range(0, len(subject.labels), AT_ONCE):
        images, labels = subject.images[start : start + AT_ONCE], subject.labels[start : start + AT_ONCE]
        each = coherence(subject.watched(passes), images, labels, draws=draws, seed=subject.seed)
        found.append(each)
        weights.append(len(labels) * (1 - each.zero_fraction))
    if sum(weights) == 0:
        return _Row(0.0, 0.0, found[0].chance)
    return _Row(
        float(np.average([each.cosine for each in found], weights=weights)),
        float(np.average([each.sign_agreement for each in found], weights=weights)),
        float(np.average([each.chance for each in found], weights=weights)),
    )
