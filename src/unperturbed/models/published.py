"""Published weights: a file with torchvision's names is read without running anything, and a network begins with it.

Two forms are read. ``.safetensors`` holds names and numbers only. ``.pth`` and ``.pt`` are pickles, programs that may
call whatever they name; they go through PyTorch's ``weights_only=True``, whose interpreter makes tensors and
dictionaries and refuses any other name before it is called.

The readout (``fc``) is taken where the file has one for as many classes, and is drawn from the seed otherwise. All else
must fit, name by name and shape by shape. Of counts of batches (``num_batches_tracked``), which decide nothing, older
files have none.
"""

import pickle
import warnings
from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from unperturbed.records import SpecError

SUFFIXES = (".safetensors", ".pth", ".pt")
READOUT = "fc."
COUNTED = ".num_batches_tracked"
MOST_NAMED = 8  # of each kind of entry that does not fit


class Published(NamedTuple):
    """What a file of weights holds."""

    path: Path
    digest: str  # SHA-256 of the file
    tensors: dict[str, Tensor]


def read_weights(path: Path) -> Published:
    """Return the named tensors of a file, on the CPU; nothing in it is run.

    Raises:
        SpecError: no such file, another kind of file, a damaged one, one that asks for more than tensors, or one with a
            number that is not finite.
    """
    if path.suffix not in SUFFIXES:
        raise SpecError(f"{path}: expected weights as {', '.join(SUFFIXES)}; got another kind of file.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}); give the path of a file of weights.") from error
    found = _from_safetensors(path, content) if path.suffix == SUFFIXES[0] else _from_pickle(path, content)
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise SpecError(f"{path}: expected finite weights; got NaN or infinity in {name}; get the file again.")
    return Published(path, sha256(content).hexdigest(), found)


def _from_safetensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return load_safetensors(content)
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _from_pickle(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of protocols that torch.save does not write
            found: Any = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SpecError(
            f"{path} is refused: its pickle asks for more than names and tensors, or is damaged; nothing was run, get "
            "the file from its authors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    if not isinstance(found, dict) or not found:
        raise SpecError(f"{path}: expected names with their tensors; got {type(found).__name__}.")
    entries = cast(dict[Any, Any], found)
    odd = [str(name) for name, value in entries.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if odd:
        raise SpecError(f"{path}: expected names with their tensors; these have none: {_few(odd)}.")
    return {name: tensor.detach() for name, tensor in entries.items()}


def _damaged(path: Path, error: Exception) -> SpecError:
    reason = " ".join(str(error).split("\n", 1)[0].split()) or type(error).__name__
    return SpecError(f"{path} cannot be read, it is truncated or damaged ({reason}); get it again.")


def begin_with(network: nn.Module, published: Published) -> None:
    """Give ``network`` the published weights in place of its own; a readout for other classes keeps its own.

    Raises:
        SpecError: an entry is missing, too many, or of another shape; all of them are named, the first eight of a kind.
    """
    expected, got = network.state_dict(), dict(published.tensors)
    own = {name for name in expected if name.startswith(READOUT)}
    if any(name not in got or got[name].shape != expected[name].shape for name in own):
        expected = {name: tensor for name, tensor in expected.items() if name not in own}
        got = {name: tensor for name, tensor in got.items() if not name.startswith(READOUT)}
    expected = {name: tensor for name, tensor in expected.items() if name in got or not name.endswith(COUNTED)}
    check_fit(published.path, "this network", expected, got)
    network.load_state_dict(got, strict=False)


def check_fit(path: Path, model: str, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of a model, in one line that names them.

    Raises:
        SpecError: an entry is missing, too many, or of another shape.
    """
    reshaped = [name for name in expected if name in got and got[name].shape != expected[name].shape]
    problems = {
        "missing": [name for name in expected if name not in got],
        "besides": [name for name in got if name not in expected],
        "of another shape": [
            f"{name} is {tuple(expected[name].shape)} there and {tuple(got[name].shape)} here" for name in reshaped
        ],
    }
    found = [f"{kind}: {_few(names)}" for kind, names in problems.items() if names]
    if found:
        raise SpecError(f"{path}: expected the weights of {model}; {'; '.join(found)}.")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
