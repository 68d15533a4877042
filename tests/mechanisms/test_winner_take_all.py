import copy
from typing import get_args

import pytest
import torch
from torch import nn

from unperturbed.mechanisms.winner_take_all import Mode, WinnerTakeAll, winner_take_all
from unperturbed.records import SpecError
from unperturbed.tensors.streams import undisturbed


@pytest.mark.parametrize("units", [2, 4])
def test_winners_are_drawn_with_the_probabilities_of_the_softmax(units):
    layer = WinnerTakeAll(units, 0.01, "straight-through").eval()
    hidden = torch.linspace(0.5, 2.5, units).expand(20_000, units).clone()
    with undisturbed("winners"):
        won = (layer(hidden) / hidden).mean(dim=0)
    expected = hidden[0].softmax(dim=0)
    error = (expected * (1 - expected) / 20_000).sqrt()
    assert ((won - expected).abs() < 4 * error).all()


@pytest.mark.parametrize("units", [2, 4])
def test_winners_of_the_hard_choice_are_exactly_one_hot(units):
    hidden = torch.randn(500, 8 * units, 3, 3, generator=torch.Generator().manual_seed(0))
    with undisturbed("hard"):
        won = WinnerTakeAll(units, 0.67, "straight-through")(hidden).unflatten(1, (8, units))
    blocks = hidden.unflatten(1, (8, units))
    assert ((won == blocks) | (won == 0)).all()
    assert ((won == 0).sum(dim=2) == units - 1).all()


@pytest.mark.parametrize("units", [2, 4])
def test_the_control_without_competition_wins_against_silent_rivals(units):
    """The chance of h against U - 1 rivals at 0 with the same noise is that of the softmax, whatever its neighbours."""
    layer = WinnerTakeAll(units, 0.01, "relu-noise").eval()
    hidden = torch.linspace(-1.5, 2.5, units).expand(20_000, units).clone()
    with undisturbed("alone"):
        won = (layer(hidden) / hidden > 0.5).double().mean(dim=0)
    expected = hidden[0].double().exp() / (hidden[0].double().exp() + units - 1)
    error = (expected * (1 - expected) / 20_000).sqrt()
    assert ((won - expected).abs() < 4 * error).all()


def test_the_control_without_competition_is_relaxed_like_the_competition():
    """Two units, one of them silent: the same noise, temperature and relaxation."""
    hidden = torch.linspace(-3, 3, 40_000, dtype=torch.float64).unsqueeze(1)
    with undisturbed("silent"):
        rival = WinnerTakeAll(2, 0.67, "sampled")(torch.cat([hidden, torch.zeros_like(hidden)], dim=1))[:, 0]
    with undisturbed("alone"):
        alone = WinnerTakeAll(2, 0.67, "relu-noise")(hidden.expand(-1, 2))[:, 0]
    for moment in (1, 2):
        gap = rival**moment - alone**moment
        assert gap.mean().abs() < 4 * gap.std() / len(gap) ** 0.5


def test_an_unknown_mode_is_refused_even_when_an_attack_sets_it():
    layer = WinnerTakeAll(2, 0.67, "sampled")
    layer.mode = "expcted"
    with pytest.raises(
        SpecError, match="mode must be one of sampled, straight-through, expected, argmax, relu-noise, got 'expcted'"
    ):
        layer(torch.ones(1, 2))


def test_a_soft_winner_at_a_low_temperature_is_nearly_alone_and_at_a_high_one_is_not():
    hidden = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    with undisturbed("temperature"):
        cold = WinnerTakeAll(2, 0.01, "sampled")(hidden) / hidden
        warm = WinnerTakeAll(2, 5.0, "sampled")(hidden) / hidden
    assert (cold.unflatten(1, (-1, 2)).amax(dim=2) > 0.99).double().mean() > 0.97
    assert (warm.unflatten(1, (-1, 2)).amax(dim=2) > 0.99).double().mean() < 0.1


