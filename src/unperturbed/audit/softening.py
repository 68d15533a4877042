r"""Run a classifier as it is written, with differentiable operations in place of those that stop or scatter gradients.

Source: Athalye, Carlini & Wagner (2018), arXiv:1802.00420, sections 4.1 to 4.3: for shattered gradients a
differentiable stand-in in the backward pass (BPDA), for stochastic ones the expectation, for vanishing ones another
form of the function. The stand-ins are put in by a PyTorch function mode, which sees every operation of a forward pass;
the classifier's code does not change.

Rounding passes its gradient as the identity does; ``sign`` as ``hardtanh``; comparisons as a sigmoid; an index of the
largest as a softmax (:mod:`unperturbed.audit.twins`). ``detach``, ``.data`` and ``no_grad`` are without effect. What
goes to NumPy and comes back in the same shape has the gradient of the identity. ReLU and max-pooling stop nothing.
Departs from the source: the stand-ins are found operation by operation, not chosen for a defence as a whole.
"""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx
from torch.overrides import TorchFunctionMode

from unperturbed.attacks.classifier import Classifier
from unperturbed.audit.expectations import EXPECTATIONS, altered, is_random, probability_below
from unperturbed.audit.knobs import modules_in
from unperturbed.audit.twins import Twin, attach, consume, overwrite, spread, step, straight, twin_of, twins_in

_ABSENT = object()
_SATURATED = 4.0  # standard deviation within an image from which a softmax or a sigmoid is nearly a step


def _first(x: Any, *_: Any, **__: Any) -> Any:
    return x


def _clipped(x: Tensor) -> Tensor:
    width = 2 * spread(x)
    return (x / width).clamp(-1, 1)


SOFT: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("round", "floor", "ceil", "trunc", "fix"), _first),
    **dict.fromkeys(("floor_divide", "__floordiv__"), lambda x, by: x / by),
    "__rfloordiv__": lambda x, by: by / x,
    **dict.fromkeys(("div", "divide"), lambda x, by, **_: x / by),  # with a rounding mode
    **dict.fromkeys(("remainder", "__mod__", "fmod", "frac"), lambda x, *_: x.detach() * 1.0),  # x - x % d rounds
    **dict.fromkeys(("sign", "sgn"), _clipped),
    "heaviside": lambda x, _: torch.sigmoid(x / spread(x)),
}
"""The differentiable stand-in of every operation whose own gradient is 0, a function of the same operands."""

_ABOVE = {"gt", "__gt__", "greater", "ge", "__ge__", "greater_equal"}
_BELOW = {"lt", "__lt__", "less", "le", "__le__", "less_equal"}
_EQUAL = {"eq", "__eq__", "ne", "__ne__", "not_equal"}
_INDICES = {"argmax": 1, "argmin": 1, "argsort": 1, "max": 1, "min": 1, "sort": 1, "topk": 2, "kthvalue": 2}
COMPARED = frozenset(name.strip("_") for name in _ABOVE | _BELOW | _EQUAL) | frozenset(_INDICES)
"""Operations in whose place a sigmoid or a softmax stands; its width is a matter of choice."""
_CASTS = {
    "to",
    "type",
    "int",
    "long",
    "short",
    "byte",
    "char",
    "type_as",
    "quantize_per_tensor",
    "quantize_per_channel",
}
_DETACHED = {"detach", "detach_", "get:data"}
_SQUASHES = {"softmax", "log_softmax", "sigmoid", "logsigmoid", "tanh", "special_expit", "special_softmax"}
_NORMALISERS = {"softmax", "log_softmax", "sigmoid", "logsumexp", "special_softmax", "special_log_softmax", "exp"}
_ENTRIES = {"tensor", "as_tensor", "asarray"}
_EXITS = {"numpy", "__array__", "tolist"}


