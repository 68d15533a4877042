"""Variants of planted defences: the right one is found, judged by the deployed classifier, and honest nets have none."""

import copy
import functools
import random
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from sklearn.datasets import load_digits
from torch import nn

from unperturbed.audit.coherence import coherence, margin_gradient
from unperturbed.audit.knobs import knobs, modules_in, pass_over, picture_layers, turn, turned
from unperturbed.audit.variants import Found, find

DIGITS = load_digits()
IMAGES = torch.tensor(DIGITS.images / 16, dtype=torch.float32).unsqueeze(1)
LABELS = torch.tensor(DIGITS.target)
STEP = 0.1


class Network(nn.Module):
    """Two layers after whatever stands in front."""

    def __init__(self, front=None, activation=None):
        super().__init__()
        self.front = front or nn.Identity()
        self.hidden = nn.Linear(64, 60)
        self.activation = activation or nn.ReLU()
        self.last = nn.Linear(60, 10)

    def forward(self, images):
        return self.last(self.activation(self.hidden(self.front(images).flatten(1))))


def trained(network, epochs=4, rate=5e-3, size=1500):
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(epochs):
        for rows in torch.randperm(size, generator=generator).split(100):
            optimiser.zero_grad()
            F.cross_entropy(network(IMAGES[rows]), LABELS[rows]).backward()
            optimiser.step()
    for parameter in network.parameters():
        parameter.grad = None
    return network.eval()


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    return trained(Network())


@pytest.fixture(scope="module")
def test_set():
    return IMAGES[1500:1548], LABELS[1500:1548]


class Stochastic(nn.Module):
    """Pairs of channels compete; noise decides with them. Written by hand, as it is published."""

    def __init__(self):
        super().__init__()
        self.temperature = 0.67

    def forward(self, h):
        pairs = h.view(len(h), h.shape[1] // 2, 2, *h.shape[2:])
        uniform = torch.rand_like(pairs)
        noise = -torch.log(-torch.log(uniform + 1e-20) + 1e-20)
        winners = torch.softmax((pairs + noise) / self.temperature, dim=2)
        return (winners * pairs).reshape(h.shape)


@pytest.fixture(scope="module")
def stochastic():
    """Twelve layers, trained at temperature 0.67, deployed at 0.01."""
    torch.manual_seed(0)
    layers = []
    for number in range(12):
        first = number == 0
        convolution = nn.Conv2d(1 if first else 16, 16, 3, padding=1, stride=2 if first else 1)
        layers += [convolution, nn.BatchNorm2d(16), Stochastic()]
    network = trained(nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10)), epochs=6, rate=3e-3)
    for layer in network.modules():
        if isinstance(layer, Stochastic):
            layer.temperature = 0.01
    return network


@pytest.fixture(scope="module")
def found_in_stochastic(stochastic, test_set) -> Found:
    return find(stochastic, *test_set, step=STEP)


def accuracy(classifier, images, labels, draws=8):
    with torch.no_grad():
        return sum(float((classifier(images).argmax(1) == labels).float().mean()) for _ in range(draws)) / draws


def attacked(through, deployed, images, labels, steps=10):
    """Return the accuracy of ``deployed`` on images found through another classifier, in a ball of radius 0.15."""
    adversarial = images
    for _ in range(steps):
        moved = adversarial + 0.03 * margin_gradient(through, adversarial, labels)[1].sign()
        adversarial = (images + (moved - images).clamp(-0.15, 0.15)).clamp(0, 1)
    return accuracy(deployed, adversarial, labels)


# Stochastic winners: the case that must fall


def test_the_deployed_gradient_of_stochastic_winners_is_noise(stochastic, test_set):
    deployed = coherence(stochastic, *test_set)
    assert abs(deployed.sign_agreement - deployed.chance) < 3 * deployed.standard_error
    assert not deployed.coherent
    assert abs(deployed.cosine) < 0.02


