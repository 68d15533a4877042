r"""What a network may be trained to predict in the place of what a brain answered to the images.

The controls of co-training with EEG (arXiv:2409.03646 found gains with shuffled and random EEG, too): each keeps what
the responses are, in part, and breaks what they say of the images. X are the responses, (n, channels, times), of mean 0
over the images.

=====================  =======================================================================================
shuffled               each image has those of another one, drawn at random (so the images share all of X)
shuffled-within-class  the same among the images of a class: what they say of the class is kept
phase-randomised       a random phase for each image and frequency, the same for all channels: the spectrum of
                       each channel and the cross-spectra of each image are kept (Prichard and Theiler, 1994,
                       Phys. Rev. Lett. 73:951), and so is how large the response to an image is
gaussian               normal numbers whose covariance, over channels and times, is that of X
white                  standard normal numbers
time-reversed          the last time first
gabor                  no brain: energies of Gabor filters, as complex cells of V1 have them (Adelson and Bergen, 1985,
                       J. Opt. Soc. Am. A 2:284), normalised as X is; their covariance is another one
=====================  =======================================================================================
"""

from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from numpy import ndarray

from unperturbed.data.split import ordering
from unperturbed.tensors.streams import seed_for

Control = Literal["shuffled", "shuffled-within-class", "phase-randomised", "gaussian", "white", "time-reversed"]

ORIENTATIONS = 6
FREQUENCIES = (4.0, 8.0, 2.0)  # cycles in the width of an image
BANDWIDTH = 0.5  # standard deviation of the envelope, in wavelengths
AT_ONCE = 2048  # images filtered at a time


def control(
    responses: Float64[ndarray, "n channels times"], labels: Int64[ndarray, " n"], *, kind: Control
) -> Float64[ndarray, "n channels times"]:
    """Return what takes the place of ``responses``; the same numbers every time.

    Args:
        responses: one to each image, of mean 0 over the images.
        labels: the class of each image.
        kind: see above.
    """
    seed = seed_for("control responses", kind)
    if kind == "shuffled":
        return responses[ordering(len(responses), seed)]
    if kind == "shuffled-within-class":
        return responses[_within_classes(labels, seed)]
    if kind == "time-reversed":
        return responses[:, :, ::-1].copy()
    random = np.random.default_rng(seed)
    if kind == "phase-randomised":
        return _phase_randomised(responses, random)
    if kind == "gaussian":
        return _gaussian(responses, random)
    return random.standard_normal(responses.shape)


def _within_classes(labels: np.ndarray, seed: int) -> np.ndarray:
    rows = np.arange(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows[members] = members[ordering(len(members), seed + int(label))]
    return rows


def _phase_randomised(responses: np.ndarray, random: np.random.Generator) -> np.ndarray:
    n, _, times = responses.shape
    spectrum = np.fft.rfft(responses)
    turned = slice(1, (times + 1) // 2)  # the constant part and the highest frequency of an even number have no phase
    phases = random.uniform(0, 2 * np.pi, (n, 1, len(range(times)[turned])))
    spectrum[:, :, turned] *= np.exp(1j * phases)
    return np.fft.irfft(spectrum, n=times)


def _gaussian(responses: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """With the triangle R of X = QR, rows g R / sqrt(n) of normal g have the covariance of X."""
    n = len(responses)
    triangle = np.linalg.qr(responses.reshape(n, -1), mode="r")
    return (random.standard_normal((n, len(triangle))) @ triangle / np.sqrt(n)).reshape(responses.shape)


def gabor_energies(
    images: UInt8[ndarray, "n colours height width"], *, channels: int, times: int
) -> Float64[ndarray, "n channels times"]:
    """Return the amplitude of Gabor filters: one for each channel, at as many places of the image as there are times.

    Args:
        images: 255 is full scale; their colours are averaged.
        channels: how many filters, at most 18: orientation after orientation at 4, then 8, then 2 cycles.
        times: how many places: a square number.
    """
    height, width = images.shape[2:]
    side = round(times**0.5)
    assert side**2 == times
    assert channels <= ORIENTATIONS * len(FREQUENCIES)
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    centres = (np.arange(side) + 0.5) / side
    filters: list[np.ndarray] = []
    for number in range(channels):
        frequency, angle = FREQUENCIES[number // ORIENTATIONS], np.pi * (number % ORIENTATIONS) / ORIENTATIONS
        for row in centres:
            for column in centres:
                across, down = x - column, y - row
                envelope = np.exp(-(across**2 + down**2) / (2 * (BANDWIDTH / frequency) ** 2))
                wave = np.exp(2j * np.pi * frequency * (np.cos(angle) * across + np.sin(angle) * down))
                bare = envelope * wave  # uniform grey must not excite it, whatever the edge of the image cuts off
                filters.append((bare - envelope * (bare.sum() / envelope.sum())) / np.sqrt((envelope**2).sum()))
    bank = np.stack(filters).reshape(len(filters), -1).T
    grey = images.mean(axis=1, dtype=np.float64).reshape(len(images), -1) / 255
    parts = [np.abs(block @ bank) for block in np.array_split(grey, -(-len(grey) // AT_ONCE))]
    return np.concatenate(parts).reshape(len(images), channels, times)
