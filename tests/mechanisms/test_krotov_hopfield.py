"""Local learning: the rule's properties, and our program against a plain transcription of the equations."""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from unperturbed.mechanisms import Diverged, Lesson
from unperturbed.mechanisms.krotov_hopfield import krotov_hopfield
from unperturbed.mechanisms.spherical_kmeans import spherical_kmeans
from unperturbed.models.hidden_layer import HiddenLayerNet, Synapses
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

UNITS, WIDTH = 12, 20
EXACT = {"rtol": 1e-10, "atol": 1e-12}  # float64, through a root and a power once per epoch


def _network(mechanism, seed=0, units=UNITS, width=WIDTH, dtype=torch.float64):
    network = HiddenLayerNet(units, 3, 0.0, grey=True)
    network.hidden = Synapses(width, units)
    network.to(dtype)
    mechanism.install(network)
    mechanism.learning.begin(network, seed)
    return network


def _inputs(n=30, width=WIDTH, order=3):
    inputs = torch.rand(n, width, generator=generator("inputs"), dtype=torch.float64)
    return inputs / torch.linalg.vector_norm(inputs, ord=order, dim=1, keepdim=True)


def _learn(mechanism, networks, inputs, epochs=None, first=1, seeds=None):
    for epoch in range(first, first + (epochs or mechanism.learning.epochs)):
        mechanism.learning.epoch(networks, Lesson(inputs, seeds or range(len(networks)), epoch, lambda _: None))


def _order(n, seed, epoch):
    return torch.randperm(n, generator=generator("order", seed, epoch)).numpy()


def _acting(W, p):
    return np.sign(W) * np.abs(W) ** (p - 1)


def _dense_batch(W, V, rate, *, p, k, delta, radius=1.0):
    """One step of the published minibatch form, as it is written: V has one column per input."""
    T = _acting(W, p) @ V
    order = np.argsort(T, axis=0)
    columns = np.arange(V.shape[1])
    G = np.zeros_like(T)
    G[order[-1], columns] = 1
    G[order[-k], columns] = -delta
    dW = radius**p * G @ V.T - (G * T).sum(axis=1)[:, None] * W
    return W + rate * dW / max(np.abs(dW).max(), 1e-30)


def _dense_input(W, v, rate, *, p, punished, delta, radius=1.0):
    """One step of the rule for one input; ``punished`` are ranks, 2 the runner-up."""
    current = _acting(W, p) @ v
    Q = current / (np.abs(W) ** p).sum(axis=1) ** ((p - 1) / p)
    order = np.argsort(Q)
    g = np.zeros(len(W))
    g[order[-1]] = 1
    g[[order[-rank] for rank in punished]] = -delta
    return W + rate * g[:, None] * (radius**p * v - current[:, None] * W)


@pytest.mark.parametrize(
    ("p", "k", "delta", "radius"), [(2, 2, 0.4, 1.0), (3, 7, 0.4, 1.0), (3, 2, 0.0, 1.5), (2.5, 12, 0.9, 0.8)]
)
def test_the_minibatch_form_is_the_published_one_step_by_step(p, k, delta, radius):
    mechanism = krotov_hopfield(p=p, k=k, delta=delta, radius=radius, learning_rate=0.03, epochs=40, batch_size=10)
    network, inputs = _network(mechanism), _inputs(10)
    expected = network.hidden.raw().numpy()
    for step in range(1, 41):  # an epoch is one step
        _learn(mechanism, [network], inputs, 1, first=step)
        rate = 0.03 * (1 - (step - 1) / 40)
        V = inputs.numpy()[_order(10, 0, step)].T
        expected = _dense_batch(expected, V, rate, p=p, k=k, delta=delta, radius=radius)
        np.testing.assert_allclose(network.hidden.raw().numpy(), expected, **EXACT)


