"""Layers of a network, exchanged in place or altered in a copy."""

from collections.abc import Callable, Mapping
from copy import deepcopy

from torch import Tensor, nn

from unperturbed.records import Setting, SpecError


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


def in_front(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Let every image pass through ``layer`` before it enters the network, of which it becomes the part ``name``.

    Raises:
        SpecError: the network is a bare ``nn.Sequential``, which would run the new part behind all others.
    """
    if isinstance(network, nn.Sequential):
        raise SpecError(f"{name}: expected a module with a forward of its own, got nn.Sequential: wrap it in one")

    def through(whole: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (whole.get_submodule(name)(arguments[0]), *arguments[1:])

    network.add_module(name, layer)
    network.register_forward_pre_hook(through)


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
