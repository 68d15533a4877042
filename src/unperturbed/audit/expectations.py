r"""Sampling replaced by what it is on average, so that a random classifier gets one gradient.

Source: Athalye, Carlini & Wagner (2018), arXiv:1802.00420, section 4.2 (expectation over the randomness); for a
stochastic winner the expected one, :math:`\mathrm{softmax}(h)`, in place of a sampled one.
Additive noise becomes its mean, a mask its probability, a sampled class the probabilities of all. Uniform numbers
become their midpoint: noise made from them (Gumbel: :math:`-\log(-\log u)`) is one constant, which a softmax ignores.
For ``gumbel_softmax`` the mean is known better than that. Of two classes, a soft choice is itself the chance that a
logistic variable of scale :math:`\tau` stays below; with the noise, logistic of scale 1, it adds up to one that is
nearly logistic again:

.. math:: E\,\mathrm{softmax}((h + G) / \tau) \approx \mathrm{softmax}(h / \sqrt{1 + \tau^2}),

for two classes off by 0.010 at most, and exact as :math:`\tau \to 0`; a hard sample has the mean
:math:`\mathrm{softmax}(h)` exactly (Maddison et al. (2017), arXiv:1611.00712, section 2).
Departs from the source: means are put in operation by operation; nothing is averaged over draws.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from unperturbed.audit.twins import Twin, attach

Arguments = Sequence[Any]
Settings = Mapping[str, Any]

ELSEWHERE = frozenset({"randint", "randint_like", "randperm", "random_", "fractional_max_pool2d_with_indices"})
"""Draws of whole numbers: sizes, places, orders. Their mean means nothing; averaging gradients over draws serves."""
_UNIFORM = "_unperturbed_uniform"


def is_random(name: str, args: Arguments, kwargs: Settings) -> bool:
    """Return whether a call draws random numbers; a dropout that is switched off does not."""
    if name in ELSEWHERE:
        return True
    if name not in EXPECTATIONS:
        return False
    if name == "scaled_dot_product_attention":
        return float(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)) > 0
    if name == "multi_head_attention_forward":
        return bool(kwargs.get("training", True)) and float(args[10]) > 0
    if name in _DROPOUTS or name == "rrelu":
        rest = [each for each in (*args[1:], *kwargs.values()) if isinstance(each, bool)]
        on = bool(kwargs.get("training", kwargs.get("train", rest[0] if rest else name != "rrelu")))
        rate = kwargs.get("p", args[1] if len(args) > 1 and name in _DROPOUTS else 0.5)
        return on and rate != 0
    return True


def probability_below(number: Any, threshold: Any) -> Tensor | None:
    """Return the probability that uniform ``number`` lies below ``threshold``; nothing if it is not such a number."""
    if not isinstance(number, Tensor):
        return None
    ends: tuple[float, float] | None = getattr(number, _UNIFORM, None)
    if ends is None or (isinstance(threshold, Tensor) and getattr(threshold, _UNIFORM, None) is not None):
        return None
    low, high = ends
    share = (torch.as_tensor(threshold, dtype=number.dtype, device=number.device) - low) / (high - low)
    return share.clamp(0, 1).expand(torch.broadcast_shapes(number.shape, share.shape))


def altered(number: Tensor) -> None:
    """Forget that ``number`` is uniform."""
    if getattr(number, _UNIFORM, None) is not None:
        setattr(number, _UNIFORM, None)


def _constant(value: float) -> Callable[..., Tensor]:
    def expectation(func: Callable[..., Tensor], args: Arguments, kwargs: Settings) -> Tensor:
        return func(*args, **kwargs).fill_(value)

    return expectation


def _uniform(func: Callable[..., Tensor], args: Arguments, kwargs: Settings) -> Tensor:
    drawn = func(*args, **kwargs).fill_(0.5)
    setattr(drawn, _UNIFORM, (0.0, 1.0))
    return drawn


def _normal(func: Callable[..., Tensor], args: Arguments, kwargs: Settings) -> Tensor:
    mean = kwargs.get("mean", args[0] if args else 0.0)
    drawn = func(*args, **kwargs)
    return mean + torch.zeros_like(drawn) if isinstance(mean, Tensor) else drawn.fill_(mean)


def _filled(mean: Callable[..., float], *settings: tuple[str, float]) -> Callable[..., Tensor]:
    """Fill the tensor with the mean, a function of the settings in the order of the call."""

    def expectation(func: Callable[..., Tensor], args: Arguments, kwargs: Settings) -> Tensor:
        target: Tensor = args[0] if args else kwargs["tensor"]
        given = dict(zip((name for name, _ in settings), args[1:], strict=False))
        numbers = [float({**given, **kwargs}.get(name, default)) for name, default in settings]
        with torch.no_grad():
            target.fill_(mean(*numbers))
        if func.__name__ == "uniform_":
            setattr(target, _UNIFORM, tuple(numbers))
        return target

    return expectation


def _bernoulli(func: Callable[..., Tensor], args: Arguments, kwargs: Settings) -> Tensor:
    rate = kwargs.get("p", args[1] if len(args) > 1 else None)
    if func.__name__ == "bernoulli":
        return args[0].clone() if rate is None else torch.full_like(args[0], rate)
    target, rate = args[0], 0.5 if rate is None else rate
    if target.is_floating_point():
        return target.copy_(rate) if isinstance(rate, Tensor) else target.fill_(rate)
    share = torch.as_tensor(rate, device=target.device).float().expand(target.shape)
    return attach(target.copy_(share > 0.5), Twin("bernoulli_", share, expected=True))


def _multinomial(_: Callable[..., Tensor], args: Arguments, kwargs: Settings) -> Tensor:
    rates: Tensor = args[0]
    count = kwargs.get("num_samples", args[1] if len(args) > 1 else 1)
    index = rates.detach().argmax(dim=-1, keepdim=True).repeat(*[1] * (rates.ndim - 1), count)
    return attach(index, Twin("multinomial", scores=rates, expected=True))


def _gumbel_softmax(_: Callable[..., Tensor], args: Arguments, kwargs: Settings) -> Tensor:
    settings = {**dict(zip(("logits", "tau", "hard", "eps", "dim"), args, strict=False)), **kwargs}
    tau = 0.0 if settings.get("hard", False) else settings.get("tau", 1.0)
    scale = (1 + tau**2) ** 0.5
    return torch.softmax(settings["logits"] / scale, dim=settings.get("dim", -1))


def _first(_: Callable[..., Tensor], args: Arguments, kwargs: Settings) -> Tensor:
    return args[0] if args else kwargs["input"]


def _leaky(_: Callable[..., Tensor], args: Arguments, kwargs: Settings) -> Tensor:
    settings = {**dict(zip(("input", "lower", "upper"), args, strict=False)), **kwargs}
    slope = (settings.get("lower", 1 / 8) + settings.get("upper", 1 / 3)) / 2
    return F.leaky_relu(settings["input"], slope)


def _without_dropout(func: Callable[..., Any], args: Arguments, kwargs: Settings) -> Any:
    place = {"scaled_dot_product_attention": 4, "multi_head_attention_forward": 10}[func.__name__]
    if len(args) > place:
        return func(*args[:place], 0.0, *args[place + 1 :], **kwargs)
    return func(*args, **{**kwargs, "dropout_p": 0.0})


_DROPOUTS = frozenset(
    f"{kind}{end}"
    for kind in (
        "dropout",
        "alpha_dropout",
        "feature_dropout",
        "feature_alpha_dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
    )
    for end in ("", "_")
)

EXPECTATIONS: dict[str, Callable[..., Any]] = {
    "randn": _constant(0.0),
    "randn_like": _constant(0.0),
    "rand": _uniform,
    "rand_like": _uniform,
    "normal": _normal,
    "normal_": _filled(lambda mean, _: mean, ("mean", 0.0), ("std", 1.0)),
    "uniform_": _filled(lambda low, high: (low + high) / 2, ("from", 0.0), ("to", 1.0)),
    "exponential_": _filled(lambda rate: 1 / rate, ("lambd", 1.0)),
    "cauchy_": _filled(lambda median, _: median, ("median", 0.0), ("sigma", 1.0)),  # has no mean
    "log_normal_": _filled(lambda mean, std: math.exp(mean + std**2 / 2), ("mean", 1.0), ("std", 2.0)),
    "geometric_": _filled(lambda p: 1 / p, ("p", 0.5)),
    "bernoulli": _bernoulli,
    "bernoulli_": _bernoulli,
    "binomial": lambda _, args, __: args[0] * args[1],
    "poisson": _first,
    "_standard_gamma": _first,
    "_sample_dirichlet": lambda _, args, __: args[0] / args[0].sum(-1, keepdim=True),
    "multinomial": _multinomial,
    "gumbel_softmax": _gumbel_softmax,
    "rrelu": _leaky,
    "rrelu_": _leaky,
    "scaled_dot_product_attention": _without_dropout,
    "multi_head_attention_forward": _without_dropout,
    **dict.fromkeys(_DROPOUTS, _first),
}
