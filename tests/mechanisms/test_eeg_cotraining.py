import copy
import re

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from unperturbed import mechanisms, models
from unperturbed.data import Part, Split
from unperturbed.mechanisms import NOTHING, Tools
from unperturbed.mechanisms.eeg_controls import control
from unperturbed.mechanisms.eeg_cotraining import (
    CONFIGURATIONS,
    LOGGED,
    last_shared,
    predicted_responses,
    training_log,
)
from unperturbed.records import Recipe, Spec, SpecError
from unperturbed.tensors.streams import generator
from unperturbed.training import begin, train

SHAPE = (3, 8)  # channels and times
SMALL = {"width": 8, "channels": 3, "times": 8}
TINY = Spec(name="resnet", settings={"depth": 8, "width": 4})


def eight(dtype=torch.float32):
    """Eight images with responses that say nothing else of them."""
    draws = generator("eight")
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=draws).to(torch.uint8)
    return Split((Part(images, torch.arange(8)),), responses=torch.randn(8, 1, *SHAPE, generator=draws, dtype=dtype))


def built(**settings):
    return mechanisms.build([Spec(name="eeg-cotraining", settings={**SMALL, **settings})])


def network_for(mechanism, model=TINY, seed=0):
    network = models.build(model, generator("weights", seed))
    mechanism.install(network)
    mechanism.settle(network, seed)
    return network


def trained(mechanism, network, epochs=1, precision="float64", split=None, **recipe):
    settings = {"batch_size": 8, "learning_rate": 0.05, "precision": precision, **recipe}
    (state,) = train(
        network,
        [begin(network)],
        split or eight(),
        Recipe(epochs=epochs, **settings),
        seeds=[0],
        until=epochs,
        mechanism=mechanism,
    )
    return state


def step(mechanism, network, split=None, *, fresh=True):
    """Return the objective of a step on all images, and the two losses that it is made of."""
    split = split or eight()
    rows = split.fixed()
    images, labels = split.images(rows).double(), split.labels(rows)
    tools = Tools(lambda *_: None, 0, NOTHING.attacked, fresh=fresh, responses=split.recorded(rows)[:, 0])
    seen = []

    def loss(network, images, labels):
        seen.append(F.cross_entropy(network(images), labels, reduction="none"))
        return seen[-1]

    before = copy.deepcopy(network)
    losses = mechanism.objective(loss, tools)(network, images, labels)
    error = (predicted_responses(before, images) - split.responses[:, 0]).square().mean(dim=(1, 2))
    return losses, seen[0], error


def test_there_are_24_architectures_and_each_has_its_name():
    assert len(CONFIGURATIONS) == 24
    assert len({tuple(settings.items()) for settings in CONFIGURATIONS.values()}) == 24
    assert CONFIGURATIONS["rnn-project-and-mean-all"] == {
        "predictor": "rnn",
        "integration": "project-and-mean",
        "taps": "all",
    }


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_architecture_predicts_responses_that_differ_between_images_and_times(name):
    network = network_for(built(**CONFIGURATIONS[name])).eval()
    split = eight()
    predicted = predicted_responses(network, split.images(split.fixed()))
    assert predicted.shape == (8, *SHAPE)
    assert (predicted.std(dim=0) > 1e-5).all()
    moved = predicted - predicted.mean(dim=0)  # what the image decides must differ between times
    assert (moved[:, :, 0] - moved[:, :, 4]).abs().max() > 1e-6


@pytest.mark.parametrize("predictor", ["dense", "rnn", "transformer", "attention"])
def test_every_predictor_overfits_eight_images(predictor):
    """Of responses that are noise of variance 1, so that the best constant has an error of about 1."""
    mechanism = built(predictor=predictor, width=32, every=50)
    network = network_for(mechanism)
    trained(mechanism, network, epochs=100, precision="float32", learning_rate=0.01, optimiser="adam", weight_decay=0.0)
    log = training_log(network)
    assert log["cotraining_squared_error"] < 0.05
    assert log["cotraining_cross_entropy"] < 0.05


@pytest.mark.parametrize(("depth", "stages"), [(8, 3), (10, 4), (18, 4), (50, 4)])
def test_it_finds_the_stages_of_every_residual_network(depth, stages):
    mechanism = built(taps="all", integration="project-and-mean")
    network = models.outline(Spec(name="resnet", settings={"depth": depth}))
    mechanism.install(network)
    project = network.eeg.integration.project
    expansion = 4 if depth == 50 else 1
    assert [layer.in_features for layer in project] == [64 * expansion * 2**stage for stage in range(stages)]
    assert project[-1].in_features == network.fc.in_features
    kernel = last_shared(network)
    assert kernel.shape[0] == network.fc.in_features
    assert all(parameter.is_meta for parameter in network.parameters())


def test_the_features_of_the_last_stage_are_what_the_readout_has():
    mechanism = built(shared=True)
    network = network_for(mechanism).eval()
    seen = {}
    network.fc.register_forward_pre_hook(lambda _, arguments: seen.update(readout=arguments[0]))
    network.eeg.predictor.register_forward_pre_hook(lambda _, arguments: seen.update(predictor=arguments[0]))
    split = eight()
    predicted_responses(network, split.images(split.fixed()))
    assert torch.equal(seen["readout"], seen["predictor"])


