"""What every mechanism owes: it trains, is deployed, draws what it declares, and leaves no trace."""

import contextlib
import copy
import functools
import inspect
from itertools import permutations
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import nn

from unperturbed import mechanisms, models
from unperturbed.attacks import ATTACKS
from unperturbed.data import Part, Split, load
from unperturbed.mechanisms import MECHANISMS, NOTHING, Lesson, Mechanism, Tools, Traits, compose
from unperturbed.mechanisms.contract import ATTACKS as ATTACKED
from unperturbed.mechanisms.contract import DRAWS, ONE_NETWORK
from unperturbed.mechanisms.installing import altered
from unperturbed.records import Recipe, Spec, SpecError
from unperturbed.tensors.streams import generator, undisturbed
from unperturbed.training import Codes, begin, choose_vectorised, train

RECIPE = Recipe(epochs=2, batch_size=65, learning_rate=0.01)
CASES = {name: Spec(name=name) for name in MECHANISMS} | {  # by default, and with what the defaults leave out
    "masks with their prior": Spec(name="indian-buffet", settings={"kl": 1e-3}),
    "weights with their prior": Spec(name="gaussian-weights", settings={"kl": 1e-3}),
    "weights drawn when deployed": Spec(name="gaussian-weights", settings={"deviation": 0.1, "deployed": True}),
    "winners with their divergence": Spec(name="winner-take-all", settings={"kl": 1e-3, "draws": 3}),
    "rectifiers with noise": Spec(name="winner-take-all", settings={"mode": "relu-noise"}),
    "noise in front of layers": Spec(name="noise-injection", settings={"where": "block-input"}),
    "one step, watched": Spec(name="fast-training", settings={"watch_every": 1}),
    "own answers": Spec(name="half-adversarial", settings={"own_answers": True}),
    "dropout when deployed": Spec(name="dropout", settings={"deployed": True}),
    "one input after the other": Spec(
        name="krotov-hopfield", settings={"form": "sequential", "epochs": 3, "learning_rate": 1e-4}
    ),
    "Jacobian as published": Spec(name="jacobian-regularisation", settings={"form": "published"}),
    "spectrum as published": Spec(name="spectral-regularisation", settings={"form": "published", "rank": 0}),
}
HIDDEN_LAYER = Spec(name="hidden-layer", settings={"hidden": 20})
ASKED = dict.fromkeys(  # the model that a mechanism asks for
    (
        "krotov-hopfield",
        "random-features",
        "spherical-kmeans",
        "rectified-power",
        "tanh-readout",
        "spectral-regularisation",
        "pruning",
        "one input after the other",
        "Jacobian as published",
        "spectrum as published",
    ),
    HIDDEN_LAYER,
)
ASKED["eeg-cotraining"] = Spec(name="resnet", settings={"depth": 8, "width": 4})


@functools.cache
def _digits():
    """The first 130 training images: two steps for an epoch."""
    (part,) = load(Spec(name="digits")).train.parts
    recorded = torch.randn(130, 1, 17, 100, generator=generator("responses"))
    return Split((Part(part.images[:130], part.labels[:130]),), responses=recorded)


def _attack(name, network, images, labels, seed, **settings):
    return ATTACKS[name](network, images, labels, seed, **settings)


def _network(mechanism, seed=0, name=None):
    network = models.build(ASKED.get(name, Spec(name="lenet")), generator("weights", seed))
    mechanism.install(network)
    return network


def _learn(mechanism, network, epochs, seed=0):
    """Let the hidden layer learn in these epochs, where the mechanism has a rule for it."""
    split = _digits()
    inputs = network.inputs(split.images(split.fixed()))
    for epoch in epochs:
        mechanism.learning.epoch([network], Lesson(inputs, [seed], epoch, lambda _: None))


def _prepared(mechanism, network):
    """Return what gradient descent trains and on what: of a frozen network the readout, on its codes."""
    if mechanism.learning is not None:
        mechanism.learning.begin(network, 0)
        _learn(mechanism, network, range(1, mechanism.learning.epochs + 1))
    mechanism.settle(network, 0)
    if not mechanism.frozen:
        return network, _digits()
    return network.readout, Codes(_digits(), network.code)


@functools.cache
def _trained(name, until=(2,)):
    mechanism = mechanisms.build([CASES[name]])
    network = _network(mechanism, name=name)
    trained, examples = _prepared(mechanism, network)
    states = [begin(trained)]
    for epoch in until:
        states = train(trained, states, examples, RECIPE, seeds=[0], until=epoch, mechanism=mechanism, attack=_attack)
    return mechanism, network, states[0]


@pytest.mark.parametrize("name", CASES)
def test_training_stops_and_goes_on_to_the_same_weights(name):
    at_once, in_two = _trained(name)[2], _trained(name, until=(1, 2))[2]
    for key, value in at_once.weights.items():
        torch.testing.assert_close(value, in_two.weights[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name, spec in CASES.items() if mechanisms.build([spec]).learning])