def test_an_epoch_goes_through_all_inputs_in_the_order_of_its_seed_and_its_last_batch_may_be_short():
    mechanism = krotov_hopfield(k=3, batch_size=8, epochs=5)
    network, inputs, looked = _network(mechanism, seed=4), _inputs(30), []
    expected = network.hidden.raw().numpy()
    for epoch in (1, 2):
        mechanism.learning.epoch([network], Lesson(inputs, [4], epoch, looked.append))
        order = _order(30, 4, epoch)
        for first in range(0, 30, 8):
            V = inputs.numpy()[order[first : first + 8]].T
            expected = _dense_batch(expected, V, 0.02 * (1 - (epoch - 1) / 5), p=3, k=3, delta=0.4)
    np.testing.assert_allclose(network.hidden.raw().numpy(), expected, **EXACT)
    assert looked == [8, 8, 8, 6] * 2


@pytest.mark.parametrize("punished", ["kth", "up-to-kth"])
def test_the_sequential_form_is_the_rule_for_one_input_after_the_other(punished):
    mechanism = krotov_hopfield(k=5, form="sequential", punished=punished, learning_rate=0.01, epochs=4, radius=1.2)
    network, inputs = _network(mechanism), _inputs(15)
    expected = network.hidden.raw().numpy()
    ranks = [5] if punished == "kth" else [2, 3, 4, 5]
    for epoch in (1, 2, 3):
        _learn(mechanism, [network], inputs, 1, first=epoch)
        for row in _order(15, 0, epoch):
            rate = 0.01 * (1 - (epoch - 1) / 4)
            expected = _dense_input(expected, inputs[row].numpy(), rate, p=3, punished=ranks, delta=0.4, radius=1.2)
    np.testing.assert_allclose(network.hidden.raw().numpy(), expected, **EXACT)


@pytest.mark.parametrize("form", ["minibatch", "sequential"])
def test_both_readings_of_k_agree_for_the_runner_up_and_differ_for_lower_ranks(form):
    """The published sequential code punishes ranks 2 to k, the published fast one rank k alone."""

    def learned(k, punished):
        mechanism = krotov_hopfield(k=k, punished=punished, form=form, epochs=2, batch_size=10)
        network = _network(mechanism)
        _learn(mechanism, [network], _inputs())
        return network.hidden.raw()

    assert torch.equal(learned(2, "kth"), learned(2, "up-to-kth"))
    assert (learned(7, "kth") - learned(7, "up-to-kth")).abs().max() > 1e-3


def test_norms_of_winners_go_to_the_radius_and_those_of_the_punished_away_from_it():
    r"""d/dt sum |W|^p = (p / tau) g I (R^p - sum |W|^p), by a step of 1e-7 of the sequential form."""
    rate, p, radius, delta = 1e-7, 3.0, 1.3, 0.4
    mechanism = krotov_hopfield(p=p, k=2, delta=delta, radius=radius, form="sequential", learning_rate=rate, epochs=1)
    signs = set()
    for seed in range(20):
        network, v = _network(mechanism, seed), _inputs(20)[seed : seed + 1]
        network.hidden.put(network.hidden.raw() * (0.1 if seed % 2 else 1))  # norms below and above R
        before, currents = network.hidden.raw(), network.hidden(v)[0].detach()
        norms = before.abs().pow(p).sum(dim=1)
        Q = currents / norms ** ((p - 1) / p)
        g = torch.zeros(UNITS, dtype=torch.float64)
        g[Q.topk(2).indices] = torch.tensor([1.0, -delta], dtype=torch.float64)
        _learn(mechanism, [network], v)
        speed = (network.hidden.raw().abs().pow(p).sum(dim=1) - norms) / rate
        expected = p * g * currents * (radius**p - norms)
        torch.testing.assert_close(speed, expected, rtol=1e-4, atol=1e-4)  # second order in the step
        signs |= {(float(a.sign()), float(b.sign())) for a, b in zip(g, expected, strict=True) if a}
    assert signs == {(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)}


def _clusters():
    """Five well-separated directions in R^20, 60 unit vectors around each."""
    random = generator("clusters")
    centres = torch.randn(5, WIDTH, generator=random, dtype=torch.float64)
    noise = 0.03 * torch.randn(300, WIDTH, generator=random, dtype=torch.float64)
    return F.normalize(F.normalize(centres, dim=1).repeat(60, 1) + noise, dim=1)


