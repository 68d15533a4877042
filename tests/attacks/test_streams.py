"""Random numbers of every image's own: what they are, what they depend on, and what they leave alone."""

import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from unperturbed.tensors.streams import RESOLUTION, Streams, seed_for, undisturbed

SHAPE = (3, 10, 10)


def _images(count, seed=0, dtype=torch.float32):
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _of(count, seed=0):
    return Streams.of(_images(count), seed)


def _mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def _by_hand(image, seed, purpose, count):
    """The numbers as whole numbers of Python give them."""
    bits = image.astype(np.float32).ravel().view(np.uint32).tolist()
    keys = []
    for constant, half in ((0x2545F491, seed & 0xFFFFFFFF), (0x1B873593, seed >> 32 & 0xFFFFFFFF)):
        digest = sum(_mix(pixel ^ _mix((place + constant) & 0xFFFFFFFF)) for place, pixel in enumerate(bits))
        keys.append(_mix((digest & 0xFFFFFFFF) ^ half))
    salt = seed_for(*purpose)
    numbers = []
    for place in range(count):
        mixed = _mix((place * 0x9E3779B1 + salt) & 0xFFFFFFFF)
        mixed = _mix((mixed + keys[0]) & 0xFFFFFFFF)
        mixed = _mix(mixed ^ (keys[1] + (salt >> 32)) & 0xFFFFFFFF)
        numbers.append((mixed >> 8) / 2**24)
    return numbers


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1])
def test_the_numbers_are_those_of_the_definition(seed):
    images = _images(3)
    numbers = Streams.of(images, seed).uniform((50,), "start", 2)
    for image, row in zip(images, numbers, strict=True):
        assert row.tolist() == _by_hand(image.numpy(), seed, ("start", 2), 50)


def _chi_square(counts):
    """The p-value of equal counts."""
    expected = counts.sum() / counts.numel()
    return chi2.sf(float(((counts - expected) ** 2 / expected).sum()), counts.numel() - 1)


def test_numbers_of_one_image_are_uniform():
    numbers = _of(1).uniform((300_000,), "start").squeeze(0).double()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for power in (1, 2, 3, 4):  # the standard error of a mean of 300,000 is at most 0.0006
        assert float((numbers**power).mean()) == pytest.approx(1 / (power + 1), abs=0.0025)
    assert _chi_square(torch.histc(numbers, 256, 0, 1)) > 0.01
    assert kstest(numbers[:20_000].numpy(), "uniform").pvalue > 0.01


def test_every_bit_is_set_half_of_the_time():
    whole = (_of(1).uniform((100_000,), "bits", dtype=torch.float64) * 2**RESOLUTION).long()
    shares = torch.stack([(whole >> bit & 1).double().mean() for bit in range(RESOLUTION)])
    assert float((shares - 0.5).abs().max()) < 4 * 0.5 / 100_000**0.5  # four standard errors; 24 bits


def test_the_first_numbers_of_many_images_are_uniform():
    numbers = Streams.of(_images(20_000), 0).uniform((2,), "start")
    for place in range(2):
        assert _chi_square(torch.histc(numbers[:, place], 64, 0, 1)) > 0.01
    assert _pairs(numbers[:, 0], numbers[:, 1]) > 0.01


def _pairs(first, second):
    cells = (first.flatten() * 16).long() * 16 + (second.flatten() * 16).long()
    return _chi_square(torch.bincount(cells, minlength=256))


def _neighbours():
    images = _images(40)
    touched = images.clone()
    touched[:, 0, 3, 3] = torch.nextafter(touched[:, 0, 3, 3], torch.ones(40))
    swapped = images.flatten(1).roll(1, 1).view_as(images)
    one, shape = Streams.of(images, 0), (1000,)
    numbers = one.uniform(shape, "start", 0)
    return {
        "places": (numbers[:, :-1], numbers[:, 1:]),
        "purposes": (numbers, one.uniform(shape, "stop", 0)),
        "counters": (numbers, one.uniform(shape, "start", 1)),
        "images": (numbers[:-1], numbers[1:]),
        "images that differ in the last bit of one intensity": (
            numbers,
            Streams.of(touched, 0).uniform(shape, "start", 0),
        ),
        "images with the same intensities at other places": (
            numbers,
            Streams.of(swapped, 0).uniform(shape, "start", 0),
        ),
        "seeds": (numbers, Streams.of(images, 1).uniform(shape, "start", 0)),
        "seeds that differ in the upper half": (numbers, Streams.of(images, 2**32).uniform(shape, "start", 0)),
    }


@pytest.mark.parametrize("what", list(_neighbours()))
def test_neighbours_are_independent(what):
    first, second = _neighbours()[what]
    correlation = float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])
    assert abs(correlation) < 3 / first.numel() ** 0.5
    assert _pairs(first, second) > 0.01
    assert int((first == second).sum()) < 5  # of 40,000, where one in 2^24 is equal by chance


def test_one_intensity_decides_half_of_the_bits_of_the_keys():
    images = _images(500)
    touched = images.clone()
    touched[:, 0, 0, 0] = torch.nextafter(touched[:, 0, 0, 0], torch.ones(500))
    flipped = Streams.of(images, 0).keys ^ Streams.of(touched, 0).keys
    bits = torch.stack([flipped >> bit & 1 for bit in range(32)]).double().mean(dim=1)
    assert float((bits - 0.5).abs().max()) < 4 * 0.5 / 500**0.5


