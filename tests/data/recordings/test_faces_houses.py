import re
import sys

import numpy as np
import pytest

from unperturbed.data.files import Places
from unperturbed.data.recordings.faces_houses import RATE, Run, decoding, evoked, faces_houses, trials
from unperturbed.records import SpecError

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def recorded(real):
    return faces_houses(Places(real("eeg-faces-houses")))


@pytest.fixture(scope="module")
def found(recorded):
    return trials(recorded)


def made(*, wave, noise=5.0, seconds=60, artefact=None):
    """A run with a picture every half second, faces and houses in turn, and ``wave`` at TP9 after each face."""
    voltages = RANDOM.normal(0, noise, (4, int(seconds * RATE)))
    onsets = np.arange(2 * RATE, (seconds - 2) * RATE, RATE / 2).astype(np.int64)
    labels = np.arange(len(onsets)) % 2
    for onset in onsets[labels == 1]:
        voltages[0, onset : onset + len(wave)] += wave
    if artefact is not None:
        voltages[2, onsets[artefact] + 20] += 1000
    return Run(voltages, onsets, labels)


def bump(place):
    """A wave of 10 microvolt with its peak ``place`` samples after the picture."""
    return 10 * np.exp(-((np.arange(120) - place) ** 2) / (2 * 6.0**2))


def test_all_pictures_are_read(recorded):
    labels = np.concatenate([run.labels for run in recorded])
    assert np.bincount(labels).tolist() == [591, 583]
    assert [run.voltages.shape for run in recorded] == [(4, n) for n in (30732, 30732, 30732, 30732, 30720, 30732)]
    assert recorded[0].voltages[:, 0].tolist() == [34.668, 32.715, 29.297, 14.16]
    assert (recorded[0].onsets[0], recorded[0].labels[0]) == (70, 1)


def test_faces_are_told_from_houses_as_well_as_published(found):
    """The published check: 0.66 to 0.70 in a run, 0.68 in the mean."""
    areas = decoding(found)
    assert round(areas.mean(), 2) == 0.68
    assert (round(areas.min(), 2), round(areas.max(), 2)) == (0.66, 0.70)


def test_labels_that_are_exchanged_at_random_cannot_be_told(found):
    mixed = decoding(found._replace(labels=np.random.default_rng(0).permutation(found.labels)))
    error = (1 / 12 * 2 / 98 / 6) ** 0.5  # of the mean of six areas, each of two times about 98 trials
    assert mixed.mean() == pytest.approx(0.5, abs=4 * error)


def test_faces_evoke_a_negative_deflection_at_the_temporal_electrodes(found):
    house, face = evoked(found)
    difference = (face - house)[[0, 3]].mean(axis=0)
    early = (found.times > 0.1) & (found.times < 0.35)
    place = found.times[early][difference[early].argmin()]
    assert place == pytest.approx(0.21, abs=0.015)
    assert difference[early].min() < -1


def test_trials_are_what_is_asked_for(found):
    assert found.rejected == 25
    assert found.responses.shape == (1174 - 25, 4, 232)
    assert (found.times[0], found.times[-1]) == pytest.approx((-0.1, 0.8), abs=0.5 / RATE)
    assert np.ptp(found.responses, axis=2).max() <= 200
    assert np.unique(found.runs).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_planted_wave_is_found_where_it_is_and_decoded():
    kept = trials((made(wave=bump(51)), made(wave=bump(51))))
    house, face = evoked(kept)
    difference = (face - house)[0]
    assert kept.times[difference.argmax()] == pytest.approx(51 / RATE, abs=1.01 / RATE)  # the filter delays nothing
    assert difference.max() == pytest.approx(10, abs=3)  # its slowest part is filtered away
    assert (decoding(kept) > 0.95).all()
    nothing = decoding(trials((made(wave=bump(51) * 0), made(wave=bump(51) * 0))))
    assert nothing.mean() == pytest.approx(0.5, abs=4 * (1 / 12 * 2 / 56 / 2) ** 0.5)


def test_an_artefact_takes_its_trials_with_it():
    clean, dirty = trials((made(wave=bump(51)),)), trials((made(wave=bump(51), artefact=30),))
    assert clean.rejected == 0
    assert 1 <= dirty.rejected <= 3  # stretches of 0.9 s, every half second
    assert trials((made(wave=bump(51), artefact=30),), largest=5000.0).rejected == 0


def test_slow_and_fast_waves_are_removed():
    seconds = np.arange(int(60 * RATE)) / RATE
    run = made(wave=np.zeros(1), noise=0.0)
    for frequency, least, most in ((0.2, 0, 1.0), (10, 9.9, 10.1), (60, 0, 1.0)):
        run.voltages[:] = 10 * np.sin(2 * np.pi * frequency * seconds)
        assert least <= np.abs(trials((run,)).responses).max() <= most


def test_a_stretch_that_leaves_the_run_is_left_out():
    run = made(wave=bump(51))
    edge = run._replace(onsets=np.array([5, 600, run.voltages.shape[1] - 9]), labels=np.array([0, 1, 0]))
    assert trials((edge,)).rejected == 2


def test_without_mne_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mne", None)
    with pytest.raises(SpecError, match=re.escape("run `pip install 'unperturbed[eeg]'`.")) as error:
        trials((made(wave=bump(51)),))
    assert "\n" not in str(error.value)