def test_the_objective_is_the_weighted_sum_of_both_losses():
    mechanism = built(delta1=0.7, delta2=3.0, taps="all")
    losses, entropy, error = step(mechanism, network_for(mechanism).double())
    torch.testing.assert_close(losses, 0.7 * entropy + 3.0 * error, rtol=0, atol=1e-12)  # float64


def test_uncertainty_is_its_equation_and_its_deltas_learn_where_it_is_least():
    mechanism = built(balance="uncertainty", delta1=0.5, delta2=2.0)
    network = network_for(mechanism).double()
    losses, entropy, error = step(mechanism, network)
    # the logarithms of the deltas were rounded to float32
    torch.testing.assert_close(losses, entropy / 0.25 + error / 8, rtol=1e-6, atol=0)  # log 0.5 + log 2 = 0
    losses.mean().backward()
    by_logarithms = torch.stack([1 - 2 * entropy.mean() / 0.25, 1 - error.mean() / 4])
    torch.testing.assert_close(network.eeg.log_deltas.grad, by_logarithms.detach(), rtol=1e-6, atol=0)
    assert network.eeg.log_deltas.decays is False
    moved = copy.deepcopy(network)
    trained(mechanism, moved, epochs=3)
    assert not torch.equal(moved.eeg.log_deltas, network.eeg.log_deltas)


def test_gradnorm_makes_both_gradients_equal_and_keeps_that_of_the_classifier():
    mechanism = built(balance="gradnorm", delta1=0.5, delta2=4.0, taps="all", every=2)
    network = network_for(mechanism).double()
    losses, entropy, _ = step(mechanism, network)
    weight = last_shared(network)
    (classifier,) = torch.autograd.grad(0.5 * entropy.mean(), weight, retain_graph=True)
    (whole,) = torch.autograd.grad(losses.mean(), weight)
    torch.testing.assert_close((whole - classifier).norm(), classifier.norm(), rtol=1e-9, atol=0)  # float64
    log = training_log(network)
    assert log["cotraining_gradient_classifier"] == pytest.approx(float(classifier.norm()), rel=1e-9)
    assert log["cotraining_gradient_eeg"] == pytest.approx(float(classifier.norm()), rel=1e-9)
    kept = network.eeg.balance.clone()
    with torch.no_grad():
        network.fc.weight.mul_(3)
    step(mechanism, network, fresh=False)
    assert torch.equal(network.eeg.balance, kept)  # the second step of two
    step(mechanism, network, fresh=False)
    assert not torch.equal(network.eeg.balance, kept)


def test_a_fixed_balance_leaves_the_gradients_as_the_deltas_have_them():
    lengths = []
    for delta2 in (1.0, 4.0):
        network = network_for(built(delta2=delta2)).double()
        step(built(delta2=delta2), network)
        lengths.append(training_log(network))
    assert lengths[1]["cotraining_gradient_eeg"] == pytest.approx(4 * lengths[0]["cotraining_gradient_eeg"], rel=1e-9)
    assert lengths[1]["cotraining_gradient_classifier"] == lengths[0]["cotraining_gradient_classifier"]
    assert lengths[1]["cotraining_cosine"] == lengths[0]["cotraining_cosine"]


def test_the_log_has_the_means_of_the_epoch_and_starts_anew_with_the_next():
    mechanism = built(delta2=2.0, every=1)
    network = network_for(mechanism).double()
    assert list(training_log(network)) == list(LOGGED)
    assert all(value != value for value in training_log(network).values())
    weight = last_shared(network)
    entropies, errors, lengths, cosines = [], [], [], []
    for fresh in (True, False):
        losses, entropy, error = step(mechanism, network, fresh=fresh)
        (first,) = torch.autograd.grad(entropy.mean(), weight, retain_graph=True)
        (second,) = torch.autograd.grad((losses - entropy).mean(), weight)
        entropies.append(entropy.mean().item())
        errors.append(error.mean().item())
        lengths.append((first.norm().item(), second.norm().item()))
        cosines.append(F.cosine_similarity(first.flatten(), second.flatten(), dim=0).item())
        with torch.no_grad():
            network.fc.weight.mul_(2)
    expected = [sum(entropies), sum(errors), *map(sum, zip(*lengths, strict=True)), sum(cosines)]
    assert list(training_log(network).values()) == pytest.approx([value / 2 for value in expected], rel=1e-9)
    _, entropy, _ = step(mechanism, network)
    assert training_log(network)["cotraining_cross_entropy"] == pytest.approx(entropy.mean().item(), rel=1e-9)


def test_without_the_second_loss_the_weights_are_those_of_no_mechanism():
    plain = models.build(TINY, generator("weights", 0))
    alone = trained(NOTHING, plain, epochs=3).weights
    mechanism = built(delta2=0.0, predictor="transformer", taps="all")
    network = network_for(mechanism)
    weights = trained(mechanism, network, epochs=3).weights
    for name, value in alone.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=0)
    assert training_log(network)["cotraining_gradient_eeg"] == 0
    assert training_log(network)["cotraining_cosine"] != 0
    other = network_for(built(delta2=1.0))
    assert not torch.equal(trained(built(delta2=1.0), other, epochs=3).weights["fc.weight"], alone["fc.weight"])


