"""How well a network with an EEG branch predicts what a brain answered, beside how well that can be predicted at all.

Source: the measure is that of ``measures.eeg_prediction``; the groups of channels are those of Guo et al. (2024),
arXiv:2409.03646: occipital (O1, Oz, O2) and parieto-occipital (PO7, PO3, POz, PO4, PO8).

When a group is read off is decided by the recordings and not by the network: at the peak of its lower noise ceiling,
averaged over the channels of the group. So a network that predicts nothing has 0 on average, which the largest of many
correlations would not be.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from unperturbed.data.recordings.things_eeg2 import OCCIPITAL, PARIETO_OCCIPITAL
from unperturbed.examinations.contract import BATCH_SIZE, Found, Subject, measured
from unperturbed.measures.eeg_prediction import peak_latency, prediction_accuracy
from unperturbed.mechanisms.eeg_cotraining import BRANCH, predicted_responses, training_log

PUBLISHED = 0.1  # seconds after onset at which the source correlates r with the gain


def eeg_prediction(subject: Subject, *, splits: int = 100) -> Found:
    """Return Pearson's r between predicted and recorded responses, and what training said of the EEG.

    Args:
        subject: what is examined; without an EEG branch it has no measures, without recordings only those of training.
        splits: random halves of the repetitions.

    Returns:
        ``eeg_r``, ``eeg_r_occipital`` and ``eeg_r_parieto_occipital``, each at the peak of its own ceiling (see above);
        ``eeg_r_lead``, the occipital one less the parieto-occipital one; ``eeg_r_100_ms``, the mean over channels 0.1 s
        after onset; ``eeg_peak_ms`` and ``eeg_peak_occipital_ms``, when the mean of r over all or over the occipital
        channels is largest; the ceilings of ``eeg_r``; and means over the last epoch of training (``cotraining_*``).
        Arrays: ``r`` and both ceilings (channels, times), ``channels``, and ``times`` in seconds.

    Raises:
        SpecError: fewer than 3 images or 2 repetitions, no splits, or no response to a single image was recorded.
    """
    subject.look()
    network = None if subject.trained is None else subject.trained()
    if network is None or not hasattr(network, BRANCH):
        return Found([])
    log = measured({name: v for name, v in training_log(network).items() if np.isfinite(v)}, len(subject.images))
    if subject.recorded is None:
        return Found(log)
    recorded = subject.recorded()
    parts: list[torch.Tensor] = []
    for batch in recorded.images.split(BATCH_SIZE):
        subject.look()
        parts.append(predicted_responses(network, batch.to(subject.images)).cpu())
    found = prediction_accuracy(torch.cat(parts).numpy(), recorded.responses, splits=splits, seed=subject.seed)
    every, occipital, between = (_rows(recorded.channels, g) for g in (recorded.channels, OCCIPITAL, PARIETO_OCCIPITAL))
    after = recorded.times > 0

    def at_peak(rows: NDArray[np.intp], what: NDArray[np.float64]) -> float:
        ceiling = np.where(after, found.lower_ceiling[rows].mean(axis=0), -np.inf)
        return float(what[rows].mean(axis=0)[ceiling.argmax()])

    values = {
        "eeg_r": at_peak(every, found.r),
        "eeg_r_100_ms": float(found.r[:, np.abs(recorded.times - PUBLISHED).argmin()].mean()),
        "eeg_ceiling_lower": at_peak(every, found.lower_ceiling),
        "eeg_ceiling_upper": at_peak(every, found.upper_ceiling),
    }
    if len(occipital) and len(between):
        r = at_peak(occipital, found.r), at_peak(between, found.r)
        values |= {"eeg_r_occipital": r[0], "eeg_r_parieto_occipital": r[1], "eeg_r_lead": r[0] - r[1]}
    for name, rows in (("eeg_peak_ms", every), ("eeg_peak_occipital_ms", occipital)):
        curve = found.r[rows].mean(axis=0) if len(rows) else np.full(len(after), np.nan)
        if np.isfinite(curve[after]).all():
            values[name] = 1000 * peak_latency(curve, recorded.times)
    defined = {name: value for name, value in values.items() if np.isfinite(value)}
    return Found(
        [*measured(defined, len(recorded.images)), *log],
        arrays={**found._asdict(), "channels": np.array(recorded.channels), "times": recorded.times},
        forwards=len(recorded.images),
    )


def _rows(channels: Sequence[str], group: Sequence[str]) -> NDArray[np.intp]:
    return np.flatnonzero(np.isin(channels, group))
