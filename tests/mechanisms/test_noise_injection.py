from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import nn

from unperturbed import mechanisms, models
from unperturbed.data import load
from unperturbed.mechanisms import NOTHING, Tools
from unperturbed.mechanisms.installing import switch
from unperturbed.mechanisms.noise_injection import Noise, half_adversarial, noise_injection
from unperturbed.records import Recipe, Spec, SpecError
from unperturbed.tensors.streams import generator, undisturbed
from unperturbed.training import begin, train


def test_noise_has_mean_zero_and_alpha_times_the_standard_deviation():
    value = torch.linspace(-3, 5, 20_000)
    with undisturbed("noise"):
        added = Noise((1,), 0.25, learned=True)(value) - value
    deviation = 0.25 * value.std(correction=0)
    assert added.mean().abs() < 4 * deviation / 20_000**0.5
    assert (added.std() / deviation - 1).abs() < 4 / (2 * 20_000) ** 0.5


def test_gradients_are_those_of_the_equation():
    value = torch.randn(50, generator=torch.Generator().manual_seed(0), requires_grad=True)
    noise = Noise((1,), 0.25, learned=True)
    with undisturbed("noise"):
        out = noise(value)
    weights = torch.arange(50.0)
    (out * weights).sum().backward()
    torch.testing.assert_close(value.grad, weights)  # none through the standard deviation
    eta = (out - value).detach() / 0.25
    torch.testing.assert_close(noise.alpha.grad, (eta * weights).sum().view(1), rtol=1e-4, atol=1e-3)


def test_the_gradient_of_alpha_is_that_of_finite_differences():
    """Of a whole network, whose standard deviations hold still because the weights do."""
    network = models.build(Spec(name="lenet"), generator("weights", 0)).double()
    noise_injection().install(network)
    images = torch.rand(4, 3, 32, 32, generator=generator("images")).double()
    alpha = network.conv2.parametrizations.weight[0].alpha

    def loss():
        with undisturbed("noise"):
            return network(images).log_softmax(dim=1)[:, 0].sum()

    (gradient,) = torch.autograd.grad(loss(), alpha)
    ends = []
    with torch.no_grad():
        for by in (1e-6, -2e-6):
            alpha += by
            ends.append(loss())
    difference = (ends[0] - ends[1]) / 2e-6
    torch.testing.assert_close(gradient.sum(), difference, rtol=1e-5, atol=1e-7)  # of a central difference


PLACES = ["weights", "activations", "block-input", "input"]


@pytest.mark.parametrize("where", PLACES)
def test_noise_is_drawn_in_every_pass_until_it_is_switched_off(where):
    network = models.build(Spec(name="lenet"), generator("weights", 0)).eval()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = network(images)
    noise_injection(where=where).install(network)
    for mode in (True, False):
        network.train(mode)
        assert not torch.equal(network(images), network(images))
        answers = []
        for _ in range(2):
            with undisturbed("seeded"):
                answers.append(network(images))
        assert torch.equal(*answers)
    switch(network, Noise, active=False)
    torch.testing.assert_close(network(images), plain, rtol=0, atol=0)


@pytest.mark.parametrize("where", PLACES)
def test_without_strength_noise_is_the_plain_network(where):
    network = models.build(Spec(name="lenet"), generator("weights", 0))
    images = torch.rand(4, 3, 32, 32, generator=generator("images"))
    plain = network(images)
    noise_injection(where=where, alpha=0.0).install(network)
    torch.testing.assert_close(network(images), plain, rtol=0, atol=0)


class _Kept(nn.Module):
    """Writes down what passes."""

    def forward(self, hidden):
        self.seen = hidden
        return hidden


@pytest.mark.parametrize("where", ["activations", "block-input"])
def test_noise_stands_behind_the_rectifier_or_in_front_of_the_layer(where):
    network = nn.Module()
    network.block = nn.Sequential(_Kept(), nn.Linear(50, 50), _Kept(), nn.ReLU(), _Kept())
    noise_injection(where=where, alpha=0.5).install(network)
    linear, images = network.block[1], torch.randn(400, 50, generator=generator("hidden"))
    with torch.no_grad(), undisturbed("place"):
        network.block(images)
    entered, hidden, out = (network.block[place].seen for place in (0, 2, 4))
    clean, noisy = {
        "activations": (hidden.relu(), out),
        "block-input": (F.linear(entered, linear.weight), hidden - linear.bias),
    }[where]
    added = noisy - clean
    if where == "block-input":  # noise of the input, seen through the weights
        expected = 0.5 * images.std(correction=0) * linear.weight.square().sum(dim=1).mean().sqrt()
        assert torch.equal(out, hidden.relu())
    else:
        expected = 0.5 * clean.std(correction=0)
        torch.testing.assert_close(hidden, linear(images), rtol=0, atol=0)
    assert (added.std() / expected - 1).abs() < 0.05  # 4 standard errors of 20,000 numbers would be 0.02


