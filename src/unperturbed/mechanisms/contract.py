"""What a mechanism is: a record of functions that change a network, its loss, or what it does when it is deployed.

Records compose: ``compose(a, b)`` installs a, then b, and the objective of b wraps that of a. *Nothing* is a mechanism.
What is attacked during training comes as an argument, so that no mechanism knows the attacks that will examine it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

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

    def worst(self, network: nn.Module, images: Tensor, labels: Tensor, name: str, **settings: object) -> Tensor:
        """Return adversarial images for the network in evaluation mode, which is left in the mode it was in.

        Random layers go on drawing unless a mechanism says otherwise; no gradient reaches the weights.
        """
        training = network.training
        network.eval()
        try:
            with self.attacked(network):
                return self.attack(name, network, images, labels, self.seed, **settings).detach()
        finally:
            network.train(training)


class Traits(NamedTuple):
    """What a mechanism declares; the audit measures whether it is true."""

    random: bool = False  # equal images get unequal answers
    shattered: bool = False  # hard operations in the forward pass
    vanishing: bool = False
    optimises: bool = False  # takes gradients at inference


def _unchanged(_network: nn.Module) -> None:
    return None


def _same_loss(loss: Loss, _tools: Tools) -> Loss:
    return loss


def _as_it_is(_network: nn.Module) -> AbstractContextManager[None]:
    return nullcontext()


class Mechanism(NamedTuple):
    """Functions that act on a network.

    ``install`` changes it before the first step, after its initial weights were drawn, so that weights that it shares
    with the undefended network are equal. ``objective`` wraps the loss. ``attacked`` is a context in which the network
    is attacked during training. ``finish`` makes a trained network a deployed one.
    """

    install: Callable[[nn.Module], None] = _unchanged
    objective: Callable[[Loss, Tools], Loss] = _same_loss
    attacked: Callable[[nn.Module], AbstractContextManager[None]] = _as_it_is
    finish: Callable[[nn.Module], None] = _unchanged
    traits: Traits = Traits()


NOTHING = Mechanism()


def compose(*mechanisms: Mechanism) -> Mechanism:
    """Return the mechanism that does what all of these do, the first one innermost.

    >>> compose() == NOTHING
    True
    """
    if len(mechanisms) < 2:
        return mechanisms[0] if mechanisms else NOTHING

    def install(network: nn.Module) -> None:
        for each in mechanisms:
            each.install(network)

    def objective(loss: Loss, tools: Tools) -> Loss:
        for each in mechanisms:
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

    traits = Traits(*(any(flags) for flags in zip(*(each.traits for each in mechanisms), strict=True)))
    return Mechanism(install, objective, attacked, finish, traits)
