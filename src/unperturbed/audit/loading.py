"""From the words of the command line to a classifier, and the checks before any attack looks at it.

Nothing is unpickled: weights come as safetensors. A user's Python file is run, since that is how it makes its model;
what it raises is shown as its own, in one line with file and line number.
"""

import ast
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from hashlib import sha256
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unperturbed.attacks.classifier import Classifier
from unperturbed.attacks.inputs import check_eps, check_images, check_labels, check_logits
from unperturbed.models import MODELS
from unperturbed.models.published import check_fit
from unperturbed.models.resnet import DEPTHS
from unperturbed.records import Spec, SpecError
from unperturbed.registry import complete, suggestion
from unperturbed.tensors.streams import undisturbed

PROBED = 8  # images that the checks before an audit show to the classifier
PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")
LONGEST = 300  # characters of a foreign error that are shown


# Words


def parse_eps(text: str, *, norm: str = "linf") -> float:
    """Return the radius that ``text`` says, a decimal number or a fraction.

    >>> parse_eps("8/255"), parse_eps("0.1")
    (0.03137254901960784, 0.1)

    Raises:
        SpecError: not a number, a denominator of 0, a negative number, or more than full scale in ``linf``.
    """
    try:
        eps = float(Fraction(text.replace(" ", "")))
    except ZeroDivisionError:
        raise SpecError(f"eps: expected a number; got {text!r}, which divides by 0") from None
    except (ValueError, OverflowError):
        raise SpecError(f"eps: expected a number such as 0.1 or a fraction such as 8/255; got {text!r}") from None
    check_eps(eps)
    if norm == "linf" and eps > 1:
        meant = f": is {eps:g}/255 meant?" if eps.is_integer() and eps <= 255 else ""
        raise SpecError(f"eps: expected at most 1 in linf, since images are in [0, 1]; got {eps:g}{meant}")
    return eps


def parse_spec(text: str) -> Spec:
    """Return the name and the settings in ``text``.

    >>> parse_spec("resnet(depth=18, start=he-out)").settings
    {'depth': 18, 'start': 'he-out'}

    Raises:
        SpecError: words that are not of the form ``name`` or ``name(setting=value, ...)``.
    """
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", text)
    if match:
        pairs = [word.partition("=") for word in (match[2] or "").split(",") if word.strip()]
        if all(name.strip().isidentifier() and value.strip() for name, _, value in pairs):
            return Spec(name=match[1], settings={name.strip(): _value(value.strip()) for name, _, value in pairs})
    raise SpecError(f"{text!r}: expected a name with settings, such as lenet or resnet(depth=18, width=16)")


def _value(word: str) -> bool | int | float | str:
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
    return value if isinstance(value, bool | int | float | str) else word


# What is the user's


def blame(error: BaseException) -> str:
    """Return an error of foreign code in one line: file, line, type and text.

    The place is the last one in code that is neither Python's nor installed nor ours, if there is one.
    """
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    words = words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or '?').name}, line {error.lineno}: {words}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _foreign(frame.filename)]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: {words}" if frames else words


def _foreign(filename: str) -> bool:
    path = Path(filename)
    ours = (Path(__file__).parents[1], Path(sysconfig.get_path("stdlib")))
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not (filename.startswith("<") or installed or any(path.is_relative_to(folder) for folder in ours))


@contextmanager
def _theirs(doing: str) -> Generator[None]:
    """Turn what the user's code raises, or its wish to exit, into one line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise SpecError(f"{doing}: {blame(error)}") from error


@contextmanager
def _neighbours(folder: Path) -> Generator[None]:
    """Let a file import those that lie beside it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # it may have removed it itself
            sys.path.remove(str(folder))


# Classifiers


