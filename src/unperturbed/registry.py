"""A function's keyword-only signature is the schema of its settings: checked and completed before anything runs."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, TypeVar

from unperturbed.records import Setting, Spec, SpecError

Entry = TypeVar("Entry")


def suggestion(word: str, valid: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the valid word nearest to ``word``, or nothing.

    >>> suggestion("mnits", ["mnist", "cifar10"])
    " Did you mean 'mnist'?"
    """
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def lookup(kind: str, registry: Mapping[str, Entry], name: str) -> Entry:
    """Return the entry called ``name``, or raise a ``SpecError`` that lists the valid ones and suggests the nearest."""
    if name not in registry:
        raise SpecError(f"There is no {kind} {name!r}. There are: {', '.join(registry)}.{suggestion(name, registry)}")
    return registry[name]


def complete(kind: str, registry: Mapping[str, Callable[..., Any]], spec: Spec, *, apart: Collection[str] = ()) -> Spec:
    """Return ``spec`` with every default of the named function's keyword-only parameters written out.

    Args:
        kind: what the registry holds, for the message: ``data set``, ``model``, ``attack``.
        registry: name to function.
        spec: the name and the settings given.
        apart: parameters that are passed on another way and so are no settings.

    Raises:
        SpecError: unknown name, unknown setting, missing setting, or a value of the wrong type.
    """
    function = lookup(kind, registry, spec.name)
    hints = typing.get_type_hints(function)
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in apart
    }
    for name, value in spec.settings.items():
        if name not in parameters:
            raise SpecError(
                f"{spec.name} has no setting {name!r}. It has: {', '.join(parameters) or 'none'}."
                f"{suggestion(name, parameters)}"
            )
        if not _fits(value, hints[name]):
            raise SpecError(f"{spec.name}: {name} must be {_words(hints[name])}, got {value!r}.")
    missing = [
        name for name, p in parameters.items() if p.default is inspect.Parameter.empty and name not in spec.settings
    ]
    if missing:
        raise SpecError(f"{spec.name} needs the setting {missing[0]!r}, which has no default.")
    settings = {name: spec.settings.get(name, parameter.default) for name, parameter in parameters.items()}
    return Spec(name=spec.name, settings={name: _written(value, hints[name]) for name, value in settings.items()})


def _written(value: Setting, hint: Any) -> Setting:
    """Return ``value`` as the digest needs it: 1 and 1.0 are the same number where a float is meant."""
    if isinstance(value, int) and not isinstance(value, bool) and float in _members(hint) and int not in _members(hint):
        return float(value)
    return value


def _members(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _fits(value: object, hint: Any) -> bool:
    for member in _members(hint):
        if typing.get_origin(member) is Literal:
            if value in typing.get_args(member):
                return True
        elif member is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return True
        elif member is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return True
        elif isinstance(value, member):
            return True
    return False


def _words(hint: Any) -> str:
    words: list[str] = []
    for member in _members(hint):
        if typing.get_origin(member) is Literal:
            words += [repr(value) for value in typing.get_args(member)]
        else:
            words.append("none" if member is type(None) else member.__name__)
    return " or ".join(words)