def test_learning_without_labels_stops_and_goes_on_to_the_same_weights(name):
    """All that it knows between two epochs is in the weights, and a network that it has not begun may take them."""
    mechanism = mechanisms.build([CASES[name]])
    at_once, first, second = (_network(mechanism, name=name) for _ in range(3))
    for network in (at_once, first):
        mechanism.learning.begin(network, 5)
    _learn(mechanism, at_once, (1, 2, 3), seed=5)
    _learn(mechanism, first, (1,), seed=5)
    second.load_state_dict(first.state_dict())
    _learn(mechanism, second, (2, 3), seed=5)
    assert torch.equal(at_once.hidden.weight, second.hidden.weight)
    assert not torch.equal(at_once.hidden.weight, first.hidden.weight)


@pytest.mark.parametrize("name", [name for name, spec in CASES.items() if mechanisms.build([spec]).frozen])
def test_a_frozen_layer_asks_for_no_gradient_and_its_readout_is_what_is_trained(name):
    _, network, state = _trained(name)
    assert [key for key, each in network.named_parameters() if each.requires_grad] == [
        f"readout.{key}" for key in state.weights
    ]
    assert all(torch.equal(value, network.readout.state_dict()[key]) for key, value in state.weights.items())


@pytest.mark.parametrize("name", CASES)
def test_a_mechanism_asks_for_a_model_in_one_line_or_takes_any(name):
    mechanism = mechanisms.build([CASES[name]])
    if name not in ASKED:
        _network(mechanism)
        return
    with pytest.raises(SpecError, match=f"^{CASES[name].name}: expected the model {ASKED[name].name}, got LeNet$"):
        _network(mechanism)


@pytest.mark.parametrize("name", CASES)
def test_randomness_is_what_it_declares(name):
    mechanism, network, _ = _trained(name)
    network = copy.deepcopy(network).eval()
    mechanism.finish(network)
    images = load(Spec(name="digits")).test
    images = images.images(images.fixed()[:20])
    equal = torch.equal(network(images), network(images))
    assert equal != mechanism.traits.random


@pytest.mark.parametrize("name", CASES)
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
    assert compose(NOTHING, named, NOTHING) is named
    assert compose(NOTHING, NOTHING) is NOTHING


def test_the_network_is_attacked_inside_and_is_afterwards_as_it_was():
    inside = []

    @contextlib.contextmanager
    def attacked(network):
        inside.append("in")
        yield
        inside.append("out")

    network = nn.Sequential(nn.Dropout())
    tools = Tools(_attack, 0, attacked)
    for mode in (True, False):
        network.train(mode)
        with tools.attacking(network):
            assert not network[0].training
            assert inside[-1] == "in"
        assert inside[-1] == "out"
        with contextlib.suppress(ZeroDivisionError), tools.attacking(network):
            raise ZeroDivisionError
        assert network[0].training is mode


def test_noise_of_a_step_belongs_to_a_word_and_to_the_seed_and_is_not_clipped():
    images = torch.rand(40, 3, 8, 8, generator=generator("images"))
    tools = Tools(_attack, 3, NOTHING.attacked)
    noise = torch.randn(images.shape, generator=generator("a word", 3))
    assert torch.equal(tools.noisy(images, "a word", 0.5), images + 0.5 * noise)
    assert not torch.equal(tools.noisy(images, "another", 0.5), images + 0.5 * noise)
    assert tools.noisy(images, "a word", 0.5).min() < 0


def test_the_later_mechanism_wraps_the_earlier_one():
    def scaled(by):
        return Mechanism(
            objective=lambda loss, _: lambda network, images, labels: loss(network, images, labels) * by + 1
        )

    tools = Tools(_attack, 0, NOTHING.attacked)
    loss = compose(scaled(2), scaled(10)).objective(lambda network, images, labels: torch.ones(1), tools)
    assert loss(None, None, None).item() == (1 * 2 + 1) * 10 + 1


def test_a_loss_of_its_own_is_what_others_wrap_in_any_order():
    """Adversarial training with smoothed labels: neither is lost, whichever is named first."""
    specs = [
        Spec(name="label-smoothing"),
        Spec(name="adversarial-training"),
        Spec(name="winner-take-all", settings={"kl": 0.1}),
    ]
    network = _network(mechanisms.build(specs[2:]))
    split = _digits()
    images, labels = split.images(split.fixed()[:10]), split.labels(split.fixed()[:10])
    found = []
    for order in permutations(specs):
        asked = []

        def attack(name, network, images, labels, seed, asked=asked, **settings):
            asked.append(name)
            return images

        mechanism = mechanisms.build(order)
        assert mechanism.own_loss
        with undisturbed("one draw"):
            loss = mechanism.objective(
                lambda *_: pytest.fail("the cross-entropy is replaced"), Tools(attack, 0, mechanism.attacked)
            )
            found.append(loss(network, images, labels))
        assert asked == ["pgd"]
    assert all(torch.equal(each, found[0]) for each in found)
    with undisturbed("one draw"):
        smoothed = F.cross_entropy(network(images), labels, reduction="none", label_smoothing=0.1)
    assert (found[0] > smoothed).all()  # by the divergence