def test_competition_is_at_every_position_apart_and_shares_sum_to_one():
    hidden = torch.randn(3, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    out = WinnerTakeAll(2, 1.0, "argmax")(hidden)
    assert out.shape == hidden.shape
    pairs, won = hidden.unflatten(1, (3, 2)), out.unflatten(1, (3, 2))
    torch.testing.assert_close(won.sum(dim=2), pairs.amax(dim=2))
    assert ((won != 0).sum(dim=2) == 1).all()


def test_the_expectation_is_the_softmax():
    hidden = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    shares = (hidden.unflatten(1, (3, 2)) / 0.67).softmax(dim=2).flatten(1)
    torch.testing.assert_close(WinnerTakeAll(2, 0.67, "expected")(hidden), shares * hidden)


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize("mode", get_args(Mode))
def test_modes_of_the_module_change_neither_temperature_nor_chance(units, mode):
    layer = WinnerTakeAll(units, 0.67, mode)
    hidden = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    answers = []
    for training in (True, False):
        with undisturbed("winners"):
            answers.append(layer.train(training)(hidden))
        assert torch.equal(layer(hidden), layer(hidden)) == (mode in ("expected", "argmax"))
    assert torch.equal(*answers)


@pytest.mark.parametrize("units", [2, 4])
def test_winners_are_soft_while_training_and_nearly_alone_once_deployed(units):
    network = nn.Sequential(nn.Identity(), nn.ReLU())
    mechanism = winner_take_all(units=units)
    mechanism.install(network)
    hidden = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))

    def decided():
        with undisturbed("soft"):
            shares = (network(hidden) / hidden).unflatten(1, (-1, units))
        torch.testing.assert_close(shares.sum(dim=2), torch.ones(500, 8 // units))
        return (shares.amax(dim=2) > 0.99).double().mean()

    assert decided() < 0.2
    mechanism.finish(network)
    assert decided() > 0.97


def test_the_divergence_is_that_of_the_choice_from_a_uniform_one():
    layer = WinnerTakeAll(2, 0.67, "sampled", watched=True).train()
    layer(torch.zeros(3, 4))
    torch.testing.assert_close(layer.divergence, torch.zeros(3), rtol=0, atol=1e-6)
    layer(torch.tensor([[100.0, 0.0, 100.0, 0.0]]))
    torch.testing.assert_close(layer.divergence, torch.tensor([2 * torch.tensor(2.0).log()]))


def test_evaluation_keeps_no_divergence_and_no_graph_of_it():
    layer = WinnerTakeAll(2, 0.67, "sampled", watched=True).eval()
    layer(torch.zeros(3, 4, requires_grad=True))
    assert layer.divergence is None


@pytest.mark.parametrize("units", [2, 4])
def test_the_divergence_is_the_mean_of_the_ratio_of_probabilities(units):
    hidden = torch.randn(1, 3 * units, dtype=torch.float64, generator=torch.Generator().manual_seed(units))
    layer = WinnerTakeAll(units, 0.67, "sampled", watched=True).train()
    with undisturbed("divergence"):
        layer(hidden)
    q = hidden.view(3, units).softmax(dim=1)
    drawn = torch.multinomial(q, 100_000, replacement=True, generator=torch.Generator().manual_seed(0))
    ratio = (q.gather(1, drawn) * units).log().sum(dim=0)
    assert (ratio.mean() - layer.divergence).abs() < 4 * ratio.std() / len(ratio) ** 0.5  # standard errors


@pytest.mark.parametrize(("settings", "hot"), [({}, 0.01), ({"attacked_temperature": 0.3}, 0.3)])
def test_the_temperature_while_attacked_ends_with_the_attack(settings, hot):
    """As published, the network is attacked at the temperature at which it will be deployed."""
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    mechanism = winner_take_all(**settings)
    mechanism.install(network)
    with mechanism.attacked(network):
        assert network[1].temperature == hot
    assert network[1].temperature == 0.67
    mechanism.finish(network)
    assert network[1].temperature == 0.01


def test_bad_settings_are_one_line():
    with pytest.raises(SpecError, match="at least 2 units"):
        winner_take_all(units=1)
    with pytest.raises(SpecError, match="winner-take-all: draws must be at least 1, got 0"):
        winner_take_all(draws=0)
    with pytest.raises(SpecError, match="kl must be 0 with mode 'relu-noise'"):
        winner_take_all(mode="relu-noise", kl=0.1)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    winner_take_all(units=4).install(network)
    with pytest.raises(SpecError, match="6 channels cannot be divided into blocks of 4"):
        network(torch.zeros(1, 4))
    with pytest.raises(SpecError, match="network with ReLU modules"):
        winner_take_all().install(nn.Sequential(nn.Linear(4, 6)))


def test_the_divergence_enters_the_loss_and_leaves_nothing_behind():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    mechanism = winner_take_all(kl=0.5)
    mechanism.install(network)
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.copy_(torch.tensor([100.0, 0.0, 0.0, 0.0]))  # one choice is certain, one is open
    loss = mechanism.objective(lambda network, images, _: network(images).sum(dim=1) * 0, None)
    losses = loss(network.train(), torch.zeros(3, 4), None)
    torch.testing.assert_close(losses, 0.5 * torch.tensor(2.0).log().expand(3))
    assert network[1].divergence is None
    copy.deepcopy(network)


def test_two_units_by_one_number_are_the_general_form():
    draws = 200_000
    layer = WinnerTakeAll(2, 0.67, "sampled")
    hidden = torch.tensor([0.3, -0.5], dtype=torch.float64).expand(draws, 2).contiguous()
    torch.manual_seed(0)
    short = layer(hidden)
    general = layer._winners(hidden.unflatten(1, (-1, 2))).flatten(1) * hidden
    # Means and second moments of both, within four standard errors of their difference.
    for power in (1, 2):
        ours, theirs = short**power, general**power
        error = ((ours.var(dim=0) + theirs.var(dim=0)) / draws).sqrt()
        assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 4 * error).all()
    torch.testing.assert_close(short[:, 0] / 0.3 + short[:, 1] / -0.5, torch.ones(draws).double(), rtol=0, atol=1e-12)


def test_with_and_without_a_gradient_two_units_answer_alike():
    layer = WinnerTakeAll(2, 0.01, "sampled")
    hidden = torch.randn(20, 6, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.manual_seed(2)
    plain = layer(hidden)
    torch.manual_seed(2)
    torch.testing.assert_close(layer(hidden.requires_grad_()), plain, rtol=0, atol=1e-12)  # float64


def test_the_expectation_of_the_control_without_competition_is_its_own():
    layer = WinnerTakeAll(2, 1.0, "relu-noise")
    hidden = torch.tensor([[1.5, -0.5]], dtype=torch.float64)
    layer.mode = "expected"  # as an attack through a copy sets it
    torch.testing.assert_close(layer(hidden), torch.sigmoid(hidden) * hidden, rtol=0, atol=1e-12)
    assert not torch.allclose(layer(hidden), WinnerTakeAll(2, 1.0, "expected")(hidden))
