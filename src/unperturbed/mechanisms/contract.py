"""What a mechanism is: a record of functions that change a network, its loss, or what it does when it is deployed.

Records compose: ``compose(a, b)`` installs a, then b, and the objective of b wraps that of a, unless b has a loss of
its own. *Nothing* is a mechanism.
What is attacked during training comes as an argument, so that no mechanism knows the attacks that will examine it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

OWN_CODES = "its readout has codes of its own"
ONE_NETWORK = "training hands an objective one network at a time"
ATTACKS = "the attack inside its training takes one network"
DRAWS = "what it draws comes from the stream of one seed"


class Diverged(RuntimeError):
    """Training has left the finite numbers."""


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(network, images, labels) to the loss of every image, (batch,), in nats."""


@runtime_checkable
class InnerAttack(Protocol):
    """Adversarial images by the name of the attack, as ``unperturbed.attacks.ATTACKS`` has them."""

    def __call__(
        self, name: str, network: nn.Module, images: Tensor, labels: Tensor, seed: int, **settings: object
    ) -> Tensor:
        """Return images within the budget."""
        ...


class Tools(NamedTuple):
    """What a mechanism may use at one step of training."""

    attack: InnerAttack
    seed: int  # of this step: of the seed of the network, the epoch and the batch
    attacked: Callable[[nn.Module], AbstractContextManager[None]]
    done: float = 1.0  # share of the training that ends with this step, above 0
    fresh: bool = False  # the first step of an epoch
    every: Callable[[], Iterable[Tensor]] = tuple  # all that is trained on, in batches
    responses: Tensor | None = None  # recorded while the images of this step were shown, (batch, channels, times)

    @contextmanager
    def attacking(self, network: nn.Module) -> Generator[None]:
        """Have the network as it is attacked: in evaluation mode and ``attacked``; afterwards in the mode it was in."""
        training = network.training
        network.eval()
        try:
            with self.attacked(network):
                yield
        finally:
            network.train(training)

    def worst(self, network: nn.Module, images: Tensor, labels: Tensor, name: str, **settings: object) -> Tensor:
        """Return adversarial images for the network in evaluation mode, which is left in the mode it was in.

        Random layers go on drawing unless a mechanism says otherwise; no gradient reaches the weights.
        """
        with self.attacking(network):
            return self.attack(name, network, images, labels, self.seed, **settings).detach()

    def noisy(self, images: Tensor, word: str, sigma: float) -> Tensor:
        """Return ``images + N(0, sigma^2)``, not clipped, from the stream of this step that belongs to ``word``."""
        noise = torch.randn(images.shape, generator=generator(word, self.seed), dtype=images.dtype)
        return images + sigma * noise.to(images.device)


class Traits(NamedTuple):
    """What a mechanism declares; the audit measures whether it is true."""

    random: bool = False  # equal images get unequal answers
    shattered: bool = False  # hard operations in the forward pass
    vanishing: bool = False
    optimises: bool = False  # takes gradients at inference


class Lesson(NamedTuple):
    """What a rule that is not gradient descent learns from in one epoch, for one or more matched networks."""

    inputs: Tensor  # (n, inputs) what enters the hidden layer, the same for all networks
    seeds: Sequence[int]  # one for each network
    epoch: int  # from 1
    look: Callable[[int], None]  # to be called after every step with the number of inputs in it, for each network


class Learning(NamedTuple):
    """A rule that learns the hidden layer without labels; between two epochs all it knows is in the weights."""

    epochs: int
    begin: Callable[[nn.Module, int], None]  # gives a network its first weights, from a seed
    epoch: Callable[[Sequence[nn.Module], Lesson], None]  # changes the weights of all networks in place
    facts: Callable[[nn.Module], Mapping[str, float]]  # of a network that has learned, by the names of quantities


def _unchanged(_network: nn.Module) -> None:
    return None


def _as_learned(_network: nn.Module, _seed: int) -> None:
    return None


def _same_loss(loss: Loss, _tools: Tools) -> Loss:
    return loss


def _as_recorded(responses: Tensor, _labels: Tensor, _seed: int) -> Tensor:
    return responses


def _nothing_to_say(_weights: Mapping[str, Tensor]) -> Mapping[str, float]:
    return {}


def _as_it_is(_network: nn.Module) -> AbstractContextManager[None]:
    return nullcontext()