def load_classifier(target: str, *, model: str | None = None) -> Classifier:
    """Return the classifier that ``target`` names.

    Args:
        target: ``FILE.py:NAME``, where NAME is a classifier or a function without required arguments that returns one;
            or a ``.safetensors`` file with the weights of one of our models.
        model: with weights, which model they are of: ``resnet(depth=18)``; ``None`` tells it by their names and shapes.

    Raises:
        SpecError: no such file or name, an error in the user's file, or weights that do not fit.
    """
    if Path(target).suffix == ".safetensors":
        return _with_weights(Path(target), model)
    if Path(target).suffix in PICKLED:
        raise SpecError(
            f"{target}: expected FILE.py:NAME or weights as .safetensors; got a file that may run code when it is "
            "read: load it in a function of your own, or save its tensors with safetensors.torch.save_file"
        )
    if model is not None:
        raise SpecError(f"--model: expected weights as .safetensors beside it; got {target!r}, which makes its own")
    file, colon, name = target.rpartition(":")
    path = Path(file if colon else target)
    if path.suffix != ".py":
        raise SpecError(f"{target!r}: expected FILE.py:NAME or a .safetensors file, such as defence.py:make_model")
    if not path.is_file():
        raise SpecError(f"{path}: there is no such file")
    path = path.resolve()
    with _neighbours(path.parent):
        module = _imported(path)
        return _made(_named(module, name if colon else "", path), f"{path.name}:{name}")


def _imported(path: Path) -> ModuleType:
    name = f"_unperturbed_{sha256(str(path).encode()).hexdigest()[:16]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up
    with _theirs(f"{path.name} raised an error while it was imported"):
        spec.loader.exec_module(module)
    return module


def _named(module: ModuleType, name: str, path: Path) -> Any:
    if name and hasattr(module, name):
        return getattr(module, name)
    own = [
        word
        for word, value in vars(module).items()
        if not word.startswith("_")
        and (
            isinstance(value, nn.Module) or (callable(value) and getattr(value, "__module__", None) == module.__name__)
        )
    ]
    words = f"There is no {name!r} in {path.name}" if name else f"{path.name}: expected {path.name}:NAME"
    raise SpecError(f"{words}. It has: {', '.join(own) or 'no function'}.{suggestion(name, own)}")


def _made(found: Any, words: str) -> Classifier:
    """Return the classifier that ``found`` is or makes; one required argument makes it the classifier itself."""
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise SpecError(f"{words}: expected a function or a torch.nn.Module; got {type(found).__name__}")
    needed = _required(found)
    if len(needed) == 1 and not isinstance(found, type):
        return cast(Classifier, found)
    if needed:
        raise SpecError(f"{words}: expected a function without required arguments; it needs {', '.join(needed)}")
    with _theirs(f"{words} raised an error"):
        made = found()
    if isinstance(made, type) or not callable(made):
        got = f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__
        raise SpecError(f"{words} returned {got}; expected a torch.nn.Module or another callable: images to logits")
    return cast(Classifier, made)


def _required(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some of those written in C have none
        return ["images"]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        each.name
        for each in parameters
        if each.default is inspect.Parameter.empty and each.kind in (*positional, inspect.Parameter.KEYWORD_ONLY)
    ]


def place(classifier: Classifier, device: torch.device) -> Classifier:
    """Return the classifier with its weights on ``device``; what is not a module stays where it is."""
    if not isinstance(classifier, nn.Module):
        return classifier
    with _theirs(f"classifier: it cannot be moved to {device}"):
        return classifier.to(device)


# Weights of our own models


def _with_weights(path: Path, model: str | None) -> nn.Module:
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise SpecError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise SpecError(f"{path}: expected weights as safetensors; got {blame(error)}") from error
    guess, given = guess_model(tensors), None if model is None else parse_spec(model)
    if given is None and guess is None:
        raise SpecError(
            f"{path}: these tensors are not those of {', '.join(MODELS)}: name the model with --model, or write a "
            f"function in a file that makes it. The first are: {', '.join(list(tensors)[:3]) or 'none'}"
        )
    if given is None or (guess is not None and guess.name == given.name):
        assert guess is not None
        given = Spec(name=guess.name, settings=guess.settings | (given.settings if given else {}))
    full = complete("model", MODELS, given)
    with torch.device("meta"):
        network = MODELS[full.name](**full.settings)
    words = f"{full.name}({', '.join(f'{name}={value}' for name, value in full.settings.items())})"
    check_fit(path, words, network.state_dict(), tensors)
    network = network.to_empty(device="cpu")
    network.load_state_dict(tensors)
    return network.eval()


