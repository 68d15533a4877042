"""Dictionaries that NumPy saved as pickles, read without running anything and without reading their large arrays.

Source: the instructions of pickle protocols 3 and 4 as ``pickletools`` of the standard library describes them, and the
header of ``numpy.lib.format``.

A pickle is a program that may call whatever it names. Here it is not run: ``pickletools`` lists its instructions, and
this module follows the few that build texts, numbers, lists, dictionaries and arrays, on values of its own. Names are
compared with ``ALLOWED`` and never looked up, so nothing that a file names is imported or called; another name or
instruction refuses the file.

The numbers of a pickled array are one run of bytes in the file. So an array is mapped where it lies: nothing large is
read, no second copy is written, and what a caller does not touch costs no memory.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from pickletools import OpcodeInfo, genops
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as header

from unperturbed.records import SpecError

LONG = 4096  # bytes; what is longer is mapped
MAKES_ARRAY = {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
MAKES_SCALAR = {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
ALLOWED = {*MAKES_ARRAY, *MAKES_SCALAR, "numpy.ndarray", "numpy.dtype"}
NUMBERS = re.compile(r"[fiub][1248]|U\d{1,6}")  # types of arrays, as NumPy writes them
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
KINDS = "texts, numbers, lists and arrays"
MARK = object()


def read_dictionary(path: Path) -> dict[str, Any]:
    """Return the dictionary that ``numpy.save`` wrote to ``path``, its large arrays mapped and read-only.

    Raises:
        SpecError: the file is no such thing, is truncated or damaged, or asks for anything but NumPy's arrays.
    """
    try:
        with path.open("rb") as file:
            _read_header(file)
            (value,) = _plain(_followed(genops(cast(Any, _Stream(file)))), path)
    except _Refused as error:
        raise SpecError(f"{path} {error}.") from error
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); give the path of a file.") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SpecError(f"{path} cannot be read, it is truncated or damaged ({reason}); download it again.") from error
    if not (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
        raise SpecError(f"{path} should hold a dictionary with texts as keys, got {type(value).__name__}.")
    return cast(dict[str, Any], value)


class _Refused(Exception):
    """What a file is, in words that follow its name."""


@dataclass(frozen=True)
class _Run:
    """A run of bytes that was not read."""

    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


class _Stream:
    """A file whose long runs of bytes stand for themselves as their place."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell, self.readline = file.tell, file.readline

    def read(self, count: int) -> bytes | _Run:
        if count <= LONG:
            return self._file.read(count)
        run = _Run(self._file.tell(), count)
        self._file.seek(count, 1)  # beyond the end too: then what follows is missing
        return run


@dataclass(eq=False)
class _Type:
    """A type of numbers that is being read."""

    code: str
    order: str = "="


@dataclass(eq=False)
class _Array:
    """An array that is being read."""

    shape: tuple[int, ...] = ()
    type: _Type | None = None
    columns_first: bool = False
    content: bytes | _Run | list[Any] | None = None


def _read_header(file: BinaryIO) -> None:
    readers = {(1, 0): header.read_array_header_1_0, (2, 0): header.read_array_header_2_0}
    version = header.read_magic(file)
    if version not in readers:
        raise _Refused(f"should be a .npy file of version 1.0 or 2.0, got {version[0]}.{version[1]}")
    shape, _, kind = readers[version](file)
    if kind != np.dtype(object) or shape != ():
        raise _Refused(f"should hold a pickled dictionary, got an array of {kind} and shape {shape}")


def _followed(instructions: Iterable[tuple[OpcodeInfo, Any, int | None]]) -> Any:
    """Return what the ``instructions`` build, arrays and types still as records."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for instruction, argument, _ in instructions:
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in LITERALS:
                stack.append(argument)
            case name if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                stack.append(MARK)
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                items = _since_mark(stack)
                stack.append(tuple(items))
            case "APPEND" | "APPENDS" as name:
                items = _since_mark(stack) if name == "APPENDS" else [stack.pop()]
                stack[-1] += items
            case "SETITEM" | "SETITEMS" as name:
                items = _since_mark(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_allowed(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [_allowed(*stack[-2:])]
            case "REDUCE":
                stack[-2:] = [_made(*stack[-2:])]
            case "BUILD":
                state = stack.pop()
                _complete(stack[-1], state)
            case "STOP":
                return stack.pop()
            case name:
                raise _Refused(f"should hold {KINDS}, but its pickle uses {name}")
    raise ValueError("it has no end")


def _since_mark(stack: list[Any]) -> list[Any]:
    place = max(place for place, item in enumerate(stack) if item is MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


@dataclass(frozen=True)
class _Name:
    """The name of something that would be called if the pickle were run."""

    text: str


def _allowed(module: str, name: str) -> _Name:
    text = f"{module}.{name}"
    if text not in ALLOWED:
        raise _Refused(
            f"is refused: its pickle asks for {text}, where a file of this data set asks for NumPy's arrays only; "
            "nothing was run, get the file from its authors"
        )
    return _Name(text)


def _made(name: _Name, arguments: tuple[Any, ...]) -> Any:
    if name.text in MAKES_ARRAY:
        return _Array()
    if name.text in MAKES_SCALAR:
        kind, content = arguments
        return _Array((), kind, False, content)
    if name.text == "numpy.dtype":
        return _Type(arguments[0])
    raise _Refused(f"should make arrays as NumPy does, but its pickle calls {name.text}")


def _complete(made: _Array | _Type, state: tuple[Any, ...]) -> None:
    if isinstance(made, _Type):
        made.order = state[1]
    else:
        _, made.shape, made.type, made.columns_first, made.content = state


def _plain(value: Any, path: Path) -> Any:
    """Return ``value`` with its records replaced by arrays; an array of objects becomes a list."""
    if isinstance(value, _Array):
        if value.type is not None and value.type.code == "O8":
            return [_plain(item, path) for item in cast(list[Any], value.content)]
        return _array(value, path)
    if isinstance(value, list):
        return [_plain(item, path) for item in cast(list[Any], value)]
    if isinstance(value, tuple):
        return tuple(_plain(item, path) for item in cast(tuple[Any, ...], value))
    if isinstance(value, dict):
        return {_plain(key, path): _plain(item, path) for key, item in cast(dict[Any, Any], value).items()}
    if not isinstance(value, str | int | float | None):
        raise _Refused(f"should hold {KINDS}, got {getattr(value, 'text', 'something else')!s}")
    return value


def _array(record: _Array, path: Path) -> np.ndarray | np.generic:
    if record.type is None or not NUMBERS.fullmatch(record.type.code):
        raise _Refused(f"should hold arrays of numbers or texts, got the type {record.type and record.type.code!r}")
    kind = np.dtype(record.type.code).newbyteorder(cast(Any, record.type.order))
    order = "F" if record.columns_first else "C"
    if isinstance(record.content, _Run):
        needed = kind.itemsize * math.prod(record.shape)
        if record.content.length != needed:
            raise ValueError(f"an array needs {needed} bytes, there are {record.content.length}")
        return np.memmap(path, kind, "r", record.content.offset, record.shape, order)
    array = np.frombuffer(cast(bytes, record.content), kind).reshape(record.shape, order=order)
    return array if record.shape else array[()]