class Mechanism(NamedTuple):
    """Functions that act on a network.

    ``install`` changes it before the first step, after its initial weights were drawn, so that weights that it shares
    with the undefended network are equal. ``objective`` wraps the loss. ``attacked`` is a context in which the network
    is attacked during training. ``finish`` makes a trained network a deployed one. ``alone`` says why networks with
    this mechanism train one by one and not as one vectorised program; nothing has no reason. ``responses`` is applied
    once, at the beginning of training, to what was recorded with all training images: (responses, labels, seed of the
    network) to responses of the same shape, the same ones for the same seed. ``facts`` is what training is known by
    afterwards, by the names of quantities, from the weights and buffers of the whole network. ``own_loss`` says that
    ``objective`` takes the place of the cross-entropy: what other mechanisms wrap is that loss, whatever their order.
    """

    install: Callable[[nn.Module], None] = _unchanged
    objective: Callable[[Loss, Tools], Loss] = _same_loss
    attacked: Callable[[nn.Module], AbstractContextManager[None]] = _as_it_is
    finish: Callable[[nn.Module], None] = _unchanged
    traits: Traits = Traits()
    alone: str = ONE_NETWORK
    learning: Learning | None = None
    settle: Callable[[nn.Module, int], None] = _as_learned
    frozen: bool = False
    responses: Callable[[Tensor, Tensor, int], Tensor] = _as_recorded
    facts: Callable[[Mapping[str, Tensor]], Mapping[str, float]] = _nothing_to_say
    own_loss: bool = False


NOTHING = Mechanism(alone="")


def compose(*mechanisms: Mechanism) -> Mechanism:
    """Return the mechanism that does what all of these do, the first one innermost.

    Raises:
        SpecError: more than one of them learns the hidden layer by a rule of its own, or has a loss of its own.

    >>> compose() == NOTHING
    True
    """
    mechanisms = tuple(each for each in mechanisms if each != NOTHING)
    if len(mechanisms) < 2:
        return mechanisms[0] if mechanisms else NOTHING

    def install(network: nn.Module) -> None:
        for each in mechanisms:
            each.install(network)

    def objective(loss: Loss, tools: Tools) -> Loss:
        for each in sorted(mechanisms, key=lambda each: not each.own_loss):
            loss = each.objective(loss, tools)
        return loss

    @contextmanager
    def attacked(network: nn.Module) -> Generator[None]:
        inner, *outer = mechanisms
        with compose(*outer).attacked(network), inner.attacked(network):
            yield

    def finish(network: nn.Module) -> None:
        for each in mechanisms:
            each.finish(network)

    def settle(network: nn.Module, seed: int) -> None:
        for each in mechanisms:
            each.settle(network, seed)

    def responses(recorded: Tensor, labels: Tensor, seed: int) -> Tensor:
        for each in mechanisms:
            recorded = each.responses(recorded, labels, seed)
        return recorded

    def facts(weights: Mapping[str, Tensor]) -> Mapping[str, float]:
        return {name: value for each in mechanisms for name, value in each.facts(weights).items()}

    rules = [each.learning for each in mechanisms if each.learning is not None]
    if len(rules) > 1:
        raise SpecError(f"mechanisms: expected one rule at most that learns the hidden layer, got {len(rules)}")
    if (losses := sum(each.own_loss for each in mechanisms)) > 1:
        raise SpecError(f"mechanisms: expected one at most with a loss of its own, got {losses}; name one of them")
    traits = Traits(*(any(flags) for flags in zip(*(each.traits for each in mechanisms), strict=True)))
    alone = "; ".join(dict.fromkeys(reason for each in mechanisms for reason in each.alone.split("; ")))
    return Mechanism(
        install,
        objective,
        attacked,
        finish,
        traits,
        alone,
        learning=rules[0] if rules else None,
        settle=settle,
        frozen=any(each.frozen for each in mechanisms),
        responses=responses,
        facts=facts,
        own_loss=losses > 0,
    )


def check_positive(mechanism: str, **settings: float) -> None:
    """Refuse settings that are not above 0.

    Raises:
        SpecError: one of them is 0, less, or no number.

    >>> check_positive("noise-augmentation", sigma=-0.1)
    Traceback (most recent call last):
    unperturbed.records.SpecError: noise-augmentation: sigma must be above 0, got -0.1
    """
    for name, value in settings.items():
        if not value > 0:
            raise SpecError(f"{mechanism}: {name} must be above 0, got {value:g}")


def check_draws(mechanism: str, draws: int) -> None:
    """Refuse fewer draws than 1.

    Raises:
        SpecError: there are fewer.
    """
    if draws < 1:
        raise SpecError(f"{mechanism}: draws must be at least 1, got {draws}")
