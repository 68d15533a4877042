r"""Stochastic local winner-take-all: units compete in blocks, and the winner is drawn.

Source: Panousis, Chatzis and Theodoridis (2021), arXiv:2112.02671, and the authors' PyTorch code. In a block of U units
with activations :math:`h_u`, :math:`y_u = \xi_u h_u` with :math:`\xi \sim \mathrm{Categorical}(\mathrm{softmax}(h))`,
relaxed to :math:`\xi = \mathrm{softmax}((h + G) / T)`, G drawn from the Gumbel distribution (Jang et al. 2017,
arXiv:1611.01144). T = 0.67 while training, 0.01 when deployed, still drawn. The divergence
:math:`\sum_u q_u (\log q_u + \log U)` of each block from a uniform choice may be added to the loss; the authors' code
computes it and does not add it, hence ``kl = 0``.
In the nervous system: inhibitory interneurons shared by neighbouring cells; what would count against the analogy is
that the choice there does not become sharper by a factor of 67 when learning ends.
Departs from the source: the binary masks of the Indian buffet prior are a mechanism of their own, ``indian_buffet``.
Matched controls: ``mode="argmax"`` (no chance), ``mode="expected"`` (no chance, smooth), the rectified network with the
same weights, and ``mode="relu-noise"``, the rectifier with the same noise: each unit alone against U - 1 rivals whose
activation is fixed at 0 and which draw their own G, :math:`\xi = \mathrm{softmax}(((h_u, 0, ..., 0) + G) / T)_1`.
Noise, temperature, number of rivals and the chance of 1/U among equals are those of the competition; that rivals are
units is all that is missing. Without G and as T falls to 0 it is the rectifier.
"""

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor, nn

from unperturbed.mechanisms.contract import DRAWS, ONE_NETWORK, Loss, Mechanism, Tools, Traits, check_draws
from unperturbed.mechanisms.installing import agree_on_units, averaged, check_blocks, replace, set_draws
from unperturbed.records import SpecError

Mode = Literal["sampled", "straight-through", "expected", "argmax", "relu-noise"]
TINY = 1e-20
RESOLUTION = 2.0**-25  # below the smallest uniform number above 0 in float32


