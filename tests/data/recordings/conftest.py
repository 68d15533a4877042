"""A small simulated data set in the layout of THINGS-EEG2, and the real recordings where this machine has them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from unperturbed.data.recordings import simulate

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def real():
    """The folder that holds the real recordings of a name."""
    root = Path(os.environ.get("UNPERTURBED_DATA") or REPOSITORY.parent / "shared" / "data")

    def holding(name):
        if not (root / name).is_dir():
            pytest.skip(f"no {name} in {root}; set UNPERTURBED_DATA")
        return root

    return holding


@pytest.fixture(scope="session")
def pictures():
    """Coarse random images of 12 classes, 100 of each, more alike within a class, and their labels."""
    random = np.random.default_rng(0)
    coarse = 0.3 * random.random((1200, 1, 4, 4)) + 0.7 * np.repeat(random.random((12, 1, 4, 4)), 100, axis=0)
    return np.repeat(np.repeat(coarse, 4, axis=2), 4, axis=3), np.repeat(np.arange(12), 100)


@pytest.fixture(scope="session")
def written(pictures, tmp_path_factory):
    """Two subjects, four concepts with three images, six test images: as it was written, not to be changed."""
    folder = tmp_path_factory.mktemp("things") / "things-eeg2"
    sizes = {"training_concepts": 4, "images_per_concept": 3, "test_images": 6, "test_repetitions": 8}
    return folder, simulate(folder, *pictures, seed=1, **sizes)


@pytest.fixture
def things(written, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(written[0], tmp_path / "things-eeg2"), written[1].layout
