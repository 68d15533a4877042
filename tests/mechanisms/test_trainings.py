"""The mechanisms that change what is trained on."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import nn

from unperturbed import mechanisms
from unperturbed.attacks import ATTACKS
from unperturbed.measures.quantities import QUANTITIES
from unperturbed.mechanisms import NOTHING, Tools
from unperturbed.mechanisms.mixed_training import BRANCHES
from unperturbed.mechanisms.trades import trades
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator


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


def test_adversarial_training_hands_its_attack_what_it_was_told_and_less_while_it_warms_up(case):
    network, images, labels = case
    asked = []

    def attack(name, network, images, labels, seed, **settings):
        asked.append((name, settings))
        return images

    settings = {"eps": 0.2, "steps": 3, "step_size": 0.1, "norm": "l2"}
    always = {"steps": 3, "norm": "l2", "persist": True}
    for warm_up, done, part in ((0.0, 0.1, 1.0), (0.5, 0.125, 0.25), (0.5, 0.5, 1.0), (0.5, 0.9, 1.0)):
        mechanism = mechanisms.build([Spec(name="adversarial-training", settings=settings | {"warm_up": warm_up})])
        mechanism.objective(_cross_entropy, Tools(attack, 0, NOTHING.attacked, done))(network, images, labels)
        assert asked.pop() == ("pgd", always | {"eps": part * 0.2, "step_size": part * 0.1})
    with pytest.raises(SpecError, match="warm_up must lie between 0 and 1, got 2"):
        mechanisms.build([Spec(name="adversarial-training", settings={"warm_up": 2.0})])


def test_one_step_away_is_a_random_start_and_a_projected_step(case):
    """A linear network of two classes: the gradient has one sign everywhere, so that a step ends where the ball does."""
    network, images, labels = case
    network.fc = nn.Linear(48, 2)
    labels, images = labels % 2, 0.4 + 0.2 * images
    seen = []

    def loss(network, images, labels):
        seen.append(images)
        return _cross_entropy(network, images, labels)

    mechanism = mechanisms.build([Spec(name="fast-training", settings={"eps": 0.03, "stride": 1.25})])
    mechanism.install(network)
    mechanism.objective(loss, Tools(_attack, 3, mechanism.attacked))(network, images, labels)
    weight = network.fc.weight[1] - network.fc.weight[0]
    uphill = ((1.0 - 2.0 * labels).unsqueeze(1) * weight.sign()).view_as(images)
    travelled = (seen[0] - images) * uphill  # of the start, -eps to eps, and 1.25 eps, cut at eps
    assert travelled.max() <= 0.03 + 1e-6
    assert travelled.min() >= 0.25 * 0.03 - 1e-6
    share = (travelled < 0.03 - 1e-6).double().mean()  # of starts below -eps / 4: 3/8
    assert (share - 0.375).abs() < 4 * (0.375 * 0.625 / travelled.numel()) ** 0.5


def test_trades_without_steps_is_the_equation_at_its_start(case):
    network, images, _ = case
    moved = images + 0.001 * torch.randn(images.shape, generator=generator("trades", 5))
    p, q = network(images).softmax(dim=1), network(moved).softmax(dim=1)
    expected = _cross_entropy(*case) + 6.0 * (p * (p / q).log()).sum(dim=1)
    torch.testing.assert_close(_losses("trades", case, seed=5, steps=0), expected, rtol=1e-5, atol=1e-6)


def test_trades_has_the_gradient_of_the_equation_through_both_predictions(case, monkeypatch):
    network, images, _ = case
    monkeypatch.setitem(trades.__globals__, "START", 0.3)  # so far that the two predictions differ
    moved = images + 0.3 * torch.randn(images.shape, generator=generator("trades", 5))
    p, q = network(images).double().softmax(dim=1), network(moved).double().softmax(dim=1)
    expected = 6.0 * (p * (p / q).log()).sum() + _cross_entropy(*case).sum()
    (wanted,) = torch.autograd.grad(expected, network.fc.weight)
    (clean,) = torch.autograd.grad(_cross_entropy(*case).sum(), network.fc.weight)
    (found,) = torch.autograd.grad(_losses("trades", case, seed=5, steps=0).sum(), network.fc.weight)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))  # of float32
    assert (wanted - clean).abs().max() > 0.1 * clean.abs().max()


def test_trades_climbs_the_divergence_of_the_moved_prediction_from_the_clean_one(case):
    """Step by step as in the source; far from where it begins, the divergence the other way round leads elsewhere."""
    network, images, _ = case
    seen = []
    network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    _losses("trades", case, seed=5, eps=0.4, steps=4, step_size=0.15)
    tracked, moved = seen[1:5], images + 0.001 * torch.randn(images.shape, generator=generator("trades", 5))
    p = network(images).softmax(dim=1).detach()
    for entered in tracked:
        torch.testing.assert_close(entered, moved, rtol=0, atol=1e-6)  # of float32
        moved = moved.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((p * (p / network(moved).softmax(dim=1)).log()).sum(), moved)
        moved = (moved + 0.15 * gradient.sign()).clamp(images - 0.4, images + 0.4).clamp(0, 1)
    assert any(torch.equal(each, moved.detach()) for each in seen)


def test_noise_augmentation_is_the_loss_of_the_noisy_images(case):
    network, images, labels = case
    noise = torch.randn(images.shape, generator=generator("noise augmentation", 5))
    expected = _cross_entropy(network, (images + 0.3 * noise).clamp(0, 1), labels)
    torch.testing.assert_close(_losses("noise-augmentation", case, seed=5, sigma=0.3), expected, rtol=0, atol=0)


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
    facts = mechanism.facts(network.state_dict())
    assert list(facts) == [f"branch_{name}" for name in BRANCHES]
    assert list(facts.values()) == pytest.approx([count / (steps * len(images)) for count in taken.tolist()])
    assert set(facts) <= set(QUANTITIES)


def test_fewer_attacks_share_what_clean_images_leave(case):
    network, images, labels = case
    mechanism = mechanisms.build([Spec(name="mixed-training", settings={"attacks": "noise pgd", "clean": 0.3})])
    mechanism.install(network)
    for seed in range(400):
        tools = Tools(lambda name, network, images, labels, seed, **settings: images, seed, mechanism.attacked)
        mechanism.objective(_cross_entropy, tools)(network, images[:1], labels[:1])
    for p, count in zip((0.3, 0.35, 0, 0, 0.35), network.branches.tolist(), strict=True):
        assert abs(count / 400 - p) <= 4 * (p * (1 - p) / 400) ** 0.5


@pytest.mark.parametrize("attack", BRANCHES[1:])
def test_every_branch_changes_the_images(case, attack):
    network, images, _ = case
    labels = network(images).argmax(dim=1)  # C&W leaves alone what is wrong already
    changed = _losses("mixed-training", (network, images, labels), clean=0.0, attacks=attack)
    assert not torch.allclose(changed, _cross_entropy(network, images, labels))


def test_the_published_pgd_of_the_mixture_moves_by_its_three_steps_and_begins_at_the_image(case):
    """0.03 at most in a ball of 0.3; a random start alone would go farther."""
    network, images, labels = case
    network.fc, images, labels = nn.Linear(48, 2), 0.4 + 0.2 * images, labels % 2
    weight = network.fc.weight[1] - network.fc.weight[0]
    uphill = ((1.0 - 2.0 * labels).unsqueeze(1) * weight.sign()).view_as(images)
    settings = {"clean": 0.0, "attacks": "pgd", "eps": 0.3, "steps": 3, "step_size": 0.01, "random_start": False}
    found = _losses("mixed-training", (network, images, labels), **settings)
    torch.testing.assert_close(found, _cross_entropy(network, images + 0.03 * uphill, labels))


def test_each_attack_of_the_mixture_has_its_own_settings(case):
    network, images, labels = case
    asked = {}

    def attack(name, network, images, labels, seed, **settings):
        asked[name] = settings
        return images

    settings = {"clean": 0.0, "eps": 0.1, "steps": 6, "step_size": 0.02, "cw_steps": 9}
    mechanism = mechanisms.build([Spec(name="mixed-training", settings=settings)])
    mechanism.install(network)
    for seed in range(30):
        mechanism.objective(_cross_entropy, Tools(attack, seed, mechanism.attacked))(network, images, labels)
    assert asked.pop("pgd").items() >= {"eps": 0.1, "steps": 6, "step_size": 0.02, "random_start": True}.items()
    assert asked == {
        "fgsm": {"eps": 0.1},
        "carlini_wagner": {"steps": 9, "binary_search_steps": 1, "initial_const": None},
    }


def test_the_noisy_branch_of_the_mixture_is_clipped(case):
    network, images, labels = case
    expected = (images + 0.5 * torch.randn(images.shape, generator=generator("mixed noise", 5))).clamp(0, 1)
    found = _losses("mixed-training", case, seed=5, clean=0.0, attacks="noise", sigma=0.5)
    torch.testing.assert_close(found, _cross_entropy(network, expected, labels), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mixed-training", "trades", "fast-training", "half-adversarial"])
def test_what_attacks_while_training_leaves_no_gradient(case, name):
    for seed in range(10):  # a mixture takes other branches
        _losses(name, case, seed=seed)
    assert all(parameter.grad is None for parameter in case[0].parameters())


@pytest.mark.parametrize(("granularity", "kinds"), [("batch", 1), ("example", 5)])
def test_a_batch_is_of_one_kind_unless_the_draw_is_for_each_image(case, granularity, kinds):
    network, images, labels = case
    mechanism = mechanisms.build([Spec(name="mixed-training", settings={"granularity": granularity})])
    mechanism.install(network)
    most = 0
    for seed in range(8):
        before, asked = network.branches.clone(), []

        def attack(name, network, images, labels, seed, asked=asked, **settings):
            asked.append((name, len(images)))
            return images + 1000.0

        tools = Tools(attack, seed, mechanism.attacked)
        seen = []
        mechanism.objective(lambda _, images, labels, seen=seen: seen.append(images), tools)(network, images, labels)
        taken = dict(zip(BRANCHES, (network.branches - before).tolist(), strict=True))
        assert sum(taken.values()) == len(images)
        assert dict(asked) == {name: count for name, count in taken.items() if count and name not in ("clean", "noise")}
        assert (seen[0] > 500).flatten(1).all(dim=1).sum() == sum(count for _, count in asked)
        assert (seen[0] == images).flatten(1).all(dim=1).sum() == taken["clean"]
        most = max(most, sum(count > 0 for count in taken.values()))
    assert most == kinds


def test_branches_are_counted_exactly_however_many_there_were(case):
    network, images, labels = case
    mechanism = mechanisms.build([Spec(name="mixed-training", settings={"clean": 1.0})])
    mechanism.install(network)
    network.branches[0] = 2**24  # from where float32 counts in steps of 2
    tools = Tools(_attack, 0, mechanism.attacked)
    mechanism.objective(_cross_entropy, tools)(network.float(), images[:1], labels[:1])
    assert int(network.branches[0]) == 2**24 + 1


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
    facts = mechanism.facts(network.state_dict())
    assert facts == {"overfitting_looks": pytest.approx(2 / 3), "overfitting_gap": 0.0}
    assert set(facts) <= set(QUANTITIES)
    answers["pgd"] = torch.eye(8)[0]  # one image of eight: no more than chance
    for _ in range(2):
        mechanism.objective(_cross_entropy, tools)(network, images, torch.zeros(8, dtype=torch.int64))
    assert network.overfitting.tolist() == [4.0, 2.0, 0.125]


def test_a_watch_that_never_looked_says_nothing():
    mechanism = mechanisms.build([Spec(name="fast-training", settings={"watch_every": 0})])
    network = _FirstTwo()
    mechanism.install(network)
    assert mechanism.facts(network.state_dict()) == {}


def test_a_filter_has_the_values_computed_by_hand():
    patch = torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.9, 0.4], [0.5, 0.6, 0.7]])
    found = {}
    for kind in ("median", "gaussian"):
        network = _Nothing()
        mechanisms.build([Spec(name="spatial-smoothing", settings={"kind": kind})]).install(network)
        found[kind] = network(patch.expand(1, 3, 3, 3))[0, 0, 1, 1].item()
    assert found["median"] == pytest.approx(0.4)
    beside, corner = 2.718281828 ** -(1 / (2 * 0.75**2)), 2.718281828 ** -(2 / (2 * 0.75**2))  # exp(-d^2 / 2 s^2)
    expected = (0.9 + beside * (0.1 + 0.3 + 0.4 + 0.6) + corner * (0.0 + 0.2 + 0.5 + 0.7)) / (
        1 + 4 * beside + 4 * corner
    )
    assert found["gaussian"] == pytest.approx(expected, rel=1e-6)  # of float32


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
    found = network.eval()(images[:2]).exp()
    noisy = images[:2].repeat(20_000, 1, 1, 1)
    expected = plain(noisy + 0.5 * torch.randn_like(noisy)).softmax(dim=1).unflatten(0, (-1, 2)).mean(dim=0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2))
    assert (found - expected).abs().max() < 0.04


@pytest.mark.parametrize("name", ["spatial-smoothing", "randomised-smoothing"])
def test_a_bare_sequence_is_refused_because_it_would_run_what_stands_in_front_last(name):
    with pytest.raises(SpecError, match=r"got nn.Sequential: wrap it"):
        mechanisms.build([Spec(name=name)]).install(nn.Sequential(nn.Identity()))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("noise-augmentation", {"sigma": 0.0}, "noise-augmentation: sigma must be above 0, got 0"),
        ("noise-augmentation", {"sigma": -0.1}, "noise-augmentation: sigma must be above 0, got -0.1"),
        ("randomised-smoothing", {"sigma": 0.0}, "randomised-smoothing: sigma must be above 0, got 0"),
        ("randomised-smoothing", {"draws": 0}, "randomised-smoothing: draws must be at least 1, got 0"),
        ("mixed-training", {"sigma": 0.0}, "mixed-training: sigma must be above 0, got 0"),
        ("mixed-training", {"sigma": float("nan")}, "mixed-training: sigma must be above 0, got nan"),
        ("mixed-training", {"eps": -0.03}, "mixed-training: eps must be above 0, got -0.03"),
        ("mixed-training", {"cw_steps": 0}, "mixed-training: cw_steps must be above 0, got 0"),
        ("adversarial-training", {"eps": -0.03}, "adversarial-training: eps must be above 0, got -0.03"),
        ("adversarial-training", {"steps": 0}, "adversarial-training: steps must be above 0, got 0"),
        ("half-adversarial", {"step_size": 0.0}, "half-adversarial: step_size must be above 0, got 0"),
        ("trades", {"eps": -0.03}, "trades: eps must be above 0, got -0.03"),
        ("trades", {"beta": -6.0}, "trades: expected beta and steps of at least 0, got -6 and 10"),
        ("trades", {"steps": -1}, "trades: expected beta and steps of at least 0, got 6 and -1"),
        ("fast-training", {"stride": -1.25}, "fast-training: stride must be above 0, got -1.25"),
        ("fast-training", {"watch_every": -1}, "fast-training: watch_every must be at least 0, got -1"),
        ("mixed-training", {"clean": 1.5}, "expected clean from 0 to 1 .*; got 1.5"),
        ("label-smoothing", {"amount": 1.1}, "label-smoothing: amount must lie between 0 and 1, got 1.1"),
        ("spatial-smoothing", {"size": 4}, "spatial-smoothing: size must be odd and at least 3, got 4"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_training(name, settings, message):
    with pytest.raises(SpecError, match=message):
        mechanisms.build([Spec(name=name, settings=settings)])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "winner-take-all",
            {"mode": "max"},
            "mode must be 'sampled' or 'straight-through' or .* or 'relu-noise', got 'max'",
        ),
        ("noise-injection", {"where": "bias"}, "where must be 'weights' or .* or 'block-input' or 'input', got 'bias'"),
        ("mixed-training", {"granularity": "image"}, "granularity must be 'batch' or 'example', got 'image'"),
        ("dropout", {"p": 0.5}, "dropout has no setting 'p'. It has: rate, deployed"),
        ("indian-bufet", {}, "There is no mechanism 'indian-bufet'.*Did you mean 'indian-buffet'"),
    ],
)
def test_unknown_options_are_answered_with_those_there_are(name, settings, message):
    with pytest.raises(SpecError, match=message):
        mechanisms.build([Spec(name=name, settings=settings)])
