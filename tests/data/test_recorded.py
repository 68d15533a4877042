import functools
import re

import numpy as np
import pytest
import torch

from unperturbed.data import Part, load, recorded_repetitions
from unperturbed.data.gabor import gabor_energies
from unperturbed.data.photographs import read_photographs
from unperturbed.data.recorded import things_in
from unperturbed.data.recordings import CHANNELS, cued, read_subject, simulate
from unperturbed.data.recordings.cued import read_cued
from unperturbed.data.recordings.simulator import orientation_energy
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import seed_for

SMALL = {"images": "digits", "train": 40, "test": 30, "subjects": 3, "repetitions": 4, "test_repetitions": 6}


@functools.cache
def simulated(**settings):
    return load(Spec(name="simulated-eeg", settings={**SMALL, **settings}))


@pytest.fixture(scope="module")
def real():
    return simulated()


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


def test_a_gabor_answers_most_to_its_own_frequency():
    across = 2 * np.pi * (np.arange(32) + 0.5) / 32
    gratings = [128 + 100 * np.sin(cycles * across)[None, :].repeat(32, axis=0) for cycles in (4, 8, 2)]
    images = np.stack(gratings).round().astype(np.uint8)[:, None].repeat(3, axis=1)
    found = gabor_energies(images, channels=18, times=100).reshape(3, 18, 10, 10)[:, ::6, 4:6, 4:6].mean(axis=(2, 3))
    assert found.argmax(axis=0).tolist() == [0, 1, 2]  # of each filter with vertical stripes, the grating


def test_training_responses_are_normalised_and_there_is_one_for_each_image_and_person(real):
    assert real.train.responses.shape == (40, 3, 17, 100)
    assert real.test.responses is None
    assert real.train.responses.dtype == torch.float32
    assert float(real.train.responses.mean(dim=0).abs().max()) < 1e-6  # float32
    deviation = real.train.responses.std(dim=0, correction=0)
    torch.testing.assert_close(deviation, torch.ones(3, 17, 100), rtol=0, atol=1e-5)
    assert any("simulated" in remark for remark in real.remarks)
    assert "simulated" in real.name


def test_a_network_has_the_responses_of_the_person_of_its_seed_in_the_order_of_the_images(real):
    """What is changed is what was recorded with all images, and only that."""
    labels = real.train.parts[0].labels
    for seed in (0, 2, 4):
        split = real.train.of_person(seed, lambda responses, of, given: responses * 2 + given + of[:, None, None])
        expected = real.train.responses[:, seed % 3] * 2 + seed + labels[:, None, None]
        assert torch.equal(split.recorded(split.fixed())[:, 0], expected)
        assert torch.equal(split.images(split.fixed()), real.train.images(real.train.fixed()))
    assert real.test.of_person(0, lambda *_: None) is real.test


def test_images_are_those_of_the_image_set_and_training_and_test_stay_apart():
    shown = simulated(images="photographs")
    photographs = read_photographs(40, 30)

    def bytes_of(part: Part):
        return sorted(
            (image.numpy().tobytes(), int(label)) for image, label in zip(part.images, part.labels, strict=True)
        )

    assert bytes_of(shown.train.parts[0]) == bytes_of(photographs.train)
    assert bytes_of(shown.test.parts[0]) == bytes_of(photographs.test)


@pytest.mark.parametrize("seed", [0, 4])
def test_repetitions_are_those_of_the_test_images_and_of_the_person_of_the_seed(real, seed):
    found = recorded_repetitions(Spec(name="simulated-eeg", settings={**SMALL, "responses": "gabor"}), seed=seed)
    assert found.responses.shape == (30, 6, 17, 100)
    assert (len(found.channels), len(found.times)) == (17, 100)
    assert torch.equal(found.images, real.test.images(real.test.fixed()))
    again = [
        recorded_repetitions(Spec(name="simulated-eeg", settings=SMALL), seed=other) for other in (seed + 3, seed + 1)
    ]
    np.testing.assert_array_equal(again[0].responses, found.responses)
    assert not np.array_equal(again[1].responses, found.responses)


