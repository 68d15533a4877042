from typing import get_args

import numpy as np
import pytest
import torch
from skimage.io import imread

from unperturbed.data.recordings import CHANNELS, TIMES, Answers, read_subject, simulate, simulator
from unperturbed.data.recordings.simulator import World, orientation_energy, pink_noise
from unperturbed.data.recordings.things_eeg2 import OCCIPITAL, PARIETO_OCCIPITAL
from unperturbed.measures.eeg_prediction import peak_latency, prediction_accuracy
from unperturbed.records import SpecError

LOW = [place for place, channel in enumerate(CHANNELS) if channel in OCCIPITAL]
PARIETAL = [place for place, channel in enumerate(CHANNELS) if channel not in (*OCCIPITAL, *PARIETO_OCCIPITAL)]
HIGH = [place for place in range(len(CHANNELS)) if place not in LOW]


@pytest.fixture(scope="module", params=get_args(World))
def world(request, pictures, tmp_path_factory):
    """Each world: the recordings of its two subjects, what is true of them, and the labels of all images."""
    folder = tmp_path_factory.mktemp("world") / request.param
    sizes = {"subjects": 2, "training_concepts": 12, "images_per_concept": 10, "test_images": 120}
    simulated = simulate(folder, *pictures, seed=3, world=request.param, test_repetitions=24, **sizes)
    subjects = [read_subject(folder, number, layout=simulated.layout) for number in (1, 2)]
    return request.param, subjects, simulated, pictures[1]


def test_files_are_those_that_the_authors_code_reads(written):
    folder, _ = written
    for name, shape in (("training", (12, 4, 17, 100)), ("test", (6, 8, 17, 100))):
        stored = np.load(folder / "sub-01" / f"preprocessed_eeg_{name}.npy", allow_pickle=True).item()
        assert list(stored) == ["preprocessed_eeg_data", "ch_names", "times"]
        assert (stored["preprocessed_eeg_data"].shape, stored["preprocessed_eeg_data"].dtype) == (shape, np.float64)
        assert (type(stored["ch_names"]), stored["ch_names"][3:6]) == (list, ["O1", "Oz", "O2"])
        assert stored["times"].shape == (100,)
    metadata = np.load(folder / "image_metadata.npy", allow_pickle=True).item()
    assert list(metadata) == ["train_img_concepts", "train_img_files", "test_img_concepts", "test_img_files"]


def test_images_are_those_given_and_no_test_image_is_trained_on(written, pictures):
    folder, simulated = written
    images, labels = pictures
    found = read_subject(folder, 1, layout=simulated.layout)
    assert not set(simulated.training) & set(simulated.test)
    assert labels[simulated.training].tolist() == found.training.concepts.tolist()
    assert labels[simulated.test].tolist() == [0, 1, 2, 3, 0, 1]
    for part, rows, name in ((found.training, simulated.training, "training"), (found.test, simulated.test, "test")):
        for image, row in zip(part.images, rows, strict=True):
            pixels = imread(folder / f"{name}_images" / image)
            np.testing.assert_allclose(pixels / 255, images[row, 0], rtol=0, atol=0.5 / 255 + 1e-12)


def test_the_seed_decides_every_number_and_subjects_differ(written, pictures, tmp_path):
    folder, simulated = written
    sizes = {"training_concepts": 4, "images_per_concept": 3, "test_images": 6, "test_repetitions": 8}
    images, labels = (torch.from_numpy(given) for given in pictures)
    again = simulate(tmp_path / "again", images, labels, seed=1, **sizes)
    simulate(tmp_path / "other", *pictures, seed=2, **sizes)
    first, same, other = (
        read_subject(place, 1, layout=simulated.layout) for place in (folder, tmp_path / "again", tmp_path / "other")
    )
    np.testing.assert_array_equal(first.training.responses, same.training.responses)
    np.testing.assert_array_equal(simulated.answers[1].signal, again.answers[1].signal)
    second = read_subject(folder, 2, layout=simulated.layout)
    for another in (other, second):
        close = np.corrcoef(first.test.responses.ravel(), another.test.responses.ravel())[0, 1]
        assert abs(close) < 5 / first.test.responses.size**0.5 * 3  # noise along a trace is correlated
    assert not np.allclose(simulated.answers[0].signal, simulated.answers[1].signal)


def test_noise_has_variance_1_at_every_time_and_power_that_falls_as_1_over_f():
    noise = pink_noise(np.random.default_rng(0), 20_000)
    error = (2 / 20_000) ** 0.5  # of a variance
    np.testing.assert_allclose(noise.var(axis=0), 1, rtol=0, atol=5 * error)
    power = (np.abs(np.fft.rfft(noise)) ** 2).mean(axis=0)
    assert power[0] < 1e-20
    weighted = power[1:-1] * np.arange(1, 50)
    np.testing.assert_allclose(weighted / weighted.mean(), 1, rtol=0, atol=6 / 20_000**0.5)  # of an exponential mean
    assert power[-1] * 50 == pytest.approx(weighted.mean(), rel=6 * error)


