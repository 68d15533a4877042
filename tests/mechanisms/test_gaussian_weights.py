"""Weights that are drawn around a mean: their prior, how they are drawn, and what is left when they are deployed."""

import contextlib
import copy
import math

import pytest
import torch
from torch import nn

from unperturbed import mechanisms, models
from unperturbed.data import load
from unperturbed.mechanisms.gaussian_weights import GaussianWeight, divergence_of_weights, gaussian_weights
from unperturbed.mechanisms.indian_buffet import Mask
from unperturbed.mechanisms.installing import altered, kept_weight
from unperturbed.mechanisms.noise_injection import Noise
from unperturbed.records import Recipe, Spec, SpecError
from unperturbed.tensors.streams import generator, undisturbed
from unperturbed.training import begin, train

DRAWS = 200_000
POSTERIORS = [(0.0, 1.0), (0.3, 0.0067), (-2.0, 0.5), (1.0, 3.0)]


def _tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def _network(**settings):
    """A convolution of 4 x 3 x 3 x 3 weights and a full layer of 5 x 16, in float64."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator("gaussian", parameter.ndim)))
    mechanism = gaussian_weights(**settings)
    mechanism.install(network)
    return mechanism, network


def _gaussian(network):
    return [layer for layer in network.modules() if isinstance(layer, GaussianWeight)]


def _images(count=7):
    return torch.rand(count, 3, 4, 4, dtype=torch.float64, generator=generator("images"))


def _loss(network, images, _labels):
    return network(images).square().sum(dim=1)


def test_the_divergence_by_hand():
    """A half of 9 + 4 - 1, less log 2; of the standard normal distribution from itself, 0."""
    found = divergence_of_weights(_tensor(3, 0, 0), _tensor(2, 1, math.e))
    expected = _tensor(6 - math.log(2), 0, (math.e**2 - 1) / 2 - 1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_divergence_as_coded_by_hand_is_no_divergence():
    found = divergence_of_weights(_tensor(3, 0, 0), _tensor(2, 1, 0.5), as_coded=True)
    torch.testing.assert_close(found, _tensor(6 - 2, -1, -0.375 - 0.5), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mean", "deviation"), POSTERIORS)
def test_the_divergence_is_the_mean_of_the_ratio_of_densities(mean, deviation):
    posterior, prior = torch.distributions.Normal(*_tensor(mean, deviation)), torch.distributions.Normal(*_tensor(0, 1))
    noise = torch.randn(DRAWS, dtype=torch.float64, generator=generator("noise"))
    weights = mean + deviation * noise
    ratio = posterior.log_prob(weights) - prior.log_prob(weights)
    exact = divergence_of_weights(*_tensor(mean, deviation))
    error = 4 * ratio.std() / DRAWS**0.5  # 4 standard errors: 1 chance in 16,000
    assert (ratio.mean() - exact).abs() <= error + 1e-12  # of the rounding, where the ratio is always 0


def test_the_start_is_that_of_the_authors_around_the_weights_of_the_undefended_network():
    _, network = _network()
    before = kept_weight(network[0])
    assert torch.equal(before, torch.randn(before.shape, generator=generator("gaussian", 4)).double())
    for weight, layer in zip(_gaussian(network), (network[0], network[2]), strict=True):
        assert weight.rho.shape == kept_weight(layer).shape
        torch.testing.assert_close(weight.rho.detach(), torch.full_like(weight.rho, -5.0), rtol=1e-4, atol=0)
        assert weight.rho.decays is False
    assert not isinstance(network[0].bias, Mask)
    assert [name for name, _ in network.named_parameters() if "bias" in name] == ["0.bias", "2.bias"]


def test_a_weight_is_its_mean_with_noise_of_its_own_deviation():
    _, network = _network(deviation=0.5)
    (_, weight), mean = _gaussian(network), kept_weight(network[2])
    with torch.no_grad():
        weight.rho[0] = 2.0
    with undisturbed("drawn"):
        noise = torch.randn_like(mean)
    with undisturbed("drawn"):
        found = network[2].weight
    deviation = torch.full_like(mean, 0.5)
    deviation[0] = math.log1p(math.exp(2.0))
    torch.testing.assert_close(found, mean + deviation * noise, rtol=1e-12, atol=1e-12)


def test_draws_have_their_mean_and_deviation():
    weight = GaussianWeight(torch.full((DRAWS,), 3.0, dtype=torch.float64), 0.2, learned=True)
    with undisturbed("moments"):
        found = weight(torch.full((DRAWS,), 3.0, dtype=torch.float64)).detach()
    assert abs(found.mean().item() - 3) <= 4 * 0.2 / DRAWS**0.5
    assert abs(found.std().item() - 0.2) <= 4 * 0.2 / (2 * DRAWS) ** 0.5


@pytest.mark.parametrize("as_coded", [False, True])
@pytest.mark.parametrize("of", ["original", "rho"])
def test_the_loss_has_the_gradient_of_its_finite_differences(of, as_coded):
    mechanism, network = _network(kl=0.1, deviation=0.3, as_coded=as_coded)
    loss = mechanism.objective(_loss, None)

    def whole(network):
        with undisturbed("draw"):
            return loss(network, _images(), None).sum()

    (name, parameter) = next(
        each
        for each in network.named_parameters()
        if each[0].endswith(f"2.parametrizations.weight.{'0.' * (of == 'rho')}{of}")
    )
    way = torch.randn(parameter.shape, dtype=torch.float64, generator=generator("way"))
    (gradient,) = torch.autograd.grad(whole(network), parameter)
    values = []
    for by in (1e-6, -1e-6):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            moved.get_parameter(name).add_(by * way)
        values.append(whole(moved).item())
    assert (gradient * way).sum().item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)


def test_the_divergence_of_all_layers_enters_the_loss_of_every_image():
    mechanism, network = _network(kl=0.5)
    with undisturbed("step"):
        losses = mechanism.objective(_loss, None)(network, _images(), None)
    with undisturbed("step"):
        plain = _loss(network, _images(), None)
    parts = [
        divergence_of_weights(kept_weight(layer), weight.deviation())
        for layer, weight in zip((network[0], network[2]), _gaussian(network), strict=True)
    ]
    torch.testing.assert_close(losses, plain + 0.5 * (parts[0].sum() + parts[1].sum()))
    assert mechanism.objective(_loss, None) is not _loss
    assert gaussian_weights().objective(_loss, None) is _loss


def test_as_coded_the_mean_of_a_layer_enters_and_not_its_sum():
    mechanism, network = _network(kl=0.5, as_coded=True)
    with undisturbed("step"):
        losses = mechanism.objective(_loss, None)(network, _images(), None)
    with undisturbed("step"):
        plain = _loss(network, _images(), None)
    expected = sum(
        divergence_of_weights(kept_weight(layer), weight.deviation(), as_coded=True).mean()
        for layer, weight in zip((network[0], network[2]), _gaussian(network), strict=True)
    )
    torch.testing.assert_close(losses, plain + 0.5 * expected)


def test_the_prior_draws_means_to_0_and_deviations_to_1():
    mechanism, network = _network(kl=1.0, deviation=0.01)
    loss = mechanism.objective(lambda network, images, _: network(images).sum(dim=1) * 0, None)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(500):
        optimiser.zero_grad()
        loss(network, _images(1), None).sum().backward()
        optimiser.step()
    for layer, weight in zip((network[0], network[2]), _gaussian(network), strict=True):
        assert kept_weight(layer).abs().max() < 0.01
        torch.testing.assert_close(weight.deviation(), torch.ones_like(weight.rho), rtol=0, atol=0.01)


def test_a_deviation_below_its_limit_counts_as_the_limit_and_can_come_back():
    weight = GaussianWeight(torch.zeros(3), 0.01, learned=True)
    with torch.no_grad():
        weight.rho.fill_(-9.0)
    found = weight.deviation()
    torch.testing.assert_close(found, torch.full((3,), -7.0).exp().log1p())
    found.sum().backward()
    assert (weight.rho.grad > 0).all()


def test_two_draws_differ_seeded_ones_repeat_and_the_mode_changes_nothing():
    mechanism, network = _network(deployed=True)
    mechanism.finish(network)
    for mode in (True, False):
        network.train(mode)
        assert not torch.equal(network(_images()), network(_images()))
        answers = []
        for _ in range(2):
            with undisturbed("answer"):
                answers.append(network(_images()))
        assert torch.equal(*answers)


@pytest.mark.parametrize("deployed", [False, True])
def test_deployed_and_attacked_the_weights_are_means_unless_they_are_asked_to_be_drawn(deployed):
    mechanism, network = _network(deployed=deployed)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5)).double()
    with torch.no_grad():
        for mine, layer in zip((plain[0], plain[2]), (network[0], network[2]), strict=True):
            mine.weight.copy_(kept_weight(layer))
            mine.bias.copy_(layer.bias)

    def means():
        return torch.equal(network(_images()), plain(_images()))

    assert not means()
    with contextlib.suppress(ZeroDivisionError), mechanism.attacked(network):
        assert means() != deployed
        raise ZeroDivisionError
    assert not means()
    mechanism.finish(network.eval())
    assert means() != deployed
    assert mechanism.traits.random == deployed
    assert torch.equal(altered(network, {"active": False})(_images()), plain(_images()))


def test_the_control_has_noise_that_is_not_learned():
    _, network = _network(learned=False, deviation=0.4)
    assert [name for name, each in network.named_parameters() if not each.requires_grad] == [
        "0.parametrizations.weight.0.rho",
        "2.parametrizations.weight.0.rho",
    ]
    _loss(network, _images(), None).sum().backward()
    assert kept_weight(network[0]).grad.abs().sum() > 0
    torch.testing.assert_close(_gaussian(network)[0].deviation().unique(), _tensor(0.4))


def test_masks_and_winners_act_on_what_is_drawn_whichever_is_named_first():
    specs = [
        Spec(name="gaussian-weights", settings={"deviation": 0.3, "kl": 1e-3, "deployed": True}),
        Spec(name="indian-buffet", settings={"kl": 1e-3}),
        Spec(name="noise-injection"),
        Spec(name="winner-take-all", settings={"kl": 1e-3}),
    ]
    answers = []
    images = torch.rand(2, 3, 16, 16, generator=generator("images"))
    for order in (specs, [specs[1], specs[2], specs[3], specs[0]]):
        mechanism = mechanisms.build(order)
        network = models.build(Spec(name="wide-resnet", settings={"depth": 10}), generator("weights", 0))
        before = torch.get_rng_state()
        mechanism.install(network)
        assert torch.equal(torch.get_rng_state(), before)
        kinds = [type(each) for each in network.fc.parametrizations.weight]
        assert kinds == [GaussianWeight, Mask, Noise]
        with undisturbed("step"):
            loss = mechanism.objective(lambda network, images, _: network(images).square().sum(dim=1), None)
            losses = loss(network, images, None)
        losses.sum().backward()
        assert all(each.rho.grad.abs().sum() > 0 for each in _gaussian(network))
        mechanism.finish(network.eval())
        with undisturbed("answer"):
            answers.append((losses.detach(), network(images).detach()))
    torch.testing.assert_close(answers[0][1], answers[1][1], rtol=0, atol=0)
    with torch.no_grad():
        network.fc.parametrizations.weight[1].logits.fill_(-100.0)
    assert (network.fc.weight == 0).all()  # of a weight that is gone no noise is left


def test_with_their_prior_in_the_loss_means_do_not_decay_and_without_it_they_do(black):
    recipe = Recipe(epochs=1, batch_size=10, learning_rate=0.1, weight_decay=0.5)
    for kl, left in ((0.0, 1 - 0.01 * 0.5), (1e-12, 1.0)):
        mechanism = gaussian_weights(kl=kl)
        network = models.build(Spec(name="fully-connected", settings={"hidden": 8}), generator("weights", 0))
        mechanism.install(network)
        before = begin(network)
        (after,) = train(network, [before], black, recipe, seeds=[0], until=1, mechanism=mechanism)
        key = "fc1.parametrizations.weight.original"  # a black image has no gradient there
        torch.testing.assert_close(after.weights[key], before.weights[key] * left)
        key = "fc1.parametrizations.weight.0.rho"
        torch.testing.assert_close(after.weights[key], before.weights[key])


def test_it_trains_and_its_means_classify():
    digits = load(Spec(name="digits")).train
    mechanism = mechanisms.build([Spec(name="gaussian-weights", settings={"kl": 1e-4})])
    network = models.build(Spec(name="fully-connected", settings={"hidden": 32}), generator("weights", 0))
    mechanism.install(network)
    recipe = Recipe(epochs=10, batch_size=50, learning_rate=0.1)
    start = begin(network)
    (state,) = train(network, [start], digits, recipe, seeds=[0], until=10, mechanism=mechanism)
    network.load_state_dict(state.weights)
    mechanism.finish(network.eval())
    rows = digits.fixed()
    right = (network(digits.images(rows)).argmax(dim=1) == digits.labels(rows)).double().mean()
    assert right > 0.5  # chance is 0.1
    assert not torch.equal(
        state.weights["fc1.parametrizations.weight.0.rho"], start.weights["fc1.parametrizations.weight.0.rho"]
    )


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"deviation": 0.0}, "0 and 0"),
        ({"deviation": 1e-4}, "0.0001 and 0"),
        ({"deviation": math.nan}, "nan and 0"),
        ({"deviation": math.inf}, "inf and 0"),
        ({"kl": -1.0}, "0.006715 and -1"),
    ],
)
def test_bad_settings_are_one_line(settings, got):
    message = "^gaussian-weights: expected a deviation of at least 0.00091 and kl of at least 0; got "
    with pytest.raises(SpecError, match=f"{message}{got}$"):
        gaussian_weights(**settings)


def test_a_network_without_weights_and_a_second_prior_are_refused():
    with pytest.raises(SpecError, match=r"^gaussian-weights: expected a network with Conv2d or Linear modules"):
        gaussian_weights().install(nn.Sequential(nn.ReLU()))
    mechanism, network = _network()
    with pytest.raises(SpecError, match=r"of this network are drawn already: name the mechanism once$"):
        mechanism.install(network)