def test_no_two_of_many_images_have_the_same_key():
    keys = Streams.of(torch.arange(50_000.0).view(-1, 1, 1, 1) / 50_000, 0).keys
    assert len({tuple(key) for key in keys.tolist()}) == 50_000


def test_equal_images_have_equal_numbers_whatever_else_is_in_the_batch():
    images = _images(12)
    whole = Streams.of(images, 3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for draw in (
        lambda streams: streams.uniform(SHAPE, "start"),
        lambda streams: streams.normal(SHAPE, "start"),
        lambda streams: streams.uniform((), "start"),
    ):
        expected = draw(whole)
        assert torch.equal(draw(Streams.of(images[order], 3)), expected[order])
        assert torch.equal(draw(whole[order]), expected[order])
        assert torch.equal(draw(whole[torch.arange(12) % 2 == 0]), expected[::2])
        assert torch.equal(torch.cat([draw(Streams.of(image[None], 3)) for image in images]), expected)
    assert len(whole) == 12


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_type_of_the_images_does_not_matter(dtype):
    images = _images(6).bfloat16()  # which every type holds
    expected = Streams.of(images.float(), 0).uniform(SHAPE, "start")
    assert torch.equal(Streams.of(images.to(dtype), 0).uniform(SHAPE, "start"), expected)


def test_float64_has_the_numbers_of_float32():
    streams = _of(4)
    assert torch.equal(streams.uniform(SHAPE, "a", dtype=torch.float64).float(), streams.uniform(SHAPE, "a"))
    apart = (streams.normal(SHAPE, "a", dtype=torch.float64) - streams.normal(SHAPE, "a")).abs().flatten()
    assert float(apart.quantile(0.99)) < 2e-6
    assert float(apart.max()) < 3e-4  # where the radius is near 0, it is the root of a rounded number


def test_more_numbers_begin_with_the_same():
    streams = _of(3)
    assert torch.equal(streams.uniform((100,), "a")[:, :7], streams.uniform((7,), "a"))
    assert torch.equal(streams.uniform((20, 5), "a").flatten(1), streams.uniform((100,), "a"))


@pytest.mark.parametrize("count", [1, 7, 300_000])
def test_normal_numbers_are_normal(count):
    images = max(1, 30_000 // count)
    numbers = Streams.of(_images(images), 0).normal((count,), "noise").double()
    assert numbers.shape == (images, count)
    flat = numbers.flatten()
    error = 1 / len(flat) ** 0.5
    assert float(flat.mean()) == pytest.approx(0, abs=4 * error)
    assert float(flat.square().mean()) == pytest.approx(1, abs=4 * 2**0.5 * error)
    assert float((flat**4).mean()) == pytest.approx(3, abs=4 * 96**0.5 * error)
    assert kstest(flat[:20_000].numpy(), "norm").pvalue > 0.01
    assert flat.isfinite().all()
    if count > 1:  # the two halves of a pair share their radius
        half = (count + 1) // 2
        sine, cosine = numbers[:, half:], numbers[:, : count - half]
        for one, other in ((sine, cosine), (sine.square(), cosine.square())):
            together = torch.stack([one.flatten(), other.flatten()])
            assert abs(float(torch.corrcoef(together)[0, 1])) < 4 / one.numel() ** 0.5


def test_streams_take_nothing_from_the_global_generators():
    state = torch.get_rng_state()
    _of(4).normal(SHAPE, "noise")
    assert torch.equal(torch.get_rng_state(), state)


def _draw():
    return float(torch.rand(())), random.random(), float(np.random.random())  # noqa: NPY002


def test_undisturbed_seeds_every_global_generator_and_puts_it_back():
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = _draw()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    inside = []
    for words in (("a", 0), ("a", 0), ("a", 1)):
        with undisturbed(*words):
            inside.append(_draw())
    with suppress(KeyError), undisturbed("a"):
        raise KeyError(_draw())
    assert inside[0] == inside[1]
    assert all(one != other for one, other in zip(inside[0], inside[2], strict=True))
    assert _draw() == expected


def test_undisturbed_may_be_nested():
    with undisturbed("outer"):
        first = _draw()
        expected = _draw()
    with undisturbed("outer"):
        assert _draw() == first
        with undisturbed("inner"):
            _draw()
        assert _draw() == expected


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_is_looked_after_wherever_the_images_are():
    """A classifier may move images from the CPU to a device and draw there."""
    torch.cuda.manual_seed_all(5)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed_all(5)
    inside = []
    for words in (("a", 0), ("a", 0), ("a", 1)):
        with undisturbed(*words):
            inside.append(torch.rand(3, device="cuda"))
    assert torch.equal(inside[0], inside[1])
    assert not torch.equal(inside[0], inside[2])
    assert torch.equal(torch.rand(3, device="cuda"), expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_draws_the_same_numbers():
    images = _images(6)
    here, there = Streams.of(images, 1), Streams.of(images.cuda(), 1)
    assert torch.equal(there.keys.cpu(), here.keys)
    assert torch.equal(there.uniform(SHAPE, "a").cpu(), here.uniform(SHAPE, "a"))
    torch.testing.assert_close(there.normal(SHAPE, "a").cpu(), here.normal(SHAPE, "a"), rtol=0, atol=2e-6)
