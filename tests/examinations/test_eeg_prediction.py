"""How well EEG is predicted where the recordings are made from the predictions."""

import numpy as np
import pytest
import torch

from unperturbed.data import Repetitions
from unperturbed.data.recordings import CHANNELS
from unperturbed.data.recordings.things_eeg2 import OCCIPITAL, PARIETO_OCCIPITAL
from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.measures import QUANTITIES
from unperturbed.mechanisms.eeg_cotraining import LOGGED, predicted_responses

examine = EXAMINATIONS["eeg-prediction"]
TIMES = np.arange(-2, 8) / 20  # -0.1 to 0.35 s
AT_100, AT_200 = 4, 6
IMAGES = 40

pytestmark = pytest.mark.usefixtures("unchecked")


def _rows(group):
    return [CHANNELS.index(channel) for channel in group]


@pytest.fixture
def network(with_branch):
    return with_branch(channels=len(CHANNELS), times=len(TIMES))


@pytest.fixture
def subject(network):
    """Noise but for two moments: the occipital EEG at 0.1 s is what is predicted, the other at 0.2 s its negative."""
    images = torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    random = np.random.default_rng(2)
    responses = random.standard_normal((IMAGES, 6, len(CHANNELS), len(TIMES)))
    predicted = predicted_responses(network, images).double().numpy()
    for group, time, sign in ((OCCIPITAL, AT_100, 3.0), (PARIETO_OCCIPITAL, AT_200, -0.5)):
        responses[:, :, _rows(group), time] = 7 + sign * predicted[:, None, _rows(group), time]
    recorded = Repetitions(images, responses, CHANNELS, TIMES)
    return Subject(network, images[:5], torch.zeros(5), 4, trained=lambda: network, recorded=lambda: recorded)


def test_each_group_is_read_off_at_the_peak_of_its_own_ceiling(subject, values):
    found = examine(subject, splits=20)
    seen = values(found)
    # r does not depend on size, offset or units; float32 predictions agree with themselves to rounding.
    assert seen["eeg_r_occipital"] == pytest.approx(1.0, abs=1e-5)
    assert seen["eeg_r_parieto_occipital"] == pytest.approx(-1.0, abs=1e-5)
    assert seen["eeg_r_lead"] == pytest.approx(2.0, abs=1e-5)
    assert seen["eeg_peak_ms"] == pytest.approx(100.0)
    assert seen["eeg_peak_occipital_ms"] == pytest.approx(100.0)
    r, lower, upper = (found.arrays[name] for name in ("r", "lower_ceiling", "upper_ceiling"))
    assert r.shape == (len(CHANNELS), len(TIMES))
    assert seen["eeg_r_100_ms"] == pytest.approx(r[:, AT_100].mean(), abs=1e-12)
    # Five channels without noise at 0.2 s and three at 0.1 s: the ceiling of all is highest there, whatever r is.
    assert lower.mean(axis=0).argmax() == AT_200
    assert seen["eeg_r"] == pytest.approx(r[:, AT_200].mean(), abs=1e-12)
    assert seen["eeg_r"] < 0
    assert seen["eeg_ceiling_lower"] == pytest.approx(lower[:, AT_200].mean(), abs=1e-12)
    assert seen["eeg_ceiling_upper"] == pytest.approx(upper[:, AT_200].mean(), abs=1e-12)
    np.testing.assert_array_equal(found.arrays["channels"], CHANNELS)
    np.testing.assert_array_equal(found.arrays["times"], TIMES)
    assert {row.n for row in found.measures} == {IMAGES}


def test_the_time_nearest_to_100_ms_counts(subject, values):
    found = examine(subject._replace(recorded=lambda: subject.recorded()._replace(times=TIMES - 0.02)), splits=20)
    assert values(found)["eeg_r_100_ms"] == pytest.approx(found.arrays["r"][:, AT_100].mean(), abs=1e-12)  # at 80 ms


def test_a_peak_before_onset_is_no_response(subject, values):
    recorded = subject.recorded()
    before = recorded.responses.copy()
    before[..., 0] = recorded.responses[:, :1, :, 0]  # the same in every repetition: a ceiling of 1
    asked = subject._replace(recorded=lambda: recorded._replace(responses=before))
    assert values(examine(asked, splits=20)) == values(examine(subject, splits=20))


def test_other_electrodes_have_no_groups(subject, values):
    names = tuple(f"E{number}" for number in range(len(CHANNELS)))
    asked = subject._replace(recorded=lambda: subject.recorded()._replace(channels=names))
    seen = values(examine(asked, splits=20))
    assert {name for name in seen if name.startswith("eeg")} == {
        "eeg_r", "eeg_r_100_ms", "eeg_peak_ms", "eeg_ceiling_lower", "eeg_ceiling_upper"
    }  # fmt: skip


def test_what_training_said_of_the_eeg(subject, network, values):
    assert not [name for name in values(examine(subject)) if name in LOGGED]  # never trained
    network.eeg.sums.copy_(torch.tensor([8.0, 4.0, 3.0, 1.5, -0.6]))
    network.eeg.counts.copy_(torch.tensor([16.0, 3.0]))
    found = examine(subject._replace(recorded=None))
    assert values(found) == pytest.approx(dict(zip(LOGGED, [0.5, 0.25, 1.0, 0.5, -0.2], strict=True)))
    assert all(row.unit == QUANTITIES[row.measure].unit for row in found.measures)
    assert not found.arrays


def test_a_network_without_a_branch_has_no_measures(subject, deployed):
    plain = deployed().network
    assert not examine(subject._replace(trained=lambda: plain)).measures
    assert not examine(subject._replace(trained=None)).measures