def guess_model(tensors: Mapping[str, Tensor]) -> Spec | None:
    """Return which of our models has tensors of these names and shapes, or ``None``."""
    sizes = {name.removesuffix(".weight"): tensor.shape for name, tensor in tensors.items() if name.endswith(".weight")}
    if set(sizes) == {"fc1", "fc2"}:
        return Spec(name="fully-connected", settings={"hidden": sizes["fc1"][0], "classes": sizes["fc2"][0]})
    if set(sizes) == {"conv1", "conv2", "fc1", "fc2", "fc3"}:
        return Spec(name="lenet", settings={"classes": sizes["fc3"][0]})
    blocks = [re.fullmatch(r"layer(\d+)\.\d+\.conv1", name) for name in sizes]
    stages = [match[1] for match in blocks if match]
    form = ("layer1.0.conv3" in sizes, tuple(stages.count(stage) for stage in dict.fromkeys(sorted(stages))))
    depth = next((depth for depth, known in DEPTHS.items() if known == form), None)
    if depth is None or not {"conv1", "fc"} <= set(sizes):
        return None
    name = "imagenet-resnet" if tuple(sizes["conv1"][2:]) == (7, 7) else "resnet"
    return Spec(name=name, settings={"depth": depth, "width": sizes["conv1"][0], "classes": sizes["fc"][0]})


# Before any attack


def check_classifier(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    """Refuse a classifier that cannot be audited, or images and labels that are not its own.

    It is called without gradients, once with a few images and once with a single one, which is what an attack is left
    with in the end. Global random numbers stay as they were.

    Args:
        classifier: images to logits.
        images: (n, channels, height, width) in [0, 1].
        labels: the true classes.

    Raises:
        SpecError: a module in training mode or with weights on another device; a call that raises, that changes the
            images in place, or that returns anything but finite floating-point logits of the right shape; images or
            labels that are no such.
    """
    check_images(images)
    check_labels(labels, len(images))
    if isinstance(classifier, nn.Module):
        _check_module(classifier, images.device)
    several = min(PROBED, len(images))
    logits = _probe(classifier, images[:several])
    check_logits(logits, labels[:several])
    logits = _probe(classifier, images[:1])
    check_logits(logits, labels[:1])
    check_logits(logits.expand(len(labels), -1), labels)  # every label is among the classes


def _check_module(module: nn.Module, device: torch.device) -> None:
    if module.training:
        raise SpecError(
            "classifier: expected evaluation mode; got a module in training mode: call .eval() on it in make_model"
        )
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if tensor.device != device:
            raise SpecError(
                f"classifier: expected its weights on {device}, where the images are; got {name} on {tensor.device}: "
                "move one of them"
            )


def _probe(classifier: Classifier, images: Tensor) -> Tensor:
    shown = images.clone()
    version = shown._version  # pyright: ignore[reportPrivateUsage]
    words = f"classifier: images of shape {tuple(images.shape)} on {images.device} raised an error in it"
    with _theirs(words), undisturbed("preflight", device=images.device), torch.no_grad():
        logits: Any = classifier(shown)
    if shown._version != version or not torch.equal(shown, images):  # pyright: ignore[reportPrivateUsage]
        raise SpecError(
            "classifier: expected it to leave its images as they are; it changed them in place: work on images.clone()"
        )
    if not isinstance(logits, Tensor):
        made = ": a function that makes the model must not require an argument" if callable(logits) else ""
        raise SpecError(f"classifier: expected a tensor of logits; got {type(logits).__name__}{made}")
    if not logits.is_floating_point():
        raise SpecError(
            f"classifier: expected floating-point logits; got {logits.dtype} of shape {tuple(logits.shape)}: return "
            "the scores of the classes, not the predicted class"
        )
    if logits.device != images.device:
        raise SpecError(f"classifier: expected logits on {images.device}, where the images are; got {logits.device}")
    return logits
