"""The update is PyTorch's, and it does not matter how networks are grouped, interrupted or resumed."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from unperturbed.data import Part, Split
from unperturbed.mechanisms.adversarial_training import adversarial_training
from unperturbed.models import build
from unperturbed.records import NotFinite, Recipe, Spec, SpecError
from unperturbed.tensors.streams import generator
from unperturbed.training import Diverged, State, begin, choose_vectorised, pack, train, unpack

NETWORKS = {
    "lenet": Spec(name="lenet"),
    "batch normalisation": Spec(name="resnet", settings={"depth": 8, "width": 4}),
    "fully connected": Spec(name="fully-connected", settings={"hidden": 16}),
}
EXACT = Recipe(epochs=4, batch_size=25, learning_rate=0.05, precision="float64")


@pytest.fixture(scope="module")
def split():
    numbers = generator("images")
    images = torch.randint(0, 256, (60, 3, 32, 32), generator=numbers).to(torch.uint8)
    return Split((Part(images, torch.randint(0, 10, (60,), generator=numbers)),))


def start(spec, seeds):
    networks = [build(spec, generator("weights", seed)) for seed in seeds]
    return networks[0], [begin(network) for network in networks]


def assert_same(left: State, right: State, *, atol: float) -> None:
    assert left.weights.keys() == right.weights.keys()
    for name, value in left.weights.items():
        torch.testing.assert_close(value, right.weights[name], rtol=0, atol=atol)
    for name, value in left.momentum.items():
        torch.testing.assert_close(value, right.momentum[name], rtol=0, atol=atol)


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_joint_and_single_training_give_the_same_weights(split, spec):
    network, states = start(spec, [0, 1, 2])
    joint = train(network, states, split, EXACT, seeds=[0, 1, 2], until=3)
    for seed, state in enumerate(states):
        (alone,) = train(network, [state], split, EXACT, seeds=[seed], until=3)
        assert_same(joint[seed], alone, atol=1e-12)  # float64; 9 steps amplify rounding by less than 1e4
        assert joint[seed].loss == pytest.approx(alone.loss, rel=1e-12)
    assert any((value != states[0].weights[name]).any() for name, value in joint[0].weights.items())


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_the_update_is_that_of_a_plain_loop(split, spec):
    network, states = start(spec, [7])
    (ours,) = train(network, states, split, EXACT, seeds=[7], until=3)

    theirs = build(spec, generator("weights", 7)).double().train()
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in (1, 2, 3):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 if epoch <= 2 else 0.005  # divided by 10 after half of 4 epochs
        rows = split.draw(generator("order", 7, epoch))
        for batch in rows.split(25):
            optimiser.zero_grad()
            F.cross_entropy(theirs(split.images(batch).double()), split.labels(batch)).backward()
            optimiser.step()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.weights[name], value, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_course_cut_anywhere_and_resumed_from_bytes_ends_in_the_same_bits(split, seeds):
    network, states = start(NETWORKS["batch normalisation"], seeds)
    whole = train(network, states, split, EXACT, seeds=seeds, until=2)

    class Cut(Exception):
        pass

    for cut in (1, 3, 4, 5):  # three steps an epoch
        kept = []

        def on_step(present, cut=cut, kept=kept):
            if present()[0].step == cut:
                kept.append(pack(present()))
                raise Cut

        with pytest.raises(Cut):
            train(network, states, split, EXACT, seeds=seeds, until=2, on_step=on_step)
        resumed = train(network, unpack(kept[0]), split, EXACT, seeds=seeds, until=2)
        for left, right in zip(whole, resumed, strict=True):
            assert_same(left, right, atol=0)
            assert left.loss == right.loss


def test_each_seed_has_its_own_order_which_does_not_depend_on_the_data(split):
    first = split.draw(generator("order", 0, 1))
    assert not torch.equal(first, split.draw(generator("order", 1, 1)))
    assert not torch.equal(first, split.draw(generator("order", 0, 2)))
    other = Split((Part(255 - split.parts[0].images, split.parts[0].labels),))
    assert torch.equal(first, other.draw(generator("order", 0, 1)))


@pytest.mark.parametrize(("rate", "step"), [(1e300, 2), (1e100, 3)])
def test_divergence_is_an_error_that_names_seed_epoch_and_the_first_step(split, rate, step):
    network, states = start(NETWORKS["fully connected"], [3])
    recipe = EXACT.model_copy(update={"learning_rate": rate})
    finite = [True]

    def on_step(present):
        finite.append(all(bool(each.isfinite().all()) for each in present()[0].weights.values()))

    with pytest.raises(Diverged) as caught:
        train(network, states, split, recipe, seeds=[3], until=2, on_step=on_step)
    said = f"Training diverged: the loss of seed 3 is not finite after epoch 1, from step {step} on."
    assert str(caught.value) == said
    assert finite == [number < step for number in range(4)]  # the weights are lost by that step, too


def test_of_networks_that_train_together_the_one_that_is_lost_is_named(split):
    network, states = start(NETWORKS["fully connected"], [4, 3])
    next(iter(states[1].weights.values())).fill_(float("nan"))
    with pytest.raises(Diverged) as caught:
        train(network, states, split, EXACT, seeds=[4, 3], until=1)
    assert str(caught.value) == "Training diverged: the loss of seed 3 is not finite after epoch 1, from step 1 on."


def test_weights_that_the_last_step_has_lost_are_no_trained_network(split):
    network, states = start(NETWORKS["fully connected"], [3])
    recipe = EXACT.model_copy(update={"learning_rate": 1e300, "weight_decay": 1e300, "batch_size": 60})
    with pytest.raises(Diverged) as caught:
        train(network, states, split, recipe, seeds=[3], until=1)
    assert str(caught.value) == "Training diverged: the weights of seed 3 are not finite after step 1."


def test_no_seeds_and_unequal_steps_are_refused(split):
    network, states = start(NETWORKS["fully connected"], [0, 1])
    with pytest.raises(SpecError, match=r"got 0 seeds for 2 networks"):
        train(network, states, split, EXACT, seeds=[], until=1)
    ahead = train(network, states[:1], split, EXACT, seeds=[0], until=1)
    with pytest.raises(SpecError, match=r"must stand at the same step, got \[3, 0\]"):
        train(network, [ahead[0], states[1]], split, EXACT, seeds=[0, 1], until=2)


def test_bfloat16_is_refused_without_cuda(split):
    network, states = start(NETWORKS["fully connected"], [0])
    with pytest.raises(SpecError, match=r"precision bfloat16 needs a CUDA device, got cpu"):
        train(network, states, split, EXACT.model_copy(update={"precision": "bfloat16"}), seeds=[0], until=1)


def test_the_form_is_chosen_by_device_and_network():
    small = build(NETWORKS["fully connected"], generator("weights", 0))
    assert choose_vectorised(small, torch.device("cpu"))
    assert not choose_vectorised(build(NETWORKS["lenet"], generator("weights", 0)), torch.device("cpu"))
    assert choose_vectorised(build(NETWORKS["lenet"], generator("weights", 0)), torch.device("cuda"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_cuda_trains_as_the_cpu_does(split, precision):
    recipe = EXACT.model_copy(update={"precision": precision})
    network, states = start(NETWORKS["lenet"], [0, 1])
    there = train(network, states, split, recipe, seeds=[0, 1], until=2, device="cuda")
    here = train(network, states, split, EXACT, seeds=[0, 1], until=2)
    # rounding of the precision, amplified over 6 steps
    tolerance = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 5e-2}[precision]
    for left, right in zip(there, here, strict=True):
        for name, value in left.weights.items():
            torch.testing.assert_close(value.double(), right.weights[name].double(), rtol=0, atol=tolerance)


ADAM = EXACT.model_copy(update={"optimiser": "adam", "schedule": ((0.25, 0.5), (0.5, 0.1))})


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_adam_with_a_schedule_is_that_of_a_plain_loop(split, spec):
    network, states = start(spec, [7])
    (ours,) = train(network, states, split, ADAM, seeds=[7], until=3)

    theirs = build(spec, generator("weights", 7)).double().train()
    optimiser = torch.optim.Adam(theirs.parameters(), lr=0.05, weight_decay=5e-4)
    for epoch, factor in ((1, 1.0), (2, 0.5), (3, 0.1)):  # after a quarter and a half of 4 epochs
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * factor
        for batch in split.draw(generator("order", 7, epoch)).split(25):
            optimiser.zero_grad()
            F.cross_entropy(theirs(split.images(batch).double()), split.labels(batch)).backward()
            optimiser.step()
    for name, value in theirs.state_dict().items():
        # float64; Adam divides by the root of its second average, which amplifies the rounding of small gradients
        torch.testing.assert_close(ours.weights[name], value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_adam_goes_on_from_bytes_to_the_same_bits(split, seeds):
    network, states = start(NETWORKS["batch normalisation"], seeds)
    whole = train(network, states, split, ADAM, seeds=seeds, until=2)
    kept = []

    def on_step(present):
        if present()[0].step == 4:
            kept.append(pack(present()))

    train(network, states, split, ADAM, seeds=seeds, until=2, on_step=on_step)
    resumed = train(network, unpack(kept[0]), split, ADAM, seeds=seeds, until=2)
    for left, right in zip(whole, resumed, strict=True):
        assert_same(left, right, atol=0)


def test_a_long_gradient_is_shortened_for_each_network_by_itself(split):
    recipe = EXACT.model_copy(update={"clip": 0.01, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 60})
    network, states = start(NETWORKS["fully connected"], [0, 1])
    joint = train(network, states, split, recipe, seeds=[0, 1], until=1)
    for seed, state in enumerate(states):
        (alone,) = train(network, [state], split, recipe, seeds=[seed], until=1)
        moved = [(alone.weights[name] - state.weights[name].double()).flatten() for name in state.weights]
        assert float(torch.cat(moved).norm()) == pytest.approx(0.05 * 0.01, rel=1e-9)  # rate times longest gradient
        assert_same(joint[seed], alone, atol=1e-13)


def test_a_classifier_that_is_not_finite_inside_an_attack_is_a_divergence(split):
    network, states = start(NETWORKS["lenet"], [3])

    def attack(name, network, images, labels, seed, **settings):
        raise NotFinite("classifier: expected finite logits; got nan for 25 of 25 images")

    mechanism = adversarial_training(eps=0.1, steps=1)
    with pytest.raises(Diverged, match=r"seed 3, step 1: classifier: expected finite logits; got nan for 25 of 25"):
        train(network, states, split, EXACT, seeds=[3], until=1, mechanism=mechanism, attack=attack)
