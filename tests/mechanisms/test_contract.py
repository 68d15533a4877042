"""What every mechanism owes: it trains, is deployed, draws what it declares, and leaves no trace."""

import copy
import functools
import inspect
from pathlib import Path

import pytest
import torch

from unperturbed import mechanisms, models
from unperturbed.attacks import ATTACKS
from unperturbed.data import load
from unperturbed.mechanisms import MECHANISMS, NOTHING, Mechanism, Tools, Traits, compose
from unperturbed.mechanisms.installing import altered
from unperturbed.records import Recipe, Spec, SpecError
from unperturbed.tensors.streams import generator
from unperturbed.training import begin, train

RECIPE = Recipe(epochs=2, batch_size=325, learning_rate=0.01)


def _attack(name, network, images, labels, seed, **settings):
    return ATTACKS[name](network, images, labels, seed, **settings)


def _network(mechanism, seed=0):
    network = models.build(Spec(name="lenet"), generator("weights", seed))
    mechanism.install(network)
    return network


@functools.cache
def _trained(name, until=(2,)):
    mechanism = mechanisms.build([Spec(name=name)])
    network = _network(mechanism)
    states = [begin(network)]
    split = load(Spec(name="digits")).train
    for epoch in until:
        states = train(network, states, split, RECIPE, seeds=[0], until=epoch, mechanism=mechanism, attack=_attack)
    return mechanism, network, states[0]


@pytest.mark.parametrize("name", MECHANISMS)
def test_training_stops_and_goes_on_to_the_same_weights(name):
    at_once, in_two = _trained(name)[2], _trained(name, until=(1, 2))[2]
    for key, value in at_once.weights.items():
        torch.testing.assert_close(value, in_two.weights[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", MECHANISMS)
def test_randomness_is_what_it_declares(name):
    mechanism, network, _ = _trained(name)
    network = copy.deepcopy(network).eval()
    mechanism.finish(network)
    images = load(Spec(name="digits")).test
    images = images.images(images.fixed()[:20])
    equal = torch.equal(network(images), network(images))
    assert equal != mechanism.traits.random


@pytest.mark.parametrize("name", MECHANISMS)
def test_training_disturbs_no_global_generator_and_leaves_the_network_in_training_mode(name):
    before = torch.get_rng_state()
    _, network, _ = _trained.__wrapped__(name, until=(1,))
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training


def test_what_is_shared_with_the_undefended_network_starts_equal():
    plain = _network(NOTHING).state_dict()
    noisy = _network(mechanisms.build([Spec(name="noise-injection")])).state_dict()
    for name, value in plain.items():
        kept = noisy.get(name, noisy.get(name.replace(".weight", ".parametrizations.weight.original")))
        torch.testing.assert_close(kept, value, rtol=0, atol=0)


def test_nothing_composes_to_nothing():
    named = Mechanism(traits=Traits(random=True))
    assert compose() is NOTHING
    assert compose(named) is named
    assert compose(NOTHING, named, NOTHING).traits == named.traits


def test_the_later_mechanism_wraps_the_earlier_one():
    def scaled(by):
        return Mechanism(
            objective=lambda loss, _: lambda network, images, labels: loss(network, images, labels) * by + 1
        )

    tools = Tools(_attack, 0, NOTHING.attacked)
    loss = compose(scaled(2), scaled(10)).objective(lambda network, images, labels: torch.ones(1), tools)
    assert loss(None, None, None).item() == (1 * 2 + 1) * 10 + 1


def test_the_network_is_attacked_in_evaluation_mode_and_gathers_no_gradient():
    seen = []

    def watch(name, network, images, labels, seed, **settings):
        seen.append((name, network.training, settings["eps"]))
        return _attack(name, network, images, labels, seed, **settings)

    mechanism = mechanisms.build([Spec(name="adversarial-training", settings={"steps": 2, "step_size": 0.02})])
    network = _network(mechanism).train()
    split = load(Spec(name="digits")).train
    images, labels = split.images(split.fixed()[:10]), split.labels(split.fixed()[:10])
    worst = Tools(watch, 0, mechanism.attacked).worst(network, images, labels, "pgd", eps=0.03, steps=2)
    assert seen == [("pgd", False, 0.03)]
    assert network.training
    assert 0 < (worst - images).abs().max() <= 0.03 + 1e-6
    assert all(parameter.grad is None for parameter in network.parameters())


def test_an_objective_that_attacks_needs_an_attack():
    mechanism = mechanisms.build([Spec(name="adversarial-training")])
    network = _network(mechanism)
    split = load(Spec(name="digits")).train
    with pytest.raises(SpecError, match="asks for the attack 'pgd'"):
        train(network, [begin(network)], split, RECIPE, seeds=[0], until=1, mechanism=mechanism)


def test_networks_with_a_mechanism_train_one_by_one():
    mechanism = mechanisms.build([Spec(name="label-smoothing")])
    network = _network(mechanism)
    states = [begin(network), begin(network)]
    with pytest.raises(SpecError, match="one by one"):
        train(network, states, load(Spec(name="digits")).train, RECIPE, seeds=[0, 1], until=1, mechanism=mechanism)


def test_a_copy_is_altered_and_the_network_is_not():
    network = _network(mechanisms.build([Spec(name="winner-take-all")]))
    copy = altered(network, {"temperature": 1.5, "mode": "expected"})
    assert {layer.temperature for layer in copy.modules() if hasattr(layer, "temperature")} == {1.5}
    assert {layer.temperature for layer in network.modules() if hasattr(layer, "temperature")} == {0.67}
    with pytest.raises(SpecError, match="no layer of this network has an attribute 'temprature'"):
        altered(network, {"temprature": 1.0})


def test_every_file_of_the_folder_is_listed():
    folder = Path(inspect.getfile(mechanisms)).parent
    listed = {inspect.getmodule(function).__file__ for function in MECHANISMS.values()}
    apart = {"__init__.py", "contract.py", "installing.py"}
    assert {str(path) for path in folder.glob("*.py") if path.name not in apart} == listed


@pytest.mark.parametrize("name", ["adversarial-training", "trades", "label-smoothing"])
def test_a_recipe_in_float64_trains_in_float64(name):
    mechanism = mechanisms.build([Spec(name=name)])
    network = _network(mechanism)
    recipe = Recipe(epochs=1, batch_size=1300, precision="float64")
    split = load(Spec(name="digits")).train
    (state,) = train(network, [begin(network)], split, recipe, seeds=[0], until=1, mechanism=mechanism, attack=_attack)
    assert all(value.dtype == torch.float64 for value in state.weights.values())
