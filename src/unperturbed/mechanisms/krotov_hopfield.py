r"""Krotov and Hopfield's local learning: hidden units compete for an input, one learns it and one unlearns it.

Source: Krotov and Hopfield (2019), doi:10.1073/pnas.1820458116, and the first author's notebook. With
:math:`\langle x, y \rangle_\mu = \sum_i |W_{\mu i}|^{p-2} x_i y_i`, the current
:math:`I_\mu = \langle W_\mu, v \rangle_\mu` and
:math:`Q_\mu = I_\mu / \langle W_\mu, W_\mu \rangle_\mu^{(p-1)/p}`,

.. math:: \tau\, dW_{\mu i}/dt = g(Q_\mu)\, [R^p v_i - I_\mu W_{\mu i}],

g = 1 for the unit with the largest Q, -Delta for the unit of rank k, 0 for the others. ``form="sequential"`` takes this
step for one input after the other. ``form="minibatch"`` is the notebook's: ranks by I, sums the right side over a batch
and divides it by its largest entry, so that the rate is the largest change of a synapse; R = 1 there.

Rank: k = 2 is the runner-up, as in the notebook; the text of the paper may count one rank lower. Holzhausen et al.
(2024), arXiv:2405.00679, punish all ranks from 2 to k in their sequential code and rank k alone in their fast one:
``punished``. For k = 2 they agree.
Departs from the source: only rows of units that won or were punished are computed again, which changes nothing but the
time; p = 1 is refused, for which what acts, sgn(W), does not say what W is. Both forms begin at N(0, 1), as the
notebook does; the published sequential code begins with norms below R. Above R a punished unit grows ever faster, and
the sequential form, which divides by nothing, needs a rate near 1e-4.

In the nervous system: plasticity that knows the activity on both sides of a synapse only, with inhibition between
neighbours that lets few of them learn; competition is measured as sparse, decorrelated responses. What would count
against the analogy: a rank is known to the whole layer at once, and the sign of the change depends on it.
Matched controls: ``random_features`` (nothing is learned), ``spherical_kmeans`` (the winner alone learns, without
synapses that grow), ``delta=0`` (nobody is punished), each with the same readout.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from unperturbed.mechanisms.contract import OWN_CODES, Diverged, Learning, Lesson, Mechanism, check_positive
from unperturbed.mechanisms.installing import hidden_layered
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

NAME = "krotov-hopfield"
TINY = 1e-30  # the smallest divisor, as in the notebook
CONVERGED = 1e-2  # how far from R the norm of a unit may be


def krotov_hopfield(
    *,
    p: float = 3.0,
    k: int = 2,
    delta: float = 0.4,
    radius: float = 1.0,
    learning_rate: float = 0.02,
    epochs: int = 100,
    batch_size: int = 100,
    form: Literal["minibatch", "sequential"] = "minibatch",
    punished: Literal["kth", "up-to-kth"] = "kth",
) -> Mechanism:
    """Return a hidden layer that learns without labels and is frozen; gradient descent trains the readout alone.

    The facts of a network that has learned: ``converged_units``, the share of units with a p-norm within 0.01 of
    ``radius``, and ``negative_units``, the share whose mean synapse is below half of ``-radius``.

    Args:
        p: exponent of the metric, above 1; 2 is the usual scalar product.
        k: rank of the unit that unlearns, from 2, the runner-up, to the number of units.
        delta: how strongly it does, as a multiple of what the winner learns; at least 0.
        radius: R, to which the p-norm of a unit goes that wins.
        learning_rate: of the first epoch; it falls linearly and would be 0 after the last. In the minibatch form the
            largest change of a synapse per batch, in the sequential form 1 / tau per input.
        epochs: passes over the training images.
        batch_size: inputs that change the synapses together; the sequential form has none.
        form: see above.
        punished: rank k alone, or all ranks from 2 to k.

    Raises:
        SpecError: a setting outside its range; when it is installed, if the network has no single hidden layer or
            fewer than k units.
    """
    check_positive(NAME, radius=radius, learning_rate=learning_rate, epochs=epochs, batch_size=batch_size)
    if not p > 1:
        raise SpecError(f"{NAME}: p must be above 1, got {p:g}")
    if not delta >= 0:
        raise SpecError(f"{NAME}: delta must be at least 0, got {delta:g}")
    if k < 2:
        raise SpecError(f"{NAME}: k must be at least 2, the runner-up, got {k}")
    ranks = [0, k - 1] if punished == "kth" else list(range(k))

    def install(network: nn.Module) -> None:
        hidden = hidden_layered(network, NAME).hidden
        if k > hidden.out_features:
            raise SpecError(f"{NAME}: k must be at most the {hidden.out_features} units of the layer, got {k}")
        hidden.p = p
        hidden.weight.requires_grad_(False)

    def begin(network: nn.Module, seed: int) -> None:
        hidden = hidden_layered(network, NAME).hidden
        hidden.put(torch.randn(hidden.weight.shape, generator=generator("synapses", seed)))

    def epoch(networks: Sequence[nn.Module], lesson: Lesson) -> None:
        layers = [hidden_layered(network, NAME).hidden for network in networks]
        rate = learning_rate * (1 - (lesson.epoch - 1) / epochs)
        competition = _Competition(
            torch.stack([layer.raw() for layer in layers]), p, radius, ranks, delta, sequential=form == "sequential"
        )
        inputs = lesson.inputs.to(competition.synapses)
        orders = torch.stack(
            [torch.randperm(len(inputs), generator=generator("order", seed, lesson.epoch)) for seed in lesson.seeds]
        ).to(inputs.device)
        sums: list[Tensor] = []
        for rows in orders.split(batch_size if form == "minibatch" else 1, dim=1):
            sums.append(competition.learn(inputs[rows], rate))
            lesson.look(rows.shape[1])
        _check_finite(torch.stack(sums, dim=1), lesson)
        for layer, synapses in zip(layers, competition.synapses, strict=True):
            layer.put(synapses)

    def facts(network: nn.Module) -> Mapping[str, float]:
        synapses = hidden_layered(network, NAME).hidden.raw().double()
        lengths = synapses.abs().pow(p).sum(dim=1).pow(1 / p)
        return {
            "converged_units": ((lengths - radius).abs() <= CONVERGED).double().mean().item(),
            "negative_units": (synapses.mean(dim=1) < -radius / 2).double().mean().item(),
        }

    return Mechanism(install=install, alone=OWN_CODES, learning=Learning(epochs, begin, epoch, facts), frozen=True)


class _Competition:
    """The layers of R matched networks, which learn as one program; a row is one unit of one of them."""

    def __init__(
        self, synapses: Tensor, p: float, radius: float, ranks: list[int], delta: float, *, sequential: bool
    ) -> None:
        """Take ``synapses`` (networks, units, inputs), which will be changed in place."""
        self.networks, self.units, width = synapses.shape
        self.synapses = synapses
        self.rows = synapses.view(-1, width)
        self.first_rows = torch.arange(self.networks, device=synapses.device).view(-1, 1, 1) * self.units
        self.p = p
        self.drive = radius**p
        self.ranks = torch.tensor(ranks, device=synapses.device)
        self.signs = synapses.new_full((len(ranks),), -delta)
        self.signs[0] = 1
        self.deepest = ranks[-1] + 1
        self.sequential = sequential
        self.acting = torch.empty_like(self.rows)  # sgn(W) |W|^(p-1), kept up to date: most of it stays as it is
        self.scales = synapses.new_empty(len(self.rows))  # <W, W>^((p-1)/p)
        self._put(torch.arange(len(self.rows), device=synapses.device), self.rows.clone())

    def learn(self, inputs: Tensor, rate: float) -> Tensor:
        """Learn from ``inputs`` (networks, batch, inputs); return for each network a number that is finite if it is."""
        currents = _currents(inputs, self.acting.view_as(self.synapses))
        scores = currents / self.scales.view(self.networks, 1, -1) if self.sequential else currents
        chosen = scores.topk(self.deepest, dim=2).indices[:, :, self.ranks]
        rows, places = _distinct((chosen + self.first_rows).flatten(), len(self.rows))
        owners = rows.div(self.units, rounding_mode="floor")
        synapses = self.rows.index_select(0, rows)
        learned = inputs.unsqueeze(2) * (self.drive * self.signs).unsqueeze(1)
        forgotten = currents.gather(2, chosen) * self.signs
        changes = _add(torch.zeros_like(synapses), places, learned.flatten(0, 2))
        changes -= _add(synapses.new_zeros(len(rows)), places, forgotten.flatten()).unsqueeze(1) * synapses
        if self.sequential:
            changes *= rate
        else:
            none = changes.new_zeros(self.networks)
            largest = none.scatter_reduce(0, owners, changes.abs().amax(dim=1), "amax")
            changes *= (rate / largest.clamp_min(TINY)).index_select(0, owners).unsqueeze(1)
        changed = changes.add_(synapses)
        self._put(rows, changed)
        return changed.new_zeros(self.networks).index_add_(0, owners, changed.sum(dim=1))

    def _put(self, rows: Tensor, synapses: Tensor) -> None:
        self.rows.index_copy_(0, rows, synapses)
        self.acting.index_copy_(0, rows, synapses.abs().pow_(self.p - 1).copysign_(synapses))
        if self.sequential:
            lengths = synapses.abs().pow_(self.p).sum(dim=1).pow(1 - 1 / self.p)
            self.scales.index_copy_(0, rows, lengths.clamp_min(TINY))


def _currents(inputs: Tensor, acting: Tensor) -> Tensor:
    """Return the currents of every unit, (networks, batch, units): nearly all of the time of a step."""
    if inputs.dtype == torch.float32 and inputs.device.type == "cpu" and torch.backends.mkldnn.is_available():
        # oneDNN needs half of the time of MKL on a processor that is not Intel's.
        each = [F.linear(batch.to_mkldnn(), weight).to_dense() for batch, weight in zip(inputs, acting, strict=True)]
        return torch.stack(each)
    return torch.bmm(inputs, acting.transpose(1, 2))


def _distinct(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return rows that hold all of these, each once, and the place of each of these among them."""
    if rows.is_cuda:  # as many as there are: to count the distinct ones would have the CPU wait
        return torch.arange(count, device=rows.device), rows
    return torch.unique(rows, return_inverse=True)


def _add(sums: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Return ``sums`` with the values added at their places, in the same order every time."""
    if sums.is_cuda:  # where index_add would add in any order
        return sums.index_put_((places,), values, accumulate=True)
    return sums.index_add_(0, places, values)


def _check_finite(sums: Tensor, lesson: Lesson) -> None:
    """Refuse weights that are not finite.

    Args:
        sums: (networks, steps), of the synapses that each step has changed.
        lesson: what was learned from.

    Raises:
        Diverged: some are not; the step is the first of the network that is named.
    """
    lost = ~sums.isfinite()
    if not bool(lost.any()):
        return
    network, step = lost.nonzero()[0].tolist()
    raise Diverged(
        f"{NAME}: the synapses of seed {lesson.seeds[network]} are not finite after step {step + 1} of epoch "
        f"{lesson.epoch}; choose a smaller learning_rate, and inputs that are finite"
    )
