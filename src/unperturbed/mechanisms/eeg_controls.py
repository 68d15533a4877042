r"""What a network may be trained to predict in the place of what a brain answered to the images.

The controls of co-training with EEG (arXiv:2409.03646 found gains with shuffled and random EEG, too): each keeps what
the responses are, in part, and breaks what they say of the images. X are the responses, (n, channels, times), of mean 0
over the images. What is drawn belongs to the seed of a network: networks of different seeds sample pairings, too.

=====================  =======================================================================================
shuffled               each image has those of another one, drawn at random (so the images share all of X)
shuffled-within-class  the same among the images of a class: what they say of the class is kept
phase-randomised       a random phase for each image and frequency, the same for all channels: the spectrum of
                       each channel and the cross-spectra of each image are kept (Prichard and Theiler, 1994,
                       Phys. Rev. Lett. 73:951), and so is how large the response to an image is. Its mean over time,
                       which has no phase, gets a random sign: it would say much of the image otherwise
gaussian               normal numbers whose covariance, over channels and times, is that of X
white                  standard normal numbers
time-reversed          the last time first
=====================  =======================================================================================
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unperturbed.tensors.streams import seed_for

Responses = Literal[
    "real", "shuffled", "shuffled-within-class", "phase-randomised", "gaussian", "white", "time-reversed"
]


def control(
    responses: Float[Tensor, "n channels times"], labels: Int64[Tensor, " n"], seed: int, *, kind: Responses
) -> Float[Tensor, "n channels times"]:
    """Return what takes the place of ``responses``; the same numbers every time.

    Args:
        responses: one to each image, of mean 0 over the images.
        labels: the class of each image.
        seed: of the network.
        kind: see above; ``real`` leaves them as they are.

    Returns:
        On the device and in the precision of ``responses``.
    """
    if kind == "real":
        return responses
    x = responses.cpu().numpy().astype(np.float64)
    drawn = _drawn(x, labels.cpu().numpy(), np.random.default_rng(seed_for("control responses", kind, seed)), kind)
    return torch.from_numpy(drawn).to(responses)


def _drawn(x: np.ndarray, labels: np.ndarray, random: np.random.Generator, kind: Responses) -> np.ndarray:
    if kind == "shuffled":
        return x[random.permutation(len(x))]
    if kind == "shuffled-within-class":
        return x[_within_classes(labels, random)]
    if kind == "time-reversed":
        return x[:, :, ::-1].copy()
    if kind == "phase-randomised":
        return _phase_randomised(x, random)
    if kind == "gaussian":
        return _gaussian(x, random)
    return random.standard_normal(x.shape)


def _within_classes(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    rows = np.arange(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows[members] = random.permutation(members)
    return rows


def _phase_randomised(responses: np.ndarray, random: np.random.Generator) -> np.ndarray:
    n, _, times = responses.shape
    spectrum = np.fft.rfft(responses)
    phases = random.uniform(0, 2 * np.pi, (n, 1, spectrum.shape[2]))
    real = [0] if times % 2 else [0, -1]  # the constant part, and the highest frequency of an even number, are real
    phases[:, :, real] = np.pi * random.integers(0, 2, (n, 1, len(real)))
    return np.fft.irfft(spectrum * np.exp(1j * phases), n=times)


def _gaussian(responses: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """With the triangle R of X = QR, rows g R / sqrt(n) of normal g have the covariance of X."""
    n = len(responses)
    triangle = np.linalg.qr(responses.reshape(n, -1), mode="r")
    return (random.standard_normal((n, len(triangle))) @ triangle / np.sqrt(n)).reshape(responses.shape)
