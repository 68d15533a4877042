"""Masks on weights: their prior, their posterior, and what is left when a network is deployed."""

import copy
import math

import pytest
import torch
from torch import nn

from unperturbed import mechanisms, models
from unperturbed.mechanisms.indian_buffet import (
    Mask,
    divergence_of_masks,
    divergence_of_sticks,
    indian_buffet,
    log_sticks,
)
from unperturbed.mechanisms.installing import kept_weight
from unperturbed.mechanisms.noise_injection import noise_injection
from unperturbed.records import Recipe, Spec, SpecError
from unperturbed.tensors.streams import generator, undisturbed
from unperturbed.training import begin, train

DRAWS = 200_000
POSTERIORS = [(1.0, 1.0), (2.127, 1.003), (0.5, 3.0), (4.0, 0.7)]


def _sticks(a, b):
    with undisturbed("sticks"):
        wide = torch.full((DRAWS,), a, dtype=torch.float64), torch.full((DRAWS,), b, dtype=torch.float64)
        return log_sticks(*wide)


def _near(draws, expected):
    """Within 4 standard errors: 1 chance in 16,000."""
    assert (draws.mean() - expected).abs() <= 4 * draws.std() / len(draws) ** 0.5


def _network(**settings):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator("masked", parameter.ndim)))
    mechanism = indian_buffet(**settings)
    mechanism.install(network)
    return mechanism, network


def _masks(network):
    return [layer for layer in network.modules() if isinstance(layer, Mask)]


@pytest.mark.parametrize(("a", "b"), POSTERIORS)
def test_sticks_have_the_mean_of_kumaraswamy(a, b):
    beta = math.exp(math.lgamma(1 + 1 / a) + math.lgamma(b) - math.lgamma(1 + 1 / a + b))
    assert (a, b) != (1.0, 1.0) or b * beta == pytest.approx(0.5)
    _near(_sticks(a, b).exp(), b * beta)


@pytest.mark.parametrize("concentration", [1.0, 2.5])
@pytest.mark.parametrize(("a", "b"), POSTERIORS)
def test_the_divergence_of_sticks_is_the_mean_of_the_ratio_of_densities(a, b, concentration):
    log_u = _sticks(a, b)
    posterior = math.log(a * b) + (a - 1) * log_u + (b - 1) * torch.log(-torch.expm1(a * log_u))
    prior = math.log(concentration) + (concentration - 1) * log_u
    exact = divergence_of_sticks(*torch.tensor([a, b], dtype=torch.float64), concentration)
    _near(posterior - prior, exact)


@pytest.mark.parametrize(("t", "prior"), [(-2.0, 0.3), (0.5, 0.9), (4.5, 1e-9)])
def test_the_divergence_of_masks_is_the_mean_of_the_ratio_of_their_probabilities(t, prior):
    logit, log_prior = torch.tensor(t, dtype=torch.float64), torch.tensor(prior, dtype=torch.float64).log()
    kept = torch.rand(DRAWS, dtype=torch.float64, generator=generator("kept")) < logit.sigmoid()
    one, zero = logit.sigmoid().log() - log_prior, (-logit).sigmoid().log() - (-log_prior.expm1()).log()
    _near(torch.where(kept, one, zero), divergence_of_masks(logit, log_prior, as_coded=False))
    _near(torch.where(kept, one, 0.0), divergence_of_masks(logit, log_prior, as_coded=True))


def test_the_divergence_of_masks_is_0_at_the_prior_and_finite_where_the_prior_is_certain():
    logits = torch.linspace(-4, 4, 9, dtype=torch.float64)
    found = divergence_of_masks(logits, logits.sigmoid().log(), as_coded=False)
    torch.testing.assert_close(found, torch.zeros_like(logits), rtol=0, atol=1e-12)  # of the rounding
    assert torch.isfinite(divergence_of_masks(torch.tensor(4.0), torch.tensor(0.0), as_coded=False))


def test_the_prior_falls_from_block_to_block():
    mask = Mask(torch.zeros(40, 3), 2, 0.67)
    with undisturbed("prior"):
        log_prior = log_sticks(*mask.concentrations()).cumsum(dim=0)
    assert (log_prior.diff() < 0).all()
    assert (log_prior < 0).all()


def test_the_start_is_that_of_the_authors():
    _, network = _network()
    for mask, (blocks, *inputs) in zip(_masks(network), [(2,), (3, 16), (3, 6)], strict=True):
        assert mask.logits.shape == (blocks, *inputs)
        assert (mask.logits >= 4).all()
        assert (mask.logits <= 5).all()
        a, b = mask.concentrations()
        torch.testing.assert_close(a, torch.full((blocks,), 2.0).exp().add(1).log())
        torch.testing.assert_close(b, torch.full((blocks,), 0.5453).exp().add(1).log())
        assert all(parameter.decays is False for parameter in mask.parameters())


