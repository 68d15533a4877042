r"""Indian buffet prior: binary masks on the weights of blocks, which the data keep or remove.

Source: Panousis, Chatzis and Theodoridis (2019), arXiv:1805.07624, and the authors' TensorFlow code of it and of
"Local competition and stochasticity for adversarial robustness in deep learning" (AISTATS 2021). A weight is
:math:`z W` with one :math:`z \in \{0, 1\}` for each input and block of U units in a full layer, and for each block of
U channels in a convolution. Prior: :math:`z \sim \mathrm{Bernoulli}(\pi_b)`, :math:`\pi_b = \prod_{i \le b} u_i`,
:math:`u_i \sim \mathrm{Beta}(\alpha, 1)`. Posterior: :math:`q(u)` of Kumaraswamy with
:math:`a = \mathrm{softplus}(\zeta_1)`, :math:`b = \mathrm{softplus}(\zeta_2)`, drawn as
:math:`u = (1 - x^{1/b})^{1/a}`, x uniform; :math:`q(z)` Bernoulli with logit t, drawn as the binary Concrete
:math:`\sigma((t + L) / T)`, L logistic. With Euler's :math:`\gamma` and the digamma function :math:`\psi`,

.. math:: KL_z = \sum \sigma(t) \log\frac{\sigma(t)}{\pi} + (1 - \sigma(t)) \log\frac{1 - \sigma(t)}{1 - \pi}, \qquad
    KL_u = \sum \Bigl(1 - \frac{\alpha}{a}\Bigr)\Bigl(-\gamma - \psi(b) - \frac{1}{b}\Bigr)
    + \log\frac{a b}{\alpha} - \frac{b - 1}{b},

:math:`\pi` drawn anew at every step. When deployed, T is 0.01 and entries with :math:`\sigma(t) \le 0.01` are gone.
Departs from the source: the Gaussian posterior of the weights and its divergence are a mechanism of their own,
``gaussian_weights``. The authors' code keeps the first term of KL_z only (``as_coded``). In a full layer the code of
2021 also multiplies sticks along the inputs, not the blocks, and lays a mask over units of different blocks; neither is
repeated here.
In the nervous system: synapses are pruned; there activity decides, here a prior that makes later blocks less likely.
Matched control: the same network without masks.
"""

import hashlib
import math

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn
from torch.nn.utils import parametrize

from unperturbed.mechanisms.contract import DRAWS, Loss, Mechanism, Tools, Traits, check_positive
from unperturbed.mechanisms.installing import agree_on_units, check_blocks, kept_weight, weighted, within
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

EULER = 0.5772156649015329
ZETA = (2.0, 0.5453)
LOWEST_ZETA = -6.0  # as in the authors' code
LOWEST_LOGIT = {2: -5.0, 4: -7.0}  # full layers and convolutions, by the dimensions of their weights
HIGHEST_LOGIT = 600.0


def log_sticks(a: Tensor, b: Tensor) -> Tensor:
    r"""Return :math:`\log u` of a draw from Kumaraswamy's distribution: :math:`u = (1 - x^{1/b})^{1/a}`."""
    limits = torch.finfo(a.dtype)
    log_x = torch.rand_like(a).clamp_min(limits.tiny).log()
    return torch.log((-torch.expm1(log_x / b)).clamp_min(limits.tiny)) / a


def divergence_of_sticks(a: Tensor, b: Tensor, concentration: float) -> Tensor:
    """Return KL_u, of Kumaraswamy's distribution from Beta(concentration, 1), for every stick, in nats."""
    mean_log = -EULER - torch.digamma(b) - 1 / b
    return (1 - concentration / a) * mean_log + torch.log(a * b) - math.log(concentration) - (b - 1) / b


def divergence_of_masks(logits: Tensor, log_prior: Tensor, *, as_coded: bool) -> Tensor:
    """Return KL_z, of Bernoulli masks from their prior, for every mask, in nats; ``as_coded`` without its second term.

    Args:
        logits: t.
        log_prior: the logarithm of pi, which is broadcast; at most -eps of its type counts.
        as_coded: leave out the term of z = 0.
    """
    log_prior = log_prior.clamp_max(-torch.finfo(log_prior.dtype).eps)
    kept = logits.sigmoid() * (F.logsigmoid(logits) - log_prior)
    if as_coded:
        return kept
    return kept + (-logits).sigmoid() * (F.logsigmoid(-logits) - torch.log(-torch.expm1(log_prior)))


