"""What a brain finds alike, where it is made from what the network finds alike; and the 92 objects where they lie."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from torch import nn

from unperturbed.data import Repetitions
from unperturbed.data.files import Places
from unperturbed.data.recordings import Images92, images92
from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.measures.activity import activity
from unperturbed.records import SpecError

examine = EXAMINATIONS["representational-similarity"]
module = importlib.import_module("unperturbed.examinations.representational_similarity")
UNITS, IMAGES, SAMPLES = 12, 10, 199
TIMES = np.arange(-2, 6) / 20  # -0.1 to 0.25 s
AT_100, AT_200 = 4, 6

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, UNITS), nn.ReLU(), nn.Linear(UNITS, 10)).eval()


@pytest.fixture
def images():
    return torch.rand(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def recorded(network, images):
    """Noise but for two moments: at 0.1 s each channel is a unit, at 0.2 s it is one through noise."""
    random = np.random.default_rng(2)
    responses = random.standard_normal((IMAGES, 8, UNITS, len(TIMES)))
    units = activity(network, network[1], images).double().numpy()
    responses[..., AT_100] = 5 + 3 * units[:, None]
    responses[..., AT_200] = units[:, None] + 0.3 * random.standard_normal((IMAGES, 8, UNITS))
    return Repetitions(images, responses, tuple(f"E{unit}" for unit in range(UNITS)), TIMES)


@pytest.fixture
def subject(network, images, recorded):
    return Subject(network, images[:4], torch.zeros(4), 3, recorded=lambda: recorded)


def test_eeg_that_is_the_layer_is_as_similar_as_can_be_when_it_is(subject, values):
    found = examine(subject, against="eeg", samples=SAMPLES)
    seen = values(found)
    assert seen["similarity_eeg"] == pytest.approx(1.0, abs=1e-4)  # float32 activations: neighbours may change ranks
    assert seen["similarity_eeg_ceiling_lower"] == pytest.approx(1.0, abs=1e-12)
    assert seen["similarity_eeg_ceiling_upper"] == pytest.approx(1.0, abs=1e-12)
    assert seen["similarity_eeg_peak_ms"] == pytest.approx(100.0)
    assert seen["similarity_eeg_p"] == 1 / (SAMPLES + 1)
    assert {row.n for row in found.measures} == {IMAGES}
    assert found.forwards == IMAGES
    np.testing.assert_array_equal(found.arrays["times"], TIMES)


def test_each_time_is_compared_with_four_parts_of_the_repetitions(subject, network, images, recorded):
    arrays = examine(subject, against="eeg", samples=SAMPLES).arrays
    own = pdist(activity(network, network[1], images).double().numpy(), "correlation")
    for time in range(len(TIMES)):
        parts = [recorded.responses[..., time][:, [start, start + 4]].mean(axis=1) for start in range(4)]
        brain = [pdist(part, "correlation") for part in parts]
        assert arrays["r"][time] == pytest.approx(np.mean([spearmanr(own, each).statistic for each in brain]), abs=1e-4)
        lower = [
            spearmanr(brain[k], np.sum([np.argsort(np.argsort(b)) for j, b in enumerate(brain) if j != k], axis=0))
            for k in range(4)
        ]
        assert arrays["lower_ceiling"][time] == pytest.approx(np.mean([each.statistic for each in lower]), abs=1e-12)
    assert (arrays["lower_ceiling"] < arrays["upper_ceiling"] + 1e-12).all()
    assert (arrays["p"] <= arrays["p_largest"]).all()
    assert 0.2 < arrays["r"][AT_200] < arrays["upper_ceiling"][AT_200] < 0.99
    before = TIMES <= 0
    assert (arrays["p_largest"][before] > 0.05).all()


def test_when_it_is_read_off_is_decided_by_the_recordings(subject, recorded, values):
    """At 0.2 s the repetitions agree on something that has nothing to do with the network."""
    responses = recorded.responses.copy()
    shared = np.random.default_rng(5).standard_normal((IMAGES, 1, UNITS))
    responses[..., AT_100] += 1e-3 * np.random.default_rng(6).standard_normal((IMAGES, 8, UNITS))
    responses[..., AT_200] = shared
    other = subject._replace(recorded=lambda: recorded._replace(responses=responses))
    found = examine(other, against="eeg", samples=SAMPLES)
    seen = values(found)
    assert seen["similarity_eeg"] == found.arrays["r"][AT_200]
    assert seen["similarity_eeg"] < 0.6
    assert seen["similarity_eeg_peak_ms"] == pytest.approx(100.0)
    assert seen["similarity_eeg_p"] == 1 / (SAMPLES + 1)  # of the largest, at 0.1 s


@pytest.mark.parametrize("change", ["no recordings", "a dead layer", "images alike", "equal channels"])
def test_what_is_not_defined_has_no_measures(subject, network, recorded, change):
    if change == "no recordings":
        subject = subject._replace(recorded=None)
    if change == "a dead layer":
        nn.init.zeros_(network[1].weight)
        nn.init.zeros_(network[1].bias)
    if change == "images alike":
        nn.init.zeros_(network[1].weight)
    if change == "equal channels":
        responses = recorded.responses.copy()
        responses[3, ..., 0] = 1.0
        subject = subject._replace(recorded=lambda: recorded._replace(responses=responses))
    assert not examine(subject, against="eeg", samples=5).measures


def imitation(network, images):
    """Objects whose human IT is the layer in its rank order, and whose monkey IT is the reverse of it."""
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    shown = torch.from_numpy(pixels / 255).permute(0, 3, 1, 2).float()
    own = pdist(activity(network, network[1], shown).double().numpy(), "correlation")
    sessions = np.broadcast_to(own**3, (4, 2, own.size)) + np.array([0.0, 1.0])[:, None]
    return Images92(pixels, ("",) * IMAGES, {}, -own, own, sessions, own[None], {})


@pytest.fixture
def objects(monkeypatch):
    """Sets what lies in the files of the 92 images."""

    def place(found):
        module._objects.cache_clear()
        module._shrunk.cache_clear()
        monkeypatch.setattr(module, "images92", lambda places: found)

    yield place
    module._objects.cache_clear()
    module._shrunk.cache_clear()


def test_people_who_see_as_the_network_does_and_monkeys_who_do_the_opposite(subject, network, images, objects, values):
    objects(imitation(network, images))
    found = examine(subject, samples=SAMPLES)
    seen = values(found)
    # float32 activations: neighbouring pairs may change ranks
    assert seen["similarity_it_human"] == pytest.approx(1.0, abs=1e-3)
    assert seen["similarity_it_monkey"] == pytest.approx(-1.0, abs=1e-3)
    assert seen["similarity_it_ceiling_lower"] == pytest.approx(1.0, abs=1e-12)
    assert seen["similarity_it_ceiling_upper"] == pytest.approx(1.0, abs=1e-12)
    assert (seen["similarity_it_human_p"], seen["similarity_it_monkey_p"]) == (1 / (SAMPLES + 1), 1.0)
    assert {row.n for row in found.measures} == {IMAGES}
    assert found.forwards == IMAGES
    assert found.arrays["dissimilarities"].shape == (IMAGES * (IMAGES - 1) // 2,)


def test_a_stage_is_looked_at_by_its_name(subject, network, images, objects, values):
    objects(imitation(network, images))
    logits = values(examine(subject, layer="3", samples=9))
    assert logits["similarity_it_human"] < 0.95
    with pytest.raises(SpecError, match=r"layer.*stage"):
        examine(subject, layer="stage")


def test_objects_are_averaged_over_areas_to_the_size_of_the_images(subject, objects, values):
    """Of 16 by 16 pixels, each two by two become one: dissimilarities of the input are those of their means."""
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    means = pixels.reshape(6, 8, 2, 8, 2, 3).mean(axis=(2, 4)) / 255
    own = pdist(means.transpose(0, 3, 1, 2).reshape(6, -1), "correlation")
    objects(Images92(pixels, ("",) * 6, {}, own, own, np.broadcast_to(own, (4, 2, 15)), own[None], {}))
    found = examine(subject, layer="input", samples=9)
    np.testing.assert_allclose(found.arrays["dissimilarities"], own, rtol=0, atol=1e-5)  # float32 images


def test_missing_files_are_one_line_that_says_where_they_come_from(subject, monkeypatch, tmp_path):
    module._objects.cache_clear()
    module._shrunk.cache_clear()
    monkeypatch.delenv("UNPERTURBED_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    with pytest.raises(SpecError, match=r"images92 needs the file .*run `unperturbed data fetch images92`") as refused:
        examine(subject)
    assert "\n" not in str(refused.value)


def test_pixels_of_the_92_objects_say_little_of_it(subject, values):
    """Published (figure 4 of the source): images low-pass filtered or as pixels are far from both ITs."""
    root = Path(os.environ.get("UNPERTURBED_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / "images92").is_dir():
        pytest.skip(f"no images92 in {root}; set UNPERTURBED_DATA")
    found = examine(subject._replace(places=Places(root)), layer="input")
    seen = values(found)
    people = images92(Places(root)).sessions.mean(axis=1)
    own = found.arrays["dissimilarities"]
    each = [spearmanr(own, person).statistic for person in people]
    assert seen["similarity_it_human"] == pytest.approx(np.mean(each), abs=1e-12)
    assert -0.1 < seen["similarity_it_human"] < seen["similarity_it_ceiling_lower"] / 2
    # a person agrees with the mean of the others by 0.37
    assert seen["similarity_it_ceiling_lower"] == pytest.approx(0.3723, abs=5e-5)
    assert {row.n for row in found.measures} == {92}
