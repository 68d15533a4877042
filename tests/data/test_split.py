import re

import numpy as np
import pytest
import torch

from unperturbed.data import Dataset, Part, Split
from unperturbed.data.split import Collection, digest, faded, mix, ordering
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator


def part(n=6, seed=0, classes=10):
    images = torch.randint(0, 256, (n, 3, 32, 32), generator=generator("images", seed)).to(torch.uint8)
    return Part(images, torch.arange(n) % classes)


LEVELS = Part(torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1).expand(-1, 3, 32, 32), torch.zeros(256).long())


def test_a_plain_image_is_its_bytes_over_255():
    rows = torch.arange(256)[:, None]
    expected = torch.arange(256, dtype=torch.float32) / 255
    torch.testing.assert_close(Split((LEVELS,)).images(rows)[:, 2, 31, 0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 1.0])
def test_a_mixture_is_the_weighted_sum(alpha):
    first, second = part(seed=1), part(9, seed=2)
    rows = torch.tensor([[0, 8], [5, 3], [0, 0]])
    mixed = Split((first, second), (alpha, 1 - alpha)).images(rows)
    expected = (alpha * first.images[rows[:, 0]].double() + (1 - alpha) * second.images[rows[:, 1]].double()) / 255
    assert mixed.dtype == torch.float32
    # two products and a sum, each rounded once below 1
    torch.testing.assert_close(mixed.double(), expected, rtol=0, atol=3 * 2**-24)


@pytest.mark.parametrize("weight", [*np.linspace(0, 1, 101).tolist(), 1 / 3, 0.123456789])
def test_no_mixture_leaves_the_unit_interval(weight):
    for split in (Split((LEVELS, LEVELS), (weight, 1 - weight)), Split((LEVELS,), (weight,), (1 - weight) / 2)):
        images = split.images(torch.tensor([[0], [255]]).expand(-1, len(split.parts)))
        assert float(images.min()) >= 0
        assert float(images.max()) <= 1


def test_ten_tenths_of_white_are_white():
    images = Split((LEVELS,) * 10, (0.1,) * 10).images(torch.full((1, 10), 255))
    assert float(images.max()) == 1  # ten times the nearest float32 to 0.1 is 1.0000001


def test_half_contrast_lies_between_a_quarter_and_three_quarters():
    images = Split((LEVELS,), (0.5,), 0.25).images(torch.arange(256)[:, None])
    assert (float(images.min()), float(images.max())) == (0.25, 0.75)


def test_the_parts_are_left_as_they_were():
    first = part()
    before = first.images.clone()
    Split((first, first), (0.5, 0.5)).images(torch.tensor([[0, 1]]))
    assert torch.equal(first.images, before)


def test_labels_are_those_of_the_task():
    first, second = part(), Part(part().images, torch.arange(6) + 3)
    rows = torch.tensor([[0, 5], [4, 1]])
    assert Split((first, second), (0.5, 0.5), task=0).labels(rows).tolist() == [0, 4]
    assert Split((first, second), (0.5, 0.5), task=1).labels(rows).tolist() == [8, 4]


def test_an_epoch_shows_each_row_at_most_once_and_all_of_the_shortest_part():
    split = Split((part(40), part(25)), (0.5, 0.5))
    rows = split.draw(generator("epoch", 0))
    assert rows.shape == (25, 2)
    assert len(set(rows[:, 0].tolist())) == 25
    assert sorted(rows[:, 1].tolist()) == list(range(25))
    assert len(split) == 25


def test_epochs_differ_and_depend_on_the_generator_only():
    split = Split((part(40), part(25)), (0.5, 0.5))
    stream = generator("epoch", 0)
    first, second = split.draw(stream), split.draw(stream)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(split.draw(generator("epoch", 0)), first)


def test_the_orders_of_the_parts_are_independent():
    split = Split((part(200), part(200)), (0.5, 0.5))
    rows = split.draw(generator("epoch", 0)).double()
    # the correlation of two independent permutations has standard deviation 1 / sqrt(199)
    assert abs(float(torch.corrcoef(rows.T)[0, 1])) < 4 / 199**0.5


def test_the_test_pairs_are_fixed():
    split = Split((part(7), part(9)), (0.5, 0.5))
    rows = split.fixed()
    assert rows[:, 0].tolist() == list(range(7))
    assert rows[:, 1].tolist() == ordering(9, 1)[:7].tolist() == [2, 4, 7, 5, 0, 8, 6]
    assert Split((part(7),)).fixed().tolist() == [[k] for k in range(7)]


def test_an_ordering_is_a_permutation():
    assert sorted(ordering(1000, 3).tolist()) == list(range(1000))
    assert ordering(1000, 3).tolist() != ordering(1000, 4).tolist()