def test_a_smooth_variant_of_stochastic_winners_is_found_and_breaks_them(stochastic, test_set, found_in_stochastic):
    best = found_in_stochastic.variants[0]
    assert best.coherence.sign_agreement > 0.45
    assert best.coherence.cosine > 0.4
    assert best.clean_accuracy > 0.7
    assert any(word in best.name for word in ("temperature", "wide softmax"))
    torch.manual_seed(0)
    own, smooth = (attacked(each, stochastic, *test_set) for each in (stochastic, best.classifier))
    assert own > 0.45
    assert smooth < own - 0.25


def test_temperature_one_with_the_expectation_is_among_the_variants(found_in_stochastic):
    names = [variant.name for variant in found_in_stochastic.variants]
    assert "temperature = 1 + expectation" in names
    chosen = found_in_stochastic.variants[names.index("temperature = 1 + expectation")]
    assert chosen.coherence.deterministic
    assert "temperature = 1 in place of 0.01" in chosen.says
    # Noise-free at the deployed temperature is coherent too, and of little use: the step along its gradient says so.
    assert chosen.after < found_in_stochastic.deployed.after - 0.1
    assert names.index("temperature = 1 + expectation") < names.index("expectation")


def test_the_deployed_network_is_as_before(stochastic, found_in_stochastic):
    assert all(layer.temperature == 0.01 for layer in stochastic.modules() if isinstance(layer, Stochastic))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in stochastic.parameters())


def test_a_temperature_in_the_code_is_no_knob_and_is_made_wide(test_set):
    class Fixed(Stochastic):
        def forward(self, h):
            pairs = h.view(len(h), -1, 2)
            return (F.softmax((pairs - torch.empty_like(pairs).exponential_().log()) / 0.01, dim=2) * pairs).flatten(1)

    torch.manual_seed(0)
    soft = trained(Network(activation=Stochastic()))
    soft.activation = Fixed()
    found = find(soft, *test_set, step=STEP)
    assert "wide softmax" in found.variants[0].name
    assert "expectation" in [variant.name for variant in found.variants]


# Other planted defences: name of the first variant, and that its gradient is the one of the network behind


def quantised(images):
    return (images * 255).round() / 255


def under_no_grad(images):
    with torch.no_grad():
        return (images * 2 - 1 + 1) / 2


def through_numpy(images):
    return torch.from_numpy(np.clip(images.detach().numpy(), 0, 1))


