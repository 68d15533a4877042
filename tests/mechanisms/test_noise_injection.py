import pytest
import torch
from torch import nn

from unperturbed import models
from unperturbed.mechanisms.noise_injection import Noise, noise_injection, switch
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


@pytest.mark.parametrize("where", ["weights", "activations", "input"])
def test_noise_is_drawn_in_every_pass_until_it_is_switched_off(where):
    network = models.build(Spec(name="lenet"), generator("weights", 0)).eval()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = network(images)
    noise_injection(where=where).install(network)
    assert not torch.equal(network(images), network(images))
    switch(network, active=False)
    torch.testing.assert_close(network(images), plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("granularity", "count"), [("layer", 5), ("channel", 6 + 16 + 120 + 84 + 10), ("element", 61_770)]
)
def test_there_are_as_many_alphas_as_the_granularity_says(granularity, count):
    network = models.build(Spec(name="lenet"), generator("weights", 0))
    noise_injection(granularity=granularity).install(network)
    assert sum(layer.alpha.numel() for layer in network.modules() if isinstance(layer, Noise)) == count


class _Flat:
    """Images without a message: only weight decay moves anything."""

    def __len__(self):
        return 10

    def to(self, _device):
        return self

    def draw(self, _generator):
        return torch.arange(10).unsqueeze(1)

    def images(self, rows):
        return torch.zeros(len(rows), 3, 32, 32)

    def labels(self, rows):
        return rows[:, 0] % 10


def test_alpha_does_not_decay_and_weights_do():
    mechanism = noise_injection(where="input")
    network = models.build(Spec(name="lenet"), generator("weights", 0))
    mechanism.install(network)
    before = begin(network)
    recipe = Recipe(epochs=1, batch_size=10, learning_rate=0.1, weight_decay=0.5)
    (after,) = train(network, [before], _Flat(), recipe, seeds=[0], until=1, mechanism=mechanism)
    # A black image has no deviation, so that alpha has no gradient; nor have the first weights. The rate is divided by 10.
    assert after.weights["input_noise.alpha"].item() == 0.25
    torch.testing.assert_close(after.weights["conv1.weight"], before.weights["conv1.weight"] * (1 - 0.01 * 0.5))


def test_granularities_of_activations_are_refused():
    with pytest.raises(SpecError, match="granularity 'channel' is defined for weights"):
        noise_injection(where="activations", granularity="channel")


def test_fixed_noise_is_not_trained():
    network = nn.Sequential(nn.Linear(3, 3))
    noise_injection(learned=False).install(network)
    assert [p.requires_grad for p in network.parameters() if p.numel() == 1] == [False]
