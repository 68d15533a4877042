import gzip
import io
import re
import tarfile

import numpy as np
import pytest
import torch

from unperturbed.data import listing, load, verify
from unperturbed.data.cifar10 import FILES as CIFAR10_FILES
from unperturbed.data.cifar10 import read_cifar10
from unperturbed.data.files import Places, find, read
from unperturbed.data.mnist import read_mnist
from unperturbed.data.split import mix
from unperturbed.records import Spec, SpecError

MNIST, CIFAR10 = Spec(name="mnist"), Spec(name="cifar10")
MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
INEXACT = (
    "test_batch_23_inexact.bin.xz is not the official file: expected sha1 67eb016db431130d61cd03c7ad570b013799c88c, "
    "got 6219c93725ec548fca3af9d12c5fd0584d2a1a2a"
)


def counts(labels):
    return torch.bincount(labels).tolist()


def refused(act, says):
    with pytest.raises(SpecError, match=re.escape(says)) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def mnist(data_root):
    return read_mnist(Places(data_root), "pad")


@pytest.fixture(scope="module")
def cifar10(data_root):
    return read_cifar10(Places(data_root, accept_inexact=True))


def test_mnist_has_its_published_class_counts_and_mean(mnist):
    assert (counts(mnist.train.labels), counts(mnist.test.labels)) == (MNIST_TRAIN, MNIST_TEST)
    # 0.1307 over 28x28 pixels and 0.3081 are the mean and standard deviation that everybody normalises with
    centres = mnist.train.images[:, 0, 2:30, 2:30].float() / 255
    assert (round(float(centres.mean()), 4), round(float(centres.std()), 4)) == (0.1307, 0.3081)
    assert mnist.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.remarks == ()


def test_cifar10_has_its_published_class_counts_and_means(cifar10):
    assert (counts(cifar10.train.labels), counts(cifar10.test.labels)) == ([5000] * 10, [1000] * 10)
    # red, green and blue means that everybody normalises with
    blocks = cifar10.train.images.split(5000)
    means = torch.stack([block.float().mean((0, 2, 3)) / 255 for block in blocks]).mean(0)
    assert [round(float(mean), 4) for mean in means] == [0.4914, 0.4822, 0.4465]
    assert cifar10.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]


def test_the_inexact_test_file_is_remarked(cifar10, data_root):
    assert cifar10.remarks == (
        f"{data_root}/cifar10/{INEXACT}; it was accepted as inexact "
        "(test_inexact_indices.txt beside it names 23 images).",
    )


def test_the_inexact_test_file_is_refused_by_name(data_root):
    only_test = CIFAR10_FILES._replace(files=CIFAR10_FILES.files[-1:])
    refused(
        lambda: read(only_test, Places(data_root)),
        f"{INEXACT}; use --accept-inexact to take it as it is, "
        "or `unperturbed data fetch cifar10` for the official one.",
    )


def test_fusion_of_the_full_sets_is_cut_to_the_shorter(mnist, cifar10):
    fusion = mix("fusion", (mnist, cifar10), weights=(0.5, 0.5), grey=0.0, task=1)
    assert (len(fusion.train), len(fusion.test)) == (50000, 10000)
    rows = fusion.train.draw(torch.Generator().manual_seed(0))
    assert counts(fusion.train.labels(rows)) == [5000] * 10
    assert int(rows[:, 0].max()) > 50000


def test_the_files_of_this_machine_are_listed(data_root):
    rows = {row.name: row for row in listing(data_root)}
    assert (rows["mnist"].found, rows["mnist"].where, rows["mnist"].exact) == (True, str(data_root / "mnist"), None)
    assert (rows["cifar10"].found, rows["cifar10"].exact) == (True, False)


def test_mnist_is_verified_file_by_file(data_root):
    rows = verify("mnist", data_root)
    assert [row.state for row in rows] == ["official"] * 4
    assert rows[1].got == "a25bea736e30d166cdddb491f175f624"


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("folder", ["mnist", "."])
def test_mnist_is_read_packed_or_plain_from_either_folder(bare, imitation, suffix, folder):
    imitation.write(bare / folder, imitation.mnist(), suffix)
    data = load(MNIST, root=bare, accept_inexact=True)
    assert (len(data.train), len(data.test)) == (20, 20)
    assert len(data.remarks) == 4
    assert f"train-images-idx3-ubyte{suffix} is not the official file: expected md5 6bbc9ace" in data.remarks[0]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("folder", ["cifar10", "cifar-10-batches-bin", "."])