class Front(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


def behind(plain, front):
    network = copy.deepcopy(plain)
    network.front = Front(front)
    return network


@pytest.mark.parametrize("front", [quantised, under_no_grad, through_numpy, torch.detach])
def test_a_stopped_gradient_passes(plain, test_set, front):
    found = find(behind(plain, front), *test_set, step=STEP)
    assert found.deployed.coherence.zero_fraction == 1
    variant = found.variants[0]
    assert variant.name == "straight-through"
    assert variant.kind == "gradient"
    assert variant.clean_accuracy == found.deployed.clean_accuracy
    images, labels = test_set
    gradient = margin_gradient(variant.classifier, images, labels)[1]
    torch.testing.assert_close(gradient, margin_gradient(plain, front(images), labels)[1])
    assert variant.after < found.deployed.after - 0.2


def blocks(images):
    """The rounding of a JPEG: coefficients of the cosine transform in steps of 0.35."""
    place = torch.arange(8.0)
    matrix = torch.cos(torch.pi * (place + 0.5) * place.view(-1, 1) / 8) / 2
    matrix[0] /= 2**0.5
    coefficients = matrix @ images @ matrix.T
    return (matrix.T @ ((coefficients / 0.35).round() * 0.35) @ matrix).clamp(0, 1)


BINS = torch.linspace(0, 1, 9)


@pytest.mark.parametrize(
    "front",
    [
        blocks,
        lambda x: (x * 8).floor() / 8,
        lambda x: (x * 8).byte().float() / 8,
        lambda x: (x.unsqueeze(-1) > BINS[1:-1]).float().mean(-1),
        lambda x: BINS[(x.unsqueeze(-1) - BINS).abs().argmin(-1)],
    ],
)
def test_what_quantises_falls_to_a_straight_through_variant(plain, test_set, front):
    deployed = behind(plain, front)
    found = find(deployed, *test_set, step=STEP)
    assert found.variants[0].after < found.deployed.after - 0.1
    after = [attacked(variant.classifier, deployed, *test_set) for variant in found.variants]
    assert min(after) < accuracy(deployed, *test_set) - 0.3
    assert attacked(deployed, deployed, *test_set) > accuracy(deployed, *test_set) - 0.05


class Winners(nn.Module):
    """The k largest of a layer are kept."""

    def __init__(self, ratio, by_index):
        super().__init__()
        self.ratio, self.by_index = ratio, by_index

    def forward(self, h):
        values, index = h.topk(int(self.ratio * h.shape[1]), dim=1)
        if self.by_index:
            return torch.zeros_like(h).scatter_(1, index, 1.0) * h
        return h * (h >= values[:, -1:]).float()


@pytest.mark.parametrize("by_index", [False, True])
def test_the_largest_k_get_variants_with_soft_masks(test_set, by_index):
    torch.manual_seed(0)
    deployed = trained(Network(activation=Winners(0.2, by_index)))
    found = find(deployed, *test_set, step=STEP)
    assert found.seen.stops == (("topk",) if by_index else ("ge",))
    assert {"straight-through", "straight-through + relaxed"} <= {variant.name for variant in found.variants}
    exact = [variant for variant in found.variants if "relaxed" not in variant.name]
    assert {"straight-through", "straight-through + width 0.3"} <= {variant.name for variant in exact}
    for variant in exact:
        assert torch.equal(variant.classifier(test_set[0]), deployed(test_set[0]))


def test_noise_is_taken_out_exactly(plain, test_set):
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.sigma = 0.2

        def forward(self, images):
            return images + self.sigma * torch.randn_like(images)

    deployed = copy.deepcopy(plain)
    deployed.front = Noise()
    found = find(deployed, *test_set, step=STEP)
    assert found.seen.samples == ("randn_like",)
    names = [variant.name for variant in found.variants]
    assert "expectation" in names
    chosen = found.variants[names.index("expectation")]
    assert torch.equal(chosen.classifier(test_set[0]), plain(test_set[0]))
    assert chosen.coherence.deterministic
    assert ("sigma = 0 + expectation", "the same as: expectation") in found.dropped
    assert ("Noise off", "the same gradient as: expectation") in found.dropped


def test_dropout_that_is_on_is_random_and_one_that_is_off_is_nothing(test_set):
    torch.manual_seed(0)
    network = trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 60), nn.ReLU(), nn.Dropout(0.5), nn.Linear(60, 10)))
    assert find(network, *test_set, step=STEP).variants == ()
    network[3].train()
    found = find(network, *test_set, step=STEP)
    expectation = next(variant for variant in found.variants if variant.name == "expectation")
    assert torch.equal(expectation.classifier(test_set[0]), copy.deepcopy(network).eval()(test_set[0]))
    assert network[3].training


@pytest.mark.parametrize("squash", [lambda z: (40 * z).softmax(1), lambda z: torch.log((40 * z).softmax(1) + 1e-12)])
def test_probabilities_that_underflow_are_taken_before_the_softmax(plain, test_set, squash):
    def deployed(images):
        return squash(plain(images))

    found = find(deployed, *test_set, step=STEP)
    assert found.deployed.coherence.zero_fraction > 0.2
    assert found.variants[0].name == "before the softmax"
    assert torch.equal(found.variants[0].classifier(test_set[0]), 40 * plain(test_set[0]))


