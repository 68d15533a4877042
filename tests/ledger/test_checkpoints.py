"""A checkpoint is whole or as good as none."""

import pytest

from unperturbed.ledger import Ledger
from unperturbed.ledger.checkpoints import checkpoint_path


def test_it_is_replaced_and_dropped(tmp_path):
    with Ledger.open(tmp_path) as ledger:
        assert ledger.load_checkpoint("a/b") is None
        ledger.save_checkpoint("a/b", b"first")
        ledger.save_checkpoint("a/b", b"second")
        ledger.save_checkpoint("other", b"")
    with Ledger.open(tmp_path) as ledger:
        assert ledger.load_checkpoint("a/b") == b"second"
        assert ledger.load_checkpoint("other") == b""
        assert len(list((tmp_path / "checkpoints").iterdir())) == 2
        for _ in range(2):
            ledger.drop_checkpoint("a/b")
        assert ledger.load_checkpoint("a/b") is None
        assert ledger.load_checkpoint("other") == b""


@pytest.mark.parametrize("length", [0, 10, 32, 50, 131])
def test_a_torn_one_is_ignored(tmp_path, length):
    with Ledger.open(tmp_path) as ledger:
        ledger.save_checkpoint("key", bytes(range(100)))
        path = checkpoint_path(tmp_path, "key")
        assert path.stat().st_size == 132
        path.write_bytes(path.read_bytes()[:length])
        assert ledger.load_checkpoint("key") is None


@pytest.mark.parametrize("place", [0, 31, 32, 131])
def test_an_altered_one_is_ignored(tmp_path, place):
    with Ledger.open(tmp_path) as ledger:
        ledger.save_checkpoint("key", bytes(range(100)))
        path = checkpoint_path(tmp_path, "key")
        content = bytearray(path.read_bytes())
        content[place] ^= 4
        path.write_bytes(content)
        assert ledger.load_checkpoint("key") is None


def test_that_of_another_key_is_ignored(tmp_path):
    with Ledger.open(tmp_path) as ledger:
        ledger.save_checkpoint("key", b"weights")
        checkpoint_path(tmp_path, "key").rename(checkpoint_path(tmp_path, "other"))
        assert ledger.load_checkpoint("other") is None
