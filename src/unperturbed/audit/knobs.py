"""Knobs: the numbers inside a classifier that can be turned to get a smoother stand-in with the same weights.

Source: ``temperature`` of stochastic winner-take-all (Panousis et al. (2021), arXiv:2112.02671), whose gradient is
noise at 0.01, as evaluated, and useful at 0.67, as trained; the sweep over temperature and noise {off, x 0.1, x 10,
x 100} that randomised networks call for. Every scalar attribute counts, of modules, of plain objects that they hold, of
the functions that they are made of; its name only decides how early it is tried and which values make sense. All knobs
of one name turn together.
A knob is set for the time of one forward pass and always put back; a tensor is replaced, never changed in place, so
that a graph keeps the value that it was made with.
"""

import functools
import re
import sys
import types
from collections.abc import Callable, Generator, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unperturbed.attacks.classifier import Classifier
from unperturbed.audit.twins import straight

DEPTH = 4  # how many steps from the classifier to an object that is looked at
OBJECTS = 5000  # looked at, at most

_ORDER = {  # what a name suggests, the most telling first
    "temperature": r"temp|tau|^t$|_t$",
    "noise": r"noise|sigma|std|jitter|variance",
    "share": r"drop|^p$|prob|rate|ratio|sparsity|gamma|frac|keep",
    "count": r"bit|level|bins|quant|quality|^k$|topk|draw|sample|vote|steps|iter",
    "scale": r"scale|alpha|beta|gain|eps|strength|lambda|step_size|thresh|theta",
}
_STRUCTURE = re.compile(
    r"kernel|stride|padding|dilation|groups|^in_|^out_|^num_(class|feat|chan|head|layer|block)|class|channel|feature|^dim|"
    r"_dim$|hidden|embed|width|widen|height|size$|depth|block|layer|heads|planes|expansion|seed|training|momentum|epoch|"
    r"label|target|index|axis|patch|window|resolution|^ndim$|version"
)
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_HOLDERS = (nn.Module, dict, functools.partial, types.FunctionType, types.MethodType, types.SimpleNamespace)


class Place(NamedTuple):
    """Where one number stands."""

    owner: MutableMapping[Any, Any]
    key: Any
    value: Any
    inherited: bool = False  # from the class: not there before


class Turn(NamedTuple):
    """What is done to a number."""

    label: str
    change: Callable[[float], float]


