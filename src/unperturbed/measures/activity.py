"""What a layer of a network returns while the network looks at images."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unperturbed.records import SpecError


def activity(
    network: Callable[[Tensor], Tensor], layer: nn.Module, images: Float[Tensor, "batch _ _ _"]
) -> Float[Tensor, "batch units"]:
    """Return the output of ``layer``, a row for each image, from one forward.

    Of a layer that is passed several times the first output counts, of several copies of each image the first one.

    Args:
        network: what is asked; the layer is a part of it.
        layer: of a convolution or full layer the output is the pre-activation.
        images: as they are given, inside [0, 1] or not.

    Raises:
        SpecError: the layer is not passed, or does not return one tensor with rows for every image.
    """
    seen: list[object] = []

    def keep(_layer: nn.Module, _arguments: object, output: object) -> None:
        seen.append(output.clone() if isinstance(output, Tensor) else output)  # what follows may work in place

    hook = layer.register_forward_hook(keep)
    try:
        with torch.no_grad():
            network(images)
    finally:
        hook.remove()
    name = type(layer).__name__
    if not seen:
        raise SpecError(f"layer: expected one that images pass; this {name} is passed by none")
    output = seen[0]
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) < len(images):
        got = f"a shape of {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise SpecError(
            f"layer: expected one that returns a row for each of {len(images)} images; {name} returns {got}"
        )
    return output[: len(images)].flatten(1)