def test_cifar10_is_read_packed_or_plain_from_each_folder(bare, imitation, suffix, folder):
    files = imitation.cifar10()
    imitation.write(bare / folder, files, suffix)
    data = load(CIFAR10, root=bare, accept_inexact=True)
    assert (len(data.train), len(data.test), data.test.labels(data.test.fixed()).tolist()) == (20, 4, [0, 1, 2, 3])
    pixels = np.frombuffer(files["data_batch_2.bin"], np.uint8).reshape(4, 3073)[3, 1:].reshape(3, 32, 32)
    assert (data.train.parts[0].images[7].numpy() == pixels).all()


def test_cifar10_is_read_from_the_official_archive(bare, imitation):
    files = imitation.cifar10()
    archive(bare, files)
    data = load(CIFAR10, root=bare, accept_inexact=True)
    assert "cifar-10-binary.tar.gz (data_batch_1.bin) is not the official file" in data.remarks[0]
    unpacked = imitation.write(bare / "unpacked" / "cifar10", files).parent
    assert load(CIFAR10, root=unpacked, accept_inexact=True).digest == data.digest


def archive(root, files):
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_an_archive_that_lacks_a_file_or_is_torn_is_refused(bare, imitation):
    files = imitation.cifar10()
    del files["data_batch_3.bin"]
    archive(bare, files)
    path = bare / "cifar-10-binary.tar.gz"
    refused(lambda: load(CIFAR10, root=bare, accept_inexact=True), f"{path} does not hold data_batch_3.bin")
    path.write_bytes(path.read_bytes()[:300])
    refused(lambda: load(CIFAR10, root=bare, accept_inexact=True), f"{path} cannot be read, it is truncated or damaged")


def test_the_official_name_comes_first(bare, imitation):
    folder = imitation.write(bare / "cifar10", imitation.cifar10())
    (folder / "test_batch_other.bin").write_bytes(b"other")
    assert find(CIFAR10_FILES, bare)["test_batch.bin"].path == folder / "test_batch.bin"
    (folder / "test_batch.bin").unlink()
    assert find(CIFAR10_FILES, bare)["test_batch.bin"].path == folder / "test_batch_other.bin"


def test_places_are_searched_in_order(bare, imitation, tmp_path, monkeypatch):
    imitation.write(tmp_path / "cache" / "unperturbed" / "mnist", imitation.mnist(n=3))
    assert len(load(MNIST, accept_inexact=True).train) == 3
    monkeypatch.setenv("UNPERTURBED_DATA", str(imitation.write(tmp_path / "environment", imitation.mnist(n=4))))
    assert len(load(MNIST, accept_inexact=True).train) == 4
    imitation.write(bare, imitation.mnist(n=5))
    assert len(load(MNIST, root=bare, accept_inexact=True).train) == 5


def test_missing_files_say_what_to_do(bare, imitation, tmp_path):
    cache = tmp_path / "cache" / "unperturbed"
    refused(
        lambda: load(MNIST, root=bare),
        "mnist needs the file train-images-idx3-ubyte (plain, .gz or .xz), which is in none of: "
        f"{bare}, {cache}; run `unperturbed data fetch mnist`, "
        "or name its folder with --data-root or UNPERTURBED_DATA.",
    )
    assert [row.state for row in verify("mnist", bare)] == ["missing"] * 4
    (row,) = (row for row in listing(bare) if row.name == "mnist")
    assert (row.found, row.exact) == (False, None)
    assert row.where == "lacks train-images-idx3-ubyte: unperturbed data fetch mnist"


def test_a_data_root_that_is_no_folder_is_refused(bare):
    refused(lambda: load(MNIST, root=bare / "nowhere"), f"the data root {bare / 'nowhere'} is not a folder")


def test_an_altered_file_is_refused_by_name_and_checksum(bare, imitation):
    imitation.write(bare, imitation.mnist())
    message = refused(
        lambda: load(MNIST, root=bare),
        f"{bare}/train-images-idx3-ubyte is not the official file: "
        "expected md5 6bbc9ace898e44ae57da46a324031adb in 47040016 bytes, got ",
    )
    assert "in 15696 bytes; use --accept-inexact" in message