class Mask(nn.Module):
    """A weight times binary masks, one for each block of ``units`` outputs (and each input of a full layer).

    ``mask_temperature``, ``truncation`` and ``drawn`` are plain attributes: training and evaluation mode change none of
    them. Masks that are not drawn are their expectations.
    """

    def __init__(self, weight: Tensor, units: int, temperature: float) -> None:
        super().__init__()
        self.units = units
        self.mask_temperature = temperature
        self.truncation = 0.0  # nothing is that unlikely
        self.drawn = True
        self.lowest = LOWEST_LOGIT[weight.ndim]
        blocks = len(weight) // units
        shape = (blocks, weight.shape[1]) if weight.ndim == 2 else (blocks,)
        uniform = torch.rand(shape, generator=generator("indian buffet", _fingerprint(weight)))
        self.logits = nn.Parameter((4 + uniform).to(weight))
        self.zeta = nn.Parameter(torch.tensor(ZETA).repeat(blocks, 1).T.contiguous().to(weight))
        for parameter in self.parameters():
            parameter.decays = False  # pyright: ignore[reportAttributeAccessIssue] - read by the optimiser

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight."""
        masks = self.masks().repeat_interleave(self.units, dim=0)
        return weight * masks.view(*masks.shape, *(1,) * (weight.ndim - masks.ndim))

    def masks(self) -> Tensor:
        """Return a draw of the masks, (blocks, inputs) or (blocks,), in [0, 1]."""
        logits = self._logits()
        kept = logits.sigmoid() > self.truncation
        if not self.drawn:
            return logits.sigmoid() * kept
        limits = torch.finfo(logits.dtype)
        logistic = torch.rand_like(logits).clamp(limits.tiny, 1 - limits.eps).logit()
        return torch.sigmoid((logits + logistic) / self.mask_temperature) * kept

    def concentrations(self) -> tuple[Tensor, Tensor]:
        """Return a and b of the posterior of each stick."""
        a, b = F.softplus(within(self.zeta, LOWEST_ZETA, math.inf))
        return a, b

    def divergence(self, concentration: float, *, as_coded: bool) -> Tensor:
        """Return KL_z + KL_u of this layer for one draw of the sticks, in nats."""
        a, b = self.concentrations()
        log_prior = log_sticks(a, b).cumsum(dim=0)
        logits = self._logits()
        masks = divergence_of_masks(
            logits, log_prior.view(-1, *(1,) * (logits.ndim - 1)).expand_as(logits), as_coded=as_coded
        )
        return masks.sum() + divergence_of_sticks(a, b, concentration).sum()

    def _logits(self) -> Tensor:
        return within(self.logits, self.lowest, HIGHEST_LOGIT)


def indian_buffet(
    *,
    units: int = 2,
    concentration: float = 1.0,
    temperature: float = 0.67,
    deployed_temperature: float = 0.01,
    truncation: float = 0.01,
    kl: float = 0.0,
    as_coded: bool = False,
) -> Mechanism:
    """Return masks on the weights of all convolutions and full layers.

    The last of them gives the logits; there, every output is a block of its own.

    Args:
        units: outputs that share a mask, as many as compete in ``winner_take_all``; 1 without competition.
        concentration: alpha of the prior; a larger one makes more masks likely.
        temperature: of the masks while training, and while attacked in training.
        deployed_temperature: of the masks once trained.
        truncation: masks that are kept with this probability or a smaller one are gone once trained.
        kl: weight of KL_z + KL_u in the loss; 1 / (number of training images) for the ELBO. 0: they are not added, the
            prior has no part, and only t is learned.
        as_coded: KL_z as in the authors' code.

    Raises:
        SpecError: fewer than 1 unit, a temperature or concentration that is not above 0, a truncation outside [0, 1), a
            negative weight; when it is installed, if ``units`` does not divide the outputs of a layer or differs from
            that of ``winner_take_all``, or there is no layer.
    """
    check_positive(
        "indian-buffet",
        units=units,
        concentration=concentration,
        temperature=temperature,
        deployed_temperature=deployed_temperature,
    )
    if not 0 <= truncation < 1 or kl < 0:
        raise SpecError(
            "indian-buffet: expected a truncation from 0 to below 1 and kl of at least 0; "
            f"got {truncation:g} and {kl:g}"
        )

    def install(network: nn.Module) -> None:
        agree_on_units(network, "indian-buffet", units)
        layers = weighted(network, "indian-buffet")
        for layer in layers:
            weight = kept_weight(layer)
            together = 1 if layer is layers[-1] else units
            check_blocks("indian-buffet", "outputs", len(weight), together)
            mask = Mask(weight.detach(), together, temperature)
            mask.zeta.requires_grad_(kl > 0)  # without the divergence nothing depends on it
            parametrize.register_parametrization(layer, "weight", mask, unsafe=True)  # the check would draw

    def objective(loss: Loss, _tools: Tools) -> Loss:
        if kl == 0:
            return loss

        def with_divergence(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            losses = loss(network, images, labels)
            parts = [mask.divergence(concentration, as_coded=as_coded) for mask in _masks(network)]
            return losses + kl * torch.stack(parts).sum()

        return with_divergence

    def finish(network: nn.Module) -> None:
        for mask in _masks(network):
            mask.mask_temperature = deployed_temperature
            mask.truncation = truncation

    return Mechanism(install=install, objective=objective, finish=finish, traits=Traits(random=True), alone=DRAWS)


def _masks(network: nn.Module) -> list[Mask]:
    return [layer for layer in network.modules() if isinstance(layer, Mask)]


def _fingerprint(weight: Tensor) -> str:
    """Return what the initial weights say: equal ones have equal masks, and no generator needs to be passed."""
    if weight.is_meta:
        return "outline"
    return hashlib.sha256(weight.cpu().double().numpy().tobytes()).hexdigest()
