r"""Gaussian weights: every weight has a mean and a standard deviation, and is drawn anew at every pass of training.

Source: Panousis, Chatzis and Theodoridis (2019), arXiv:1805.07624, and the authors' TensorFlow code of it and of
"Local competition and stochasticity for adversarial robustness in deep learning" (AISTATS 2021); the reparametrisation
is that of Kingma and Welling (2014), arXiv:1312.6114, section 2.4, the divergence their appendix B. With
:math:`q(w) = N(\mu, \sigma^2)`, :math:`\sigma = \mathrm{softplus}(\rho)`, :math:`p(w) = N(0, 1)`,

.. math:: w = \mu + \sigma \epsilon, \quad \epsilon \sim N(0, 1), \qquad
    KL_W = \sum \tfrac{1}{2} (\mu^2 + \sigma^2 - 1) - \log \sigma,

divided by the number of training images (60,000 there). :math:`\mu` starts as the weights of the undefended network,
:math:`\rho` at -5 and not below -7; biases are points. While the network is attacked in training, and once it is
deployed, its weights are their means. As there, the prior takes the place of weight decay where it is in the loss.
Departs from the source: the code of 2021 has :math:`2 \sigma` in the place of :math:`2 \log \sigma`, which is no
divergence (it falls below 0), and the mean over the weights of a layer in the place of their sum, so that in effect
nothing of it is left (``as_coded``); that of 2019 takes the logarithm of the ratio at the draw, whose expectation is
the formula above.
In the nervous system: synapses release by chance, and their strength differs from one moment to the next; what would
count against the analogy is that a synapse goes on doing so when learning ends.
Matched controls: ``learned=False`` with ``kl=0`` (noise of the same power in every weight, neither learned nor with a
prior), ``noise_injection`` (noise in proportion to the weights of a layer), and the network without the noise.
"""

import math
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unperturbed.mechanisms.contract import DRAWS, Loss, Mechanism, Tools, Traits
from unperturbed.mechanisms.installing import kept_weight, switch, switched, weighted, within
from unperturbed.records import SpecError

LOWEST_RHO = -7.0  # as in the authors' code
SMALLEST = math.log1p(math.exp(LOWEST_RHO))  # standard deviation, 0.00091


def divergence_of_weights(mean: Tensor, deviation: Tensor, *, as_coded: bool = False) -> Tensor:
    """Return KL_W, of N(mean, deviation^2) from N(0, 1), for every weight, in nats.

    Args:
        mean: of every weight.
        deviation: standard deviation of every weight, above 0.
        as_coded: with the deviation in the place of its logarithm, as the code of 2021 has it.
    """
    spread = deviation if as_coded else deviation.log()
    return (mean.square() + deviation.square() - 1) / 2 - spread


class GaussianWeight(nn.Module):
    """A weight that is drawn around the mean that is kept.

    ``active`` is the switch; training and evaluation mode do not change it. Where it is off, the weight is its mean.
    """

    def __init__(self, mean: Tensor, deviation: float, *, learned: bool) -> None:
        super().__init__()
        rho = torch.full_like(mean, math.log(math.expm1(deviation)))
        self.rho = nn.Parameter(rho, requires_grad=learned)
        self.rho.decays = False  # pyright: ignore[reportAttributeAccessIssue] - read by the optimiser
        self.active = True

    def forward(self, mean: Tensor) -> Tensor:
        """Return a draw of the weight, or its mean."""
        return mean + self.deviation() * torch.randn_like(mean) if self.active else mean

    def deviation(self) -> Tensor:
        """Return the standard deviation of every weight, above 0."""
        return F.softplus(within(self.rho, LOWEST_RHO, math.inf))


def gaussian_weights(
    *,
    deviation: float = 0.006715,
    learned: bool = True,
    kl: float = 0.0,
    as_coded: bool = False,
    deployed: bool = False,
) -> Mechanism:
    """Return Gaussian weights in all convolutions and full layers.

    What else acts on the weights (masks, injected noise) acts on what is drawn, whichever is named first.

    Args:
        deviation: first standard deviation of every weight, in the unit of the weights; the default is softplus(-5).
        learned: whether the deviations are trained.
        kl: weight of KL_W in the loss; 1 / (number of training images) for the ELBO. 0: it is not added, nothing keeps
            the deviations from falling, and means decay as the recipe says.
        as_coded: KL_W as in the authors' code of 2021: another formula, and the mean over the weights of each layer.
        deployed: whether weights are drawn at inference too, and while the network is attacked in training.

    Raises:
        SpecError: a deviation below softplus(-7) or that is not finite, a negative weight; when it is installed, if the
            network has no such layers, or has Gaussian weights already.
    """
    if not SMALLEST <= deviation < math.inf or not kl >= 0:
        raise SpecError(
            f"gaussian-weights: expected a deviation of at least {SMALLEST:.2g} and kl of at least 0; "
            f"got {deviation:g} and {kl:g}"
        )

    def install(network: nn.Module) -> None:
        if any(isinstance(each, GaussianWeight) for each in network.modules()):
            raise SpecError("gaussian-weights: the weights of this network are drawn already: name the mechanism once")
        for layer in weighted(network, "gaussian-weights"):
            mean = kept_weight(layer)
            if kl > 0:
                mean.decays = False  # pyright: ignore[reportAttributeAccessIssue] - its prior is in the loss
            weight = GaussianWeight(mean, deviation, learned=learned)
            if parametrize.is_parametrized(layer, "weight"):
                layer.parametrizations.weight.insert(0, weight)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
            else:
                parametrize.register_parametrization(layer, "weight", weight, unsafe=True)  # the check would draw

    def objective(loss: Loss, _tools: Tools) -> Loss:
        if kl == 0:
            return loss

        def with_divergence(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            return loss(network, images, labels) + kl * _divergence(network, as_coded=as_coded)

        return with_divergence

    def attacked(network: nn.Module) -> AbstractContextManager[None]:
        return switched(network, GaussianWeight, active=deployed)

    def finish(network: nn.Module) -> None:
        switch(network, GaussianWeight, active=deployed)

    return Mechanism(install, objective, attacked, finish, Traits(random=deployed), alone=DRAWS)


def _divergence(network: nn.Module, *, as_coded: bool) -> Tensor:
    """Return KL_W of all layers, in nats."""
    parts: list[Tensor] = []
    for layer in weighted(network, "gaussian-weights"):
        (weight,) = (each for each in layer.parametrizations.weight if isinstance(each, GaussianWeight))  # pyright: ignore[reportAttributeAccessIssue, reportGeneralTypeIssues]
        found = divergence_of_weights(kept_weight(layer), weight.deviation(), as_coded=as_coded)
        parts.append(found.mean() if as_coded else found.sum())
    return torch.stack(parts).sum()