def test_the_branch_goes_and_the_logits_stay():
    mechanism = built(taps="all")
    network = network_for(mechanism)
    trained(mechanism, network, epochs=2, precision="float32")
    network.eval()
    split = eight()
    images = split.images(split.fixed())
    before = network(images)
    mechanism.finish(network)
    assert torch.equal(network(images), before)
    assert list(network.state_dict()) == list(models.outline(TINY).state_dict())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())
    with pytest.raises(SpecError, match="expected a network with its EEG branch, got one without, as it is deployed"):
        training_log(network)


def test_the_branch_draws_its_weights_from_the_seed_and_leaves_the_others():
    before = torch.get_rng_state()
    plain = models.build(TINY, generator("weights", 0)).state_dict()
    for predictor in ("dense", "rnn", "transformer", "attention"):
        first, again = (network_for(built(predictor=predictor)).state_dict() for _ in range(2))
        other = network_for(built(predictor=predictor), seed=1).state_dict()
        for name, value in first.items():
            assert torch.equal(value, again[name])
            assert torch.equal(value, plain[name]) if name in plain else name.startswith("eeg.")
        matrices = [name for name, value in first.items() if name.startswith("eeg.") and value.ndim >= 2]
        assert not any(torch.equal(first[name], other[name]) for name in matrices)
        assert all(first[name].std() > 0 for name in matrices)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_stops_and_goes_on_to_the_same_weights():
    mechanism = built(balance="gradnorm", predictor="rnn", every=3)
    split = eight()
    recipe = Recipe(epochs=4, batch_size=2, learning_rate=0.01)
    found = []
    for stops in ((4,), (1, 4)):
        network = network_for(mechanism)
        states = [begin(network)]
        for until in stops:
            states = train(network, states, split, recipe, seeds=[0], until=until, mechanism=mechanism)
        found.append(states[0].weights)
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_is_trained_on_what_it_draws_for_itself_and_goes_on_with_the_same(seed):
    """The weights are those of a network whose data carry the responses that it draws, of the person of its seed."""
    split = eight()
    people = torch.stack([split.responses[:, 0], split.responses[:, 0] * 2 + 1], dim=1)
    both = Split(split.parts, responses=people)
    paired = control(people[:, seed], split.parts[0].labels, seed, kind="shuffled")
    assert not torch.equal(paired, people[:, seed])
    found = []
    for kind, given, stops in (
        ("real", Split(split.parts, responses=paired[:, None]), (4,)),
        ("shuffled", both, (4,)),
        ("shuffled", both, (1, 3, 4)),
        ("real", both, (4,)),
    ):
        mechanism = built(responses=kind, delta2=5.0)
        network = network_for(mechanism, seed=seed)
        states = [begin(network)]
        for until in stops:
            recipe = Recipe(epochs=4, batch_size=3, learning_rate=0.01)
            states = train(network, states, given, recipe, seeds=[seed], until=until, mechanism=mechanism)
        found.append(states[0].weights)
    for other in found[1:3]:
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())
    assert not torch.equal(found[3]["fc.weight"], found[0]["fc.weight"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"delta1": 0.0}, "eeg-cotraining: delta1 must be above 0, got 0"),
        ({"delta2": -1.0}, "eeg-cotraining: expected delta2 of at least 0, got -1"),
        (
            {"delta2": 0.0, "balance": "gradnorm"},
            "eeg-cotraining: expected delta2 above 0, since gradnorm divides by it or by its gradient, got 0",
        ),
        ({"width": 6}, "eeg-cotraining: width must be a multiple of 4, got 6"),
        (
            {"shared": True, "taps": "all"},
            "eeg-cotraining: a shared predictor reads the last vector as it is, with taps 'last' and integration "
            "'concat'; got 'all' and 'concat'",
        ),
        ({"predictor": "cnn"}, "eeg-cotraining: predictor must be 'dense' or 'rnn' or 'transformer' or 'attention'"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings, says):
    with pytest.raises(SpecError, match=f"^{re.escape(says)}"):
        built(**settings)


def test_wrong_networks_and_data_are_refused_in_one_line():
    mechanism = built()
    with pytest.raises(SpecError, match=r"^eeg-cotraining: expected the model resnet, got LeNet$"):
        mechanism.install(models.outline(Spec(name="lenet")))
    network = network_for(mechanism)
    with pytest.raises(SpecError, match=r"ResNet has an EEG branch already: name the mechanism once$"):
        mechanism.install(network)
    with pytest.raises(SpecError, match=r"expected data with recorded responses, got none; train on simulated-eeg"):
        trained(mechanism, network, split=Split(eight().parts))
    others = Split(eight().parts, responses=torch.zeros(8, 1, 4, 231))
    with pytest.raises(SpecError, match=r"expected responses of 3 channels and 8 times, got \(4, 231\); set channels"):
        trained(mechanism, network, split=others)
