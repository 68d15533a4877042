r"""Twins: a floating-point counterpart, with a gradient, of a tensor of booleans or whole numbers.

Source: Bengio, Léonard & Courville (2013), arXiv:1308.3432, section 3 (straight-through estimator), and Athalye,
Carlini & Wagner (2018), arXiv:1802.00420, section 4.1 (BPDA: exact forwards, differentiable backwards):

.. math:: \tilde h = h + (s - \mathrm{stop}(s)), \qquad \tilde h = h, \quad \nabla \tilde h = \nabla s.

A comparison returns the real boolean tensor, which indexes, branches and prints as always, and its twin rides along as
an attribute: the values of a float mask with the gradient of a sigmoid. Whatever computes with the mask computes with
the twin. An index (``argmax``, ``topk``) has no useful float value; its twin keeps the scores that it was chosen from,
and becomes a soft mask where the index is turned into one. What has no rule here works with the real tensor: the values
stay right and only the gradient is lost.
Departs from the source: the width of a sigmoid is the spread of its argument within one image, not a constant.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Call = Callable[[Callable[..., Any], Sequence[Any], dict[str, Any]], Any]
"""How an operation is called again: through the mode that is under way."""

TINY = 1e-12
_NAME = "_unperturbed_twin"
_LOGIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **dict.fromkeys(("__and__", "__rand__", "bitwise_and", "logical_and"), lambda a, b: a * b),
    **dict.fromkeys(("__or__", "__ror__", "bitwise_or", "logical_or"), lambda a, b: a + b - a * b),
    **dict.fromkeys(("__xor__", "__rxor__", "bitwise_xor", "logical_xor"), lambda a, b: a + b - 2 * a * b),
}
_SHIFTS = {"__rshift__": -1, "bitwise_right_shift": -1, "__lshift__": 1, "bitwise_left_shift": 1}
_SILENT = {
    "all",
    "any",
    "_is_all_true",
    "_is_any_true",
    "__bool__",
    "__int__",
    "__len__",
    "__format__",
    "__repr__",
    "item",
} | {"tolist", "size", "dim", "numel", "stride", "nelement", "ndimension", "is_floating_point", "is_complex"}
"""Operations that look at a tensor and compute nothing from it."""
_SHAPED = {
    "view",
    "reshape",
    "unsqueeze",
    "squeeze",
    "expand",
    "expand_as",
    "flatten",
    "permute",
    "transpose",
    "movedim",
    "t",
} | {"narrow", "contiguous", "clone", "detach", "to", "long", "int", "type", "cpu", "__getitem__", "get:T", "get:mT"}
"""Operations after which an index is still an index."""


@dataclass(eq=False)
class Twin:
    """What rides on a tensor of booleans or whole numbers."""

    maker: str  # the operation that made the tensor
    value: Tensor | None = None  # of the same shape; None for an index
    scores: Tensor | None = None  # of an index: what it was chosen from, along ``dim``; largest first
    dim: int = -1
    width: float = 1.0  # of an index: of the softmax or step that stands for the choice, in spreads of the scores
    expected: bool = False  # the value differs from the real one and replaces it in the forward pass too
    used: bool = False  # something that is no twin was computed with it
    parents: list["Twin"] = field(default_factory=list["Twin"])  # what it was computed from


def twin_of(thing: Any) -> Twin | None:
    """Return the twin that rides on ``thing``, if any."""
    return getattr(thing, _NAME, None) if isinstance(thing, Tensor) else None


def attach(tensor: Tensor, twin: Twin | None) -> Tensor:
    """Return ``tensor`` with this twin, or with none."""
    setattr(tensor, _NAME, twin)
    return tensor


def twins_in(things: Any) -> list[Twin]:
    """Return the twins of all tensors in nested tuples, lists and dictionaries."""
    if isinstance(things, dict):
        things = list(things.values())
    if isinstance(things, (tuple, list)):
        return [twin for each in things for twin in twins_in(each)]
    twin = twin_of(things)
    return [] if twin is None else [twin]


def straight(hard: Tensor, soft: Tensor, *, relaxed: bool = False) -> Tensor:
    """Return the values of ``hard``, exactly, with the gradient of ``soft``; ``relaxed``: ``soft`` itself."""
    return soft if relaxed else hard.detach().to(soft.dtype) + (soft - soft.detach())


def spread(scores: Tensor) -> Tensor:
    """Return the standard deviation within each image (first dimension), to divide by; of one number its size."""
    scores = scores.detach()
    if scores.ndim < 2 or scores[0].numel() < 2:
        return scores.abs().clamp_min(TINY)
    width = scores.flatten(1).std(dim=1).clamp_min(TINY)
    return width.view(-1, *[1] * (scores.ndim - 1))


def step(name: str, difference: Tensor, real: Tensor, *, width: float = 1.0, relaxed: bool = False) -> Tensor:
    """Give the boolean ``real``, true where ``difference`` is positive, a twin with the gradient of a sigmoid."""
    soft = torch.sigmoid(difference / (width * spread(difference)))
    return attach(real, Twin(name, straight(real, soft, relaxed=relaxed), expected=relaxed))


def membership(chosen: Tensor, twin: Twin, *, relaxed: bool = False) -> Tensor:
    """Return the float mask of what was chosen, with the gradient of a softmax or of a step at the last one chosen.

    Args:
        chosen: booleans, of the shape of the scores.
        twin: of the index; ``expected`` scores are probabilities and their mask is their share.
        relaxed: whether the soft mask is taken in the forward pass too.
    """
    scores, dim = _scores(twin), twin.dim
    if twin.expected:
        return scores / scores.sum(dim=dim, keepdim=True)
    if bool((chosen.sum(dim=dim) == 1).all()):
        soft = torch.softmax(scores / (twin.width * spread(scores)), dim=dim)
    else:
        if scores[chosen].mean() < scores[~chosen].mean():
            scores = -scores
        last = torch.where(chosen, scores, torch.inf).amin(dim=dim, keepdim=True)
        next_one = torch.where(chosen, -torch.inf, scores).amax(dim=dim, keepdim=True)
        distance = (scores - (last + next_one) / 2).nan_to_num(posinf=0.0, neginf=0.0)
        soft = torch.sigmoid(distance / (twin.width * spread(distance)))
    return straight(chosen, soft, relaxed=relaxed)


def select(twin: Twin, condition: Tensor, yes: Any, no: Any) -> Tensor:
    """Return ``torch.where(condition, yes, no)`` with a gradient to the condition as well."""
    real = torch.where(condition, yes, no)
    if twin.value is None or not real.is_floating_point():
        return real
    control = twin.value.to(real.dtype)
    rise = torch.as_tensor(yes, dtype=real.dtype, device=real.device) - no
    if twin.expected and bool(rise.isfinite().all()):
        return no + control * rise
    rise = rise.detach()
    bound = 10 * float(real.detach()[real.isfinite()].abs().max()) if bool(real.isfinite().any()) else 1.0
    rise = rise.nan_to_num(nan=0.0, posinf=bound, neginf=-bound)
    return real + (control - control.detach()) * rise


def consume(
    name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], call: Call, *, relaxed: bool
) -> Any:
    """Return what an operation gives on operands of which some have twins.

    Args:
        name: of the operation.
        func: the operation.
        args: its operands.
        kwargs: its settings.
        call: how an operation is called again, on the twins in place of what they ride on.
        relaxed: whether masks are soft in the forward pass too.

    Returns:
        A float tensor computed with the twins, or the real result, its own twin attached.
    """
    if name in _SILENT or (name.startswith("get:") and name not in _SHAPED):
        return func(*args, **kwargs)
    sources = twins_in((args, kwargs))
    result = _consume(name, func, args, kwargs, call, relaxed=relaxed)
    heirs = twins_in(result)
    if len(heirs) < _tensors(result):
        for twin in sources:
            _use(twin)
    for heir in heirs:
        heir.parents += [twin for twin in sources if twin is not heir]
    return result


def _consume(
    name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], call: Call, *, relaxed: bool
) -> Any:
    try:
        special = _special(name, func, args, kwargs, relaxed=relaxed)
    except (RuntimeError, TypeError, IndexError, ValueError):  # shapes that the rule does not foresee
        special = None
    if special is not None:
        return special
    if (name.endswith("_") and not name.startswith("__")) or name in ("__iand__", "__ior__", "__ixor__"):
        plain = f"__{name[3:]}" if name.startswith("__i") else name[:-1]
        return overwrite(args[0], call(getattr(torch.Tensor, plain), args, kwargs))
    real = func(*args, **kwargs)
    try:
        soft = call(func, [_value(each) for each in args], {key: _value(each) for key, each in kwargs.items()})
    except (RuntimeError, TypeError, IndexError, ValueError):  # not defined for floating point
        soft = None
    return _merge(real, soft, next(iter(twins_in((args, kwargs)))), name)


def overwrite(target: Tensor, new: Tensor) -> Tensor:
    """Return ``target`` with the values, the gradient and the twin of ``new``: an operation in place."""
    target.copy_(new)
    return attach(target, twin_of(new))


def _use(twin: Twin) -> None:
    if not twin.used:
        twin.used = True
        for parent in twin.parents:
            _use(parent)


def _tensors(result: Any) -> int:
    return sum(map(_tensors, result)) if isinstance(result, (tuple, list)) else int(isinstance(result, Tensor))


def _scores(twin: Twin) -> Tensor:
    if twin.scores is None:
        raise ValueError("not an index")
    return twin.scores


def _value(thing: Any) -> Any:
    if isinstance(thing, (tuple, list)):
        return type(thing)(_value(each) for each in thing)  # pyright: ignore[reportCallIssue]
    twin = twin_of(thing)
    return thing if twin is None or twin.value is None else twin.value


def _merge(real: Any, soft: Any, source: Twin, name: str) -> Any:
    if isinstance(real, (tuple, list)):
        pairs = zip(real, soft if soft is not None else [None] * len(real), strict=True)
        return type(real)([_merge(each, other, source, name) for each, other in pairs])  # pyright: ignore
    if not isinstance(real, Tensor):
        return real
    if source.value is None:
        same = not real.is_floating_point() and real.dtype != torch.bool and name in _SHAPED
        return attach(real, source) if same else real
    if not isinstance(soft, Tensor) or soft.shape != real.shape:
        return real
    if real.is_floating_point():
        return soft.to(real.dtype) if soft.is_floating_point() else real
    if soft.is_floating_point():
        return attach(real, Twin(source.maker, soft, expected=source.expected))
    twin = twin_of(soft)
    return real if twin is None else attach(real, twin)


def _special(
    name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], *, relaxed: bool
) -> Tensor | None:
    """Return the result of an operation that has a rule of its own, or nothing."""
    first = twin_of(args[0]) if args else None
    if name == "where" and len(args) == 3 and first is not None:
        return select(first, *args)
    if name in ("masked_fill", "masked_fill_"):
        mask, value = (*args[1:], *kwargs.values())
        twin = twin_of(mask)
        if twin is not None:
            filled = select(twin, mask, value, args[0])
            return overwrite(args[0], filled) if name.endswith("_") else filled
    if name in ("__invert__", "logical_not", "bitwise_not") and first is not None and first.value is not None:
        real = func(*args, **kwargs)
        return attach(real, Twin(first.maker, 1 - first.value, expected=first.expected))
    if name in _LOGIC:
        return _logic(name, func, args)
    if name in _SHIFTS and first is not None and first.value is not None:
        real = func(*args)
        return attach(real, Twin(first.maker, straight(real, first.value * 2.0 ** (_SHIFTS[name] * args[1]))))
    if name == "one_hot" and first is not None:
        return _one_hot(args[0], first, func(*args, **kwargs), relaxed=relaxed)
    if name in ("scatter", "scatter_"):
        return _scatter(name, args, kwargs, relaxed=relaxed)
    if name == "__setitem__":
        return _assign(func, args, relaxed=relaxed)
    if name in ("__getitem__", "embedding"):
        table, index = (args[0], args[1]) if name == "__getitem__" else (args[1], args[0])
        return _look_up(table, index, func(*args, **kwargs))
    return None


def _logic(name: str, func: Callable[..., Any], args: Sequence[Any]) -> Tensor:
    real = func(*args)
    twins = [twin_of(each) for each in args]
    values = [twin.value for twin in twins if twin is not None and twin.value is not None]
    if not values:
        return real
    maker, expected = next((each.maker, each.expected) for each in twins if each is not None)
    if real.dtype == torch.bool:
        pair = [torch.as_tensor(_value(each), device=real.device).to(values[0].dtype) for each in args]
        return attach(real, Twin(maker, _LOGIC[name](pair[0], pair[1]), expected=expected))
    return attach(real, Twin(maker, straight(real, values[0].expand(real.shape))))  # bits of a whole number


def _one_hot(index: Tensor, twin: Twin, real: Tensor, *, relaxed: bool) -> Tensor:
    if twin.scores is None:
        table = torch.eye(real.shape[-1], device=real.device)
        return attach(real, Twin(twin.maker, _look_up(table, index, table[index]), expected=twin.expected))
    scores = twin.scores.movedim(twin.dim, -1)
    if scores.numel() != real.numel():  # several indices, as of topk, for each row of scores
        scores = scores.unsqueeze(-2)
    scores = scores.expand(real.shape) if scores.ndim == real.ndim else scores.reshape(real.shape)
    last = Twin(twin.maker, scores=scores, dim=-1, width=twin.width, expected=twin.expected)
    mask = membership(real.bool(), last, relaxed=relaxed)
    return attach(real, Twin(twin.maker, mask, expected=twin.expected or relaxed))


def _scatter(name: str, args: Sequence[Any], kwargs: dict[str, Any], *, relaxed: bool) -> Tensor | None:
    target: Tensor = args[0]
    dim, index, source = (*args[1:], *kwargs.values())[:3]
    twin = twin_of(index)
    if twin is None or twin.scores is None or "reduce" in kwargs or twin.scores.shape != target.shape:
        return None
    chosen = torch.zeros_like(target, dtype=torch.bool).scatter(dim, index, True)
    real = target.scatter(dim, index, source)
    result = _mark(target, real, chosen, source, twin, relaxed=relaxed)
    return overwrite(target, result) if name == "scatter_" else result


def _mark(target: Tensor, real: Tensor, chosen: Tensor, source: Any, twin: Twin, *, relaxed: bool) -> Tensor:
    """Return ``real``, which is ``target`` changed to ``source`` where chosen, with a gradient to the choice."""
    mask = Twin(twin.maker, membership(chosen, twin, relaxed=relaxed), expected=twin.expected or relaxed)
    if isinstance(source, Tensor) and source.numel() > 1:
        filled = _scores(twin) if not twin.expected else real  # what would have been written at the other places
        plain = Twin(mask.maker, mask.value)
        moved = select(plain, chosen, filled.detach().to(real.dtype), target)
        return real + (moved - moved.detach()) if real.is_floating_point() else real
    if real.is_floating_point():
        return select(mask, chosen, source, target)
    floats = select(mask, chosen, torch.as_tensor(source, dtype=_scores(twin).dtype), target.to(_scores(twin).dtype))
    return attach(real, Twin(twin.maker, floats, expected=mask.expected))


def _assign(func: Callable[..., Any], args: Sequence[Any], *, relaxed: bool) -> Tensor | None:
    target, index, value = args
    twin = twin_of(index)
    if twin is not None and twin.value is not None and index.dtype == torch.bool:
        if isinstance(value, Tensor) and value.numel() > 1:
            return None
        tail = [1] * (target.ndim - index.ndim)
        wide = Twin(twin.maker, twin.value.reshape(*index.shape, *tail), expected=twin.expected)
        return overwrite(target, select(wide, index.reshape(*index.shape, *tail), value, target.clone()))
    chosen_by = [each for each in twins_in(index) if each.scores is not None and each.scores.shape == target.shape]
    if chosen_by:
        chosen = torch.zeros_like(target, dtype=torch.bool)
        chosen[index] = True
        real = target.clone()
        real[index] = value
        return overwrite(target, _mark(target.clone(), real, chosen, value, chosen_by[0], relaxed=relaxed))
    written = twin_of(value)
    if written is not None and written.value is not None:
        if target.is_floating_point():
            func(target, index, written.value.to(target.dtype))
        else:
            floats = _value(target).to(written.value.dtype, copy=True)
            floats[index] = written.value
            func(target, index, value)
            attach(target, Twin(written.maker, floats, expected=written.expected))
        return target
    func(target, index, value)
    return attach(target, None)


def _look_up(table: Tensor, index: Any, real: Tensor) -> Tensor | None:
    """Return ``table[index]`` with the slope of the table, or the mean of its rows under a soft choice."""
    twin = twin_of(index)
    if twin is None or index.dtype == torch.bool or twin_of(table) is not None or not real.is_floating_point():
        return None
    if twin.value is not None:
        rise = (table[(index + 1).clamp(max=len(table) - 1)] - table[(index - 1).clamp(min=0)]).detach() / 2
        control = twin.value.reshape(*index.shape, *[1] * (real.ndim - index.ndim)).to(real.dtype)
        return real + (control - control.detach()) * rise
    scores = _scores(twin).movedim(twin.dim, -1)
    soft = torch.softmax(scores / (twin.width * spread(scores)), dim=-1)
    weights = scores / scores.sum(-1, keepdim=True) if twin.expected else soft
    mean = (weights @ table.flatten(1) if table.ndim > 1 else weights @ table).reshape(real.shape)
    return mean if twin.expected else straight(real, mean)
