r"""A penalty on the eigenvalues of a hidden layer that stray from a power law: as defined, and as published later.

Source of ``form="nassar"``: Nassar et al. (2020), "On 1/n neural representation and robustness", NeurIPS, and the
authors' code. With the eigenvalues :math:`\lambda_1 \ge \lambda_2 \ge \dots \ge \lambda_N` of the covariance of what
enters the readout,

.. math:: \frac{\beta}{N} \sum_{n > \tau} \left[ (\lambda_n / \gamma_n - 1)^2 + \max(0, \lambda_n / \gamma_n - 1)
    \right], \qquad \gamma_n = \lambda_\tau\, \tau^s / n^s,

no gradient through :math:`\gamma_n`. The eigenvectors V are those of all training images, taken once at the start of
every epoch; of a batch, :math:`\lambda_n` are the sorted entries of :math:`\mathrm{diag}(V^\top C V)`, which are
variances and so never negative.
Source of ``form="published"``: the condition "SpecReg" of Holzhausen et al. (2024), arXiv:2405.00679, as its code has
it. Instead of the covariance it has the uncentred second moment of the currents into the hidden layer; its eigenvectors
are those of the last batch that is seen before the epoch; the entries stay in the order of these; and the target is
:math:`\gamma_n = n^{-s}`, whatever the size of the currents. Strength 1, s = 1 and no rank left out, or 1e-3, 2.62, 10.
Departs from the source: that code subtracts a constant and a tiny part of the mean's square before it squares.
Both have batch normalisation in front of the readout, behind the rectifier; Nassar's penalty sees what it returns.
Matched control: the network that is trained without the penalty (``strength`` near 0 keeps the normalisation).
"""

from collections import OrderedDict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from unperturbed.mechanisms.contract import Loss, Mechanism, Tools, check_positive
from unperturbed.mechanisms.installing import hidden_layered
from unperturbed.models import HiddenLayerNet
from unperturbed.records import SpecError

Form = Literal["nassar", "published"]
NAME = "spectral-regularisation"
BASIS = "spectral_basis"
NORMALISATION = "normalisation"


def power_law_penalty(spectrum: Tensor, target: Tensor, *, rank: int) -> Tensor:
    """Return how far the eigenvalues of rank above ``rank`` are from their target: the equation above without beta.

    Args:
        spectrum: eigenvalues, of which a gradient is wanted.
        target: gamma.
        rank: tau, the eigenvalues that are left out.
    """
    excess = (spectrum / target - 1)[rank:]
    return (excess.square() + excess.relu()).sum() / len(spectrum)


def spectral_regularisation(
    *,
    form: Form = "nassar",
    strength: float = 1.0,
    exponent: float = 1.0,
    rank: int = 10,
) -> Mechanism:
    """Return batch normalisation in front of the readout, and the loss with the penalty added.

    Args:
        form: see above.
        strength: beta, above 0.
        exponent: s of the power law, above 0.
        rank: tau, the first eigenvalues, which are free; at least 1, as published at least 0.

    Raises:
        SpecError: a setting outside its range; when it is installed, if the network has no single hidden layer or no
            more units than ``rank``.
    """
    check_positive(NAME, strength=strength, exponent=exponent)
    least = 1 if form == "nassar" else 0
    if rank < least:
        raise SpecError(f"{NAME}: rank must be at least {least} in the form {form}, got {rank}")

    def install(network: nn.Module) -> None:
        layered = hidden_layered(network, NAME)
        weight = layered.hidden.weight
        units = len(weight)
        if rank >= units:
            raise SpecError(f"{NAME}: rank must be below the {units} units of the layer, got {rank}")
        normalisation = nn.BatchNorm1d(units, device=weight.device, dtype=weight.dtype)
        parts = OrderedDict[str, nn.Module](
            [(NORMALISATION, normalisation), ("linear", layered.get_submodule("readout"))]
        )
        layered.add_module("readout", nn.Sequential(parts).train(layered.training))
        layered.register_buffer(BASIS, torch.eye(units, device=weight.device, dtype=weight.dtype))

    def objective(loss: Loss, tools: Tools) -> Loss:
        def with_penalty(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            layered = hidden_layered(network, NAME)
            basis = layered.get_buffer(BASIS)
            if tools.fresh:
                _renew(basis, layered, tools.every(), form)
            with _outputs(_layer(layered, form)) as outputs:
                losses = loss(network, images, labels)
            spectrum = _spectrum(outputs[-1].to(basis.dtype), basis, form)
            ranks = torch.arange(1, len(basis) + 1, dtype=basis.dtype, device=basis.device)
            target = ranks.pow(-exponent)
            if form == "nassar":
                tiny = torch.finfo(basis.dtype).tiny
                target = target * rank**exponent * spectrum[rank - 1].detach().clamp_min(tiny)
            return losses + strength * power_law_penalty(spectrum, target, rank=rank)

        return with_penalty

    return Mechanism(install=install, objective=objective)


def _layer(network: HiddenLayerNet, form: Form) -> nn.Module:
    """Return the layer whose output is regularised."""
    return network.get_submodule(f"readout.{NORMALISATION}") if form == "nassar" else network.hidden


def _spectrum(hidden: Tensor, basis: Tensor, form: Form) -> Tensor:
    """Return the variances of a batch along the basis, sorted, or its uncentred second moments in the basis's order."""
    centred = hidden - hidden.mean(dim=0) if form == "nassar" else hidden
    entries = (centred @ basis).square().sum(dim=0) / (len(hidden) - 1)
    return entries.sort(descending=True).values if form == "nassar" else entries


def _renew(basis: Tensor, network: HiddenLayerNet, batches: Iterable[Tensor], form: Form) -> None:
    """Put the eigenvectors that belong to these images into ``basis``, those of the largest eigenvalues first."""
    moment, total, count = torch.zeros_like(basis), torch.zeros_like(basis[0]), 0
    training = network.training
    network.eval()
    with torch.no_grad(), _outputs(_layer(network, form)) as outputs:
        for images in batches:
            network(images)
            hidden = outputs.pop().to(basis.dtype)
            if form == "published":
                moment.zero_()
            moment += hidden.T @ hidden
            total += hidden.sum(dim=0)
            count += len(hidden)
    network.train(training)
    if form == "nassar":
        moment -= torch.outer(total, total) / count
    basis.copy_(torch.linalg.eigh(moment).eigenvectors.flip(1))


@contextmanager
def _outputs(layer: nn.Module) -> Generator[list[Tensor]]:
    """Have a list of what the layer returns, in the mode that it is in now."""
    outputs: list[Tensor] = []
    mode = layer.training

    def keep(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        if layer.training == mode:  # an attack inside the loss looks at the network in the other one
            outputs.append(output)

    handle = layer.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()