def test_double_precision_is_a_variant_of_a_module_whose_gradient_vanishes(plain, test_set):
    class Confident(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = copy.deepcopy(plain)

        def forward(self, images):
            return (20 * self.network(images)).softmax(dim=1)

    deployed = Confident()
    found = find(deployed, *test_set, step=STEP)
    variant = next(variant for variant in found.variants if variant.kind == "precision")
    assert variant.classifier(test_set[0]).dtype == torch.float64
    assert variant.coherence.zero_fraction < found.deployed.coherence.zero_fraction
    assert all(parameter.dtype == torch.float32 for parameter in deployed.parameters())


def test_a_network_that_attacks_itself_is_attacked_without_that(plain, test_set):
    class Purifying(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = copy.deepcopy(plain)

        def forward(self, images):
            moved = images.detach().clone().requires_grad_(True)
            with torch.enable_grad():
                logits = self.network(moved)
                loss = F.cross_entropy(logits, logits.argmax(dim=1))
            (gradient,) = torch.autograd.grad(loss, moved)
            return self.network((moved - 0.05 * gradient.sign()).clamp(0, 1).detach())

    found = find(Purifying(), *test_set, step=STEP)
    assert found.seen.optimises
    assert found.deployed.coherence.zero_fraction == 1
    names = [variant.name for variant in found.variants]
    assert "straight-through + no inner optimisation" in names
    chosen = found.variants[names.index("straight-through + no inner optimisation")]
    gradient = margin_gradient(chosen.classifier, *test_set)[1]
    torch.testing.assert_close(gradient, margin_gradient(plain, *test_set)[1])


def test_gradients_on_the_weights_are_put_back(plain, test_set):
    network = copy.deepcopy(plain)
    network.last.bias.grad = torch.ones(10)

    def deployed(images):
        with torch.enable_grad():
            network(images.detach()).sum().backward()
        return network(images)

    find(deployed, *test_set, step=STEP)
    assert torch.equal(network.last.bias.grad, torch.ones(10))
    assert network.hidden.weight.grad is None


def test_an_own_backward_pass_is_not_believed(plain, test_set):
    class Scrambled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images):
            return images.clone()

        @staticmethod
        def backward(ctx, gradient):
            return torch.randn_like(gradient)

    found = find(behind(plain, Scrambled.apply), *test_set, step=STEP)
    assert not found.deployed.coherence.coherent
    gradient = margin_gradient(found.variants[0].classifier, *test_set)[1]
    torch.testing.assert_close(gradient, margin_gradient(plain, *test_set)[1])


def test_a_vote_of_hard_decisions_is_differentiated(plain, test_set):
    def vote(images):
        noisy = [F.one_hot(plain(images + 0.1 * torch.randn_like(images)).argmax(1), 10) for _ in range(4)]
        return torch.stack(noisy).sum(dim=0).float()

    found = find(vote, *test_set, step=STEP)
    assert not found.seen.differentiable
    assert found.variants[0].kind == "both"
    assert found.variants[0].after < found.deployed.after - 0.2


def test_a_layer_that_can_only_be_passed_over_is(plain, test_set):
    class Foreign(nn.Module):
        """A table lookup in Python: nothing leads back."""

        def forward(self, images):
            levels = [[round(number * 8) / 8 for number in image.flatten().tolist()] for image in images]
            return torch.tensor([number for image in levels for number in image]).view_as(images)

    deployed = copy.deepcopy(plain)
    deployed.front = Foreign()
    found = find(deployed, *test_set, step=STEP)
    names = [variant.name for variant in found.variants]
    assert "Foreign passed over" in names
    chosen = found.variants[names.index("Foreign passed over")]
    assert torch.equal(chosen.classifier(test_set[0]), deployed(test_set[0]))
    assert "forward" not in vars(deployed.front)


# Honest networks


class Scaled(nn.Module):
    """An honest network with numbers to turn."""

    def __init__(self, network):
        super().__init__()
        self.network, self.logit_scale = network, nn.Parameter(torch.tensor(3.0))
        self.slope, self.mean, self.std = nn.PReLU(), 0.3, 0.5

    def forward(self, images):
        return self.logit_scale * self.slope(self.network((images - self.mean) / self.std))


def honest():
    convolutional = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3)]
    return {
        "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        "relu": Network,
        "convolutional": lambda: nn.Sequential(*convolutional, nn.Flatten(), nn.Linear(128, 10)),
        "with numbers": lambda: Scaled(Network()),
        "gelu": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.GELU(), nn.LayerNorm(40), nn.Linear(40, 10)),
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", honest())
def test_an_honest_network_has_no_variants(name, seed, test_set):
    torch.manual_seed(seed)
    network = trained(honest()[name]())
    found = find(network, *test_set, step=STEP, seed=seed)
    assert found.variants == ()
    assert found.deployed.coherence.deterministic
    assert find(lambda x: network(x.clamp(0, 1)), *test_set, step=STEP).variants == ()