class WinnerTakeAll(nn.Module):
    """Blocks of ``units`` neighbouring channels, one winner in each at every position; parameters: none.

    ``temperature`` and ``mode`` are plain attributes: training and evaluation mode change neither.
    """

    def __init__(self, units: int, temperature: float, mode: Mode, *, watched: bool = False) -> None:
        super().__init__()
        self.units = units
        self.temperature = temperature
        self.alone = mode == "relu-noise"  # against silent rivals, whatever the mode is set to later
        self.mode: Mode = "sampled" if self.alone else mode
        self.watched = watched
        self.divergence: Tensor | None = None  # of a watched pass in training mode, per image (nats), until it is taken

    def forward(self, hidden: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch channels ..."]:
        """Return the winners' activations; of losers, 0 or nearly so."""
        check_blocks("winner-take-all", "channels", hidden.shape[1], self.units)
        blocks = hidden.unflatten(1, (-1, self.units))
        if self.watched and self.training:
            log_q = F.log_softmax(blocks, dim=2)
            self.divergence = (log_q.exp() * (log_q + torch.tensor(self.units).log())).flatten(1).sum(dim=1)
        if self.units == 2 and self.mode == "sampled" and not self.alone:
            return _sampled_pairs(blocks, self.temperature).flatten(1, 2)
        return (self._winners(blocks) * blocks).flatten(1, 2)

    def _winners(self, blocks: Tensor) -> Tensor:
        if self.alone and self.mode == "expected":
            return torch.sigmoid(blocks / self.temperature - math.log(self.units - 1))
        if self.mode == "expected":
            return F.softmax(blocks / self.temperature, dim=2)
        if self.mode == "argmax":
            return _one_hot(blocks)
        if self.alone:
            rivals = _gumbel(blocks.unsqueeze(-1).expand(*blocks.shape, self.units - 1)) / self.temperature
            return torch.sigmoid((blocks + _gumbel(blocks)) / self.temperature - torch.logsumexp(rivals, dim=-1))
        soft = F.softmax((blocks + _gumbel(blocks)) / self.temperature, dim=2)
        if self.mode == "sampled":
            return soft
        if self.mode != "straight-through":
            raise SpecError(f"winner-take-all: mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        hard = _one_hot(soft)
        return hard + (soft - soft.detach())  # the bracket is exactly 0


def _one_hot(blocks: Tensor) -> Tensor:
    """Return 1 for the largest unit of every block, of equal ones the first, and 0 for the others."""
    if blocks.shape[2] == 2:  # many times faster than a search along a short dimension
        first = (blocks[:, :, 0] >= blocks[:, :, 1]).to(blocks.dtype)
        return torch.stack([first, 1 - first], dim=2)
    return torch.zeros_like(blocks).scatter(2, blocks.argmax(dim=2, keepdim=True), 1.0)


def _sampled_pairs(blocks: Tensor, temperature: float) -> Tensor:
    """Return what the general form does for two units, with one random number for both.

    The difference of two Gumbel variables is logistic, and a softmax of two a sigmoid: half of the numbers, and without
    a gradient nothing is kept, so that inference takes less than half of the time.
    """
    first, second = blocks.unbind(2)
    noise = torch.rand_like(first).logit_(eps=RESOLUTION)
    if blocks.requires_grad:
        lead = (first - second + noise) / temperature
        return torch.stack([torch.sigmoid(lead) * first, torch.sigmoid(-lead) * second], dim=2)
    share = noise.add_(first).sub_(second).div_(temperature).sigmoid_()
    winners = torch.empty_like(blocks)
    torch.mul(share, first, out=winners[:, :, 0])
    torch.mul(share.neg_().add_(1), second, out=winners[:, :, 1])
    return winners


def _gumbel(like: Tensor) -> Tensor:
    return -torch.log(-torch.log(torch.rand_like(like).clamp_min(TINY)) + TINY)


def winner_take_all(
    *,
    units: int = 2,
    temperature: float = 0.67,
    deployed_temperature: float = 0.01,
    attacked_temperature: float | None = None,
    mode: Mode = "sampled",
    kl: float = 0.0,
    draws: int = 1,
) -> Mechanism:
    """Return the mechanism that puts local competition in place of every rectifier.

    Args:
        units: competitors in a block; divides the channels of every layer.
        temperature: while training.
        deployed_temperature: once trained.
        attacked_temperature: while the network is attacked during training; ``None``: the deployed one, as in the
            authors' code, where the gradient of the attack is noise. 0.67 gives the attack a gradient.
        mode: how winners are chosen; ``sampled`` is the published one, ``relu-noise`` the control without competition.
        kl: weight of the divergence in the loss, summed over blocks; 1 / (number of training images) for the ELBO.
        draws: of the deployed network for a prediction; it answers with the mean of their probabilities, as logarithms.
            Masks and noise of the weights are the same in all of them.

    Raises:
        SpecError: fewer than 2 units or 1 draw, a temperature that is not above 0, a divergence of a control without
            competition; when an image passes, if ``units`` does not divide the channels of a layer.
    """
    check_draws("winner-take-all", draws)
    if kl and mode == "relu-noise":
        raise SpecError("winner-take-all: kl must be 0 with mode 'relu-noise', where units do not compete")
    if units < 2 or not min(temperature, deployed_temperature) > 0:
        raise SpecError(
            "winner-take-all: expected at least 2 units and temperatures above 0; "
            f"got {units}, {temperature:g} and {deployed_temperature:g}"
        )
    hot = deployed_temperature if attacked_temperature is None else attacked_temperature

    def install(network: nn.Module) -> None:
        agree_on_units(network, "winner-take-all", units)
        replace(network, nn.ReLU, lambda _: WinnerTakeAll(units, temperature, mode, watched=kl > 0))
        if draws > 1:
            averaged(network, "winner_draws")

    def objective(loss: Loss, _tools: Tools) -> Loss:
        if kl == 0:
            return loss

        def with_divergence(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            losses = loss(network, images, labels)
            for layer in _layers(network):
                if layer.divergence is not None:
                    losses = losses + kl * layer.divergence
                    layer.divergence = None  # a graph that stayed would keep the network from being copied
            return losses

        return with_divergence

    @contextmanager
    def attacked(network: nn.Module) -> Generator[None]:
        _set_temperature(network, hot)
        try:
            yield
        finally:
            _set_temperature(network, temperature)

    def finish(network: nn.Module) -> None:
        _set_temperature(network, deployed_temperature)
        if draws > 1:
            set_draws(network, "winner_draws", draws)

    drawn = mode in ("sampled", "straight-through", "relu-noise")
    traits = Traits(random=drawn, shattered=mode == "argmax")
    return Mechanism(install, objective, attacked, finish, traits, DRAWS if drawn else ONE_NETWORK)


def _layers(network: nn.Module) -> list[WinnerTakeAll]:
    return [layer for layer in network.modules() if isinstance(layer, WinnerTakeAll)]


def _set_temperature(network: nn.Module, temperature: float) -> None:
    for layer in _layers(network):
        layer.temperature = temperature