@dataclass(frozen=True, eq=False)
class Knob:
    """All numbers of one name."""

    name: str
    kind: str  # what the name suggests, or "float", "whole"
    places: tuple[Place, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The numbers as they are now, without repetition."""
        return tuple(dict.fromkeys(_number(place.value) for place in self.places))

    def turns(self) -> tuple[Turn, ...]:
        """Return the settings worth trying, the most promising first, none of which is the present one."""
        factors = [_by(factor) for factor in (10.0, 100.0, 0.1)]
        if self.kind == "temperature":
            turns = [_to(1.0), _to(0.67), _to(0.1), *factors]
        elif self.kind == "share":
            turns = [_to(0.0), _to(1.0), *factors]
        else:
            turns = [_to(0.0), *factors]
        seen = [self.values]
        kept: list[Turn] = []
        for turn in turns:
            after = tuple(_number(_changed(place.value, turn)) for place in self.places)
            values = tuple(dict.fromkeys(after))
            sensible = self.kind != "share" or max(self.values) > 1 or max(values) <= 1
            if sensible and not any(_close(values, other) for other in seen):
                seen.append(values)
                kept.append(turn)
        return tuple(kept)


def knobs(classifier: Classifier) -> tuple[Knob, ...]:
    """Return the knobs of a module, or of what a callable holds, the most telling names first."""
    found: dict[str, list[Place]] = {}
    for holder in _reachable(classifier):
        for name, place in _places(holder):
            found.setdefault(name, []).append(place)
    every = [Knob(name, _kind(name, places), tuple(places)) for name, places in found.items()]
    order = [*_ORDER, "float", "whole"]
    return tuple(sorted(every, key=lambda knob: order.index(knob.kind)))


@contextmanager
def turned(knob: Knob, turn: Turn) -> Generator[None]:
    """Set all numbers of ``knob`` for the time being."""
    try:
        for place in knob.places:
            place.owner[place.key] = _changed(place.value, turn)
        yield
    finally:
        for place in knob.places:
            if place.inherited:
                place.owner.pop(place.key, None)
            else:
                place.owner[place.key] = place.value


def turn(classifier: Classifier, knob: Knob, to: Turn) -> Classifier:
    """Return a stand-in for ``classifier`` with one knob turned; the classifier is as before after every call."""

    def with_knob_turned(images: Tensor) -> Tensor:
        with turned(knob, to):
            return classifier(images)

    return with_knob_turned


def modules_in(classifier: Classifier) -> list[nn.Module]:
    """Return every module of a classifier, or that a callable holds."""
    return [holder for holder in _reachable(classifier) if isinstance(holder, nn.Module)]


def picture_layers(classifier: Classifier, images: Tensor) -> list[nn.Module]:
    """Return the user's own modules that turn pictures into pictures of the same shape: preprocessing, noise."""
    found: list[nn.Module] = []

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        entered = inputs[0] if inputs else None
        if isinstance(entered, Tensor) and isinstance(output, Tensor) and entered.shape == output.shape == images.shape:
            found.append(module)

    own = [module for module in modules_in(classifier) if not _of_torch(module) and module is not classifier]
    hooks = [module.register_forward_hook(look) for module in own]
    try:
        with torch.no_grad():
            classifier(images.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(found))


def pass_over(classifier: Classifier, layer: nn.Module, *, forwards: bool) -> Classifier:
    """Return a stand-in in which ``layer`` is the identity in the backward pass, or in the forward pass as well.

    Args:
        classifier: what holds the layer; as before after every call.
        layer: a module whose output has the shape of its input.
        forwards: whether the layer is left out altogether.
    """
    original = layer.forward

    def identity(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if forwards:
            return x
        with torch.no_grad():
            hard = original(x.detach().clone(), *args, **kwargs)
        return straight(hard, x)

    def passed_over(images: Tensor) -> Tensor:
        kept = layer.__dict__.get("forward")
        layer.__dict__["forward"] = identity
        try:
            return classifier(images)
        finally:
            del layer.__dict__["forward"]
            if kept is not None:
                layer.__dict__["forward"] = kept

    return passed_over


class _Cell(dict[str, Any]):
    """A variable that a function has closed over, written like an entry of a dictionary."""

    def __init__(self, cell: types.CellType) -> None:
        super().__init__()
        self.cell = cell

    def __setitem__(self, key: str, value: Any) -> None:
        self.cell.cell_contents = value


class _Defaults(dict[int, Any]):
    """The defaults of a function's arguments, written like entries of a dictionary."""

    def __init__(self, function: types.FunctionType) -> None:
        super().__init__()
        self.function = function

    def __setitem__(self, key: int, value: Any) -> None:
        defaults = list(self.function.__defaults__ or ())
        defaults[key] = value
        self.function.__defaults__ = tuple(defaults)


def _by(factor: float) -> Turn:
    return Turn(f"x {factor:g}", lambda value: value * factor)


def _to(number: float) -> Turn:
    return Turn(f"= {number:g}", lambda _: number)


def _close(values: tuple[float, ...], others: tuple[float, ...]) -> bool:
    return len(values) == len(others) and all(abs(a - b) <= 0.05 * abs(b) for a, b in zip(values, others, strict=True))


def _changed(value: Any, turn: Turn) -> Any:
    number = turn.change(_number(value))
    if isinstance(value, Tensor):
        whole = not value.is_floating_point()
        fresh = torch.full_like(value.detach(), round(number) if whole else number)
        return nn.Parameter(fresh, requires_grad=False) if isinstance(value, nn.Parameter) else fresh
    return round(number) if isinstance(value, int) else number


def _number(value: Any) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


def _kind(name: str, places: list[Place]) -> str:
    for kind, pattern in _ORDER.items():
        if re.search(pattern, name.lower()):
            return kind
    return "whole" if all(isinstance(place.value, int) for place in places) else "float"


def _of_torch(thing: Any) -> bool:
    return type(thing).__module__.split(".")[0] == "torch"


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.dtype != torch.bool and not value.is_complex() and not value.is_meta
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _is_function(thing: Any) -> bool:
    return isinstance(thing, types.FunctionType) and (thing.__module__ or "").split(".")[0] not in (
        "torch",
        "unperturbed",
    )


def _reachable(classifier: Any) -> Iterator[Any]:
    """Yield what can hold a number: modules, plain objects, dictionaries and functions, each once."""
    met: set[int] = set()
    front: list[tuple[Any, int]] = [(classifier, 0)]
    while front and len(met) < OBJECTS:
        thing, depth = front.pop(0)
        if id(thing) in met:
            continue
        met.add(id(thing))
        if isinstance(thing, (list, tuple)):
            front += [(each, depth + 1) for each in thing[:100]] if depth < DEPTH else []
            continue
        if not isinstance(thing, _HOLDERS) and not (hasattr(thing, "__dict__") and _is_own(thing)):
            continue
        yield thing
        if isinstance(thing, nn.Module):
            front += [(child, depth) for child in thing.children()]  # however deep
        if depth < DEPTH:
            front += [(each, depth + 1) for each in _held(thing)]


def _is_own(thing: Any) -> bool:
    """Return whether an object is of a class that neither Python, NumPy nor PyTorch brought along."""
    brought = sys.stdlib_module_names | {"torch", "numpy"}
    return not isinstance(thing, (type, types.ModuleType)) and type(thing).__module__.split(".")[0] not in brought


def _held(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, functools.partial):
        return [thing.func, thing.args, thing.keywords]
    if isinstance(thing, types.MethodType):
        return [thing.__self__, thing.__func__]
    if _is_function(thing):
        named = [thing.__globals__.get(name) for name in thing.__code__.co_names]
        scope = [each for each in named if isinstance(each, nn.Module) or _is_function(each)]
        return [cell.cell_contents for cell in thing.__closure__ or () if _filled(cell)] + scope
    if _of_torch(thing):
        return []
    own = (
        [each for name, each in vars(thing).items() if name not in _OF_EVERY_MODULE]
        if hasattr(thing, "__dict__")
        else []
    )
    # Not what is called once, when the object is made.
    methods = [each for kind in _classes(thing) for name, each in vars(kind).items() if name != "__init__"]
    return own + [each for each in methods if _is_function(each)]


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # not yet assigned
        return False


def _classes(thing: Any) -> list[type]:
    """Return the user's classes of an object: those below ``nn.Module`` or ``object``."""
    builtin = ("torch", "builtins", "collections", "functools", "typing", "abc")
    return [kind for kind in type(thing).__mro__ if kind.__module__.split(".")[0] not in builtin]


def _is_counter(thing: Any) -> bool:
    """Return whether this is a wrapper of our own, whose numbers are counts."""
    return type(thing).__module__.split(".")[0] == "unperturbed"


def _places(holder: Any) -> Iterator[tuple[str, Place]]:
    """Yield the numbers that one object holds, with their names."""
    if isinstance(holder, nn.Module) and _of_torch(holder):
        if isinstance(holder, nn.modules.dropout._DropoutNd) and holder.training:  # pyright: ignore[reportPrivateUsage]
            yield "p", Place(holder.__dict__, "p", holder.p)
        return
    owners: list[Any] = []
    if isinstance(holder, nn.Module):
        owners = [holder.__dict__, holder._parameters, holder._buffers]  # pyright: ignore[reportPrivateUsage]
    elif isinstance(holder, dict):
        owners = [holder]
    elif _is_function(holder):
        yield from _of_function(holder)
    elif isinstance(holder, types.SimpleNamespace) or (_is_own(holder) and not _is_counter(holder)):
        owners = [vars(holder)]
    for owner in owners:
        for name, value in owner.items():
            if isinstance(name, str) and _counts(name, value):
                yield name, Place(owner, name, value)
    if owners and not isinstance(holder, dict):
        for kind in _classes(holder):
            for name, value in vars(kind).items():
                if _counts(name, value) and name not in holder.__dict__:
                    yield name, Place(holder.__dict__, name, value, inherited=True)


def _of_function(function: Any) -> Iterator[tuple[str, Place]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if _filled(cell) and _counts(name, cell.cell_contents):
            yield name, Place(_Cell(cell), name, cell.cell_contents)
    defaults = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    for index, (name, value) in enumerate(zip(names, defaults, strict=True)):
        if _counts(name, value):
            yield name, Place(_Defaults(function), index, value)
    for name in code.co_names:
        if _counts(name, function.__globals__.get(name)):
            yield name, Place(function.__globals__, name, function.__globals__[name])


def _counts(name: str, value: Any) -> bool:
    known = name in _OF_EVERY_MODULE or name.startswith("__") or _STRUCTURE.search(name.lower())
    return not known and _is_number(value) and _number(value) != 0
