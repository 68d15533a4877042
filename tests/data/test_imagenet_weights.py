"""Files of published weights: what to download, where it is looked for, and whether it is what its name says."""

from hashlib import sha256

import pytest

from unperturbed.data import instructions, listing, verify
from unperturbed.data.imagenet_weights import FILE, NAME, find_weights
from unperturbed.records import SpecError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data root, and no other one."""
    monkeypatch.setenv("UNPERTURBED_DATA", str(tmp_path))
    monkeypatch.setattr("pooch.os_cache", lambda _: tmp_path / "cache")
    return tmp_path


def test_what_to_download_is_said_with_the_place_for_it(root):
    said = instructions(NAME, root)
    for words in (
        f"put them into {root / NAME}:",
        f"https://download.pytorch.org/models/{FILE}",
        "begins with 0676ba61",
    ):
        assert words in said
    assert 'model = { name = "imagenet-resnet", weights = "FILE" }' in said
    (row,) = (row for row in listing(root) if row.kind == "weights")
    assert (row.found, row.where) == (False, f"not there: unperturbed data fetch {NAME} says what to download")


def test_a_missing_file_is_named_with_where_it_comes_from(root):
    with pytest.raises(SpecError) as caught:
        find_weights(FILE, root)
    assert str(caught.value) == (
        f"{root / NAME / FILE} is missing; `unperturbed data fetch {NAME}` says where it comes from."
    )
    assert [(row.file, row.state) for row in verify(NAME, root)] == [(FILE, "missing")]


def test_a_file_is_sound_when_its_checksum_begins_as_its_name_ends(root):
    folder = root / NAME
    folder.mkdir()
    digest = sha256(b"weights").hexdigest()
    for name, content in ((f"net-{digest[:8]}.pth", b"weights"), ("net-00000000.pth", b"weights"), ("net.pth", b"")):
        (folder / name).write_bytes(content)
    found = {row.file: (row.state, row.got) for row in verify(NAME, root)}
    assert found == {
        f"net-{digest[:8]}.pth": ("sound", ""),
        "net-00000000.pth": ("damaged", f"a SHA-256 that begins with {digest[:8]}"),
        "net.pth": ("damaged", "a name that does not end in the beginning of its SHA-256"),
    }
    assert find_weights("net.pth", root) == folder / "net.pth"
