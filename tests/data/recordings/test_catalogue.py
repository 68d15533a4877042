import os
import re
import shutil
import sys
from functools import partial

import pytest

from unperturbed import cli
from unperturbed.data import RECORDINGS, fetch, instructions, listing, verify
from unperturbed.data.catalogue import EVERYTHING
from unperturbed.data.recordings import things_eeg2
from unperturbed.records import SpecError


@pytest.fixture
def command(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["unperturbed", "data", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return call


def rows(root):
    return {row.name: row for row in listing(root) if row.kind == "recordings"}


def test_recordings_are_listed_and_found_where_they_lie(bare, written):
    assert list(rows(bare)) == list(RECORDINGS) == ["things-eeg2", "eeg-faces-houses", "images92"]
    assert not any(row.found for row in rows(bare).values())
    assert rows(bare)["things-eeg2"].where == "not there: unperturbed data fetch things-eeg2 says what to download"
    folder = written[0]
    things = rows(folder.parent)["things-eeg2"]
    assert (things.found, things.where, things.exact) == (True, str(folder), None)
    assert (things.train, things.test) == (16540, 200)


@pytest.mark.parametrize("name", ["eeg-faces-houses", "images92"])
def test_the_real_recordings_are_the_official_ones(real, name):
    root = real(name)
    assert {row.state for row in verify(name, root)} == {"official"}
    assert rows(root)[name].found


def test_what_to_download_by_hand_is_said_with_the_place_for_it(bare, command):
    code, out, err = command("fetch", "things-eeg2", "--to", bare)
    assert (code, err, out) == (0, "", instructions("things-eeg2", bare))
    for words in (f"unpack it in {bare}/things-eeg2:", "osf.io/anp5v", "sub-01.zip", "osf.io/y63gw", "11 GB"):
        assert words in out
    bytes_each = [8 * images * repetitions * 17 * 100 for images, repetitions in ((16540, 4), (200, 80))]
    assert f"({bytes_each[0] / 1e9:.2f} GB)" in out
    assert f"({bytes_each[1] / 1e9:.2f} GB)" in out
    assert round(10 * sum(bytes_each) / 1e9) == 11
    with pytest.raises(
        SpecError, match=re.escape("things-eeg2 is to be downloaded by hand; instructions('things-eeg2')")
    ):
        fetch("things-eeg2", bare)
    assert instructions("mnist") == ""


def test_every_file_that_is_missing_is_named_and_one_subject_is_enough(bare, command):
    code, out, _ = command("verify", "things-eeg2", "--data-root", bare)
    assert code == 1
    lines = out.splitlines()
    assert len(lines) == 2 + 2 + 9
    place = bare / "things-eeg2" / "sub-01" / "preprocessed_eeg_test.npy"
    assert lines[3] == f"sub-01/preprocessed_eeg_test.npy: missing {place}"
    assert lines[-1] == f"sub-10: left out {bare / 'things-eeg2' / 'sub-10'}"


def test_a_sound_set_is_verified_and_a_damaged_one_is_not(bare, written, command, monkeypatch):
    folder = shutil.copytree(written[0], bare / "things-eeg2")
    examine = partial(things_eeg2.examine, layout=written[1].layout)
    monkeypatch.setitem(EVERYTHING, "things-eeg2", EVERYTHING["things-eeg2"]._replace(examine=examine))
    assert [row.state for row in verify("things-eeg2", bare)] == ["sound"] * 6
    code, out, _ = command("verify", "things-eeg2", "--data-root", bare)
    assert code == 0
    assert out.splitlines()[0] == f"training_images: sound {folder / 'training_images'}"
    path = folder / "sub-02" / "preprocessed_eeg_test.npy"
    os.truncate(path, 5000)
    code, out, _ = command("verify", "things-eeg2", "--data-root", bare)
    assert code == 1
    assert out.count(": sound ") == 5
    assert f"sub-02/preprocessed_eeg_test.npy: damaged (expected what its authors describe, got {path} cannot" in out
    path.unlink()
    code, out, _ = command("verify", "things-eeg2", "--data-root", bare)
    assert (code, out.splitlines()[-1]) == (1, f"sub-02/preprocessed_eeg_test.npy: missing {path}")
    shutil.rmtree(path.parent)
    code, out, _ = command("verify", "things-eeg2", "--data-root", bare)
    assert (code, out.splitlines()[-1]) == (0, f"sub-02: left out {path.parent}")


def test_addresses_name_the_authors_and_a_commit():
    for name, owner in (("eeg-faces-houses", "alexandrebarachant/muse-lsl"), ("images92", "rsagroup/rsatoolbox")):
        official = RECORDINGS[name].files
        assert [download.name for download in official.downloads] == [file.name for file in official.files]
        for download, file in zip(official.downloads, official.files, strict=True):
            assert re.match(rf"https://raw\.githubusercontent\.com/{owner}/[0-9a-f]{{40}}/", download.address)
            assert download.address.endswith(f"/{file.name}")
            assert download.checksum == f"md5:{file.checksum}"