def test_the_digest_sees_every_array_and_every_weight():
    def of(images=0, label=0, weights=(0.5, 0.5), grey=0.0, task=0, classes=("a", "b")):
        changed = part(4)
        changed.images[2, 1, 7, 9] += images
        changed.labels[3] += label
        split = Split((changed, part(5, seed=1)), weights, grey, task)
        return digest(split, Split((part(3),)), classes)

    digests = [
        of(),
        of(images=1),
        of(label=1),
        of(weights=(0.25, 0.75)),
        of(weights=(0.5, 0.25), grey=0.125),
        of(weights=(0.5, 0.25)),
        of(task=1),
        of(classes=("b", "a")),
    ]
    assert of() == digests[0]
    assert len(set(digests)) == len(digests)


def test_remarks_of_all_parts_are_kept():
    first = Collection(part(), part(), tuple("0123456789"), ("first is inexact.",))
    second = Collection(part(), part(), tuple("abcdefghij"), ("second is inexact.",))
    mixed = mix("fusion", (first, second), weights=(0.5, 0.5), grey=0.0, task=1)
    assert mixed.remarks == ("first is inexact.", "second is inexact.")
    assert mixed.classes == tuple("abcdefghij")


def test_a_split_moves_with_its_tensors():
    split = Split((part(), part(seed=1)), (0.5, 0.25), 0.25, 1)
    moved = split.to("cpu")
    assert moved.device == torch.device("cpu")
    assert digest(moved, moved, ()) == digest(split, split, ())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_images_are_the_same_on_the_accelerator():
    split = Split((part(40), part(25, seed=3)), (0.5, 0.5))
    rows = split.draw(generator("epoch", 0))
    moved = split.to("cuda")
    assert moved.images(rows).device.type == "cuda"
    torch.testing.assert_close(moved.images(rows).cpu(), split.images(rows), rtol=0, atol=2**-24)
    assert torch.equal(moved.labels(rows).cpu(), split.labels(rows))


BYTES = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
NAN = torch.full((3, 3, 2, 2), 0.5)
NAN[0, 0, 0, 0] = float("nan")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Part(BYTES.float(), torch.arange(3)), "images must be uint8 from 0 to 255, got torch.float32"),
        (lambda: Part(BYTES[0], torch.arange(3)), "got shape (3, 32, 32)"),
        (lambda: Part(BYTES, torch.arange(3).int()), "labels must be int64 (n,), got torch.int32 (3,)"),
        (lambda: Part(BYTES, torch.zeros(3, 1).long()), "labels must be int64 (n,), got torch.int64 (3, 1)"),
        (lambda: Part(BYTES, torch.arange(4)), "3 images need as many labels, got 4."),
        (lambda: Part(BYTES[:0], torch.arange(0)), "a split needs at least one image, got none."),
        (lambda: Part(BYTES, torch.arange(3) - 2), "labels must be 0 or greater, got -2."),
        (lambda: Part.from_intensities(BYTES, torch.arange(3)), "must be floating-point, got torch.uint8"),
        (lambda: Part.from_intensities(NAN, torch.arange(3)), "must be finite, got 1 values that are NaN or inf."),
        (
            lambda: Part.from_intensities(torch.linspace(-0.5, 1.5, 36).reshape(3, 3, 2, 2), torch.arange(3)),
            "images must lie in [0, 1], got -0.5 to 1.5",
        ),
        (lambda: Split(()), "each part needs one weight, got 0 parts and weights (1.0,)."),
        (lambda: Split((part(),), (0.5, 0.5)), "got 1 parts and weights (0.5, 0.5)."),
        (lambda: Split((part(),), task=1), "task must be the number of a part, 0 to 0, got 1."),
        (lambda: Split((part(),), (1.0,), 0.25), "must sum to at most 1, got 1.25."),
        (lambda: Split((part(),), (-0.5,), 0.5), "weights (-0.5,) and grey 0.5 must not be negative"),
        (lambda: Split((part(),), (float("nan"),)), "weights (nan,)"),
        (
            lambda: faded("mine", Collection(part(), part(12, classes=12), tuple("0123456789")), 1.0),
            "mine: test labels must be 0 to 9 for 10 classes, got 11.",
        ),
        (lambda: Dataset("mine", Split((part(),)), Split((part(),)), ("a",), ""), "training labels must be 0 to 0"),
    ],
)
def test_what_does_not_fit_is_refused(make, says):
    with pytest.raises(SpecError, match=re.escape(says)) as error:
        make()
    assert "\n" not in str(error.value)


def test_intensities_become_the_nearest_level():
    made = Part.from_intensities(torch.tensor([0, 0.5, 1, 1 / 255]).reshape(4, 1, 1, 1), torch.arange(4))
    assert made.images.flatten().tolist() == [0, 128, 255, 1]
