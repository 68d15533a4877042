"""Candidates for variants: what to change in a classifier, given what was seen in its forward pass.

Only what was seen is changed: sampling gets an expectation, a stopped gradient passes. Knobs and layers are tried with
and without that, since a gradient may need both: stochastic winner-take-all is smooth at a higher temperature, and free
of noise in expectation.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from unperturbed.attacks.classifier import Classifier
from unperturbed.audit.expectations import EXPECTATIONS
from unperturbed.audit.knobs import Knob, Turn, knobs, pass_over, picture_layers, turn
from unperturbed.audit.softening import COMPARED, Seen, soften
from unperturbed.tensors.streams import undisturbed

NAMES = 6  # names of knobs
LAYERS = 3  # picture-to-picture layers
NARROW = (0.3, 0.1)  # widths of what stands for a comparison, beside 1

Options = dict[str, Any]

_WORDS = {  # option of ``soften``: name, kind, what it does
    "expectation": ("expectation", "expectation", "every random number is replaced by its mean"),
    "gradients": ("straight-through", "gradient", "operations that stop gradients pass them; the values are exact"),
    "attached": ("detached as written", "gradient", "detach and no_grad stop gradients as they did"),
    "width": ("width {}", "gradient", "what stands for a comparison is {} spreads wide"),
    "relaxed": ("relaxed", "gradient", "masks and rounded numbers are soft in the forward pass too"),
    "optimisation": ("no inner optimisation", "optimisation", "gradients that the model computes itself are 0"),
    "unsaturated": ("wide softmax", "saturation", "softmax, sigmoid and tanh that act as steps are made wide"),
    "own_backward": ("as written", "gradient", "the model's own backward passes are not used"),
    "logits": ("before the softmax", "logits", "the input of the last softmax or its kin is taken for the logits"),
}


class Candidate(NamedTuple):
    """A stand-in that is not yet made."""

    name: str
    says: str
    kind: str
    build: Callable[[], Classifier]
    group: str = ""  # settings of one knob: if the first changes nothing, none does


def has_cause(seen: Seen) -> bool:
    """Return whether anything was seen that a gradient cannot follow."""
    named = seen.stops + seen.samples + seen.saturated + seen.detached + seen.own_backward
    return bool(named or seen.random or seen.optimises or seen.compiled or seen.failure or not seen.differentiable)


def candidates(
    classifier: Classifier, images: Tensor, seen: Seen, given: Mapping[str, Classifier], *, zeros: bool
) -> Iterator[Candidate]:
    """Yield the candidates, the most promising kind first.

    Args:
        classifier: as deployed.
        images: a few.
        seen: what its forward pass does.
        given: surrogates that the user named.
        zeros: some gradients of the classifier are 0.
    """
    for name, surrogate in given.items():
        yield Candidate(name, "Named by the user.", "given", partial(_itself, surrogate))
    needed = _needed(seen)
    for options in _options(seen, needed):
        yield _softened(classifier, options)
    if isinstance(classifier, nn.Module) and not seen.random and (zeros or seen.probabilities or seen.saturated):
        says = "The same weights in double precision: what underflowed has a gradient."
        yield Candidate("float64", says, "precision", partial(_doubled, classifier))
    if zeros or has_cause(seen):
        yield from _layers(classifier, images)
    for knob in knobs(classifier)[:NAMES]:
        for to in knob.turns():
            if needed:
                yield _knob(classifier, knob, to, needed)
            if not needed or knob.kind in ("temperature", "noise"):
                yield _knob(classifier, knob, to, {})


def _itself(classifier: Classifier) -> Classifier:
    return classifier


def _needed(seen: Seen) -> Options:
    """Return the options that answer all that was seen and leave the values as close to the model's as they can."""
    needed: Options = {}
    if any(name in EXPECTATIONS or f"{name}_" in EXPECTATIONS for name in seen.samples):
        needed["expectation"] = True
    if seen.stops or seen.detached or not seen.differentiable:
        needed["gradients"] = True
    if seen.optimises:
        needed["optimisation"] = False
    return needed


def _options(seen: Seen, needed: Options) -> list[Options]:
    every: list[Options] = [{key: value} for key, value in needed.items()]
    pairs = [key for key in ("expectation", "gradients") if key in needed]
    every += [{key: needed[key] for key in pairs}, needed]
    if seen.optimises and "gradients" in needed:
        every.append({"optimisation": False, "gradients": True})
    if seen.normalised:
        ways = ("last", "mean") if seen.normalised > 1 else ("last",)
        every += [more | {"logits": way} for way in ways for more in ({}, needed)]
    if seen.saturated:
        every += [{"unsaturated": True}, needed | {"unsaturated": True}]
    if seen.stops:
        passing = needed | {"gradients": True}
        masks = any(name in COMPARED for name in seen.stops)
        ways = [passing, passing | {"attached": False}] if seen.detached else [passing]
        every += [way | {"width": width} for way in ways for width in (1.0, *NARROW) if masks or width == 1]
        every.append(passing | {"relaxed": True})
    if seen.own_backward:
        every.append(needed | {"gradients": True, "own_backward": False})
    unique = {tuple(sorted(options.items())): options for options in map(_plainly, every) if options}
    return list(unique.values())


def _plainly(options: Options) -> Options:
    return {key: value for key, value in options.items() if (key, value) != ("width", 1.0)}


def _words(options: Options) -> tuple[str, str, str]:
    """Return name, sentence and kind of a set of options."""
    options = {key: options[key] for key in _WORDS if key in options}  # one order, whoever put them together
    words = [_WORDS[key] for key in options]
    name = " + ".join(_WORDS[key][0].format(value) for key, value in options.items())
    if options.get("logits") == "mean":
        name += ", mean"
    kinds = [word[1] for word in words]
    kind = "both" if {"expectation", "gradient"} <= set(kinds) else kinds[-1]
    sentence = "; ".join(_WORDS[key][2].format(value) for key, value in options.items())
    return name, f"{sentence[0].upper()}{sentence[1:]}.", kind


def _softened(classifier: Classifier, options: Options) -> Candidate:
    name, says, kind = _words(options)
    return Candidate(name, says, kind, partial(soften, classifier, **options))


def _doubled(classifier: nn.Module) -> Classifier:
    double = copy.deepcopy(classifier).double()
    return lambda images: double(images.double())


def _layers(classifier: Classifier, images: Tensor) -> Iterator[Candidate]:
    try:
        with undisturbed("layers", device=images.device):
            layers = picture_layers(classifier, images[:2])
    except Exception:  # the classifier's own failures are reported where it is measured
        return
    for layer in layers[:LAYERS]:
        name = type(layer).__name__
        passed = f"{name}, which turns pictures into pictures, passes its gradient as the identity does."
        yield Candidate(f"{name} passed over", passed, "layer", partial(pass_over, classifier, layer, forwards=False))
        left_out = f"{name}, which turns pictures into pictures, is left out."
        yield Candidate(f"{name} off", left_out, "layer", partial(pass_over, classifier, layer, forwards=True))


def _knob(classifier: Classifier, knob: Knob, to: Turn, options: Options) -> Candidate:
    now = ", ".join(f"{value:g}" for value in knob.values[:3])
    name, says = f"{knob.name} {to.label}", f"{knob.name} {to.label} in place of {now}."
    if not options:
        return Candidate(name, says, "knob", partial(turn, classifier, knob, to), knob.name)
    words, more, _ = _words(options)
    group = f"{knob.name} + {words}"
    return Candidate(
        f"{name} + {words}", f"{says} {more}", "knob", lambda: soften(turn(classifier, knob, to), **options), group
    )
