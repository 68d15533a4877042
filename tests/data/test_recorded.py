import functools
import re

import numpy as np
import pytest
import torch

from unperturbed.data import Part, load, recorded_repetitions
from unperturbed.data.controls import control, gabor_energies
from unperturbed.data.photographs import read_photographs
from unperturbed.data.recorded import things_in
from unperturbed.data.recordings import CHANNELS, read_subject, simulate
from unperturbed.data.recordings.simulator import orientation_energy
from unperturbed.records import Spec, SpecError

SMALL = {"images": "digits", "train": 40, "test": 30, "repetitions": 4, "test_repetitions": 6}


@functools.cache
def simulated(**settings):
    return load(Spec(name="simulated-eeg", settings={**SMALL, **settings}))


@pytest.fixture(scope="module")
def real():
    return simulated()


def traces(n=60, channels=3, times=20, seed=0):
    """Responses with a covariance of their own and mean 0 over the images."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((channels * times, channels * times)) / np.sqrt(channels * times)
    found = (random.standard_normal((n, channels * times)) @ mixing).reshape(n, channels, times)
    return found - found.mean(axis=0)


LABELS = np.arange(60) % 3


def test_shuffled_responses_are_those_of_other_images():
    x = traces()
    shuffled = control(x, LABELS, kind="shuffled")
    order = np.argsort(shuffled[:, 0, 0])
    assert np.array_equal(shuffled[order], x[np.argsort(x[:, 0, 0])])  # the same ones, each once
    assert (shuffled == x).all(axis=(1, 2)).mean() < 0.1  # a permutation leaves one of them in its place on average


def test_shuffled_within_class_stays_in_the_class_and_is_no_identity():
    x = traces()
    x[:, 0, 0] = np.arange(60)  # says which image it was
    rows = control(x, LABELS, kind="shuffled-within-class")[:, 0, 0].astype(int)
    assert sorted(rows) == list(range(60))
    assert np.array_equal(LABELS[rows], LABELS)
    assert (rows == np.arange(60)).mean() < 0.2
    apart = control(x, LABELS, kind="shuffled")[:, 0, 0].astype(int)
    assert (LABELS[apart] == LABELS).mean() < 0.7  # as three classes have it, 1 / 3


@pytest.mark.parametrize("times", [20, 21])
def test_random_phases_keep_every_amplitude_and_the_cross_spectrum_of_each_image(times):
    x = traces(times=times)
    turned = control(x, LABELS, kind="phase-randomised")
    before, after = np.fft.rfft(x), np.fft.rfft(turned)
    np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=0, atol=1e-12)  # float64
    np.testing.assert_allclose(after[:, 0] * after[:, 1].conj(), before[:, 0] * before[:, 1].conj(), rtol=0, atol=1e-11)
    inner = slice(1, (times + 1) // 2)
    turns = np.angle(after[:, 0, inner] / before[:, 0, inner])
    assert abs(np.exp(1j * turns).mean()) < 0.12  # 540 phases that are uniform: 3 standard errors of 1 / sqrt(540)


def test_gaussian_responses_have_the_covariance_within_sampling_error():
    x = traces(n=4000, channels=2, times=3)
    drawn = control(x, np.zeros(4000, np.int64), kind="gaussian").reshape(4000, -1)
    wanted = x.reshape(4000, -1).T @ x.reshape(4000, -1) / 4000
    got = drawn.T @ drawn / 4000
    error = np.sqrt((np.outer(np.diag(wanted), np.diag(wanted)) + wanted**2) / 4000)  # of a normal covariance
    assert np.abs(got - wanted).max() < 5 * error.max()
    assert np.abs(wanted - np.diag(np.diag(wanted))).max() > 10 * error.max()  # so that independent numbers would fail
    correlations = np.corrcoef(drawn[:, 0], x[:, 0, 0])
    assert abs(correlations[0, 1]) < 0.08  # 5 / sqrt(4000)


def test_gaussian_responses_work_with_fewer_images_than_numbers():
    x = traces(n=10)
    drawn = control(x, LABELS[:10], kind="gaussian").reshape(10, -1)
    assert np.linalg.matrix_rank(np.concatenate([drawn, x.reshape(10, -1)])) == 9  # within what X spans


def test_white_responses_are_standard_normal_and_reversed_ones_are_reversed():
    x = traces(n=600)
    white = control(x, np.zeros(600, np.int64), kind="white")
    assert abs(white.mean()) < 5 / 190  # 5 / sqrt(36000)
    assert abs(white.var() - 1) < 5 * np.sqrt(2) / 190
    assert np.array_equal(control(x, np.zeros(600, np.int64), kind="time-reversed"), np.flip(x, axis=2))


@pytest.mark.parametrize("kind", ["shuffled", "shuffled-within-class", "phase-randomised", "gaussian", "white"])
def test_a_control_draws_the_same_numbers_every_time(kind):
    assert np.array_equal(control(traces(), LABELS, kind=kind), control(traces(), LABELS, kind=kind))


def test_a_gabor_answers_to_its_own_orientation_whatever_the_phase_and_not_to_grey():
    across = 2 * np.pi * 4 * (np.arange(32) + 0.5) / 32
    gratings = [128 + 100 * np.sin(across + phase)[None, :].repeat(32, axis=0) for phase in (0.0, 1.0, 2.0)]
    images = np.stack([*gratings, gratings[0].T, np.full((32, 32), 128)]).round().astype(np.uint8)
    found = gabor_energies(images[:, None].repeat(3, axis=1), channels=17, times=100)
    assert found.shape == (5, 17, 100)
    centre = found.reshape(5, 17, 10, 10)[:, :, 4:6, 4:6].mean(axis=(2, 3))
    assert centre[0, :6].argmax() == 0  # vertical stripes, whose phase changes across
    assert centre[3, :6].argmax() == 3  # turned by 90 degrees, 3 of 6 orientations
    np.testing.assert_allclose(centre[1:3, 0], centre[0, 0], rtol=0.02)  # rounding of the grating and its edge
    assert np.abs(found[4]).max() < 1e-12 * centre[0, 0] + 1e-9


def test_training_responses_are_normalised_and_there_is_one_for_each_image(real):
    assert real.train.responses.shape == (40, 17, 100)
    assert real.test.responses.shape == (30, 17, 100)
    assert real.train.responses.dtype == torch.float32
    assert float(real.train.responses.mean(dim=0).abs().max()) < 1e-6  # float32
    torch.testing.assert_close(real.train.responses.std(dim=0, correction=0), torch.ones(17, 100), rtol=0, atol=1e-5)
    assert any("simulated" in remark for remark in real.remarks)
    assert "simulated" in real.name


def test_images_are_those_of_the_image_set_and_training_and_test_stay_apart():
    shown = simulated(images="photographs")
    photographs = read_photographs(40, 30)

    def bytes_of(part: Part):
        return sorted(
            (image.numpy().tobytes(), int(label)) for image, label in zip(part.images, part.labels, strict=True)
        )

    assert bytes_of(shown.train.parts[0]) == bytes_of(photographs.train)
    assert bytes_of(shown.test.parts[0]) == bytes_of(photographs.test)


def test_repetitions_average_to_the_test_responses_up_to_scale(real):
    found = recorded_repetitions(Spec(name="simulated-eeg", settings=SMALL))
    assert found.responses.shape == (30, 6, 17, 100)
    assert (len(found.channels), len(found.times)) == (17, 100)
    assert torch.equal(found.images, real.test.images(real.test.fixed()))
    means = torch.from_numpy(found.responses.mean(axis=1))
    together = torch.stack([means.flatten(1), real.test.responses.double().flatten(1)])
    centred = together - together.mean(dim=1, keepdim=True)
    cosines = torch.nn.functional.cosine_similarity(centred[0], centred[1], dim=0)
    assert float(cosines.min()) > 1 - 1e-6  # each number is an affine function of the other; float32


def test_the_responses_say_what_the_simulator_put_into_them():
    """The class and the image are in the responses of the robust world, and in no control that breaks the pairing."""

    def told(dataset):
        responses, labels = dataset.train.responses, dataset.train.parts[0].labels
        means = torch.stack([responses[labels == label].mean(dim=0) for label in range(10)])
        return float(means.var(dim=0).max())

    def explained(dataset):
        """The share of the occipital response at its peak that orientations, less the mean of the class, explain."""
        labels = dataset.train.parts[0].labels.numpy()
        features = orientation_energy(dataset.train.images(dataset.train.fixed()).numpy())
        for label in range(10):
            features[labels == label] -= features[labels == label].mean(axis=0)
        response = dataset.train.responses[:, CHANNELS.index("Oz"), 29:32].mean(dim=1).double().numpy()
        residual = response - features @ np.linalg.lstsq(features, response, rcond=None)[0]
        return 1 - residual.var() / response.var()

    many = {"train": 200, "test": 10, "test_repetitions": 2}
    real, within = simulated(**many), simulated(**many, responses="shuffled-within-class")
    assert told(within) == pytest.approx(told(real), rel=1e-5)
    shuffled, nothing = simulated(**many, responses="shuffled"), simulated(**many, world="none")
    for other in (shuffled, nothing):
        assert told(other) < 0.5 * told(real)
    # 16 features explain 0.08 of the variance of 200 numbers by chance
    assert explained(real) > 0.3
    for other in (within, shuffled, nothing):
        assert explained(other) < 0.2


def test_every_control_has_its_own_digest_and_the_test_responses_of_the_subject(real):
    digests = {real.digest, simulated.__wrapped__().digest}
    assert len(digests) == 1
    for responses in ("shuffled", "other-subject", "time-reversed", "gabor", "none"):
        other = simulated(responses=responses)
        assert torch.equal(other.test.responses, real.test.responses)
        assert (other.train.responses is None) == (responses == "none")
        if other.train.responses is not None:
            assert other.train.responses.shape == (40, 17, 100)
            assert not torch.equal(other.train.responses, real.train.responses)
        digests.add(other.digest)
    assert len(digests) == 6
    assert simulated(subject=2).digest not in digests


def test_the_other_subject_is_the_next_one():
    other, second = simulated(responses="other-subject"), simulated(subject=2)
    torch.testing.assert_close(other.train.responses, second.train.responses, rtol=0, atol=0)
    assert not torch.equal(other.test.responses, second.test.responses)


def test_too_many_images_are_refused_in_one_line():
    says = "simulated-eeg: 2000 train images need 200 of each class, got 124; choose fewer."
    with pytest.raises(SpecError, match=f"^{re.escape(says)}$"):
        simulated(train=2000)


def test_files_as_things_eeg2_has_them_become_nine_images_of_a_concept_and_one(tmp_path):
    photographs = read_photographs(120, 10).train
    made = simulate(
        tmp_path / "files",
        photographs.images.numpy() / 255,
        photographs.labels.numpy(),
        seed=3,
        training_concepts=5,
        test_images=5,
        test_repetitions=2,
    )
    dataset = things_in(tmp_path / "files", subject=1, responses="real", layout=made.layout)
    assert (len(dataset.train), len(dataset.test), len(dataset.classes)) == (45, 5, 5)
    first = photographs.images[made.training]
    assert torch.equal(dataset.test.parts[0].images, first[9::10])
    assert torch.equal(dataset.train.parts[0].images[9:18], first[10:19])
    assert dataset.train.parts[0].labels.tolist() == [label for label in range(5) for _ in range(9)]
    means = read_subject(tmp_path / "files", 1, layout=made.layout).training.responses.mean(axis=1)
    nine = np.delete(means, range(9, 50, 10), axis=0)
    for split, own in ((dataset.train, nine), (dataset.test, means[9::10])):
        expected = torch.from_numpy((own - nine.mean(axis=0)) / nine.std(axis=0)).float()
        torch.testing.assert_close(split.responses, expected, rtol=0, atol=1e-5)  # float32
    other = things_in(tmp_path / "files", subject=1, responses="other-subject", layout=made.layout)
    assert not torch.equal(other.train.responses, dataset.train.responses)


def test_missing_files_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("UNPERTURBED_DATA", str(tmp_path))
    with pytest.raises(
        SpecError, match=r"things-eeg2.*is missing; `unperturbed data fetch things-eeg2` says"
    ) as caught:
        load(Spec(name="things-eeg2"))
    assert "\n" not in str(caught.value)
    with pytest.raises(SpecError, match="has no response to a single picture"):
        recorded_repetitions(Spec(name="faces-houses-eeg"))


def test_faces_and_houses_have_two_responses_of_length_one(data_root):
    pytest.importorskip("mne")
    if not (data_root / "eeg-faces-houses" / "stimuli").is_dir():
        pytest.skip("no recordings of faces and houses")
    dataset = load(Spec(name="faces-houses-eeg"), root=data_root)
    part = dataset.train.parts[0]
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (18, 6, ("house", "face"))
    assert [torch.bincount(split.parts[0].labels).tolist() for split in (dataset.train, dataset.test)] == [
        [9, 9],
        [3, 3],
    ]
    assert torch.equal(part.images[:, 0], part.images[:, 1])
    seen = {image.numpy().tobytes() for split in (dataset.train, dataset.test) for image in split.parts[0].images}
    assert len(seen) == 24
    assert len(torch.unique(dataset.train.responses, dim=0)) == 2
    power = dataset.train.responses.square().mean(dim=(0, 2))
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0, atol=1e-5)  # float32
    shuffled = load(Spec(name="faces-houses-eeg", settings={"responses": "shuffled"}), root=data_root)
    assert shuffled.digest != dataset.digest