def test_two_places_compose_and_each_keeps_its_own_alphas():
    both = [Spec(name="noise-injection", settings={"where": where}) for where in ("weights", "activations")]
    counts = {}
    for order in (both, both[::-1]):
        network = models.build(Spec(name="lenet"), generator("weights", 0))
        before = torch.get_rng_state()
        mechanisms.build(order).install(network)
        assert torch.equal(torch.get_rng_state(), before)
        counts[str(order)] = sum(isinstance(layer, Noise) for layer in network.modules())
        images = torch.rand(4, 3, 32, 32, generator=generator("images"))
        for layers in (network.conv1, network.relu1):
            switch(network, Noise, active=False)
            still = network(images)
            switch(layers, Noise, active=True)
            assert not torch.equal(network(images), still)
        switch(network, Noise, active=True)
        network(images).sum().backward()
        assert all(layer.alpha.grad is not None for layer in network.modules() if isinstance(layer, Noise))
    assert set(counts.values()) == {5 + 4}


def test_all_places_compose_with_each_other_and_with_dropout():
    network = models.build(Spec(name="lenet"), generator("weights", 0))
    specs = [Spec(name="noise-injection", settings={"where": where}) for where in PLACES]
    mechanisms.build([*specs, Spec(name="dropout")]).install(network)
    assert network(torch.rand(2, 3, 32, 32)).isfinite().all()
    with pytest.raises(SpecError, match="input_noise: LeNet has one already"):
        noise_injection(where="input").install(network)


@pytest.mark.parametrize("own_answers", [False, True])
def test_half_of_the_loss_is_clean_and_half_is_taken_where_the_attack_went(own_answers):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images, labels = torch.rand(9, 3, 2, 2, generator=generator("images")), torch.arange(9) % 3
    aims = []

    def attack(name, network, images, labels, seed, **settings):
        aims.append((name, labels, network.training, settings["eps"]))
        return images + 0.1

    def cross_entropy(network, images, labels):
        return F.cross_entropy(network(images), labels, reduction="none")

    mechanism = half_adversarial(eps=0.2, own_answers=own_answers)
    network.train()
    losses = mechanism.objective(cross_entropy, Tools(attack, 0, NOTHING.attacked))(network, images, labels)
    expected = (cross_entropy(network, images, labels) + cross_entropy(network, images + 0.1, labels)) / 2
    torch.testing.assert_close(losses, expected)
    ((name, aimed, training, eps),) = aims
    assert (name, training, eps, network.training) == ("pgd", False, 0.2, True)
    answers = network(images).argmax(dim=1)
    assert not torch.equal(answers, labels)
    assert torch.equal(aimed, answers if own_answers else labels)


def test_clean_and_adversarial_losses_draw_noise_of_their_own():
    """As does every pass of the attack; without the noise the losses of equal images would be equal."""
    network = models.build(Spec(name="lenet"), generator("weights", 0))
    noise_injection().install(network)
    images, labels = torch.rand(6, 3, 32, 32, generator=generator("images")), torch.arange(6)
    losses = []

    def cross_entropy(network, images, labels):
        losses.append(F.cross_entropy(network(images), labels, reduction="none"))
        return losses[-1]

    tools = Tools(lambda name, network, images, labels, seed, **settings: images, 0, NOTHING.attacked)
    with undisturbed("two losses"):
        half_adversarial().objective(cross_entropy, tools)(network, images, labels)
        again = cross_entropy(network, images, labels)
    clean, adversarial = losses[:2]
    assert ((clean != adversarial) & (adversarial != again)).all()
    with undisturbed("two losses"):
        assert torch.equal(cross_entropy(network, images, labels), clean)


