import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from unperturbed.data.resampling import enlarge, weights

REFERENCES = {
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "bilinear-corners": {"mode": "bilinear", "align_corners": True},
    "bicubic": {"mode": "bicubic", "align_corners": False},
    "nearest": {"mode": "nearest-exact"},
}


def pictures(size, full_scale):
    return np.random.default_rng(size).integers(0, full_scale + 1, (50, size, size)).astype(np.uint8)


@pytest.mark.parametrize("interpolation", REFERENCES)
@pytest.mark.parametrize(("size", "full_scale"), [(8, 16), (28, 255)])
def test_every_byte_is_that_of_the_reference_in_float64(interpolation, size, full_scale):
    images = pictures(size, full_scale)
    intensities = torch.from_numpy(images)[:, None].double() * 255 / full_scale
    reference = F.interpolate(intensities, (32, 32), **REFERENCES[interpolation])[:, 0].clamp(0, 255).numpy()
    enlarged = enlarge(images, interpolation=interpolation, full_scale=full_scale)
    assert enlarged.dtype == np.uint8
    # Sevenths and thirty-firsts are not exact in the reference, which so may miss that a value is half way.
    exact = interpolation != "bilinear-corners"
    between = np.abs(reference % 1 - 0.5) > (0 if exact else 1e-9)
    np.testing.assert_array_equal(enlarged[between], np.rint(reference)[between])
    assert np.abs(enlarged - reference).max() <= 0.5 + 1e-9
    assert not exact or (enlarged == np.rint(reference)).all()


@pytest.mark.parametrize("interpolation", REFERENCES)
@pytest.mark.parametrize("size", [8, 28])
def test_weights_sum_to_one(interpolation, size):
    numerators, denominator = weights(size, interpolation)
    assert (numerators.sum(axis=1) == denominator).all()


@pytest.mark.parametrize(("size", "margin"), [(8, 12), (28, 2)])
def test_padding_surrounds_the_untouched_image_with_black(size, margin):
    images = pictures(size, 255)
    expected = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    np.testing.assert_array_equal(enlarge(images, interpolation="pad"), expected, strict=True)


def test_white_stays_white_and_bicubic_is_cut_at_full_scale():
    edge = np.zeros((1, 8, 8), np.uint8)
    edge[:, :, 4:] = 16
    enlarged = enlarge(edge, interpolation="bicubic", full_scale=16)
    assert enlarged.min() == 0
    assert enlarged.max() == 255
    assert (enlarge(np.full((1, 8, 8), 16, np.uint8), interpolation="bicubic", full_scale=16) == 255).all()


def test_more_images_than_one_block_come_out_in_their_order():
    images = np.zeros((5000, 8, 8), np.uint8)
    images[:] = (np.arange(5000) % 256).astype(np.uint8)[:, None, None]
    np.testing.assert_array_equal(enlarge(images, interpolation="bilinear")[:, 0, 0], np.arange(5000) % 256)
