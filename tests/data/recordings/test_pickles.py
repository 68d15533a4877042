import io
import os
import pickle
import re
import sys
import tracemalloc

import numpy as np
import pytest

from unperturbed.data.recordings.pickles import read_dictionary
from unperturbed.records import SpecError

RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.standard_normal((6, 5, 7, 9))  # 15,120 bytes: mapped
CONTENT = {
    "numbers": NUMBERS,
    "columns first": np.asfortranarray(NUMBERS),
    "big end first": NUMBERS.astype(">f8"),
    "single": NUMBERS.astype(np.float32)[0, 0],
    "flags": np.array([True, False]),
    "bytes": np.arange(5, dtype=np.uint8),
    "none of them": np.zeros((0, 3)),
    "words": np.array(["Oz", "PO7"]),
    "names": ["Oz", "PO7"],
    "pair": (1, -70000),
    "pair of arrays": (np.arange(2), NUMBERS),
    "numbers alone": [2.5, 10**12, True, False, None, np.float64(0.1), np.int64(7)],
    "inside": {"again": [{"deep": np.arange(3)}]},
    "objects": np.array(["a", 1], dtype=object),
}


def header():
    empty = io.BytesIO()
    np.lib.format.write_array_header_1_0(empty, {"descr": "|O", "fortran_order": False, "shape": ()})
    return empty.getvalue()


def write(path, content, protocol=4):
    """Write what numpy.save would write with that protocol."""
    path.write_bytes(header() + pickle.dumps(np.array(content, dtype=object), protocol))
    return path


def compare(ours, theirs):
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            compare(ours[key], theirs[key])
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        compare(ours, theirs.tolist())
    elif isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(ours, theirs)
        assert (ours.shape, ours.dtype.newbyteorder("=")) == (theirs.shape, theirs.dtype.newbyteorder("="))
    elif isinstance(theirs, list | tuple):
        assert type(ours) is type(theirs)
        for one, other in zip(ours, theirs, strict=True):
            compare(one, other)
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs


def refused(path, says):
    with pytest.raises(SpecError, match=re.escape(says)) as error:
        read_dictionary(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", [3, 4])
def test_reads_what_numpy_reads(tmp_path, protocol):
    path = write(tmp_path / "file.npy", CONTENT, protocol)
    compare(read_dictionary(path), np.load(path, allow_pickle=True).item())


def test_reads_what_numpy_saves(tmp_path):
    np.save(tmp_path / "file.npy", CONTENT)
    compare(read_dictionary(tmp_path / "file.npy"), CONTENT)


def test_a_large_array_is_mapped_where_it_lies_and_not_read(tmp_path):
    large = np.arange(2**21, dtype=np.float64).reshape(2, 2**20)  # 16 MiB
    np.save(tmp_path / "file.npy", {"first": large, "again": large, "columns first": np.asfortranarray(large)})
    tracemalloc.start()
    found = read_dictionary(tmp_path / "file.npy")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20
    for array in found.values():
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, large)
    assert found["columns first"].flags.f_contiguous
    with (tmp_path / "file.npy").open("r+b") as file:  # a changed file shows through
        file.seek(found["first"].offset + 8 * 5)
        file.write(np.float64(-1).tobytes())
    assert found["first"][0, 5] == -1


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("wrap", [lambda evil: {"ch_names": evil}, lambda evil: {"deep": [{1: (evil,)}]}])
def test_no_code_of_a_file_is_run(tmp_path, protocol, wrap):
    trace = tmp_path / "trace"
    path = write(tmp_path / "file.npy", wrap(Calls(os.mkdir, str(trace))), protocol)
    refused(path, "is refused: its pickle asks for posix.mkdir, where a file of this data set asks for NumPy's arrays")
    assert not trace.exists()
    np.load(path, allow_pickle=True)  # the file is as malicious as it should be
    assert trace.is_dir()


def test_no_module_that_a_file_names_is_imported(tmp_path, monkeypatch):
    (tmp_path / "unheard_of.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "file.npy"
    path.write_bytes(header() + b"\x80\x04\x8c\x0aunheard_of\x8c\x05thing\x93.")
    refused(path, "asks for unheard_of.thing,")
    assert "unheard_of" not in sys.modules


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (eval, "builtins.eval"),
        (np.load, "numpy.load"),
        (np.lib.format.open_memmap, "numpy.lib.format.open_memmap"),
        (pickle.loads, "_pickle.loads"),
    ],
)
def test_functions_are_refused_by_name_wherever_they_come_from(tmp_path, function, name):
    refused(write(tmp_path / "file.npy", {"x": Calls(function, "1")}), f"its pickle asks for {name},")