@pytest.mark.parametrize("p", [2.0, 3.0])
@pytest.mark.parametrize("delta", [0.0, 0.4])
def test_winners_end_at_the_fixed_point_and_the_others_do_not(p, delta):
    """W is in proportion to the sum of what a unit won less Delta times what it was punished for, at norm R."""
    mechanism = krotov_hopfield(p=p, k=2, delta=delta, epochs=300, batch_size=60)
    inputs = _clusters()
    networks = [_network(mechanism, seed, units=8) for seed in (0, 1)]
    _learn(mechanism, networks, inputs)
    dead = 0
    for network in networks:
        synapses = network.hidden.raw()
        ranked = network.hidden(inputs).topk(2, dim=1).indices
        won, runner_up = (F.one_hot(ranked[:, j], 8).double().T @ inputs for j in (0, 1))
        wins = F.one_hot(ranked[:, 0], 8).sum(dim=0) > 0
        fixed = (won - delta * runner_up)[wins]
        assert F.cosine_similarity(synapses[wins], fixed).min() > 0.999
        norms = torch.linalg.vector_norm(synapses, ord=p, dim=1)
        assert (norms[wins] - 1).abs().max() < 0.01
        assert ((norms[~wins] - 1).abs() > 0.01).all()  # what never wins stays away
        dead += int((~wins).sum())
        share = mechanism.learning.facts(network)["converged_units"]
        assert share == wins.double().mean()
    assert dead


def test_without_punishment_and_with_the_usual_product_it_is_spherical_k_means():
    inputs = _clusters()
    ours = krotov_hopfield(p=2.0, k=2, delta=0.0, epochs=300, batch_size=60)
    network = _network(ours, seed=1, units=8)
    _learn(ours, [network], inputs)
    wins = F.one_hot(network.hidden(inputs).argmax(dim=1), 8).sum(dim=0) > 0
    ends = network.hidden.raw()[wins]
    kmeans = spherical_kmeans(epochs=1)
    other = HiddenLayerNet(len(ends), 3, 0.0, grey=True).double()
    other.hidden = Synapses(WIDTH, len(ends)).double()
    kmeans.install(other)
    other.hidden.put(ends)
    _learn(kmeans, [other], inputs, 1, first=2)  # one iteration of Lloyd from there
    torch.testing.assert_close(other.hidden.raw(), ends, rtol=0, atol=5e-3)  # the rate falls to 0.02 / 300