# How candidates are judged


def test_given_surrogates_are_tested_like_all_others(plain, test_set):
    deployed = behind(plain, quantised)
    named = {"the same": deployed, "as it is behind": plain, "constant": lambda x: torch.zeros(len(x), 10)}
    found = find(deployed, *test_set, given=named, step=STEP)
    assert [variant.name for variant in found.variants] == ["as it is behind"]
    assert found.variants[0].kind == "given"
    reasons = dict(found.dropped)
    assert reasons["the same"] == "the same gradient as: the model itself"
    assert reasons["constant"].startswith("its clean accuracy is 0.")
    assert reasons["straight-through"] == "the same gradient as: as it is behind"
    assert find(deployed, *test_set, given=plain, step=STEP).variants[0].name == "the given surrogate"


def test_a_surrogate_that_is_noise_fails_or_tells_nothing_is_dropped_with_the_reason(plain, test_set):
    class Scrambled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images):
            return images.clone()

        @staticmethod
        def backward(ctx, gradient):
            return torch.randn_like(gradient)

    def fails(images):
        raise ArithmeticError("no logits today\nand more")

    named = {
        "noise": lambda x: plain(Scrambled.apply(x)),
        "fails": fails,
        "no gradient": lambda x: plain(x.detach()),
        "infinite": lambda x: plain(x) / 0,
    }
    found = find(plain, *test_set, given=named, step=STEP)
    reasons = dict(found.dropped)
    assert found.variants == ()
    assert reasons["noise"].startswith("its gradients are noise: sign agreement 0.17")
    assert reasons["fails"] == "fails: ArithmeticError: no logits today"
    assert reasons["no gradient"] == "its gradient is 0 for every image"
    assert reasons["infinite"] == "its logits are not finite"


def test_the_best_by_one_step_comes_first(found_in_stochastic):
    after = [round(variant.after, 3) for variant in found_in_stochastic.variants]
    assert after == sorted(after)
    assert after[0] < after[-1]


def test_no_more_variants_than_asked_for(plain, test_set):
    named = {}
    for seed in range(1, 5):
        torch.manual_seed(seed)
        named[str(seed)] = trained(Network())
    found = find(plain, *test_set, given=named, step=STEP, limit=3)
    assert len(found.variants) == 3
    assert [reason for _, reason in found.dropped] == ["more than 3 are worth an attack"]


def test_a_classifier_that_cannot_be_differentiated_has_variants(plain, test_set):
    def deployed(images):
        return torch.from_numpy(plain(images).numpy())  # refused by PyTorch while there is a gradient

    found = find(deployed, *test_set, step=STEP)
    assert found.deployed.coherence.zero_fraction == 1
    assert found.variants[0].name == "straight-through"


def test_the_search_is_the_same_whatever_was_drawn_before_and_disturbs_nothing(plain, test_set):
    deployed = behind(plain, lambda x: quantised(x + 0.1 * torch.randn_like(x) + 0.01 * random.random()))

    def summary():
        found = find(deployed, *test_set, step=STEP)
        return [(each.name, each.after, each.clean_accuracy, each.coherence) for each in found.variants], found.dropped

    first = summary()
    torch.rand(5)
    random.random()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    images = test_set[0].clone()
    assert summary() == first
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(images, test_set[0])
    assert all(parameter.grad is None for parameter in deployed.parameters())


# Knobs

HARDNESS = 3.0


class Tunable(nn.Module):
    momentum_of_class = 1.0
    tau = 0.5

    def __init__(self):
        super().__init__()
        self.temperature, self.bits, self.enabled, self.kernel_size = 0.01, 8, True, 3
        self.scale = nn.Parameter(torch.tensor([2.0]))
        self.register_buffer("sigma", torch.tensor(0.5))
        self.settings = types.SimpleNamespace(strength=4.0, label="x")
        self.table = {"gain": 5.0, "rows": [1, 2]}
        self.drop = nn.Dropout(0.25)

    def forward(self, images, steepness=7.0):
        numbers = [self.temperature, self.bits, self.scale, self.sigma, self.settings.strength, self.table["gain"]]
        return images.flatten(1).sum(1, keepdim=True) * sum(numbers) * steepness * HARDNESS * self.tau


