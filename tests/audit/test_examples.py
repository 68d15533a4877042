"""Images and labels of a data set, of arrays and of folders; what a user's mistake looks like."""

import numpy as np
import pytest
import torch
from PIL import Image

from unperturbed.audit.examples import load_arrays, load_dataset, load_pictures
from unperturbed.data import load
from unperturbed.records import Spec, SpecError

SHAPE = (3, 4, 4)


@pytest.fixture
def refused():
    """Return what a call is refused with, which must be one line."""

    def call(function, *args, **kwargs):
        with pytest.raises(SpecError) as caught:
            function(*args, **kwargs)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return call


# Data sets and arrays


def test_a_data_set_gives_its_first_test_images_in_their_order():
    found = load_dataset("fusion(task=object)", count=7)
    split = load(Spec(name="fusion", settings={"task": "object"})).test
    rows = split.fixed()[:7]
    torch.testing.assert_close(found.images, split.images(rows), rtol=0, atol=0)
    assert found.labels.tolist() == split.labels(rows).tolist()
    assert found.says == "fusion(task=object), the first 7 of 500 test images"
    assert load_dataset("digits", count=501).says == "digits, all 500 test images"
    assert len(load_dataset("digits", count=None).labels) == 500


def test_a_data_set_that_is_not_there_is_refused(refused):
    assert refused(load_dataset, "cifar", count=1).startswith("There is no data set 'cifar'. There are: digits, ")
    assert refused(load_dataset, "digits", count=0) == "--count: expected at least 1; got 0"


@pytest.fixture
def arrays(tmp_path):
    def write(images, labels):
        np.save(tmp_path / "x.npy", images)
        np.save(tmp_path / "y.npy", labels)
        return tmp_path / "x.npy", tmp_path / "y.npy"

    return write


IMAGES = np.random.default_rng(0).random((6, *SHAPE), dtype=np.float32)
IMAGES[0, 0, 0, :2] = 0, 1
LABELS = np.array([0, 1, 2, 0, 1, 2])


def spoilt(value, kind=np.float32):
    images = IMAGES.astype(kind)
    images[1::3, 2, 3, 3] = value
    return images


def test_arrays_are_taken_as_they_are(arrays):
    found = load_arrays(*arrays(IMAGES, LABELS.astype(np.uint8)), count=4)
    assert found.images.numpy().tolist() == IMAGES[:4].tolist()
    assert (found.labels.dtype, found.labels.tolist()) == (torch.int64, [0, 1, 2, 0])
    assert (found.says, found.remarks) == ("x.npy, the first 4 of 6 images", ())


@pytest.mark.parametrize("kind", [">f4", "<f8", ">f8", "<f2"])
def test_other_floating_point_numbers_become_float32_and_that_is_said(arrays, kind):
    found = load_arrays(*arrays(IMAGES.astype(kind), LABELS.astype(">i4")), count=None)
    assert found.images.dtype == torch.float32
    assert found.images.numpy().tolist() == IMAGES.astype(kind).astype(np.float32).tolist()
    assert found.remarks == (f"x.npy holds {np.dtype(kind)} numbers; they were converted to float32.",)
    assert found.labels.tolist() == LABELS.tolist()