def test_a_mask_is_shared_by_the_units_of_a_block_and_the_logits_have_blocks_of_one():
    _, network = _network(units=2)
    with undisturbed("shared"):
        ratio = [(layer.weight / kept_weight(layer)).detach() for layer in (network[0], network[2], network[4])]
    convolution, full, last = ratio
    torch.testing.assert_close(convolution, convolution[:, :1, :1, :1].expand_as(convolution))
    torch.testing.assert_close(convolution[0::2], convolution[1::2])
    torch.testing.assert_close(full[0::2], full[1::2])
    assert len(full[::2].unique()) > 3 * 16 / 2  # one for each input and block
    assert not torch.allclose(last[0], last[1])


def test_masks_are_drawn_with_the_probabilities_of_their_logits():
    mask = Mask(torch.zeros(2, DRAWS), 2, 0.01)
    for t in (-2.0, 0.0, 1.5):
        with torch.no_grad(), undisturbed("masks"):
            mask.logits.fill_(t)
            kept = (mask.masks() > 0.5).double().flatten()
        _near(kept, torch.tensor(t, dtype=torch.float64).sigmoid())


def test_the_binary_concrete_is_its_logit_with_noise_over_the_temperature():
    mask = Mask(torch.zeros(4, 5, dtype=torch.float64), 2, 0.67)
    with undisturbed("concrete"):
        x = torch.rand_like(mask.logits)
    for temperature in (0.67, 2.0):
        mask.mask_temperature = temperature
        with undisturbed("concrete"):
            found = mask.masks()
        torch.testing.assert_close(found, ((mask.logits + (x / (1 - x)).log()) / temperature).sigmoid())


def test_the_binary_concrete_has_the_gradient_of_its_finite_differences():
    mask = Mask(torch.zeros(4, 5, dtype=torch.float64), 2, 0.67)
    way = torch.randn(2, 5, dtype=torch.float64, generator=generator("way"))

    def drawn(by):
        moved = copy.deepcopy(mask)
        with torch.no_grad():
            moved.logits += by * way
        with undisturbed("concrete"):
            return moved.masks().sum()

    with undisturbed("concrete"):
        (gradient,) = torch.autograd.grad(mask.masks().sum(), mask.logits)
    difference = (drawn(1e-6) - drawn(-1e-6)) / 2e-6
    torch.testing.assert_close((gradient * way).sum(), difference, rtol=1e-6, atol=1e-9)  # of a central difference


def test_the_divergence_of_a_layer_is_that_of_its_masks_from_the_product_of_its_sticks():
    mask = Mask(torch.randn(6, 2, dtype=torch.float64, generator=generator("weight")), 2, 0.67)
    a, b = mask.concentrations()
    with undisturbed("sticks"):
        prior = log_sticks(a, b).exp().cumprod(dim=0).unsqueeze(1)  # one for each block, for all inputs
    with undisturbed("sticks"):
        found = mask.divergence(1.0, as_coded=False)
    q = mask.logits.sigmoid()
    expected = (q * (q / prior).log() + (1 - q) * ((1 - q) / (1 - prior)).log()).sum()
    torch.testing.assert_close(found, expected + divergence_of_sticks(a, b, 1.0).sum())


@pytest.mark.parametrize("as_coded", [False, True])
def test_the_divergence_of_a_layer_enters_the_loss_and_moves_all_it_depends_on(as_coded):
    mechanism, network = _network(kl=0.5, as_coded=as_coded, concentration=2.0)
    loss = mechanism.objective(lambda network, images, _: network(images).square().sum(dim=1), None)
    images = torch.rand(7, 3, 4, 4, generator=generator("images"))
    with undisturbed("step"):
        losses = loss(network, images, None)
    with undisturbed("step"):
        plain = network(images).square().sum(dim=1)
        expected = sum(mask.divergence(2.0, as_coded=as_coded) for mask in _masks(network))
    torch.testing.assert_close(losses, plain + 0.5 * expected)
    losses.mean().backward()
    for mask in _masks(network):
        assert mask.logits.grad.abs().min() > 0
        assert mask.zeta.grad.abs().min() > 0


def test_without_the_divergence_the_prior_is_not_trained_and_the_masks_are():
    mechanism, network = _network()
    assert [p.requires_grad for p in _masks(network)[0].parameters()] == [True, False]
    loss = mechanism.objective(lambda network, images, _: network(images).square().sum(dim=1), None)
    loss(network, torch.rand(2, 3, 4, 4), None).sum().backward()
    assert all(mask.logits.grad.abs().sum() > 0 for mask in _masks(network))