def test_one_altered_byte_is_refused(data_root, bare, imitation):
    for path in (data_root / "mnist").iterdir():
        if path.name.startswith("t"):
            (bare / path.name).symlink_to(path)
    labels = bytearray(gzip.decompress((data_root / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes()))
    labels[5000] ^= 1
    imitation.write(bare, {"t10k-labels-idx1-ubyte": bytes(labels)})
    refused(
        lambda: load(MNIST, root=bare),
        f"{bare}/t10k-labels-idx1-ubyte is not the official file: expected md5 27ae3e4e09519cfbb04c329615203637, got ",
    )
    assert [row.state for row in verify("mnist", bare)] == ["official", "official", "official", "inexact"]


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("keep", [0, 5, 40])
def test_a_torn_file_is_refused_by_name_even_if_inexact_ones_are_accepted(bare, imitation, suffix, keep):
    imitation.write(bare, imitation.mnist(), suffix)
    path = bare / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[:keep])
    refused(lambda: load(MNIST, root=bare, accept_inexact=True), f"{path} cannot be read, it is truncated or damaged (")
    states = {row.file: row.state for row in verify("mnist", bare)}
    assert states["t10k-images-idx3-ubyte"] == "damaged"


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_packed_file_with_an_altered_byte_is_refused(bare, imitation, suffix):
    imitation.write(bare, imitation.mnist(), suffix)
    path = bare / f"train-images-idx3-ubyte{suffix}"
    packed = bytearray(path.read_bytes())
    packed[len(packed) // 2] ^= 0x55
    path.write_bytes(packed)
    refused(lambda: load(MNIST, root=bare, accept_inexact=True), f"{path} ")


def test_an_unreadable_file_is_refused_by_name(bare, imitation, monkeypatch):
    imitation.write(bare, imitation.mnist())

    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", deny)
    refused(lambda: load(MNIST, root=bare), f"{bare}/train-images-idx3-ubyte cannot be read")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        (
            "train-images-idx3-ubyte",
            lambda whole: b"\x00\x00\x0d\x03" + whole[4:],
            "train-images-idx3-ubyte must begin with the magic number 2051, got 3331",
        ),
        (
            "train-images-idx3-ubyte",
            lambda whole: whole[:-1],
            "train-images-idx3-ubyte must have 15696 bytes for the sizes (20, 28, 28), got 15695.",
        ),
        (
            "train-images-idx3-ubyte",
            lambda _: b"",
            "train-images-idx3-ubyte cannot be read, it is truncated or damaged (it is empty)",
        ),
        (
            "t10k-labels-idx1-ubyte",
            lambda whole: whole[:7],
            "t10k-labels-idx1-ubyte must have a header of 8 bytes, got 7 bytes",
        ),
        (
            "t10k-labels-idx1-ubyte",
            lambda whole: whole + b"\x00",
            "t10k-labels-idx1-ubyte must have 28 bytes for the sizes (20,), got 29.",
        ),
        (
            "t10k-labels-idx1-ubyte",
            lambda whole: whole[:-1] + b"\x0a",
            "mnist: test labels must be 0 to 9 for 10 classes, got 10.",
        ),
    ],
)
def test_an_mnist_file_of_another_form_is_refused_even_if_inexact_ones_are_accepted(
    bare, imitation, file, content, says
):
    files = imitation.mnist()
    files[file] = content(files[file])
    imitation.write(bare, files)
    refused(lambda: load(MNIST, root=bare, accept_inexact=True), says)


def test_mnist_images_of_another_size_are_refused(bare, imitation):
    files = imitation.mnist()
    files["train-images-idx3-ubyte"] = imitation.idx(np.zeros((20, 14, 56), np.uint8))
    imitation.write(bare, files)
    refused(
        lambda: load(MNIST, root=bare, accept_inexact=True),
        "train-images-idx3-ubyte must hold 28x28 images, got (14, 56).",
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda whole: whole[:-1], "data_batch_4.bin must hold whole records of 3073 bytes, got 12291 bytes"),
        (lambda _: b"", "data_batch_4.bin cannot be read, it is truncated or damaged (it is empty)"),
        (lambda whole: b"\x0b" + whole[1:], "data_batch_4.bin must have labels 0 to 9, got 11"),
    ],
)
def test_a_cifar10_file_of_another_form_is_refused_even_if_inexact_ones_are_accepted(bare, imitation, content, says):
    files = imitation.cifar10()
    files["data_batch_4.bin"] = content(files["data_batch_4.bin"])
    imitation.write(bare, files)
    refused(lambda: load(CIFAR10, root=bare, accept_inexact=True), says)


def test_fusion_of_files_reads_both_sets_and_keeps_their_remarks(bare, imitation):
    imitation.write(bare / "mnist", imitation.mnist())
    imitation.write(bare / "cifar10", imitation.cifar10())
    spec = Spec(name="fusion", settings={"digits": "mnist", "objects": "cifar10", "task": "object"})
    data = load(spec, root=bare, accept_inexact=True)
    assert (len(data.train), len(data.test), len(data.remarks), data.classes[0]) == (20, 4, 10, "airplane")


def test_the_beside_file_is_mentioned_for_inexact_names_only(bare, imitation):
    files = imitation.cifar10()
    (bare / "test_inexact_indices.txt").write_text("1\n3\n")
    imitation.write(bare, files)
    assert not any("beside it" in remark for remark in load(CIFAR10, root=bare, accept_inexact=True).remarks)
    (bare / "test_batch.bin").rename(bare / "test_batch_2_inexact.bin")
    remarks = load(CIFAR10, root=bare, accept_inexact=True).remarks
    assert remarks[-1].endswith("(test_inexact_indices.txt beside it names 2 images).")