def test_a_file_sorted_by_class_is_remarked_upon(arrays):
    found = load_arrays(*arrays(IMAGES, np.sort(LABELS)), count=3)
    assert found.remarks == ("The first 3 of 6 images have 2 of the 3 classes: shuffle them.",)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((255 * IMAGES).astype(np.uint8), "images: expected floating-point intensities in [0, 1]; got torch.uint8: divide by 255"),
        ((255 * IMAGES).astype(">i8"), "images: expected floating-point intensities in [0, 1]; got torch.int64: divide by 255"),
        (255 * IMAGES, "images: expected intensities in [0, 1]; got 0 to 255: divide them by 255"),
        (IMAGES - 0.5, "images: expected intensities in [0, 1]; got -0.5 to 0.5: were they normalised?"),
        (spoilt(np.nan), "images: expected numbers; got NaN in 2 of 6 images"),
        (spoilt(1e300, np.float64), "images: expected intensities in [0, 1]; got 0 to inf"),
        (
            IMAGES.transpose(0, 2, 3, 1),
            "images: expected a shape (n, channels, height, width); got (6, 4, 4, 3), which looks like (n, height, width, "
            "channels): use x.transpose(0, 3, 1, 2)",
        ),
        (
            IMAGES[:, 0],
            "images: expected a shape (n, channels, height, width); got (6, 4, 4): if these are greyscale images, use "
            "x[:, None]; a single image is x[None]",
        ),
        (
            IMAGES.reshape(6, -1),
            "images: expected a shape (n, channels, height, width); got (6, 48): use x.reshape(n, channels, height, width)",
        ),
        (np.float32(0.5), "images: expected a shape (n, channels, height, width); got (): use"),
        (IMAGES[:0], "labels: expected 0, one for each image; got 6"),
        (np.array(["a"]), "x.npy: expected the images as an array of numbers (.npy); got <U1"),
        (IMAGES.astype(complex), "x.npy: expected the images as an array of numbers (.npy); got complex128"),
        (np.array([{}]), "x.npy: expected the images as an array of numbers (.npy); got Array can't be memory-mapped"),
    ],
)  # fmt: skip
def test_images_that_are_no_such_are_refused(refused, arrays, images, message):
    got = refused(load_arrays, *arrays(images, LABELS), count=None)
    assert message in got
    assert got.startswith(message) or message.startswith("x.npy")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.eye(3)[LABELS],
            "labels: expected one class number for each image; got a shape of (6, 3), which looks one-hot: use y.argmax(axis=1)",
        ),
        (LABELS[:, None], "labels: expected one class number for each image; got a shape of (6, 1): use y[:, 0]"),
        (LABELS.astype(float), "labels: expected whole class numbers; got float64: use y.astype('int64')"),
        (LABELS > 0, "labels: expected whole class numbers; got bool: use y.astype('int64')"),
        (LABELS[:5], "labels: expected 6, one for each image; got 5"),
        (LABELS[None, :, None], "labels: expected one class number for each image; got a shape of (1, 6, 1)"),
    ],
)
def test_labels_that_are_no_such_are_refused(refused, arrays, labels, message):
    assert refused(load_arrays, *arrays(IMAGES, labels), count=None) == message


def test_files_that_are_no_arrays_are_refused(refused, arrays, tmp_path):
    x, y = arrays(IMAGES, LABELS)
    np.savez(tmp_path / "x.npz", IMAGES)
    message = "expected one array; got an archive of arrays: save the images alone with numpy.save"
    assert refused(load_arrays, tmp_path / "x.npz", y, count=None) == f"{tmp_path / 'x.npz'}: {message}"
    assert refused(load_arrays, x, tmp_path / "no.npy", count=None) == f"{tmp_path / 'no.npy'}: there is no such file"
    x.write_bytes(x.read_bytes()[:200])
    assert f"{x}: expected the images as an array of numbers (.npy); got " in refused(load_arrays, x, y, count=None)


