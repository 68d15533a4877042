r"""Pictures whose class two things tell: a faint texture that is easily learned, and a bold grating.

.. math:: x = \tfrac12 + B \cos(2 \pi f (u \cos\theta + v \sin\theta) + \psi) + C n + A\, T_y, \qquad
   \theta = \frac{\pi}{5} (y + \epsilon)

for class y of five, places :math:`u, v` from 0 to 1, a random phase :math:`\psi`, blurred noise n of variance 1, and
:math:`\epsilon` uniform between -0.35 and 0.35. Either cue alone tells the class without error. The textures
:math:`T_y` are products of Walsh functions, :math:`\pm 1` on squares of 4x4 pixels that repeat, at other spatial
frequencies for each class, so that the average of a filter's output tells them.

What a perturbation has to do, then: to put the texture of another class in the place of the one that is there takes
:math:`A \sqrt{2 \cdot 3 \cdot 32^2} = 0.61` in L2 and 4/255 in Linf, whatever the picture. To turn the grating by a
class takes :math:`B \sqrt{3 \cdot 32^2} = 14` or about that. A network that reads the textures alone is fooled within
the first distance; one that reads the gratings need not be. A brain that sees coarse structure only, as the blurred
pictures have it, does not see the textures.

The idea is that of a shortcut: Geirhos et al. (2020), doi:10.1038/s42256-020-00257-z. What is easily learned and tells
the class leaves nothing for the rest to explain: Pezeshki et al. (2021), arXiv:2011.09468.
"""

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from scipy.ndimage import gaussian_filter

from unperturbed.data.split import Collection, Part
from unperturbed.tensors.streams import seed_for

CLASSES = 5
SIZE = 32
FAINT = 2  # A, in steps of 1/255
BOLD = 0.25  # B
CLUTTER = 0.08  # C
CYCLES = 3.0  # f, in the width of a picture
SPREAD = 0.35  # of an orientation within its class, in distances between classes, either way

_WALSH = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, -1, 1], [1, -1, 1, -1]])
TEXTURES = np.stack([np.outer(_WALSH[a], _WALSH[b]) for a, b in ((0, 3), (3, 0), (3, 3), (1, 3), (3, 1))])


def read_cued(train: int, test: int) -> Collection:
    """Return so many pictures for training and for testing, the classes in turn; more begin with the same ones."""
    names = tuple(f"class {number}" for number in range(CLASSES))
    return Collection(_part(train, "training"), _part(test, "test"), names)


def _part(count: int, which: str) -> Part:
    labels = np.arange(count, dtype=np.int64) % CLASSES
    pixels = np.rint(255 * gratings(labels, seed_for("cued pictures", which))).clip(FAINT, 255 - FAINT)
    pixels += FAINT * np.tile(TEXTURES, (1, SIZE // 4, SIZE // 4))[labels]
    images = np.repeat(pixels[:, None].astype(np.uint8), 3, axis=1)
    return Part(torch.from_numpy(images), torch.from_numpy(labels))


def gratings(labels: ndarray, seed: int) -> Float64[ndarray, "n height width"]:
    """Return the pictures of these classes without their textures."""
    drawn = np.random.default_rng(seed_for("gratings", seed)).random((len(labels), 2))
    clutter = np.random.default_rng(seed_for("clutter", seed)).standard_normal((len(labels), SIZE, SIZE))
    clutter = gaussian_filter(clutter, (0, 1, 1))
    clutter /= clutter.std(axis=(1, 2), keepdims=True)
    angle = (np.pi / CLASSES * (labels + SPREAD * (2 * drawn[:, 0] - 1)))[:, None, None]
    v, u = np.meshgrid(*[(np.arange(SIZE) + 0.5) / SIZE] * 2, indexing="ij")
    wave = np.cos(2 * np.pi * (CYCLES * (np.cos(angle) * u + np.sin(angle) * v) + drawn[:, 1, None, None]))
    return 0.5 + BOLD * wave + CLUTTER * clutter