def test_currents_of_unit_synapses_and_unit_inputs_lie_between_minus_one_and_one():
    mechanism = krotov_hopfield()
    network = _network(mechanism)
    synapses = network.hidden.raw()
    synapses /= torch.linalg.vector_norm(synapses, ord=3, dim=1, keepdim=True)
    network.hidden.put(synapses)
    signed = torch.randn(2000, WIDTH, generator=generator("signed"), dtype=torch.float64)
    currents = network.hidden(signed / torch.linalg.vector_norm(signed, ord=3, dim=1, keepdim=True))
    assert 0.5 < currents.abs().max() <= 1
    torch.testing.assert_close(network.hidden(synapses).diagonal(), torch.ones(UNITS, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("form", ["minibatch", "sequential"])
def test_who_wins_and_who_is_punished_does_not_depend_on_the_length_of_the_input(form):
    mechanism = krotov_hopfield(k=4, form=form, epochs=1, batch_size=1)

    def changed(v):
        network = _network(mechanism)
        before = network.hidden.raw()
        _learn(mechanism, [network], v)
        return (network.hidden.raw() - before).abs().amax(dim=1) > 1e-12

    for v in _inputs(8):
        assert changed(v[None]).sum() == 2
        for scale in (1e-3, 0.5, 40.0):
            assert torch.equal(changed(scale * v[None]), changed(v[None]))


@pytest.mark.parametrize("form", ["minibatch", "sequential"])
@pytest.mark.parametrize("punished", ["kth", "up-to-kth"])
def test_matched_networks_learn_together_as_they_do_one_by_one(form, punished):
    mechanism = krotov_hopfield(k=4, form=form, punished=punished, epochs=3, batch_size=9)
    together = [_network(mechanism, seed) for seed in (3, 5, 6)]
    _learn(mechanism, together, _inputs(), seeds=[3, 5, 6])
    for seed, network in zip((3, 5, 6), together, strict=True):
        alone = _network(mechanism, seed)
        _learn(mechanism, [alone], _inputs(), seeds=[seed])
        torch.testing.assert_close(network.hidden.weight, alone.hidden.weight, **EXACT)
    assert not torch.equal(together[0].hidden.weight, together[1].hidden.weight)


@pytest.mark.parametrize("form", ["minibatch", "sequential"])
def test_all_rows_at_once_as_on_a_gpu_learn_the_same(form, monkeypatch):
    mechanism = krotov_hopfield(k=3, form=form, epochs=2, batch_size=9)
    few, every = ([_network(mechanism, seed) for seed in (0, 1)] for _ in range(2))
    _learn(mechanism, few, _inputs())
    monkeypatch.setattr(
        inspect.getmodule(krotov_hopfield), "_distinct", lambda rows, count: (torch.arange(count), rows)
    )
    _learn(mechanism, every, _inputs())
    for one, other in zip(few, every, strict=True):
        torch.testing.assert_close(one.hidden.weight, other.hidden.weight, **EXACT)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_learns_the_same_every_time_and_what_the_cpu_learns():
    mechanism = krotov_hopfield(k=3, epochs=2, batch_size=9)

    def learned(device):
        networks = [_network(mechanism, seed).to(device) for seed in (0, 1)]
        _learn(mechanism, networks, _inputs().to(device))
        return torch.stack([network.hidden.weight.cpu() for network in networks])

    torch.testing.assert_close(learned("cuda"), learned("cpu"), **EXACT)
    assert torch.equal(learned("cuda"), learned("cuda"))


def test_the_rate_falls_linearly_and_is_the_largest_change_of_a_synapse():
    mechanism = krotov_hopfield(learning_rate=0.05, epochs=5, batch_size=30)
    network = _network(mechanism)
    for epoch in range(1, 6):
        before = network.hidden.raw()
        _learn(mechanism, [network], _inputs(), 1, first=epoch)
        change = (network.hidden.raw() - before).abs().max().item()
        assert change == pytest.approx(0.05 * (1 - (epoch - 1) / 5), rel=1e-9)


def test_first_synapses_are_normal_and_belong_to_the_seed():
    mechanism = krotov_hopfield()
    first = _network(mechanism, seed=2, units=60, width=500).hidden.raw()
    assert abs(first.mean()) < 4 / 30000**0.5  # standard errors
    assert abs(first.std() - 1) < 4 / 60000**0.5
    expected = torch.randn(60, 500, generator=generator("synapses", 2)).double()
    torch.testing.assert_close(first, expected, rtol=1e-6, atol=0)  # single precision, through a square
    assert not torch.equal(first, _network(mechanism, seed=3, units=60, width=500).hidden.raw())


def test_in_single_precision_it_learns_the_same_to_rounding():
    mechanism = krotov_hopfield(k=4, epochs=2, batch_size=9)
    single = [_network(mechanism, seed, dtype=torch.float32) for seed in (0, 1)]
    double = [_network(mechanism, seed) for seed in (0, 1)]
    _learn(mechanism, single, _inputs().float())
    _learn(mechanism, double, _inputs())
    for one, other in zip(single, double, strict=True):
        assert one.hidden.weight.dtype == torch.float32
        # 8 steps of 0.02 / max; a rounding of 1e-7 of the changes, of weights up to 10
        torch.testing.assert_close(one.hidden.weight.double(), other.hidden.weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("form", "step"), [("minibatch", 2), ("sequential", 14)])
def test_synapses_that_are_lost_are_reported_with_seed_epoch_and_step(form, step, dtype):
    mechanism = krotov_hopfield(form=form, epochs=3, batch_size=8, learning_rate=1e-3)
    network, inputs = _network(mechanism, 9, dtype=dtype), _inputs().to(dtype)
    before = network.hidden.weight.clone()
    inputs[_order(30, 9, 2)[13], 5] = float("nan")  # input 14 of the epoch, in its second batch of 8
    with pytest.raises(Diverged) as caught:
        _learn(mechanism, [network], inputs, 1, first=2, seeds=[9])
    assert str(caught.value) == (
        f"krotov-hopfield: the synapses of seed 9 are not finite after step {step} of epoch 2; choose a smaller "
        f"learning_rate, and inputs that are finite"
    )
    assert torch.equal(network.hidden.weight, before)


def test_the_network_that_is_lost_is_the_one_that_is_named():
    mechanism = krotov_hopfield(form="sequential", epochs=1)
    networks = [_network(mechanism, seed) for seed in (4, 7, 9)]
    networks[1].hidden.put(1e60 * networks[1].hidden.raw())  # its square, times its length, leaves float64
    with pytest.raises(Diverged, match=r"the synapses of seed 7 are not finite after step \d+ of epoch 1"):
        _learn(mechanism, networks, _inputs(), seeds=[4, 7, 9])


def test_a_rate_that_is_too_large_is_noticed():
    mechanism = krotov_hopfield(form="sequential", learning_rate=1e3, epochs=1)
    with pytest.raises(Diverged, match="not finite after step"):
        _learn(mechanism, [_network(mechanism)], _inputs(300))


def test_the_facts_are_counted_on_the_synapses():
    mechanism = krotov_hopfield(radius=2.0)
    network = _network(mechanism, units=5, width=8)
    unit = torch.full((8,), 2.0 / 8 ** (1 / 3), dtype=torch.float64)  # norm 2, mean 1
    network.hidden.put(torch.stack([unit, 1.004 * unit, 1.006 * unit, -1.02 * unit, -0.9 * unit]))
    assert mechanism.learning.facts(network) == {"converged_units": 0.4, "negative_units": 0.2}


def test_the_layer_is_frozen_and_the_readout_is_not():
    mechanism = krotov_hopfield()
    network = _network(mechanism)
    assert mechanism.frozen
    assert [name for name, each in network.named_parameters() if each.requires_grad] == [
        "readout.weight",
        "readout.bias",
    ]
    assert network.hidden.p == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p": 1.0}, "krotov-hopfield: p must be above 1, got 1"),
        ({"p": 0.5}, "krotov-hopfield: p must be above 1, got 0.5"),
        ({"p": float("nan")}, "krotov-hopfield: p must be above 1, got nan"),
        ({"k": 1}, "krotov-hopfield: k must be at least 2, the runner-up, got 1"),
        ({"delta": -0.1}, "krotov-hopfield: delta must be at least 0, got -0.1"),
        ({"delta": float("nan")}, "krotov-hopfield: delta must be at least 0, got nan"),
        ({"radius": 0.0}, "krotov-hopfield: radius must be above 0, got 0"),
        ({"learning_rate": float("nan")}, "krotov-hopfield: learning_rate must be above 0, got nan"),
        ({"epochs": 0}, "krotov-hopfield: epochs must be above 0, got 0"),
        ({"batch_size": -3}, "krotov-hopfield: batch_size must be above 0, got -3"),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(SpecError, match=f"^{message}$"):
        krotov_hopfield(**settings)


def test_a_rank_below_the_last_unit_is_refused_when_the_network_is_known():
    with pytest.raises(SpecError, match=r"^krotov-hopfield: k must be at most the 12 units of the layer, got 13$"):
        _network(krotov_hopfield(k=13))
    with pytest.raises(SpecError, match=r"^krotov-hopfield: expected the model hidden-layer, got Linear$"):
        krotov_hopfield().install(torch.nn.Linear(3, 2))
