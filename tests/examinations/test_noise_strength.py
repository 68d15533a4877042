import pytest
import torch

from unperturbed.examinations import EXAMINATIONS
from unperturbed.mechanisms.installing import switch
from unperturbed.mechanisms.noise_injection import Noise

noise_strength = EXAMINATIONS["noise-strength"]


def _layers(subject):
    return [layer for layer in subject.network.modules() if isinstance(layer, Noise)]


def test_alpha_counts_without_its_sign_and_every_layer_alike(deployed, values):
    subject = deployed("noise-injection")
    first, second = _layers(subject)
    first.alpha.data.fill_(-0.5)
    second.alpha.data.fill_(0.1)
    found = noise_strength(subject)
    assert values(found) == {"noise_alpha": pytest.approx(0.3, abs=1e-7)}
    assert found.arrays["alpha"] == pytest.approx([0.5, 0.1], abs=1e-7)
    names = dict(subject.network.named_modules())
    assert [names[name] for name in found.arrays["layers"]] == [first, second]


def test_of_many_alphas_in_a_layer_the_mean_size_counts(deployed, values):
    subject = deployed("noise-injection")
    first, second = _layers(subject)
    first.alpha = torch.nn.Parameter(torch.tensor([-0.2, 0.2, 0.8]))
    second.alpha.data.fill_(0.0)
    assert values(noise_strength(subject))["noise_alpha"] == pytest.approx(0.2, abs=1e-7)


@pytest.mark.parametrize("names", [(), ("randomised-smoothing",), ("noise-injection",)])
def test_a_network_without_noise_has_no_measure(deployed, names):
    subject = deployed(*names)
    switch(subject.network, Noise, active=False)
    found = noise_strength(subject)
    assert list(found.measures) == []
    assert {name: array.shape for name, array in found.arrays.items()} == {"alpha": (0,), "layers": (0,)}
