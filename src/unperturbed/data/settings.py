"""The ranges of settings, written in the signatures of the loaders and checked before anything is loaded."""

import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from unperturbed.records import Spec, SpecError
from unperturbed.registry import complete


class Range(NamedTuple):
    """The numbers from ``least`` to ``most`` that are a whole multiple of ``unit``, where there is one."""

    least: int
    most: int
    unit: int | None = None

    def __str__(self) -> str:
        """Return the range in words.

        >>> str(Range(10, 2000, 10))
        'from 10 to 2000 and a multiple of 10'
        """
        return f"from {self.least} to {self.most}" + (f" and a multiple of {self.unit}" if self.unit else "")

    def holds(self, value: int | float) -> bool:
        """Return whether ``value`` is in the range; NaN never is."""
        return self.least <= value <= self.most and (self.unit is None or value % self.unit == 0)


Share = Annotated[float, Range(0, 1)]
Interpolation = Literal["bilinear", "bilinear-corners", "bicubic", "nearest", "pad"]


def resolve(registry: Mapping[str, Callable[..., Any]], spec: Spec) -> Spec:
    """Return ``spec`` with all defaults written out.

    Raises:
        SpecError: unknown name or setting, a value of the wrong type or out of its range.
    """
    full = complete("data set", registry, spec)
    for name, hint in typing.get_type_hints(registry[full.name], include_extras=True).items():
        if typing.get_origin(hint) is Annotated and name in full.settings:
            _, allowed = typing.get_args(hint)
            if not allowed.holds(full.settings[name]):
                raise SpecError(f"{full.name}: {name} must be {allowed}, got {full.settings[name]!r}.")
    return full