# Pictures


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes pictures: file name -> levels (height, width) or (height, width, channels)."""

    def write(pictures):
        for name, levels in pictures.items():
            path = tmp_path / "pictures" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(levels, bytes):
                path.write_bytes(levels)
            else:
                levels.save(path) if isinstance(levels, Image.Image) else Image.fromarray(levels).save(path)
        return tmp_path / "pictures"

    return write


def levels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_pictures_in_class_folders_come_one_of_each_class_in_turn(folder):
    pictures = {f"{name}/{n}.png": levels(10 * k + n, 5, 4, 3) for k, name in enumerate("dbc") for n in range(2)}
    path = folder(pictures | {"b/2.PNG": levels(99, 5, 4, 3), "b/notes.txt": b"x", ".hidden/a.png": b"x"})
    found = load_pictures(path, count=None)
    assert found.images.shape == (7, 3, 5, 4)
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]  # b, c, d
    expected = pictures["d/1.png"].transpose(2, 0, 1) / np.float32(255)
    assert found.images[5].numpy().tolist() == expected.astype(np.float32).tolist()
    assert found.says == "pictures, all 7 pictures"
    assert found.remarks == (
        "Classes are numbered by the order of the names of their folders.",
        "Left out: 1 files that are not PNG or JPEG.",
    )
    assert load_pictures(path, count=3).labels.tolist() == [0, 1, 2]


def test_folder_names_that_are_numbers_are_the_classes(folder):
    path = folder({f"{name}/a.png": levels(0, 3, 3) for name in ("10", "2", "0")})
    found = load_pictures(path, count=None)
    assert sorted(found.labels.tolist()) == [0, 2, 10]
    assert found.images.shape == (3, 1, 3, 3)
    assert found.remarks == ("Classes are numbered by the names of their folders.",)


def test_jpeg_palettes_and_black_and_white_are_read(folder):
    grey = Image.fromarray(np.kron(np.array([[0, 255], [255, 0]], dtype=np.uint8), np.ones((8, 8), dtype=np.uint8)))
    path = folder({"a/0.png": grey.convert("1"), "a/1.jpg": grey, "a/2.jpeg": grey})
    images = load_pictures(path, count=None).images
    assert images.shape == (3, 1, 16, 16)
    assert (images - images[0]).abs().max() < 0.05
    colours = Image.fromarray(levels(3, 4, 4, 3)).quantize(4)
    images = load_pictures(
        folder({"a/0.png": colours, "a/1.jpg": colours.convert("RGB"), "a/2.jpeg": colours.convert("RGB")}), count=1
    )
    assert (images.images[0] * 255).round().permute(1, 2, 0).tolist() == np.array(colours.convert("RGB")).tolist()


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ({"a.png": levels(0, 4, 4)}, "{}: expected one folder for each class, with PNG or JPEG pictures; got none"),
        ({"a/b.txt": b"", "b/c.gif": b""}, "{}: expected PNG or JPEG pictures in its 2 folders; got none"),
        (
            {"a/0.png": levels(0, 4, 6), "b/0.png": levels(0, 4, 5)},
            "{}/b/0.png: expected 4 x 6 greyscale pixels like {}/a/0.png; got 4 x 5 greyscale pixels: resize or convert it",
        ),
        (
            {"a/0.png": levels(0, 4, 4, 3), "b/0.png": levels(0, 4, 4)},
            "{}/b/0.png: expected 4 x 4 RGB pixels like {}/a/0.png; got 4 x 4 greyscale pixels: resize or convert it",
        ),
        (
            {"a/0.png": levels(0, 4, 4, 4)},
            "{}/a/0.png: expected greyscale or RGB; got a picture with transparency (RGBA): remove it",
        ),
        (
            {"a/0.png": levels(0, 4, 4, 2)},
            "{}/a/0.png: expected greyscale or RGB; got a picture with transparency (LA): remove it",
        ),
        (
            {"a/0.png": levels(0, 4, 4).astype(np.uint16)},
            "{}/a/0.png: expected 8-bit greyscale or RGB; got I;16: convert it",
        ),
        (
            {"a/0.jpg": Image.new("CMYK", (8, 8))},
            "{}/a/0.jpg: expected 8-bit greyscale or RGB; got CMYK: convert it",
        ),
        ({"a/0.png": b"not a picture"}, "{}/a/0.png: expected a PNG or JPEG picture; got cannot identify image file"),
    ],
)
def test_pictures_that_are_no_such_are_refused(refused, folder, pictures, message):
    path = folder(pictures)
    assert refused(load_pictures, path, count=None).startswith(message.replace("{}", str(path)))


def test_a_transparent_colour_and_a_damaged_file_are_refused(refused, folder, tmp_path):
    path = folder({"a/0.png": levels(0, 4, 4, 3)})
    Image.fromarray(levels(0, 4, 4, 3)).save(path / "a" / "0.png", transparency=(0, 0, 0))
    assert "got a picture with transparency (RGB): remove it" in refused(load_pictures, path, count=None)
    Image.fromarray(levels(0, 40, 40, 3)).save(path / "a" / "0.png")
    (path / "a" / "0.png").write_bytes((path / "a" / "0.png").read_bytes()[:2000])
    assert "0.png: expected a PNG or JPEG picture; got " in refused(load_pictures, path, count=None)
