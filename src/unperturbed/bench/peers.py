"""The same attacks in other libraries, called as their manuals say, with the budget that ours have.

Each is asked for the same thing as our sweep: images at every radius above 0, or one nearest image. Foolbox takes all
radii in one call; for the others the caller loops, and so does this. Preparation (imports, wrappers) is not timed.
adv_lib imports torchvision, visdom and distutils for things that its attacks do not use: empty modules stand in for
them while it is imported.
"""

import importlib
import logging
import math
import sys
import types
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unperturbed.records import SpecError

TRAVEL = 2.5  # how far the steps of PGD go in all, in radii, as in ours
ART_BATCH = 128
OVERSHOOT = 0.02  # of DeepFool


class Task(NamedTuple):
    """What every library is asked for."""

    attack: str  # our name of it
    norm: str
    eps: tuple[float, ...] = ()  # radii above 0; none: the nearest image
    steps: int = 1
    searches: int = 1  # of Carlini and Wagner: values of the constant


Attack = Callable[[Tensor, Tensor], Tensor]
Found = list[Tensor]  # one batch for every radius, or one batch


class Peer(NamedTuple):
    """A library: what it is installed as, how it takes a network, and how it is asked for what it offers."""

    package: str
    take: Callable[[nn.Module, Tensor], Any]
    offers: Mapping[tuple[str, str], Callable[..., Any]]
    ask: Callable[[Any, Callable[..., Any], Task, Tensor, Tensor], Found]
    remarks: Mapping[str, str]  # by the name of the attack
    left_out: Mapping[str, str]  # attacks that take too long, and why

    def can(self, task: Task) -> bool:
        """Return whether the library has the attack in the norm."""
        return (task.attack, task.norm) in self.offers

    @property
    def version(self) -> str:
        """What is installed."""
        return version(self.package)


def prepare(name: str, network: nn.Module, images: Tensor, task: Task) -> Callable[[Tensor, Tensor], Found]:
    """Return a function from images and labels to what the library finds.

    Raises:
        SpecError: the library is not installed, cannot be imported, or takes too long.
    """
    peer = PEERS[name]
    if task.attack in peer.left_out:
        raise SpecError(f"{name}: left out: {peer.left_out[task.attack]}")
    try:
        with _quiet():
            taken = peer.take(network, images)
    except ImportError as error:
        raise SpecError(
            f"{name}: {peer.package} cannot be imported ({error}); pip install unperturbed[bench]"
        ) from error

    def run(images: Tensor, labels: Tensor) -> Found:
        with _quiet():
            return peer.ask(taken, peer.offers[task.attack, task.norm], task, images, labels)

    return run


@contextmanager
def _quiet() -> Generator[None]:
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _one_by_one(taken: Any, make: Callable[..., Attack], task: Task, images: Tensor, labels: Tensor) -> Found:
    return [make(taken, task, eps)(images, labels) for eps in task.eps or (None,)]


class _Foolbox(NamedTuple):
    attacks: Any
    model: Any


def _take_foolbox(network: nn.Module, images: Tensor) -> _Foolbox:
    library = importlib.import_module("foolbox")
    return _Foolbox(library.attacks, library.PyTorchModel(network, bounds=(0, 1), device=images.device))


def _ask_foolbox(taken: Any, make: Callable[..., Any], task: Task, images: Tensor, labels: Tensor) -> Found:
    if task.eps:
        _, found, _ = make(taken, task)(taken.model, images, labels, epsilons=[0.0, *task.eps])
        return cast(Found, found)[1:]
    _, found, _ = make(taken, task)(taken.model, images, labels, epsilons=None)
    # Where it finds nothing it returns a black image, which is not meant as a result.
    black = (found == 0).flatten(1).all(dim=1).view(-1, 1, 1, 1)
    return [torch.where(black, images, found)]


