r"""Energies of Gabor filters, as complex cells of V1 have them: to be predicted in the place of what a brain says.

Source: Adelson and Bergen (1985), J. Opt. Soc. Am. A 2:284: the squares of a pair of filters in quadrature, summed.
Departs from the source: the square root of that is taken.
"""

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

ORIENTATIONS = 6
FREQUENCIES = (4.0, 8.0, 2.0)  # cycles in the width of an image
BANDWIDTH = 0.5  # standard deviation of the envelope, in wavelengths
AT_ONCE = 2048  # images filtered at a time


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
