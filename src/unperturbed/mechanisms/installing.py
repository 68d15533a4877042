"""Layers of a network, exchanged in place or altered in a copy."""

from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unperturbed.models import HiddenLayerNet
from unperturbed.records import Setting, SpecError

MOST_NAMED = 5  # sizes of blocks that would fit


def replace(network: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> None:
    """Put ``make(layer)`` in the place of every layer of a kind, under the same name.

    Raises:
        SpecError: the network has no such layer, so that a mechanism would do nothing.
    """
    places = [
        (parent, name)
        for parent in network.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, kind)
    ]
    if not places:
        raise SpecError(
            f"mechanism: expected a network with {kind.__name__} modules; {type(network).__name__} has none"
        )
    for parent, name in places:
        layer = make(getattr(parent, name)).train(parent.training)
        setattr(parent, name, layer)


def behind(network: nn.Module, kind: type[nn.Module], name: str, make: Callable[[], nn.Module]) -> None:
    """Let what every layer of a kind returns pass through a layer of its own, which is found under ``name``.

    Raises:
        SpecError: as ``replace``.
    """
    replace(network, kind, lambda layer: nn.Sequential(OrderedDict([("kept", layer), (name, make())])))


def in_front(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Let every image pass through ``layer`` before it enters the network, of which it becomes the part ``name``.

    Raises:
        SpecError: the network is a bare ``nn.Sequential``, which would run the new part behind all others, or it has a
            part of this name.
    """
    if name in dict(network.named_children()):
        raise SpecError(f"{name}: {type(network).__name__} has one already: name the mechanism once")
    if isinstance(network, nn.Sequential):
        raise SpecError(f"{name}: expected a module with a forward of its own, got nn.Sequential: wrap it in one")

    def through(whole: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (whole.get_submodule(name)(arguments[0]), *arguments[1:])

    network.add_module(name, layer)
    network.register_forward_pre_hook(through)


class Draws(nn.Module):
    """As many copies of all images as there are draws, those of the first draw first."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = 1

    def forward(self, images: Tensor) -> Tensor:
        """Return (draws * batch, ...)."""
        return images if self.draws == 1 else images.repeat(self.draws, *(1 for _ in images.shape[1:]))


def averaged(network: nn.Module, name: str) -> None:
    """Let the network answer with the mean probability of its draws, as logarithms; ``set_draws`` says how many.

    The copies of an image pass as one batch. With one draw, as at first, the logits are left as they are.

    Raises:
        SpecError: as ``in_front``.
    """

    def mean(whole: nn.Module, _arguments: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        draws = _draws(whole, name).draws
        if draws == 1:
            return logits
        each = torch.log_softmax(logits, dim=1).unflatten(0, (draws, -1))
        return torch.logsumexp(each, dim=0) - torch.tensor(float(draws)).log()

    in_front(network, name, Draws())
    network.register_forward_hook(mean)


def set_draws(network: nn.Module, name: str, draws: int) -> None:
    """Let the network that ``averaged`` has changed answer from this many draws."""
    _draws(network, name).draws = draws


def _draws(network: nn.Module, name: str) -> Draws:
    layer = network.get_submodule(name)
    assert isinstance(layer, Draws)
    return layer


def weighted(network: nn.Module, mechanism: str) -> list[nn.Conv2d | nn.Linear]:
    """Return the convolutions and full layers of a network, in their order.

    Raises:
        SpecError: it has none, so that a mechanism would do nothing.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    if not layers:
        raise SpecError(
            f"{mechanism}: expected a network with Conv2d or Linear modules; {type(network).__name__} has none"
        )
    return layers


def hidden_layered(network: nn.Module, mechanism: str) -> HiddenLayerNet:
    """Return the network, which has one hidden layer and a readout.

    Raises:
        SpecError: it is another one.
    """
    if not isinstance(network, HiddenLayerNet):
        raise SpecError(f"{mechanism}: expected the model hidden-layer, got {type(network).__name__}")
    return network


def kept_weight(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Return the weight that is trained, beneath all parametrisations: reading ``layer.weight`` would draw for them."""
    return layer.parametrizations.weight.original if parametrize.is_parametrized(layer, "weight") else layer.weight  # pyright: ignore[reportAttributeAccessIssue, reportReturnType]


def agree_on_units(network: nn.Module, mechanism: str, units: int) -> None:
    """Refuse blocks of another size than those that are installed already.

    Raises:
        SpecError: a layer of the network competes in blocks of another size.
    """
    for layer in having(network, "units"):
        if layer.units not in (1, units):  # alone in its block, nobody competes
            raise SpecError(f"{mechanism}: this network has blocks of {layer.units} units already, got units = {units}")


def check_blocks(mechanism: str, what: str, count: int, units: int) -> None:
    """Refuse a layer that blocks of this size do not fill.

    Raises:
        SpecError: a block would be short.

    >>> check_blocks("winner-take-all", "channels", 6, 4)
    Traceback (most recent call last):
    unperturbed.records.SpecError: winner-take-all: 6 channels cannot be divided into blocks of 4; choose units that \
divide every layer, this one: 2, 3, 6
    """
    if count % units:
        fitting = [str(size) for size in range(2, count + 1) if count % size == 0][:MOST_NAMED]
        raise SpecError(
            f"{mechanism}: {count} {what} cannot be divided into blocks of {units}; "
            f"choose units that divide every layer, this one: {', '.join(fitting) or 'none'}"
        )


def within(parameter: Tensor, lowest: float, highest: float) -> Tensor:
    """Return the parameter within limits; its gradient passes, so that it can come back."""
    return parameter + (parameter.clamp(lowest, highest) - parameter).detach()


def switch(network: nn.Module, kind: type[nn.Module], *, active: bool) -> None:
    """Turn all layers of a kind on or off, which have a switch of the name ``active``."""
    for layer in network.modules():
        if isinstance(layer, kind):
            layer.active = active  # pyright: ignore[reportArgumentType] - a plain attribute


@contextmanager
def switched(network: nn.Module, kind: type[nn.Module], *, active: bool) -> Generator[None]:
    """Have all layers of a kind on or off inside; afterwards they are on, as while training."""
    switch(network, kind, active=active)
    try:
        yield
    finally:
        switch(network, kind, active=True)


def having(network: nn.Module, attribute: str) -> list[nn.Module]:
    """Return the layers with an attribute of this name, such as ``temperature``."""
    return [layer for layer in network.modules() if hasattr(layer, attribute)]


def altered(network: nn.Module, attributes: Mapping[str, Setting]) -> nn.Module:
    """Return a copy of the network with these attributes in every layer that has them: a way in for an attack.

    Raises:
        SpecError: no layer has such an attribute.
    """
    copy = deepcopy(network)
    for name, value in attributes.items():
        layers = having(copy, name)
        if not layers:
            raise SpecError(f"through: no layer of this network has an attribute {name!r}")
        for layer in layers:
            setattr(layer, name, value)
    return copy