FOOLBOX: dict[tuple[str, str], Callable[[Any, Task], Any]] = {
    ("fgsm", "linf"): lambda f, _: f.attacks.LinfFastGradientAttack(),
    ("pgd", "linf"): lambda f, t: f.attacks.LinfPGD(rel_stepsize=TRAVEL / t.steps, steps=t.steps),
    ("carlini_wagner", "l2"): lambda f, t: f.attacks.L2CarliniWagnerAttack(
        binary_search_steps=t.searches, steps=t.steps
    ),
    ("deepfool", "l2"): lambda f, t: f.attacks.L2DeepFoolAttack(steps=t.steps, overshoot=OVERSHOOT),
    ("deepfool", "linf"): lambda f, t: f.attacks.LinfDeepFoolAttack(steps=t.steps, overshoot=OVERSHOOT),
    ("ddn", "l2"): lambda f, t: f.attacks.DDNAttack(steps=t.steps),
    ("fmn", "l2"): lambda f, t: f.attacks.L2FMNAttack(steps=t.steps),
    ("fmn", "linf"): lambda f, t: f.attacks.LInfFMNAttack(steps=t.steps),
}


class _Torchattacks(NamedTuple):
    library: Any
    network: nn.Module


def _take_torchattacks(network: nn.Module, images: Tensor) -> _Torchattacks:  # noqa: ARG001
    return _Torchattacks(importlib.import_module("torchattacks"), network)


TORCHATTACKS: dict[tuple[str, str], Callable[[Any, Task, float], Attack]] = {
    ("fgsm", "linf"): lambda a, _, eps: a.library.FGSM(a.network, eps=eps),
    ("pgd", "linf"): lambda a, t, eps: a.library.PGD(a.network, eps=eps, alpha=TRAVEL * eps / t.steps, steps=t.steps),
    ("apgd", "linf"): lambda a, t, eps: a.library.APGD(a.network, eps=eps, steps=t.steps),
    ("carlini_wagner", "l2"): lambda a, t, _: a.library.CW(a.network, c=1, steps=t.steps * t.searches, lr=0.01),
    ("deepfool", "l2"): lambda a, t, _: a.library.DeepFool(a.network, steps=t.steps, overshoot=OVERSHOOT),
}


class _Art(NamedTuple):
    attacks: Any
    classifier: Any

    def attack(self, name: str, **settings: Any) -> Attack:
        attack = getattr(self.attacks, name)(self.classifier, batch_size=ART_BATCH, verbose=False, **settings)
        return lambda images, labels: torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))


def _take_art(network: nn.Module, images: Tensor) -> _Art:
    attacks = importlib.import_module("art.attacks.evasion")
    wrap = importlib.import_module("art.estimators.classification").PyTorchClassifier
    with torch.no_grad():
        classes = network(images[:1]).shape[1]
    shape = tuple(images.shape[1:])
    return _Art(
        attacks, wrap(network, nn.CrossEntropyLoss(), shape, classes, clip_values=(0.0, 1.0), device_type="cpu")
    )


def _fgsm_of_art(art: _Art, _: Task, eps: float) -> Attack:
    # The one attack there that has no switch for its words.
    attack = art.attacks.FastGradientMethod(art.classifier, eps=eps, batch_size=ART_BATCH)
    return lambda images, labels: torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))


ART: dict[tuple[str, str], Callable[[Any, Task, float], Attack]] = {
    ("fgsm", "linf"): _fgsm_of_art,
    ("pgd", "linf"): lambda a, t, eps: a.attack(
        "ProjectedGradientDescent", eps=eps, eps_step=TRAVEL * eps / t.steps, max_iter=t.steps, num_random_init=1
    ),
    ("apgd", "linf"): lambda a, t, eps: a.attack(
        "AutoProjectedGradientDescent",
        eps=eps,
        eps_step=2 * eps,
        max_iter=t.steps,
        nb_random_init=1,
        loss_type="cross_entropy",
    ),
    ("carlini_wagner", "l2"): lambda a, t, _: a.attack(
        "CarliniL2Method", binary_search_steps=t.searches, max_iter=t.steps, learning_rate=0.01, initial_const=1e-3
    ),
    ("deepfool", "l2"): lambda a, t, _: a.attack("DeepFool", max_iter=t.steps, epsilon=OVERSHOOT),
}


class _Pyautoattack(NamedTuple):
    library: Any
    network: nn.Module


def _take_pyautoattack(network: nn.Module, images: Tensor) -> _Pyautoattack:  # noqa: ARG001
    return _Pyautoattack(importlib.import_module("pyautoattack"), network)


