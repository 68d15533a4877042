import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from unperturbed.data import CATALOGUE, load, verify
from unperturbed.data.digits import read_digits
from unperturbed.data.photographs import PHOTOGRAPHS, corners, photograph, read_photographs, reduce
from unperturbed.records import Spec
from unperturbed.tensors.streams import generator

EMBEDDED = {
    "digits": "06b6cfe75f51a86bd46eb635d1af3b4f5bf4d898c0fe6598a72026b05887fd99",
    "photographs": "826baf631ac7718d5a1c5935d8c8b83aecf6953c4d3b1fd949f97eb2237b4132",
}


def counts(labels):
    return torch.bincount(labels, minlength=10).tolist()


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_bytes_are_the_same_every_time(name):
    np.random.seed(7)  # noqa: NPY002 - global state must not matter
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert load(Spec(name=name)).digest == EMBEDDED[name]
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.parametrize("name", EMBEDDED)
def test_verification_compares_with_the_known_digest(name):
    (row,) = verify(name)
    assert (row.state, row.expected, row.got) == ("official", EMBEDDED[name], EMBEDDED[name])


@pytest.mark.parametrize("name", [*EMBEDDED, "fusion"])
def test_images_are_32_by_32_in_colour_and_as_many_as_listed(name):
    data = load(Spec(name=name))
    images = data.test.images(data.test.fixed())
    assert images.shape == (CATALOGUE[name].test, 3, 32, 32)
    assert len(data.train) == CATALOGUE[name].train
    assert (float(images.min()) >= 0, float(images.max()) <= 1, len(data.classes)) == (True, True, 10)


def test_digits_are_those_of_scikit_learn_each_once():
    collection = read_digits("pad")
    both = torch.cat([collection.train.images, collection.test.images])
    assert torch.equal(both[:, 0], both[:, 1])
    assert torch.equal(both[:, 0], both[:, 2])
    centres = np.rint(both[:, 0, 12:20, 12:20].double().numpy() * 16 / 255).reshape(-1, 64)
    labels = torch.cat([collection.train.labels, collection.test.labels]).numpy()
    images, targets = load_digits(return_X_y=True)
    ours = np.column_stack([centres, labels])
    theirs = np.column_stack([images, targets])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])
    assert counts(collection.test.labels) == [50] * 10


def test_photographs_are_balanced_patches_of_their_own_side():
    collection = read_photographs(1300, 500)
    assert counts(collection.train.labels) == [130] * 10
    assert counts(collection.test.labels) == [50] * 10
    for label, file in enumerate(PHOTOGRAPHS.values()):
        picture = photograph(file)
        for part, testing in ((collection.train, False), (collection.test, True)):
            side = {
                picture[y : y + 32, x : x + 32].transpose(2, 0, 1).tobytes()
                for y, x in corners(*picture.shape[:2], testing=testing)
            }
            assert all(image.numpy().tobytes() in side for image in part.images[part.labels == label])


@pytest.mark.parametrize("file", PHOTOGRAPHS.values())
def test_no_pixel_of_a_test_patch_is_in_a_training_patch(file):
    height, width = photograph(file).shape[:2]
    covered = {}
    for testing in (False, True):
        covered[testing] = np.zeros((height, width), bool)
        for y, x in corners(height, width, testing=testing):
            covered[testing][y : y + 32, x : x + 32] = True
            assert y + 32 <= height
            assert x + 32 <= width
    assert not (covered[False] & covered[True]).any()
    assert covered[False].sum() > covered[True].sum() > 0


def test_the_largest_sizes_that_are_allowed_can_be_cut():
    collection = read_photographs(20000, 5000)
    assert (counts(collection.train.labels), counts(collection.test.labels)) == ([2000] * 10, [500] * 10)


def test_reducing_averages_squares_and_rounds_half_up():
    pixels = np.array([[0, 1, 9], [1, 0, 9], [7, 7, 7]], np.uint8)[:, :, None].repeat(3, axis=2)
    assert reduce(pixels, 2).tolist() == [[[1, 1, 1]]]


def test_colours_tell_photographs_apart_but_not_all_of_them():
    data = load(Spec(name="photographs"))

    def colours(split):
        images = split.images(split.fixed())
        return torch.cat([images.mean((2, 3)), images.std((2, 3))], 1), split.labels(split.fixed())

    features, labels = colours(data.train)
    centres = torch.stack([features[labels == label].mean(0) for label in range(10)])
    features, labels = colours(data.test)
    accuracy = (torch.cdist(features, centres).argmin(1) == labels).double().mean()
    assert 0.4 < accuracy < 0.9


@pytest.mark.parametrize("name", EMBEDDED)
def test_contrast_fades_to_middle_grey(name):
    plain, half = load(Spec(name=name)), load(Spec(name=name, settings={"contrast": 0.5}))
    rows = plain.test.fixed()
    torch.testing.assert_close(half.test.images(rows), 0.5 * plain.test.images(rows) + 0.25, rtol=0, atol=2**-24)
    assert half.digest != plain.digest


@pytest.mark.parametrize(("alpha", "task"), [(0.25, "digit"), (0.5, "object")])
def test_fusion_adds_a_digit_and_an_object(alpha, task):
    fusion = load(Spec(name="fusion", settings={"alpha": alpha, "task": task}))
    digits, objects = load(Spec(name="digits")), load(Spec(name="photographs"))
    rows = fusion.test.fixed()
    expected = alpha * digits.test.images(rows[:, :1]) + (1 - alpha) * objects.test.images(rows[:, 1:])
    torch.testing.assert_close(fusion.test.images(rows), expected, rtol=0, atol=2**-23)
    source, column = (digits, 0) if task == "digit" else (objects, 1)
    assert fusion.classes == source.classes
    assert torch.equal(fusion.test.labels(rows), source.test.labels(rows[:, column : column + 1]))


def test_fusion_pairs_are_redrawn_in_training_and_fixed_in_testing():
    first, second = load(Spec(name="fusion")), load(Spec(name="fusion"))
    assert torch.equal(first.test.fixed(), second.test.fixed())
    assert first.digest == second.digest
    stream = generator("epoch")
    pairs = [set(map(tuple, first.train.draw(stream).tolist())) for _ in range(2)]
    # two epochs of 1,297 random pairs share one pair on average
    assert len(pairs[0] & pairs[1]) < 10


def test_the_task_and_the_share_are_part_of_the_digest():
    settings = [{"task": "object"}, {"alpha": 0.25}, {"interpolation": "pad"}]
    assert len({load(Spec(name="fusion", settings=given)).digest for given in [{}, *settings]}) == 4


@pytest.mark.parametrize("name", ["digits", "photographs", "fusion"])
def test_images_lie_channel_by_channel(name):
    test = load(Spec(name=name)).test
    assert test.images(test.fixed()[:3]).is_contiguous()
