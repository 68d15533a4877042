"""Whether a network finds the images alike that a brain finds alike: inferior temporal cortex, or EEG over time.

Sources: Kriegeskorte et al. (2008), Neuron 60:1126, for the 92 objects and the responses of human and monkey inferior
temporal cortex (IT); Cichy, Pantazis and Oliva (2014), Nature Neuroscience 17:455, section "Time-resolved fMRI-MEG
representational similarity analysis", for one time after the other. The measure, its test and its ceilings are those of
:mod:`unperturbed.measures.similarity`; dissimilarity is 1 - Pearson's r over units, or over channels.

What has a ceiling is the mean of Spearman's correlations with each of several subjects. Of IT these are the four
people, each the mean of two sessions; the monkeys are published as one. EEG is that of one person, so the means over
four parts of the repetitions, every fourth one, stand for subjects: the ceilings say how well other repetitions of the
same person could do. Where the parts have nothing in common, the upper one is 0.5 and the lower one 0.
"""

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.transform import resize_local_mean
from torch import Tensor

from unperturbed.attacks import Passes
from unperturbed.data.files import Places
from unperturbed.data.recordings import Images92, images92
from unperturbed.examinations.contract import Found, Subject, measured
from unperturbed.examinations.spectrum import representation
from unperturbed.measures.eeg_prediction import peak_latency
from unperturbed.measures.similarity import (
    dissimilarities,
    mean_similarity_test,
    noise_ceilings,
    similarity_test,
)

PARTS = 4
ALIKE = 1e-9  # dissimilarities that differ by less differ by rounding


def representational_similarity(
    subject: Subject, *, against: Literal["it", "eeg"] = "it", layer: str | None = None, samples: int = 1000
) -> Found:
    """Return how the dissimilarities of images to a layer correlate with those to a brain.

    Args:
        subject: what is examined; a random network in one draw. Without recordings it has no measures against EEG.
        against: ``it`` shows the 92 objects, averaged over areas to the size of the images; ``eeg`` the images whose
            EEG was recorded.
        layer: as in ``spectrum``, such as a stage of a residual network.
        samples: random permutations of the images.

    Returns:
        Against IT ``similarity_it_human``, the mean over four people, with ``similarity_it_ceiling_lower`` and
        ``_upper``, and ``similarity_it_monkey``; each with its p (``_p``). Against EEG ``similarity_eeg`` at the peak
        of the lower ceiling after onset, so when it is read off is decided by the recordings, with both ceilings there;
        ``similarity_eeg_peak_ms``, when it is largest after onset; and ``similarity_eeg_p`` of the largest of all
        times, corrected for looking at all. Arrays: of IT the ``dissimilarities`` of the network; of EEG ``r``, ``p``
        of each time and ``p_largest`` corrected, both ceilings, and ``times`` in seconds. A layer that answers some
        image with equal units, or all images alike, has no measures; nor has EEG that does so.

    Raises:
        SpecError: the files of the 92 images are missing or damaged, a layer that there is not, activations that are
            not finite, or no samples.
    """
    subject.look()
    return _it(subject, layer, samples) if against == "it" else _eeg(subject, layer, samples)


def _it(subject: Subject, layer: str | None, samples: int) -> Found:
    objects = _objects(subject.places)
    height, width = subject.images.shape[-2:]
    passes = Passes(subject.network)
    seen = _dissimilarities_of(subject, passes, _shrunk(subject.places, height, width).to(subject.images), layer)
    if seen is None:
        return Found([], forwards=passes.forwards)
    people = objects.sessions.mean(axis=1)
    subject.look()
    human = mean_similarity_test(people, seen, samples=samples, seed=subject.seed)
    subject.look()
    monkey = similarity_test(objects.monkey, seen, samples=samples, seed=subject.seed)
    ceilings = noise_ceilings(people)
    values = {
        "similarity_it_human": float(human.r),
        "similarity_it_human_p": float(human.p),
        "similarity_it_monkey": float(monkey.r),
        "similarity_it_monkey_p": float(monkey.p),
        "similarity_it_ceiling_lower": float(ceilings.lower),
        "similarity_it_ceiling_upper": float(ceilings.upper),
    }
    return Found(measured(values, len(objects.images)), arrays={"dissimilarities": seen}, forwards=passes.forwards)


def _eeg(subject: Subject, layer: str | None, samples: int) -> Found:
    if subject.recorded is None:
        return Found([])
    recorded = subject.recorded()
    passes = Passes(subject.network)
    seen = _dissimilarities_of(subject, passes, recorded.images.to(subject.images), layer)
    count = min(PARTS, recorded.responses.shape[1])
    parts = [recorded.responses[:, start::count].mean(axis=1) for start in range(count)]
    after = recorded.times > 0
    undefined = Found([], forwards=passes.forwards)
    if seen is None or not after.any() or any((np.ptp(part, axis=1) == 0).any() for part in parts):
        return undefined
    every: list[NDArray[np.float64]] = []
    for part in parts:
        subject.look()
        every.append(dissimilarities(part))
    brain = np.stack(every)
    if (np.ptp(brain, axis=-1) < ALIKE).any():
        return undefined
    subject.look()
    found = mean_similarity_test(brain, seen, samples=samples, seed=subject.seed)
    subject.look()
    ceilings = noise_ceilings(brain)
    peak = int(np.where(after, ceilings.lower, -np.inf).argmax())
    values = {
        "similarity_eeg": float(found.r[peak]),
        "similarity_eeg_p": float(found.p_largest.min()),
        "similarity_eeg_peak_ms": 1000 * peak_latency(found.r, recorded.times),
        "similarity_eeg_ceiling_lower": float(ceilings.lower[peak]),
        "similarity_eeg_ceiling_upper": float(ceilings.upper[peak]),
    }
    arrays: dict[str, NDArray[Any]] = {
        **found._asdict(),
        "lower_ceiling": ceilings.lower,
        "upper_ceiling": ceilings.upper,
        "times": recorded.times,
    }
    return Found(measured(values, len(recorded.images)), arrays=arrays, forwards=passes.forwards)


def _dissimilarities_of(
    subject: Subject, passes: Passes, images: Tensor, layer: str | None
) -> NDArray[np.float64] | None:
    """Return how unlike the layer finds each two of the images, None where that is not defined."""
    seen = representation(subject, passes, images, layer=layer)
    if (np.ptp(seen, axis=1) == 0).any():
        return None
    found = dissimilarities(seen)
    return found if np.ptp(found) > ALIKE else None


@lru_cache(maxsize=1)
def _objects(places: Places) -> Images92:
    return images92(places)


@lru_cache(maxsize=1)
def _shrunk(places: Places, height: int, width: int) -> Tensor:
    """Return the 92 objects in [0, 1], averaged over areas to a size."""
    small = [resize_local_mean(image / 255, (height, width), channel_axis=2) for image in _objects(places).images]
    return torch.from_numpy(np.stack(small).transpose(0, 3, 1, 2).copy())