def _autoattack(a: _Pyautoattack, _: Task, eps: float) -> Attack:
    attack = a.library.AutoAttack(a.network, norm="Linf", eps=eps, version="standard", seed=0)
    return lambda images, labels: attack.run_standard_evaluation(images, labels)[0]


PYAUTOATTACK: dict[tuple[str, str], Callable[[Any, Task, float], Attack]] = {
    ("apgd", "linf"): lambda a, t, eps: (
        a.library.autopgd_base.APGDAttack(
            a.network, n_iter=t.steps, norm="Linf", eps=eps, loss="ce", device="cpu"
        ).perturb
    ),
    ("autoattack", "linf"): _autoattack,
}


class _Adversarial(NamedTuple):
    attacks: Any
    network: nn.Module

    def attack(self, name: str, **settings: Any) -> Attack:
        function = getattr(self.attacks, name)
        return lambda images, labels: function(self.network, images, labels, **settings)


def _take_adv_lib(network: nn.Module, images: Tensor) -> _Adversarial:  # noqa: ARG001
    if "adv_lib.attacks" not in sys.modules:
        with _stand_ins():
            importlib.import_module("adv_lib.attacks")
    return _Adversarial(sys.modules["adv_lib.attacks"], network)


class _Version:
    """As much of distutils' LooseVersion as adv_lib asks for."""

    def __init__(self, text: str) -> None:
        self.parts = [int(part) for part in text.split("+")[0].split(".") if part.isdigit()]

    def __ge__(self, other: "_Version") -> bool:
        return self.parts >= other.parts


@contextmanager
def _stand_ins() -> Generator[None]:
    """Let adv_lib be imported without what its attacks do not use."""
    contents: dict[str, dict[str, Any]] = {
        "visdom": {},
        "torchvision": {"models": None},
        "distutils": {},
        "distutils.version": {"LooseVersion": _Version},
    }
    before = {name: sys.modules.get(name) for name in contents}
    for name, content in contents.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


ADV_LIB: dict[tuple[str, str], Callable[[Any, Task, float], Attack]] = {
    ("pgd", "linf"): lambda a, t, eps: a.attack("pgd_linf", ε=eps, steps=t.steps, relative_step_size=TRAVEL / t.steps),
    ("apgd", "linf"): lambda a, t, eps: a.attack("apgd", eps=eps, norm=math.inf, n_iter=t.steps, loss_function="ce"),
    ("carlini_wagner", "l2"): lambda a, t, _: a.attack(
        "carlini_wagner_l2", binary_search_steps=t.searches, max_iterations=t.steps
    ),
    ("deepfool", "l2"): lambda a, t, _: a.attack("df", steps=t.steps, overshoot=OVERSHOOT, norm=2),
    ("deepfool", "linf"): lambda a, t, _: a.attack("df", steps=t.steps, overshoot=OVERSHOOT, norm=math.inf),
    ("ddn", "l2"): lambda a, t, _: a.attack("ddn", steps=t.steps, levels=None),
    ("fmn", "l2"): lambda a, t, _: a.attack("fmn", steps=t.steps, norm=2),
    ("fmn", "linf"): lambda a, t, _: a.attack("fmn", steps=t.steps, norm=math.inf),
}

BLACK = "images for which nothing was found come back black; here they count as not found"
NO_SEARCH = "has no search over the constant: c = 1, and as many steps in all"
LINE_SEARCH = "it searches a step size by halving and doubling, about 5,100 forwards and 2,700 backwards per image"

PEERS: dict[str, Peer] = {
    "foolbox": Peer("foolbox", _take_foolbox, FOOLBOX, _ask_foolbox, {"carlini_wagner": BLACK}, {}),
    "torchattacks": Peer(
        "torchattacks", _take_torchattacks, TORCHATTACKS, _one_by_one, {"carlini_wagner": NO_SEARCH}, {}
    ),
    "art": Peer("adversarial-robustness-toolbox", _take_art, ART, _one_by_one, {}, {"carlini_wagner": LINE_SEARCH}),
    "pyautoattack": Peer("pyautoattack", _take_pyautoattack, PYAUTOATTACK, _one_by_one, {}, {}),
    "adv_lib": Peer("adv-lib", _take_adv_lib, ADV_LIB, _one_by_one, {}, {}),
}