def test_a_name_that_is_allowed_is_not_called_either(tmp_path):
    """What NumPy would be told to make is made by the reader, from shape, type and bytes alone."""
    path = write(tmp_path / "file.npy", {"x": Calls(np.ndarray, (2**40,))})
    refused(path, "should make arrays as NumPy does, but its pickle calls numpy.ndarray")
    path = write(tmp_path / "file.npy", {"x": Calls(np.dtype, "O")})
    refused(path, "should hold texts, numbers, lists and arrays, got something else")


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (b"\x80\x04cos\nsystem\n.", "is refused: its pickle asks for os.system,"),
        (b"(S'true'\nios\nsystem\n.", "its pickle uses STRING"),
        (b"(ios\nsystem\n.", "its pickle uses INST"),
        (b"\x80\x04(K\x01o.", "its pickle uses OBJ"),
        (b"\x80\x02Pname\n.", "its pickle uses PERSID"),
        (b"\x80\x02K\x01Q.", "its pickle uses BINPERSID"),
        (b"\x80\x02\x82\x01.", "its pickle uses EXT1"),
        (b"\x80\x04)\x81.", "its pickle uses NEWOBJ"),
        (b"\x80\x04\x8f.", "its pickle uses EMPTY_SET"),
        (b"\x80\x04]\x94h\x00a.", "is truncated or damaged (maximum recursion depth"),
        (b"\x80\x04]", "is truncated or damaged (pickle exhausted before seeing STOP)"),
        (b"\x80\x04].", "is truncated or damaged"),
        (b"\x80\x04](K\x01e.", "should hold a dictionary with texts as keys, got int"),
        (b"\x80\x04](}K\x01K\x02se.", "should hold a dictionary with texts as keys, got dict"),
        (b"\x80\x04](cnumpy\nndarray\ne.", "should hold texts, numbers, lists and arrays, got numpy.ndarray"),
        (b"\x80\x04K\x01K\x02b.", "is truncated or damaged"),
        (b"\x80\x04h\x07.", "is truncated or damaged"),
        (b"\x80\x04}K\x01K\x02a.", "is truncated or damaged"),
    ],
)
def test_other_programs_are_refused(tmp_path, program, says):
    (tmp_path / "file.npy").write_bytes(header() + program)
    refused(tmp_path / "file.npy", says)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = write(tmp_path / "file.npy", {"numbers": np.arange(3.0), "long": NUMBERS, "names": ["Oz", "PO7"]})
    whole = path.read_bytes()
    payload = whole.index(NUMBERS.tobytes())
    for length in [*range(payload), payload + 1, payload + 9000, *range(len(whole) - 40, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(SpecError, match=r"truncated or damaged|should hold"):
            read_dictionary(path)


@pytest.mark.parametrize("shape", [(7, 5, 7, 9), (5, 5, 7, 9)])
def test_an_array_never_reaches_beyond_its_own_bytes(tmp_path, shape):
    path = write(tmp_path / "file.npy", {"numbers": NUMBERS, "more": NUMBERS + 1})
    sizes = lambda numbers: b"".join(b"K" + bytes([number]) for number in numbers)  # noqa: E731
    whole = path.read_bytes()
    assert sizes(NUMBERS.shape) in whole
    path.write_bytes(whole.replace(sizes(NUMBERS.shape), sizes(shape), 1))
    refused(path, f"an array needs {8 * np.prod(shape)} bytes, there are 15120")


def test_damage_is_one_line_whatever_it_is(tmp_path):
    path = write(tmp_path / "file.npy", CONTENT)
    whole = path.read_bytes()
    places = [place for place in range(len(header()), len(whole)) if not 1000 < place < len(whole) - 2500]
    outcomes = []
    for _ in range(300):
        damaged = bytearray(whole)
        for place in RANDOM.choice(places, 2):
            damaged[place] = RANDOM.integers(256)
        path.write_bytes(damaged)
        try:
            outcomes.append(str(read_dictionary(path).keys()))
        except SpecError as error:
            outcomes.append(f"{SpecError.__name__} {error}")
    refusals = [outcome for outcome in outcomes if outcome.startswith("SpecError")]
    assert 0 < len(refusals) < len(outcomes)
    assert not any("\n" in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "cannot be read (No such file or directory)"),
        (lambda path: path.mkdir(), "cannot be read (Is a directory)"),
        (lambda path: path.write_bytes(b""), "is truncated or damaged"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "is truncated or damaged"),
        (
            lambda path: np.save(path, NUMBERS),
            "should hold a pickled dictionary, got an array of float64 and shape (6, 5",
        ),
        (lambda path: np.save(path, np.array(["a", {}], object)), "got an array of object and shape (2,)"),
        (lambda path: np.save(path, np.array(["a", 1], object).reshape(2)[:1].reshape(())), "as keys, got str"),
        (
            lambda path: np.save(path, {"x": np.zeros(3, "c16")}),
            "should hold arrays of numbers or texts, got the type 'c16'",
        ),
        (
            lambda path: np.save(path, {"x": np.zeros(3, "i4,f8")}),
            "should hold arrays of numbers or texts, got the type",
        ),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, make, says):
    make(tmp_path / "file.npy")
    refused(tmp_path / "file.npy", says)
