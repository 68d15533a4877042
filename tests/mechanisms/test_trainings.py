"""The mechanisms that change what is trained on."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import nn

from unperturbed import mechanisms
from unperturbed.attacks import ATTACKS
from unperturbed.mechanisms import NOTHING, Tools
from unperturbed.mechanisms.mixed_training import BRANCHES
from unperturbed.mechanisms.trades import trades
from unperturbed.records import Spec, SpecError


def _attack(name, network, images, labels, seed, **settings):
    return ATTACKS[name](network, images, labels, seed, **settings)


def _cross_entropy(network, images, labels):
    return F.cross_entropy(network(images), labels, reduction="none")


class _Linear(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(48, classes)

    def forward(self, images):
        return self.fc(images.flatten(1))


class _Nothing(nn.Module):
    def forward(self, images):
        return images


@pytest.fixture
def case():
    random = torch.Generator().manual_seed(0)
    network = _Linear(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    return network, torch.rand(40, 3, 4, 4, generator=random), torch.arange(40) % 5


def _losses(name, case, seed=0, **settings):
    mechanism = mechanisms.build([Spec(name=name, settings=settings)])
    network, images, labels = case
    mechanism.install(network)
    return mechanism.objective(_cross_entropy, Tools(_attack, seed, mechanism.attacked))(network, images, labels)


def test_adversarial_training_of_a_linear_network_has_the_loss_of_the_closed_form(case):
    """Two classes: the worst image of the ball is known, and the loss there."""
    network, images, labels = case
    network.fc = nn.Linear(48, 2)
    labels = labels % 2
    images = 0.4 + 0.2 * images
    weight = network.fc.weight[1] - network.fc.weight[0]
    sign = 1.0 - 2.0 * labels
    margin = sign * (network(images)[:, 0] - network(images)[:, 1])
    expected = F.softplus(-(margin - 0.03 * weight.abs().sum()))
    found = _losses("adversarial-training", (network, images, labels), eps=0.03, steps=5, step_size=0.02)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_trades_without_its_second_term_is_the_cross_entropy(case):
    torch.testing.assert_close(_losses("trades", case, beta=0.0), _cross_entropy(*case), rtol=0, atol=0)


def test_the_second_term_of_trades_is_no_smaller_than_that_of_a_random_place(case):
    network, images, _ = case
    term = _losses("trades", case, beta=1.0) - _cross_entropy(*case)
    noise = 0.031 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).sign()
    there, here = F.log_softmax(network((images + noise).clamp(0, 1)), 1), F.log_softmax(network(images), 1)
    random = F.kl_div(there, here, reduction="none", log_target=True).sum(dim=1)
    assert (term >= random - 1e-6).double().mean() > 0.95
    assert term.mean() > 2 * random.mean()


def test_trades_leaves_the_mode_of_the_network_alone(case):
    network, images, labels = case
    loss = trades(steps=1).objective(_cross_entropy, Tools(_attack, 0, NOTHING.attacked))
    for mode in (True, False):
        network.train(mode)
        loss(network, images, labels)
        assert network.training is mode


def test_smoothed_labels_have_the_loss_of_the_equation(case):
    network, images, labels = case
    target = 0.9 * F.one_hot(labels, 5) + 0.1 / 5
    expected = -(target * F.log_softmax(network(images), dim=1)).sum(dim=1)
    torch.testing.assert_close(_losses("label-smoothing", case, amount=0.1), expected)


@pytest.mark.parametrize("granularity", ["batch", "example"])
def test_the_branches_of_the_mixture_have_their_probabilities_and_are_counted(case, granularity):
    network, images, labels = case
    mechanism = mechanisms.build(
        [Spec(name="mixed-training", settings={"granularity": granularity, "steps": 1, "cw_steps": 1})]
    )
    mechanism.install(network)
    steps = 400 if granularity == "batch" else 20
    for seed in range(steps):
        tools = Tools(lambda name, network, images, labels, seed, **settings: images, seed, mechanism.attacked)
        mechanism.objective(_cross_entropy, tools)(network, images, labels)
    taken = network.branches
    assert taken.sum() == steps * len(images)
    draws = steps * (len(images) if granularity == "example" else 1)
    for share, count in zip((4, 1, 1, 1, 1), taken.tolist(), strict=True):
        p = share / 8
        assert abs(count / taken.sum() - p) < 4 * (p * (1 - p) / draws) ** 0.5


@pytest.mark.parametrize("attack", BRANCHES[1:])
def test_every_branch_changes_the_images(case, attack):
    network, images, _ = case
    labels = network(images).argmax(dim=1)  # C&W leaves alone what is wrong already
    changed = _losses("mixed-training", (network, images, labels), clean=0.0, attacks=attack)
    assert not torch.allclose(changed, _cross_entropy(network, images, labels))


def test_unknown_branches_are_refused():
    with pytest.raises(SpecError, match="attacks among pgd, fgsm, carlini_wagner, noise"):
        mechanisms.build([Spec(name="mixed-training", settings={"attacks": "pgd square"})])


class _FirstTwo(nn.Module):
    """Answers 1 where the second intensity is large."""

    def forward(self, images):
        flat = images.flatten(1)
        return torch.stack([torch.ones(len(flat)), flat[:, 1]], dim=1)


def test_the_watch_of_fast_training_sees_that_one_step_leaves_more_than_many():
    mechanism = mechanisms.build([Spec(name="fast-training", settings={"watch_every": 2, "eps": 0.05})])
    network = _FirstTwo()
    mechanism.install(network)
    answers = {"fgsm": 0.0, "pgd": 1.0}

    def attack(name, network, images, labels, seed, **settings):
        moved = images.clone()
        moved[:, 0, 0, 1] += 1000 * answers[name]
        return moved

    images = torch.full((8, 1, 2, 2), 0.5)
    tools = Tools(attack, 0, mechanism.attacked)
    for _ in range(4):
        mechanism.objective(_cross_entropy, tools)(network, images, torch.zeros(8, dtype=torch.int64))
    assert network.overfitting.tolist() == [2.0, 2.0, 1.0]
    answers["pgd"] = 0.0
    for _ in range(2):
        mechanism.objective(_cross_entropy, tools)(network, images, torch.zeros(8, dtype=torch.int64))
    assert network.overfitting.tolist() == [3.0, 2.0, 0.0]


@pytest.mark.parametrize("kind", ["median", "gaussian"])
def test_a_filter_keeps_even_images_and_removes_a_single_pixel(kind):
    mechanism = mechanisms.build([Spec(name="spatial-smoothing", settings={"kind": kind})])
    network = _Nothing()
    mechanism.install(network)
    even = torch.full((2, 3, 6, 6), 0.3)
    torch.testing.assert_close(network(even), even)
    spot = even.clone()
    spot[:, :, 3, 3] = 1.0
    left = (network(spot) - even).abs().amax()
    assert left < (1e-6 if kind == "median" else 0.7)


def test_a_smoothed_network_answers_with_the_mean_probability_of_its_draws(case):
    network, images, _ = case
    mechanism = mechanisms.build([Spec(name="randomised-smoothing", settings={"sigma": 0.5, "draws": 2000})])
    plain = nn.Sequential(nn.Flatten(), network.fc)
    mechanism.install(network)
    mechanism.finish(network)
    torch.manual_seed(0)
    found = network(images[:2]).exp()
    noisy = images[:2].repeat(20_000, 1, 1, 1)
    expected = plain(noisy + 0.5 * torch.randn_like(noisy)).softmax(dim=1).unflatten(0, (-1, 2)).mean(dim=0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2))
    assert (found - expected).abs().max() < 0.04


@pytest.mark.parametrize("name", ["spatial-smoothing", "randomised-smoothing"])
def test_a_bare_sequence_is_refused_because_it_would_run_what_stands_in_front_last(name):
    with pytest.raises(SpecError, match=r"got nn.Sequential: wrap it"):
        mechanisms.build([Spec(name=name)]).install(nn.Sequential(nn.Identity()))
