import base64
import io

import numpy as np
import pytest
from PIL import Image

from unperturbed.report.content import Picture, Shown
from unperturbed.report.pictures import data_uri, magnification, magnified, png


def decoded(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image)


def test_a_png_holds_the_intensities_to_eight_bits():
    image = np.random.default_rng(0).random((3, 5, 7))
    np.testing.assert_array_equal(decoded(png(image)), np.rint(image * 255).transpose(1, 2, 0))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grey_image_is_written_with_one_channel(channels):
    grey = np.linspace(0, 1, 12).reshape(1, 3, 4)
    pixels = decoded(png(np.repeat(grey, channels, axis=0)))
    np.testing.assert_array_equal(pixels, np.rint(grey[0] * 255))


def test_intensities_outside_the_range_are_clipped():
    assert decoded(png(np.array([[[-0.5, 1.5]]]))).tolist() == [[0, 255]]


def test_a_data_uri_is_the_file():
    image = np.zeros((1, 2, 2))
    head, _, body = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == png(image)


@pytest.mark.parametrize(
    ("largest", "factor"), [(0.0, 100), (0.004, 100), (8 / 255, 10), (0.05, 10), (0.1, 5), (0.3, 1), (0.5, 1), (1.0, 1)]
)
def test_the_magnification_is_the_largest_that_clips_nothing(largest, factor):
    assert magnification(np.array([-largest, largest / 2])) == factor


def test_differences_are_magnified_around_mid_grey():
    original = np.full((1, 1, 2), 0.4)
    adversarial = original + np.array([[[0.1, -0.05]]])
    picture = Picture("digits", "lenet", "fgsm", original, "3", "3", (Shown(0.1, adversarial, "5"),))
    ((factor, difference),) = magnified(picture)
    assert factor == 5
    np.testing.assert_allclose(difference, [[[1.0, 0.25]]], rtol=0, atol=1e-12)