def by_name(classifier):
    return {knob.name: knob for knob in knobs(classifier)}


def test_every_number_is_found_and_structure_is_not():
    network = Tunable().eval()
    found = by_name(network)
    assert {"temperature", "tau", "bits", "scale", "sigma", "strength", "gain", "steepness", "HARDNESS"} == set(found)
    assert found["scale"].values == (2.0,)
    assert list(found)[:2] in (["temperature", "tau"], ["tau", "temperature"])
    network.drop.train()
    assert by_name(network)["p"].values == (0.25,)


@pytest.mark.parametrize(
    "name", ["temperature", "tau", "bits", "scale", "sigma", "strength", "gain", "steepness", "HARDNESS"]
)
def test_a_turned_knob_acts_and_is_put_back(name):
    network = Tunable().eval()
    images = torch.ones(2, 1, 2, 2)
    before, parameters = network(images), list(network.parameters())
    knob = by_name(network)[name]
    for to in knob.turns():
        assert not torch.equal(turn(network, knob, to)(images), before)
    with pytest.raises(ZeroDivisionError), turned(knob, knob.turns()[0]):
        raise ZeroDivisionError
    assert torch.equal(network(images), before)
    assert all(one is other for one, other in zip(network.parameters(), parameters, strict=True))
    assert "tau" not in vars(network)


def test_a_graph_keeps_the_value_it_was_made_with():
    network = Tunable()
    images = torch.ones(1, 1, 2, 2, requires_grad=True)
    knob = by_name(network)["scale"]
    output = turn(network, knob, next(to for to in knob.turns() if to.label == "x 10"))(images)
    (gradient,) = torch.autograd.grad(output.sum(), images)
    torch.testing.assert_close(gradient, torch.full_like(images, float(output.detach()) / 4))


def test_knobs_of_one_name_turn_together():
    network = nn.Sequential(Tunable(), Tunable())
    network[1].temperature = 0.1
    knob = by_name(network)["temperature"]
    assert knob.values == (0.01, 0.1)
    with turned(knob, next(to for to in knob.turns() if to.label == "= 1")):
        assert (network[0].temperature, network[1].temperature) == (1.0, 1.0)
    with turned(knob, next(to for to in knob.turns() if to.label == "x 10")):
        assert (network[0].temperature, network[1].temperature) == (0.1, 1.0)
    assert (network[0].temperature, network[1].temperature) == (0.01, 0.1)


def test_a_temperature_is_tried_near_one_first_and_never_where_it_is():
    labels = [to.label for to in by_name(Tunable())["temperature"].turns()]
    assert labels == ["= 1", "= 0.67", "= 0.1", "x 0.1"]  # x 10 and x 100 are 0.1 and 1


def test_knobs_are_found_through_what_a_callable_holds():
    network = Tunable()
    loudness = 3.0

    def closure(images):
        return network(images) * loudness

    assert {"temperature", "loudness"} <= set(by_name(closure))
    assert "temperature" in by_name(functools.partial(closure))
    assert "temperature" in by_name(network.forward)
    assert network in modules_in(lambda x: closure(x))
    images = torch.ones(1, 1, 2, 2)
    knob = by_name(closure)["loudness"]
    torch.testing.assert_close(turn(closure, knob, knob.turns()[1])(images), 10 * closure(images))
    assert loudness == 3.0


def test_layers_that_keep_the_shape_of_a_picture_are_found_and_passed_over(plain, test_set):
    deployed = behind(plain, quantised)
    assert picture_layers(deployed, test_set[0]) == [deployed.front]
    without = pass_over(deployed, deployed.front, forwards=True)
    assert torch.equal(without(test_set[0]), plain(test_set[0]))
    exact = pass_over(deployed, deployed.front, forwards=False)
    assert torch.equal(exact(test_set[0]), deployed(test_set[0]))
    assert bool((margin_gradient(exact, *test_set)[1] != 0).any())