def test_two_losses_of_their_own_are_refused():
    with pytest.raises(SpecError, match="mechanisms: expected one at most with a loss of its own, got 2"):
        mechanisms.build([Spec(name="label-smoothing"), Spec(name="label-smoothing")])


def test_the_network_is_attacked_in_evaluation_mode_and_gathers_no_gradient():
    seen = []

    def watch(name, network, images, labels, seed, **settings):
        seen.append((name, network.training, settings["eps"]))
        return _attack(name, network, images, labels, seed, **settings)

    mechanism = mechanisms.build([Spec(name="adversarial-training", settings={"steps": 2, "step_size": 0.02})])
    network = _network(mechanism).train()
    split = _digits()
    images, labels = split.images(split.fixed()[:10]), split.labels(split.fixed()[:10])
    worst = Tools(watch, 0, mechanism.attacked).worst(network, images, labels, "pgd", eps=0.03, steps=2)
    assert seen == [("pgd", False, 0.03)]
    assert network.training
    assert 0 < (worst - images).abs().max() <= 0.03 + 1e-6
    assert all(parameter.grad is None for parameter in network.parameters())


def test_an_objective_that_attacks_needs_an_attack():
    mechanism = mechanisms.build([Spec(name="adversarial-training")])
    network = _network(mechanism)
    split = _digits()
    with pytest.raises(SpecError, match="asks for the attack 'pgd'"):
        train(network, [begin(network)], split, RECIPE, seeds=[0], until=1, mechanism=mechanism)


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_mechanism_says_why_its_networks_train_one_by_one_and_they_do(name):
    """A network so small that without a mechanism many seeds train as one program."""
    model = ASKED.get(name, Spec(name="fully-connected", settings={"hidden": 8}))
    small = models.build(model, generator("weights", 0))
    device = torch.device(
        "cuda" if model.name == "resnet" else "cpu"
    )  # convolutions are joined there; nothing runs on it
    assert (choose_vectorised(small, device), NOTHING.alone) == (True, "")
    mechanism = mechanisms.build([Spec(name=name)])
    mechanism.install(small)
    assert choose_vectorised(small, device, mechanism) == (mechanism.alone == "")
    assert (DRAWS in mechanism.alone) >= mechanism.traits.random
    states = [begin(small), begin(small)]
    with pytest.raises(SpecError, match="one by one"):
        train(small, states, _digits(), RECIPE, seeds=[0, 1], until=1, mechanism=mechanism)


def test_a_mechanism_that_attacks_says_so():
    for name in MECHANISMS:
        asked = []

        def attack(name, network, images, labels, seed, asked=asked, **settings):
            asked.append(name)
            return images

        mechanism = mechanisms.build([Spec(name=name)])
        network = _network(mechanism, name=name)
        split = _digits()
        images, labels = split.images(split.fixed()[:4]), split.labels(split.fixed()[:4])
        for seed in range(10):  # so that a mixture takes each of its branches
            recorded = split.recorded(split.fixed()[:4])[:, 0]
            tools = Tools(attack, seed, mechanism.attacked, responses=recorded)
            mechanism.objective(lambda network, images, labels: network(images).sum(dim=1), tools)(
                network, images, labels
            )
        if asked:
            assert ATTACKED in mechanism.alone, name


def test_reasons_to_train_alone_are_collected():
    built = mechanisms.build([Spec(name="winner-take-all"), Spec(name="mixed-training"), Spec(name="label-smoothing")])
    assert built.alone.split("; ") == [DRAWS, ATTACKED, ONE_NETWORK]


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
    apart = {"__init__.py", "contract.py", "installing.py", "eeg_predictors.py", "eeg_controls.py"}
    assert {str(path) for path in folder.glob("*.py") if path.name not in apart} == listed


@pytest.mark.parametrize(
    "name",
    [
        "adversarial-training",
        "trades",
        "label-smoothing",
        "indian-buffet",
        "gaussian-weights",
        "dropout",
        "weight-penalty",
        "jacobian-regularisation",
        "spectral-regularisation",
        "tanh-readout",
    ],
)
def test_a_recipe_in_float64_trains_in_float64(name):
    mechanism = mechanisms.build([Spec(name=name)])
    network = _network(mechanism, name=name)
    recipe = Recipe(epochs=1, batch_size=130, precision="float64")
    split = _digits()
    (state,) = train(network, [begin(network)], split, recipe, seeds=[0], until=1, mechanism=mechanism, attack=_attack)
    assert all(value.dtype == torch.float64 for value in state.weights.values() if value.is_floating_point())