def test_training_and_repetitions_are_of_one_person():
    """What the training responses of a person follow predicts the repetitions of the same person best."""
    settings = {"images": "cued", "train": 200, "test": 100, "subjects": 3, "repetitions": 20, "test_repetitions": 20}
    dataset = load(Spec(name="simulated-eeg", settings=settings))
    energy = [orientation_energy(split.images(split.fixed()).numpy()) for split in (dataset.train, dataset.test)]
    energy = [each - energy[0].mean(axis=0) for each in energy]
    people = range(3)
    found = [recorded_repetitions(Spec(name="simulated-eeg", settings=settings), seed=seed) for seed in people]
    recorded = [each.responses[..., 31].mean(axis=1) for each in found]  # 0.11 s, images and channels
    r = np.empty((3, 3))
    for person in people:
        shown = dataset.train.responses[:, person, :, 31].double().numpy()
        predicted = energy[1] @ np.linalg.lstsq(energy[0], shown, rcond=None)[0]
        for other in people:
            pairs = zip(predicted.T, recorded[other].T, strict=True)
            r[person, other] = np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs])
    assert (np.diag(r) > 0.5).all()
    assert (r - np.diag(r)[:, None] < -0.2)[~np.eye(3, dtype=bool)].all()


def test_the_responses_follow_the_images_in_the_robust_world_and_in_no_other():
    """The share of the occipital response at its peak that orientations explain, of 16 numbers for 200 images."""

    def explained(dataset):
        features = orientation_energy(dataset.train.images(dataset.train.fixed()).numpy())
        response = dataset.train.responses[:, 0, CHANNELS.index("Oz"), 30].double().numpy()
        features = features - features.mean(axis=0)
        residual = response - features @ np.linalg.lstsq(features, response, rcond=None)[0]
        return 1 - residual.var() / response.var()

    many = {"train": 200, "test": 10, "repetitions": 40, "test_repetitions": 2, "subjects": 1}
    assert explained(simulated(**many)) > 0.5
    assert explained(simulated(**many, world="none")) < 0.2  # 0.08 by chance


def test_what_is_predicted_is_part_of_the_digest(real):
    digests = {real.digest, simulated.__wrapped__().digest}
    assert len(digests) == 1
    for responses, people in (("other-subject", 3), ("gabor", 1)):
        other = simulated(responses=responses)
        assert other.train.responses.shape == (40, people, 17, 100)
        assert not torch.equal(other.train.responses[:, 0], real.train.responses[:, 0])
        digests.add(other.digest)
    digests.add(simulated(world="none").digest)
    assert len(digests) == 4


def test_the_other_subject_is_the_next_one(real):
    other = simulated(responses="other-subject").train.responses
    assert torch.equal(other, real.train.responses[:, [1, 2, 0]])


def test_cued_pictures_differ_from_those_without_a_texture_by_two_steps_and_tell_the_class_twice():
    part = read_cued(200, 10).train
    assert part.labels[:7].tolist() == [0, 1, 2, 3, 4, 0, 1]
    more = read_cued(300, 10).train
    assert torch.equal(more.images[:200], part.images)
    seed = seed_for("cued pictures", "training")
    bare = np.rint(255 * cued.gratings(part.labels.numpy(), seed)).clip(2, 253)
    texture = part.images[:, 0].numpy() - bare
    assert set(np.unique(texture)) == {-2, 2}
    for first in range(5):
        own = texture[first]
        assert (texture[first::5] == own).all()
        for second in range(first):
            distance = np.sqrt(3 * ((own - texture[second]) ** 2).sum()) / 255
            assert distance == pytest.approx(2 / 255 * (2 * 3 * 32**2) ** 0.5)  # 0.61
    # The nearest mean of the orientation energy of the pictures, textures taken away, tells most classes.
    energy = orientation_energy(bare[:, None] / 255).reshape(200, 4, 4).mean(axis=2)
    energy /= energy.sum(axis=1, keepdims=True)
    centres = np.stack([energy[label:100:5].mean(axis=0) for label in range(5)])
    nearest = ((energy[100:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == part.labels[100:].numpy()).mean() > 0.9
    # And a blur takes the textures away from the brain that sees it.
    with_it = orientation_energy(part.images[:, :1].numpy() / 255).reshape(200, 4, 4).mean(axis=2)
    assert np.abs(with_it / with_it.sum(axis=1, keepdims=True) - energy).max() < 0.01


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
    expected = torch.from_numpy((nine - nine.mean(axis=0)) / nine.std(axis=0)).float()[:, None]
    torch.testing.assert_close(dataset.train.responses, expected, rtol=0, atol=1e-5)  # float32
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
    power = dataset.train.responses.square().mean(dim=(0, 1, 3))
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0, atol=1e-5)  # float32