@dataclass(frozen=True)
class Seen:
    """What was met in one forward pass; names are those of the operations in PyTorch."""

    stops: tuple[str, ...] = ()  # on the way from the images and with a gradient of 0: round, gt, argmax ...
    samples: tuple[str, ...] = ()  # draws from PyTorch's generators, or a dropout that is on
    saturated: tuple[str, ...] = ()  # softmax, sigmoid, tanh that act as steps for most images
    detached: tuple[str, ...] = ()  # detach, data, no_grad, inference_mode, numpy
    own_backward: tuple[str, ...] = ()  # the classifier's own autograd functions
    counts: Mapping[str, int] = field(default_factory=dict[str, int])  # how often each of the above
    optimises: bool = False  # asks for gradients itself
    python_random: bool = False  # draws from ``random`` or ``numpy.random``
    random: bool = False  # two passes differ
    in_place: bool = False  # changes the images that it is given
    differentiable: bool = True  # the logits have a graph that leads to the images
    probabilities: bool = False  # each row of the output, or of its exponential, adds up to 1
    normalised: int = 0  # operations such as softmax with an input of the shape of the output
    compiled: bool = False  # holds a scripted module, into which nothing here can look
    failure: str = ""  # why the look was cut short


class Softening(TorchFunctionMode):
    """Differentiable stand-ins for the operations of what runs inside ``with``; also a record of what was met.

    Use :func:`soften`, which prepares the images, unless the record is wanted.

    Args:
        gradients: operations that stop gradients pass them, with exact values.
        attached: ``detach``, ``.data``, ``no_grad`` and NumPy do not stop them either; needs ``gradients``.
        width: of the sigmoid that stands for a comparison, in spreads of what is compared.
        relaxed: their values are the soft ones too; needs ``gradients``.
        expectation: sampling gives its mean.
        optimisation: ``False``: gradients that the classifier computes itself are 0.
        unsaturated: the inputs of softmax, sigmoid and tanh are scaled down where they are nearly steps.
        own_backward: ``False``: an ``autograd.Function`` is differentiated as its forward pass is written.
    """

    def __init__(
        self,
        *,
        gradients: bool = False,
        attached: bool = True,
        width: float = 1.0,
        relaxed: bool = False,
        expectation: bool = False,
        optimisation: bool = True,
        unsaturated: bool = False,
        own_backward: bool = True,
    ) -> None:
        super().__init__()
        self.gradients, self.attached, self.width = gradients, attached, width
        self.relaxed, self.expectation = relaxed, expectation
        self.optimisation, self.unsaturated, self.own_backward = optimisation, unsaturated, own_backward
        self.stops: Counter[str] = Counter()
        self.samples: Counter[str] = Counter()
        self.saturated: Counter[str] = Counter()
        self.detached: Counter[str] = Counter()
        self.gradient_calls = 0
        self.twins: list[Twin] = []
        self.normalised: list[Tensor] = []  # inputs of softmax and its kin, in order
        self.exits: list[Tensor] = []  # on their way through NumPy

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation, or what stands in for it."""
        kwargs, name = kwargs or {}, _name(func)
        for rule in (self._random, self._optimising, self._stopping, self._squashing):
            result = rule(name, func, args, kwargs)
            if result is not _ABSENT:
                return result
        if twins_in((args, kwargs)):
            return consume(name, func, args, kwargs, self._again, relaxed=self.relaxed)
        return func(*args, **kwargs)

    def _again(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return self.__torch_function__(func, (), args, kwargs)

    def _random(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if is_random(name, args, kwargs):
            self.samples[name.strip("_")] += 1
            if self.expectation and name in EXPECTATIONS:
                return EXPECTATIONS[name](func, args, kwargs)
        if self.expectation and (name in _ABOVE or name in _BELOW) and len(args) == 2:
            return self._chance(name, func, args)
        if name.endswith("_") and args and isinstance(args[0], Tensor):
            altered(args[0])
        return _ABSENT

    def _chance(self, name: str, func: Callable[..., Any], args: Sequence[Any]) -> Any:
        """Return a comparison with a uniform number, with its probability as its value."""
        below, above = probability_below(args[0], args[1]), probability_below(args[1], args[0])
        share = below if below is not None else above
        if share is None:
            return _ABSENT
        share = share if (below is not None) == (name in _BELOW) else 1 - share
        return attach(func(*args), Twin(name.strip("_"), share, expected=True))

    def _optimising(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if func is torch.autograd.grad or name == "backward":
            self.gradient_calls += 1
            if not self.optimisation:
                inputs = kwargs.get("inputs", args[1] if len(args) > 1 else ())
                inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
                return None if name == "backward" else tuple(torch.zeros_like(each) for each in inputs)
        if name == "get:grad" and not self.optimisation:
            return torch.zeros_like(args[0])
        return _ABSENT

    def _stopping(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if not self.gradients:
            return _ABSENT
        if name == "_set_grad_enabled" and self.attached:
            self.detached["no_grad"] += not args[0]
            return None
        if name in _ENTRIES:
            return self._enter(func(*args, **kwargs), args)
        if name.endswith("_") and args and _is_weight(args[0]):  # an optimiser's step, made under no_grad
            with torch.no_grad():
                return func(*args, **kwargs)
        if not args or not isinstance(args[0], Tensor):
            return _ABSENT
        if not any(isinstance(each, Tensor) and _slopes(each) for each in args):
            return _ABSENT
        if name in _DETACHED and self.attached and not args[0].is_leaf:  # a weight stays what it is
            self.detached[name.removeprefix("get:").strip("_")] += 1
            return args[0]
        if name in ("requires_grad_", "set:requires_grad") and not args[0].is_leaf:
            return args[0]
        if name in _EXITS and self.attached:
            self.exits.append(args[0])
            self.detached["numpy"] += 1
            return func(args[0].detach(), *args[1:], **kwargs)
        for rule in (self._rounding, self._comparing, self._choosing, self._casting):
            result = rule(name, func, args, kwargs)
            if result is not _ABSENT:
                return result
        return _ABSENT

    def _rounding(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        plain = name.removesuffix("_") if not name.startswith("__") else name
        if plain not in SOFT or (plain in ("div", "divide") and not kwargs.get("rounding_mode")):
            return _ABSENT
        if not args[0].is_floating_point():
            return _ABSENT
        self.stops[plain.strip("_")] += 1
        operation = func if plain == name else getattr(torch.Tensor, plain)
        with torch.no_grad():
            hard = operation(*args, **kwargs)
        soft = straight(hard, SOFT[plain](*args, **kwargs), relaxed=self.relaxed)
        return soft if plain == name else overwrite(args[0], soft)

    def _comparing(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if name not in _ABOVE | _BELOW | _EQUAL:
            return _ABSENT
        real, (x, y) = func(*args, **kwargs), (*args, *kwargs.values())
        if twins_in(args):
            return _ABSENT
        difference = y - x if name in _BELOW else x - y
        if name in _EQUAL:
            # Two numbers are equal by chance only, unless one is the largest or smallest of which the other is one.
            if bool((difference >= 0).all()):
                difference = -difference
            elif not bool((difference <= 0).all()):
                return real
            difference = difference if "eq" in name else -difference
        return self._keep(step(name.strip("_"), difference, real, width=self.width, relaxed=self.relaxed))

    def _choosing(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if name not in _INDICES:
            return _ABSENT
        place = _INDICES[name]
        default = -1 if name in ("sort", "argsort", "topk", "kthvalue") else None
        dim = kwargs.get("dim", args[place] if len(args) > place else default)
        if not isinstance(dim, int) or isinstance(dim, bool):
            return _ABSENT
        result = func(*args, **kwargs)
        index = result if isinstance(result, Tensor) else result[1]
        scores = -args[0] if name in ("argmin", "min") else args[0]
        self._keep(attach(index, Twin(name, scores=scores, dim=dim, width=self.width)))
        return result

    def _casting(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        source = args[0]
        if name in ("bucketize", "searchsorted"):
            bounds, number = (args[1], source) if name == "bucketize" else (source, args[1])
            steepness = (
                (len(bounds) - 1) / float(bounds[-1] - bounds[0]) if bounds.ndim == 1 and len(bounds) > 1 else 1.0
            )
            result = func(*args, **kwargs)
            return self._keep(attach(result, Twin(name, straight(result, number * steepness))))
        if name not in _CASTS or not source.is_floating_point():
            return _ABSENT
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or result.is_floating_point() or result.dtype == torch.bool:
            return result
        hard = result.dequantize() if result.is_quantized else result
        return self._keep(
            attach(result, Twin(name, straight(hard, source, relaxed=self.relaxed), expected=self.relaxed))
        )

    def _enter(self, entered: Tensor, args: Sequence[Any]) -> Tensor:
        """Return what came (back) to PyTorch, with the gradient of what had left in this shape."""
        if args and isinstance(args[0], Tensor):
            return straight(entered, args[0]) if args[0].requires_grad and entered.is_floating_point() else entered
        for place, left in enumerate(self.exits):
            group = self.exits[place : place + len(entered)] if entered.ndim and len(entered) else []
            if left.shape == entered.shape:
                soft = self.exits.pop(place)
            elif len(group) == len(entered) and group and all(each.shape == entered.shape[1:] for each in group):
                soft = torch.stack(group)
                del self.exits[place : place + len(group)]
            else:
                continue
            if entered.is_floating_point():
                return straight(entered, soft.to(entered.dtype))
            return self._keep(attach(entered, Twin("numpy", straight(entered, soft))))
        return entered

    def _squashing(self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if name not in _SQUASHES | _NORMALISERS or not args or not isinstance(args[0], Tensor) or twin_of(args[0]):
            return _ABSENT
        scores: Tensor = args[0]
        if name in _NORMALISERS and scores.is_floating_point():
            self.normalised.append(scores)
        if name not in _SQUASHES or not scores.requires_grad:
            return _ABSENT
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None) if "softmax" in name else None
        centred = scores.detach() - scores.detach().mean(dim, keepdim=True) if isinstance(dim, int) else scores.detach()
        flat = centred.flatten(1) if centred.ndim > 1 else centred.unsqueeze(1)
        size = flat.square().mean(dim=1).sqrt().view(-1, *[1] * (scores.ndim - 1))
        steep = size > _SATURATED
        self.saturated[name] += bool(steep.float().mean() > 0.5)
        if not self.unsaturated or not bool(steep.any()):
            return _ABSENT
        return func(scores / torch.where(steep, size, 1.0), *args[1:], **kwargs)

    def _keep(self, tensor: Tensor) -> Tensor:
        twin = twin_of(tensor)
        if twin is not None:
            self.twins.append(twin)
        return tensor


def soften(
    classifier: Classifier,
    *,
    gradients: bool = False,
    attached: bool = True,
    width: float = 1.0,
    relaxed: bool = False,
    expectation: bool = False,
    optimisation: bool = True,
    unsaturated: bool = False,
    own_backward: bool = True,
    logits: Literal["", "last", "mean"] = "",
) -> Classifier:
    """Return a stand-in for ``classifier`` that runs its forward pass with other operations.

    Args:
        classifier: images to logits; neither changed nor copied.
        gradients: rounding, comparisons, indices and casts pass gradients; the values are exactly those of the
            classifier.
        attached: so do ``detach``, ``.data``, ``no_grad`` and a way through NumPy; needs ``gradients``.
        width: of the sigmoid or softmax that stands for a comparison or an index, in spreads of what is compared.
        relaxed: the values are soft too; needs ``gradients``.
        expectation: every random number is replaced by its mean, a sampled class by the probabilities.
        optimisation: ``False``: gradients that the classifier asks for itself are 0.
        unsaturated: softmax, sigmoid and tanh that act as steps are made wide.
        own_backward: ``False``: the backward pass of the classifier's own ``autograd.Function`` is not used.
        logits: return what entered the last softmax, log-softmax, sigmoid, exp or logsumexp of the shape of the output,
            or the mean over all of them.

    Returns:
        A classifier. Its output has a gradient whenever gradients are on; images are left as they are.
    """

    modules = modules_in(classifier)

    def softened(images: Tensor) -> Tensor:
        mode = Softening(
            gradients=gradients,
            attached=attached,
            width=width,
            relaxed=relaxed,
            expectation=expectation,
            optimisation=optimisation,
            unsaturated=unsaturated,
            own_backward=own_backward,
        )
        differentiate = torch.is_grad_enabled()
        output = run(classifier, images, mode)
        for buffer in (each for module in modules for each in module.buffers(recurse=False) if each.requires_grad):
            buffer.detach_()  # a running mean that was updated under no_grad holds no graph
        if logits:
            output = _before_softmax(mode.normalised, output, last=logits == "last")
        return output if differentiate else output.detach()

    return softened


def run(classifier: Classifier, images: Tensor, mode: Softening) -> Tensor:
    """Return the output of the classifier under ``mode``, with its graph, in floating point."""
    with torch.enable_grad():
        # The same operations with and without gradients: what depends on the images is known by its requires_grad.
        entrance = images if images.requires_grad else images.detach().clone().requires_grad_()
        with _detours(mode), mode:
            output = classifier(entrance.clone())
        twin = twin_of(output)
        return output if twin is None or twin.value is None else twin.value


def _before_softmax(normalised: list[Tensor], output: Tensor, *, last: bool) -> Tensor:
    fitting = [scores for scores in normalised if scores.shape == output.shape]
    if not fitting:
        raise ValueError("no softmax, log-softmax, sigmoid, exp or logsumexp of the shape of the output")
    return fitting[-1] if last else torch.stack(fitting).mean(dim=0)


def _is_weight(thing: Any) -> bool:
    one = thing[0] if isinstance(thing, (list, tuple)) and thing else thing
    return isinstance(one, Tensor) and one.requires_grad and one.is_leaf


def _slopes(tensor: Tensor) -> bool:
    """Return whether the tensor depends on the images; inside ``torch.func`` transforms only that they are at work."""
    return tensor.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # pyright: ignore


def _name(func: Callable[..., Any]) -> str:
    name: str = getattr(func, "__name__", "")
    if name in ("__get__", "__set__"):
        return f"{name[2:5]}:{getattr(getattr(func, '__self__', None), '__name__', '')}"
    return name


@contextmanager
def _detours(mode: Softening) -> Generator[None]:
    """Lead what function modes do not see through ``mode``: inference mode, NumPy's entrance, own backward passes."""
    kept = torch.from_numpy, torch._C._InferenceMode, Function.__dict__["apply"]  # pyright: ignore[reportPrivateUsage]

    def inference(on: bool = True) -> Any:
        mode.detached["inference_mode"] += on
        return nullcontext()

    try:
        if mode.gradients and mode.attached:
            torch.from_numpy = torch.as_tensor  # the same, and seen
            torch._C._InferenceMode = inference  # pyright: ignore
        if not mode.own_backward:
            Function.apply = classmethod(_as_written)  # pyright: ignore
        yield
    finally:
        torch.from_numpy, torch._C._InferenceMode = kept[:2]  # pyright: ignore
        Function.apply = kept[2]


def _as_written(cls: type[Function], *args: Any) -> Any:
    """Return the forward pass of an ``autograd.Function``, differentiated operation by operation."""
    context: Any = FunctionCtx()
    context.needs_input_grad = [isinstance(each, Tensor) and each.requires_grad for each in args]
    separate = cls.setup_context is not Function.setup_context
    return cls.forward(*args) if separate else cls.forward(context, *args)