def test_what_is_improbable_is_gone_when_deployed_and_not_before():
    mechanism, network = _network()
    full = network[2]
    mask = full.parametrizations.weight[0]
    with torch.no_grad():
        mask.logits[0, :3] = -4.7  # probability 0.009
        mask.logits[1, 3] = -4.5  # 0.011
        mask.logits[2, :] = -100.0  # out of the limits
    mask.mask_temperature = 100.0  # no draw is far from 1/2, whatever the odds
    with undisturbed("odds"):
        assert (full.weight != 0).all()
    mechanism.finish(network)
    assert mask.mask_temperature == 0.01
    mask.mask_temperature = 100.0
    gone = torch.zeros(6, 16, dtype=torch.bool)
    gone[:2, :3] = gone[4:] = True
    assert torch.equal(full.weight == 0, gone)
    mask.drawn = False
    assert torch.equal(full.weight == 0, gone)


def test_a_logit_beyond_its_limits_counts_as_the_limit_and_can_come_back():
    mask = Mask(torch.zeros(2, 3), 2, 0.67)
    mask.drawn = False
    with torch.no_grad():
        mask.logits.fill_(-9.0)
    found = mask.masks()
    torch.testing.assert_close(found, torch.full((1, 3), -5.0).sigmoid())
    found.sum().backward()
    assert (mask.logits.grad > 0).all()


def test_deployed_draws_differ_and_seeded_ones_repeat_whatever_the_mode():
    mechanism, network = _network()
    with torch.no_grad():
        for mask in _masks(network):
            mask.logits.zero_()
    mechanism.finish(network)
    images = torch.rand(2, 3, 4, 4, generator=generator("images"))
    for mode in (True, False):
        network.train(mode)
        assert not torch.equal(network(images), network(images))
        answers = []
        for _ in range(2):
            with undisturbed("answer"):
                answers.append(network(images))
        assert torch.equal(*answers)
    for mask in _masks(network):
        mask.drawn = False
    assert torch.equal(network(images), network(images))


def test_equal_weights_get_equal_masks_and_others_do_not():
    outlines = [models.build(Spec(name="lenet"), generator("weights", seed)) for seed in (0, 0, 1)]
    before = torch.get_rng_state()
    noise_injection().install(outlines[1])  # whose weights would draw if they were read
    for network in outlines:
        indian_buffet().install(network)
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (network.fc1.parametrizations.weight[-1].logits for network in outlines)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_masks_compose_with_competition_in_blocks_of_the_same_size():
    specs = [Spec(name="winner-take-all", settings={"units": 4}), Spec(name="indian-buffet", settings={"units": 4})]
    for order in (specs, specs[::-1]):
        mechanism = mechanisms.build(order)
        network = models.build(Spec(name="wide-resnet", settings={"depth": 10}), generator("weights", 0))
        mechanism.install(network)
        mechanism.finish(network)
        images = torch.rand(2, 3, 16, 16, generator=generator("images"))
        assert network.eval()(images).isfinite().all()
        wrong = [order[0], order[1].model_copy(update={"settings": {"units": 2}})]
        with pytest.raises(SpecError, match="this network has blocks of 4 units already, got units = 2"):
            mechanisms.build(wrong).install(
                models.build(Spec(name="wide-resnet", settings={"depth": 10}), generator("weights", 0))
            )


def test_the_parameters_of_masks_do_not_decay_and_weights_do(black):
    mechanism = indian_buffet()
    network = models.build(Spec(name="fully-connected", settings={"hidden": 8}), generator("weights", 0))
    mechanism.install(network)
    before = begin(network)
    recipe = Recipe(epochs=1, batch_size=10, learning_rate=0.1, weight_decay=0.5)
    (after,) = train(network, [before], black, recipe, seeds=[0], until=1, mechanism=mechanism)
    for name in ("0.logits", "0.zeta"):  # a black image has no gradient there
        key = f"fc1.parametrizations.weight.{name}"
        torch.testing.assert_close(after.weights[key], before.weights[key], rtol=0, atol=0)
    key = "fc1.parametrizations.weight.original"
    torch.testing.assert_close(after.weights[key], before.weights[key] * (1 - 0.01 * 0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": 0}, "units must be above 0, got 0"),
        ({"concentration": 0.0}, "concentration must be above 0, got 0"),
        ({"temperature": -0.67}, "temperature must be above 0, got -0.67"),
        ({"truncation": 1.0}, "truncation from 0 to below 1 and kl of at least 0; got 1 and 0"),
        ({"kl": -1.0}, "got 0.01 and -1"),
    ],
)
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(SpecError, match=message):
        indian_buffet(**settings)


def test_layers_that_cannot_be_divided_are_refused_before_training():
    with pytest.raises(SpecError, match="6 outputs cannot be divided into blocks of 4"):
        indian_buffet(units=4).install(models.build(Spec(name="lenet"), generator("weights", 0)))
    with pytest.raises(SpecError, match="indian-buffet: expected a network with Conv2d or Linear modules"):
        indian_buffet().install(nn.Sequential(nn.ReLU()))