@pytest.mark.parametrize("repetitions", [4, 7])
def test_the_closed_forms_are_those_of_halves_of_a_signal_in_noise(repetitions):
    random = np.random.default_rng(0)
    signal, noise, images = 0.3, 1.5, 200_000
    shown = random.normal(0, signal**0.5, images)
    seen = shown[:, None] + random.normal(0, noise**0.5, (images, repetitions))
    larger = -(-repetitions // 2)
    a, b, whole = seen[:, :larger].mean(axis=1), seen[:, larger:].mean(axis=1), seen.mean(axis=1)
    answers = Answers(np.array([[signal]]), np.array([[noise]]), np.zeros(1))
    error = 4 / images**0.5
    for form, other in ((answers.lower_ceiling, b), (answers.upper_ceiling, whole), (answers.best, shown)):
        assert form(repetitions).item() == pytest.approx(np.corrcoef(a, other)[0, 1], abs=error)


def test_ceilings_are_the_closed_forms_in_both_worlds(world):
    _, (_, subject), simulated, _ = world
    answers = simulated.answers[1]
    found = prediction_accuracy(subject.test.responses.mean(axis=1), subject.test.responses, splits=20)
    # Over 120 images, r scatters by about (1 - r**2) / sqrt(120), and neighbouring times scatter together.
    for got, expected in (
        (found.lower_ceiling, answers.lower_ceiling(24)),
        (found.upper_ceiling, answers.upper_ceiling(24)),
    ):
        scatter = (1 - expected**2) / 120**0.5
        assert (np.abs(got - expected) < 5 * scatter).all()
        assert np.mean((got - expected) / scatter) == pytest.approx(0, abs=0.15)
    assert answers.lower_ceiling(24).max() > 0.6


def test_the_signal_and_the_noise_have_the_variances_that_are_told(world):
    _, (_, subject), simulated, _ = world
    answers = simulated.answers[1]
    responses = subject.test.responses
    within = responses.var(axis=1, ddof=1).mean(axis=0)  # over 120 x 23 degrees of freedom
    np.testing.assert_allclose(within / answers.noise, 1, rtol=0, atol=6 * (2 / (120 * 23)) ** 0.5)
    between = responses.mean(axis=1).var(axis=0) - within / 24
    # a sum of squares over 119 degrees of freedom, of the noise of the mean and of its product with the signal
    error = np.sqrt(2 * (answers.noise / 24) ** 2 + 4 * answers.signal * answers.noise / 24) / 119**0.5
    assert (np.abs(between - answers.signal) < 6 * error).all()
    assert (answers.signal[:, TIMES <= 0] == 0).all()


def test_the_size_of_the_signal_varies_from_trial_to_trial_as_told(pictures, monkeypatch):
    """Where it varies six times as much, most of the noise is due to that, and all of it is accounted for."""
    monkeypatch.setattr(simulator, "TRIAL_TO_TRIAL", 3.0)
    simulated = simulate(None, *pictures, seed=0, subjects=1, images_per_concept=2, test_images=120)
    excess = simulated.answers[0].noise - 1
    responses = simulated.responses(1, "test")
    within = responses.var(axis=1, ddof=1).mean(axis=0) - 1
    assert excess.max() > 0.8
    # signals of unequal size: as if they were 40 images, each with the error of a variance of 79 numbers
    assert (within * excess).sum() / (excess**2).sum() == pytest.approx(1, abs=4 * (3 * 2 / (40 * 79)) ** 0.5)


def test_the_signal_varies_around_its_mean_over_the_test_images(pictures):
    """Three images of three classes: their mean response is not 0, and no part of the variance that is told."""
    simulated = simulate(None, *pictures, seed=0, subjects=1, test_images=3, test_repetitions=2400)
    answers, responses = simulated.answers[0], simulated.responses(1, "test")
    peak = [np.abs(TIMES - latency).argmin() for latency in answers.latencies]
    at_peak = responses[:, :, range(17), peak]
    between = (at_peak.mean(axis=1).var(axis=0) - at_peak.var(axis=1).mean(axis=0) * 2 / 3 / 2400)[HIGH]
    signal = answers.signal[range(17), peak][HIGH]
    shared = (at_peak.mean(axis=(0, 1)) ** 2)[HIGH]
    error = (4 * signal / 2400 / 3).sum() ** 0.5
    assert shared.sum() > 5 * error  # so that to forget it would be seen below
    assert between.sum() == pytest.approx(signal.sum(), abs=4 * error)


def test_latencies_are_recovered_to_one_sample(world):
    _, (_, subject), simulated, _ = world
    answers = simulated.answers[1]
    found = prediction_accuracy(subject.test.responses.mean(axis=1), subject.test.responses, splits=20)
    for group, latency in ((LOW, 0.10), (HIGH, 0.12)):
        assert answers.latencies[group] == pytest.approx(np.full(len(group), latency), abs=0.00501)
        known = float(answers.latencies[group[0]])
        assert peak_latency(found.lower_ceiling[group].mean(axis=0), TIMES) == pytest.approx(known, abs=0.0151)


def test_the_whole_head_peaks_as_published_and_occipital_channels_are_predicted_best(pictures):
    """What can be predicted by who knows the signal: between 90 and 130 ms in the mean over channels, for everybody."""
    for answers in simulate(None, *pictures, seed=0, subjects=10).answers:
        best = answers.best(40)
        assert 0.095 < peak_latency(best.mean(axis=0), TIMES) < 0.125
        groups = [best[[CHANNELS.index(channel) for channel in group]] for group in (OCCIPITAL, PARIETO_OCCIPITAL)]
        assert groups[0].mean(axis=0).max() > groups[1].mean(axis=0).max() + 0.05


def test_sizes_of_channels_are_the_stated_ones_within_a_fifth(pictures):
    """Features have variance 1 and weights length 1, so that the signal at its peak has the square of its size."""
    simulated = simulate(None, *pictures, seed=0, subjects=1)
    assert (simulated.signals[0].mean(axis=0) < 1e-12).all()
    size = simulated.signals[0].var(axis=0).max(axis=1) ** 0.5
    parietal = set(CHANNELS) - set(OCCIPITAL) - set(PARIETO_OCCIPITAL)
    for group, stated in ((OCCIPITAL, 0.5), (PARIETO_OCCIPITAL, 0.25), (parietal, 0.2)):
        found = size[[CHANNELS.index(channel) for channel in group]] / stated
        assert (found > 0.8 * 0.96).all()  # a latency may lie between two samples: exp(-0.005**2 / 2 / 0.02**2) = 0.97
        assert (found < 1.2 + 1e-9).all()
        assert np.ptp(found) > 0.02


def test_after_the_peak_the_signal_is_sustained(pictures):
    simulated = simulate(None, *pictures, seed=0, subjects=1)
    trace = np.abs(simulated.signals[0][0, LOW[0]])
    latency = simulated.answers[0].latencies[LOW[0]]
    later = latency + 0.06 < TIMES
    expected = 0.4 * np.exp(-(TIMES - latency) / 0.3)
    at_peak = np.exp(-((TIMES - latency) ** 2) / 2 / 0.02**2)
    scale = trace[TIMES == 0.1] / at_peak[TIMES == 0.1]
    np.testing.assert_allclose(trace[later] / scale, expected[later], rtol=1e-9)
    assert (trace[TIMES <= 0] == 0).all()


def test_every_group_follows_orientation_energy_in_the_robust_world_only(world, pictures):
    name, (_, subject), simulated, _ = world
    energy = orientation_energy(pictures[0])
    energy = energy - energy[np.concatenate([simulated.training, simulated.test])].mean(axis=0)
    peak = [np.abs(TIMES - latency).argmin() for latency in simulated.answers[1].latencies]
    measured = subject.test.responses.mean(axis=1)[:, range(17), peak]
    training = subject.training.responses.mean(axis=1)[:, range(17), peak]
    weights = np.linalg.lstsq(energy[simulated.training], training, rcond=None)[0]
    predicted = energy[simulated.test] @ weights
    r = np.array([np.corrcoef(predicted[:, place], measured[:, place])[0, 1] for place in range(17)])
    if name == "robust":
        assert (r[LOW] > 0.5).all()
        assert r[HIGH].mean() > 0.3
    elif name == "category":  # in which parieto-occipital channels see the class; its images are alike
        assert (r[LOW] > 0.5).all()
        assert r[PARIETAL].mean() > 0.3
    else:
        assert (np.abs(r) < 4 / 120**0.5).all()


@pytest.mark.parametrize("name", get_args(World))
def test_the_channels_that_carry_the_class_are_those_of_their_world(name):
    """Classes that the images do not show: a channel that tells them sees the class itself."""
    random = np.random.default_rng(4)
    images, labels = random.random((400, 1, 16, 16)), np.arange(400) % 8
    sizes = {"subjects": 1, "training_concepts": 8, "images_per_concept": 30, "test_images": 160}
    simulated = simulate(None, images, labels, seed=5, world=name, test_repetitions=20, **sizes)
    mean = simulated.responses(1, "test").mean(axis=1)
    shown = labels[simulated.test]
    told = []
    for place, latency in enumerate(simulated.answers[0].latencies):
        at_peak = mean[:, place, np.abs(TIMES - latency).argmin()]
        between = np.array([at_peak[shown == label].mean() for label in range(8)])[shown]
        told.append(between.var() / at_peak.var())  # 7/159 = 0.04 of independent numbers
    high = [place for place, channel in enumerate(CHANNELS) if channel in PARIETO_OCCIPITAL]
    others = np.delete(told, high)
    assert np.mean(others) < 0.09
    if name == "category":
        assert np.min([told[place] for place in high]) > 0.3
    else:
        assert np.mean([told[place] for place in high]) < 0.09


def test_files_hold_what_is_recorded_and_nothing_need_be_written(pictures, written):
    folder, simulated = written
    sizes = {"training_concepts": 4, "images_per_concept": 3, "test_images": 6, "test_repetitions": 8}
    unwritten = simulate(None, *pictures, seed=1, **sizes)
    for subject in (1, 2):
        found = read_subject(folder, subject, layout=simulated.layout)
        for part in ("training", "test"):
            np.testing.assert_array_equal(getattr(found, part).responses, unwritten.responses(subject, part))


def test_the_worlds_differ_in_the_pairing_alone(pictures, tmp_path):
    sizes = {"training_concepts": 12, "images_per_concept": 3, "test_images": 60, "test_repetitions": 40}
    found, answers = [], []
    for name in ("robust", "none"):
        simulated = simulate(tmp_path / name, *pictures, seed=0, world=name, **sizes)
        found.append(read_subject(tmp_path / name, 1, layout=simulated.layout).test.responses.mean(axis=1))
        answers.append(simulated.answers)
    for robust, none in zip(*answers, strict=True):
        for name in ("signal", "noise", "latencies"):
            np.testing.assert_array_equal(getattr(robust, name), getattr(none, name))
    place = CHANNELS.index("PO7")
    peak = [mean[:, place, np.abs(TIMES - answers[0][0].latencies[place]).argmin()] for mean in found]
    assert abs(np.corrcoef(*peak)[0, 1]) < 4 / 60**0.5
    # The same signals, each for another image: sorted, they agree to the noise of a mean of 40.
    np.testing.assert_allclose(np.sort(peak[0]), np.sort(peak[1]), rtol=0, atol=5 / 40**0.5)


def test_orientation_energy_sees_orientation_and_only_low_spatial_frequencies():
    across = 2 * np.pi * (np.arange(32) + 0.5) / 32
    stripes = lambda cycles: 0.5 + 0.5 * np.tile(np.cos(cycles * across), (32, 1))  # noqa: E731 (no step at the edge)
    images = np.stack([stripes(2), stripes(2).T, stripes(12)])[:, None]
    energy = orientation_energy(images).reshape(3, 4, 4)  # orientations, cells
    assert (energy[0, 0] > 10 * energy[0, 2]).all()
    np.testing.assert_allclose(energy[0, 0], energy[1, 2][[0, 2, 1, 3]], rtol=1e-12, atol=1e-12)
    assert energy[2].max() < 0.01 * energy[0].max()


@pytest.mark.parametrize(
    ("given", "settings", "says"),
    [
        (lambda x, y: (x[:, 0], y), {}, "images must be (n, 1 or 3, height, width), got shape (1200, 16, 16)."),
        (lambda x, y: (x * 255, y), {}, "images must lie in [0, 1], got"),
        (lambda x, y: (x, y[:-1]), {}, "1200 images need as many whole labels, got int64 (1199,)."),
        (lambda x, y: (x, y / 2), {}, "1200 images need as many whole labels, got float64 (1200,)."),
        (lambda x, y: (x, y), {"training_concepts": 13}, "need as many classes of 14 images, got 12 classes of 100"),
        (lambda x, y: (x, y), {"images_per_concept": 99}, "need as many classes of 103 images, got 10 classes of 100"),
        (lambda x, y: (x, y), {"test_repetitions": 1}, "test_repetitions must be at least 2, got 1."),
        (lambda x, y: (x, y), {"world": "any"}, "world must be 'robust' or 'none' or 'category', got 'any'."),
        (lambda x, y: (x * 0, y), {}, "the images must differ, got images without any orientation"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_one_line(pictures, tmp_path, given, settings, says):
    with pytest.raises(SpecError) as error:
        simulate(tmp_path / "folder", *given(*pictures), seed=0, **settings)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_with_something_in_it_is_left_alone(pictures, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(SpecError, match=r"must be empty, got mine in it; choose another folder\.$"):
        simulate(tmp_path, *pictures, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
