r"""A penalty on the Jacobian, estimated by random projections: as it was defined, and as it was published later.

Source of ``form="hoffman"``: Hoffman, Roberts and Yaida (2019), arXiv:1908.02729, and the authors' code: with C logits
z, a batch of B images and n directions :math:`v_{jb}` for each of them, uniform on the unit sphere,

.. math:: \tfrac12\, \frac{C}{n B} \sum_{j=1}^n \sum_b \lVert v_{jb}^\top\, \partial z / \partial x_b \rVert^2,

which has the mean :math:`\tfrac12 \lVert J \rVert_F^2`.
Source of ``form="published"``: the condition "JReg" of Holzhausen et al. (2024), arXiv:2405.00679, as its code has it.
It differs in three ways. The Jacobian is that of the *linear* map into the hidden layer, which is W for every image, so
that it is a weight decay. There is no half. And from the second projection on the directions of all images together
have length 1, so that n projections have the mean :math:`\lVert W \rVert_F^2\, (1 + (n-1)/B) / n`; strength 1e-3 and
three projections there.
Departs from the source: behind batch normalisation an image of the batch moves the logits of the others, and these
entries are counted with its own, as in the first authors' code. Behind a frozen hidden layer the Jacobian as defined is
that by its codes.
Matched control of both: ``weight_penalty``.
"""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from unperturbed.mechanisms.contract import DRAWS, Loss, Mechanism, Tools, check_positive
from unperturbed.mechanisms.installing import hidden_layered
from unperturbed.tensors.streams import generator

NAME = "jacobian-regularisation"


def hoffman_estimate(network: nn.Module, images: Tensor, draws: torch.Generator, *, projections: int) -> Tensor:
    """Return half the squared Frobenius norm of the Jacobian at every image, (batch,), on average over ``draws``.

    Args:
        network: images to logits; a gradient reaches its weights.
        images: where the Jacobian is taken.
        draws: source of the directions, on the CPU.
        projections: directions for each image.
    """
    images = images.detach().requires_grad_()
    logits = network(images)
    squares = torch.zeros(len(images), dtype=images.dtype, device=images.device)
    for _ in range(projections):
        directions = F.normalize(_normal(logits, draws), dim=1)
        (gradient,) = torch.autograd.grad(logits, images, directions, create_graph=True)
        squares = squares + gradient.flatten(1).square().sum(dim=1)
    return 0.5 * logits.shape[1] / projections * squares


def published_estimate(weight: Tensor, batch_size: int, draws: torch.Generator, *, projections: int) -> Tensor:
    """Return what the published code takes for the squared Frobenius norm of the linear map ``weight``.

    Args:
        weight: (units, inputs).
        batch_size: images that are projected at once; what they are has no part.
        draws: source of the directions, on the CPU.
        projections: directions for each image.
    """
    squares = torch.zeros((), dtype=weight.dtype, device=weight.device)
    for projection in range(projections):
        directions = _normal(weight.detach()[:, :1].T.expand(batch_size, -1), draws)
        length = torch.linalg.vector_norm(directions, dim=1 if projection == 0 else (0, 1), keepdim=True)
        squares = squares + (directions / length @ weight).square().sum()
    return len(weight) / (projections * batch_size) * squares


def _normal(like: Tensor, draws: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=draws, dtype=like.dtype).to(like.device)


def jacobian_regularisation(
    *, form: Literal["hoffman", "published"] = "hoffman", strength: float = 0.01, projections: int = 1
) -> Mechanism:
    """Return the loss with an estimate of the squared Jacobian added.

    Args:
        form: of the logits by the images, or of the hidden currents by the inputs: see above.
        strength: weight in the loss, above 0.
        projections: random directions for each image and step.

    Raises:
        SpecError: a strength or a number of projections that is not above 0; as published, when it is installed, if
            the network has no single hidden layer.
    """
    check_positive(NAME, strength=strength, projections=projections)

    def install(network: nn.Module) -> None:
        if form == "published":
            hidden_layered(network, NAME)

    def objective(loss: Loss, tools: Tools) -> Loss:
        def with_penalty(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            draws = generator("jacobian", tools.seed)
            if form == "hoffman":
                penalty = hoffman_estimate(network, images, draws, projections=projections)
            else:
                weight = hidden_layered(network, NAME).hidden.weight
                penalty = published_estimate(weight, len(images), draws, projections=projections)
            return loss(network, images, labels) + strength * penalty

        return with_penalty

    return Mechanism(install=install, objective=objective, alone=DRAWS)