def test_the_first_epochs_of_the_source_are_clean():
    """5 of 160 epochs, of 3 batches each."""
    asked = []

    def attack(name, network, images, labels, seed, **settings):
        asked.append(name)
        return images

    mechanism, images = half_adversarial(clean_start=5 / 160), torch.rand(2, 3, 2, 2, generator=generator("images"))
    for step in range(1, 21):
        tools = Tools(attack, 0, NOTHING.attacked, step / (160 * 3))
        losses = mechanism.objective(lambda _, images, labels: images.sum(dim=(1, 2, 3)), tools)(
            nn.Module(), images, None
        )
        torch.testing.assert_close(losses, images.sum(dim=(1, 2, 3)))
        assert len(asked) == max(0, step - 15)
    with pytest.raises(SpecError, match="half-adversarial: clean_start must lie between 0 and 1, got 2"):
        half_adversarial(clean_start=2.0)


@pytest.mark.parametrize(
    ("granularity", "count"), [("layer", 5), ("channel", 6 + 16 + 120 + 84 + 10), ("element", 61_770)]
)
def test_there_are_as_many_alphas_as_the_granularity_says(granularity, count):
    network = models.build(Spec(name="lenet"), generator("weights", 0))
    noise_injection(granularity=granularity).install(network)
    assert sum(layer.alpha.numel() for layer in network.modules() if isinstance(layer, Noise)) == count


def test_alpha_does_not_decay_and_weights_do(black):
    mechanism = noise_injection(where="input")
    network = models.build(Spec(name="lenet"), generator("weights", 0))
    mechanism.install(network)
    before = begin(network)
    recipe = Recipe(epochs=1, batch_size=10, learning_rate=0.1, weight_decay=0.5)
    (after,) = train(network, [before], black, recipe, seeds=[0], until=1, mechanism=mechanism)
    # A black image has no deviation, so that alpha has no gradient; nor have the first weights. The rate is divided by 10.
    assert after.weights["input_noise.alpha"].item() == 0.25
    torch.testing.assert_close(after.weights["conv1.weight"], before.weights["conv1.weight"] * (1 - 0.01 * 0.5))


def test_alpha_is_not_clipped_and_its_sign_means_nothing():
    value = torch.linspace(-3, 5, 200)
    noise = Noise((1,), 0.25, learned=True)
    drawn = []
    for alpha in (0.25, -0.25, 3.0):
        with torch.no_grad(), undisturbed("noise"):
            noise.alpha.fill_(alpha)
            drawn.append(noise(value) - value)
    torch.testing.assert_close(drawn[1], -drawn[0], rtol=1e-4, atol=1e-6)  # of adding to the value
    torch.testing.assert_close(drawn[2], 12 * drawn[0], rtol=1e-4, atol=1e-5)


def test_without_adversarial_training_noise_is_unlearned_epoch_by_epoch():
    digits = load(Spec(name="digits")).train
    mechanism = noise_injection()
    network = models.build(Spec(name="lenet"), generator("weights", 0))
    mechanism.install(network)
    states = [begin(network)]
    recipe = Recipe(epochs=5, batch_size=25, learning_rate=0.02)
    strengths = [0.25]
    for epoch in range(1, 6):
        states = train(network, states, digits, recipe, seeds=[0], until=epoch, mechanism=mechanism)
        alphas = [value.abs().mean() for name, value in states[0].weights.items() if name.endswith("alpha")]
        strengths.append(torch.stack(alphas).mean().item())
    assert all(later < before for before, later in pairwise(strengths))
    assert strengths[-1] < 0.2


def test_granularities_of_activations_are_refused():
    with pytest.raises(SpecError, match="granularity 'channel' is defined for weights"):
        noise_injection(where="activations", granularity="channel")


@pytest.mark.parametrize("where", ["weights", "block-input"])
def test_a_network_without_weights_is_refused(where):
    with pytest.raises(SpecError, match="noise-injection: expected a network with Conv2d or Linear modules"):
        noise_injection(where=where).install(nn.Sequential(nn.ReLU()))


def test_a_network_without_rectifiers_is_refused():
    with pytest.raises(SpecError, match="expected a network with ReLU modules; Sequential has none"):
        noise_injection(where="activations").install(nn.Sequential(nn.Linear(2, 2)))


def test_fixed_noise_is_not_trained():
    network = nn.Sequential(nn.Linear(3, 3))
    noise_injection(learned=False).install(network)
    assert [p.requires_grad for p in network.parameters() if p.numel() == 1] == [False]
