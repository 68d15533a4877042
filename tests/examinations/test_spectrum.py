import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.examinations.spectrum import spectrum
from unperturbed.measures.spectra import (
    cross_validated_spectrum,
    eigenspectrum,
    held_out_spectrum,
    marchenko_pastur_edges,
    power_law,
)
from unperturbed.models import build
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator

IMAGES = torch.rand(600, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(600, dtype=torch.long)


class Net(nn.Module):
    """Hidden units behind inputs of unit length, as the network of local learning has them; chance where it is asked."""

    def __init__(self, weight, bias=None, noise=0.0):
        super().__init__()
        self.inputs = nn.Flatten()
        self.hidden = nn.Linear(weight.shape[1], len(weight))
        self.hidden.weight.data, self.hidden.bias.data = weight, torch.zeros(len(weight)) if bias is None else bias
        self.noise = noise
        self.relu = nn.ReLU(inplace=True)
        self.readout = nn.Linear(len(weight), 3)

    def forward(self, images):
        entered = self.inputs(images)
        entered = entered + self.noise * torch.randn_like(entered) if self.noise else entered
        return self.readout(self.relu(self.hidden(entered)))


def _gaussian(samples, alpha, units=60, **rest):
    """Images (samples, 1, 1, units) whose pixels are independent, with variances of a power law."""
    drawn = torch.randn(samples, 1, 1, units, generator=torch.Generator().manual_seed(1))
    images = drawn * torch.arange(1, units + 1) ** (-alpha / 2)
    return images.float(), Net(torch.eye(units), **rest)


def _subject(images, network, **rest):
    return Subject(network.eval(), images, torch.zeros(len(images), dtype=torch.long), seed=3, **rest)


def test_what_is_measured_is_the_spectrum_of_the_hidden_currents(values):
    images, network = _gaussian(2000, 1.3)
    found = spectrum(_subject(images, network), first=5, last=50)
    currents = images.flatten(1).numpy()
    eigenvalues = eigenspectrum(currents)
    np.testing.assert_allclose(found.arrays["eigenvalues"], eigenvalues, rtol=1e-5)  # single precision
    law, weighted = (power_law(eigenvalues, first=5, last=50, weights=weights) for weights in ("none", "1/n"))
    measures = values(found)
    assert measures["spectrum_alpha"] == pytest.approx(law.alpha, abs=1e-5)
    assert measures["spectrum_alpha"] == pytest.approx(1.3, abs=0.1)
    assert measures["spectrum_alpha_weighted"] == pytest.approx(weighted.alpha, abs=1e-5)
    assert measures["spectrum_r2"] == pytest.approx(law.r2, abs=1e-5)
    assert measures["participation_ratio"] == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-5)
    assert measures["effective_rank"] > measures["participation_ratio"]
    assert measures["dead_units"] == 0
    assert measures["spectrum_alpha_alive"] == measures["spectrum_alpha"]
    assert found.arrays["range"].tolist() == [5, 50]
    assert found.arrays["ranges"].tolist() == [[5, 60], [11, 60], [20, 60]]
    assert measures["spectrum_alpha_least"] == found.arrays["range_alphas"].min()
    assert measures["spectrum_alpha_greatest"] == found.arrays["range_alphas"].max()
    halves = power_law(held_out_spectrum(currents[::2], currents[1::2]), first=5, last=50).alpha
    assert measures["spectrum_alpha_halves"] == pytest.approx(halves, abs=1e-4)
    assert "spectrum_alpha_draws" not in measures
    assert {row.n for row in found.measures} == {2000}
    assert (found.forwards, found.backwards) == (2000, 0)


def test_white_currents_are_told_from_a_power_law_by_what_stands_beside(values):
    images, network = _gaussian(121, 0.0)
    found = spectrum(_subject(images, network), first=5, last=50)
    edges = np.array(marchenko_pastur_edges(121, 60)) * found.arrays["eigenvalues"].mean()
    np.testing.assert_allclose(found.arrays["white_edges"], edges, rtol=1e-12)
    assert found.arrays["eigenvalues"][0] == pytest.approx(edges[1], rel=0.1)
    alpha = values(found)["spectrum_alpha"]
    assert alpha > 0.7
    assert float(found.arrays["white_alpha"]) == pytest.approx(alpha, rel=0.1)


def test_dead_units_are_counted_and_left_out(values):
    """A third of the units have a current far below 0 at all times, and a large variance."""
    images, _ = _gaussian(2000, 1.0)
    weight = torch.eye(60).clone()
    weight[40:] *= 30
    network = Net(weight, bias=torch.where(torch.arange(60) < 40, 0.0, -1e3))
    found = spectrum(_subject(images, network), first=5, last=35)
    measures = values(found)
    assert measures["dead_units"] == pytest.approx(1 / 3)
    np.testing.assert_array_equal(found.arrays["alive"], np.arange(60) < 40)
    alive = power_law(eigenspectrum(images.flatten(1).numpy()[:, :40]), first=5, last=35).alpha
    assert measures["spectrum_alpha_alive"] == pytest.approx(alive, abs=1e-4)
    assert abs(measures["spectrum_alpha"] - alive) > 0.1


def test_what_is_not_defined_is_left_out(values):
    images, _ = _gaussian(40, 1.0)
    dead = spectrum(_subject(images, Net(torch.eye(60), bias=torch.full((60,), -1e3))))
    assert values(dead)["dead_units"] == 1
    assert "spectrum_alpha_alive" not in values(dead)
    constant = spectrum(_subject(images, Net(torch.zeros(60, 60), bias=torch.linspace(-2, 1, 60))))
    assert values(constant) == {"dead_units": pytest.approx(40 / 60)}
    assert constant.arrays.keys() == {"alive"}
    few = spectrum(_subject(images[:3], Net(torch.eye(60))))
    images[::2] = images[0]
    half = spectrum(_subject(images, Net(torch.eye(60))))
    for found in (few, half):
        assert "eigenvalues_halves" not in found.arrays
        assert values(found)["participation_ratio"] >= 1


def test_two_draws_of_a_random_network_are_repeats(values):
    """The noise is ten times the variance of rank 40: the plain exponent is too low, that of the repeats is not."""
    images, _ = _gaussian(3000, 1.0)
    network = Net(torch.eye(60), noise=0.5)
    found = spectrum(_subject(images, network, random=True), first=5, last=50)
    measures = values(found)
    clean = values(spectrum(_subject(images, Net(torch.eye(60))), first=5, last=50))["spectrum_alpha"]
    assert measures["spectrum_alpha"] < clean - 0.5
    assert measures["spectrum_alpha_draws"] == pytest.approx(clean, abs=0.15)
    assert "spectrum_alpha_halves" not in measures
    assert found.forwards == 6000
    # The input has no chance in it.
    assert "spectrum_alpha_halves" in values(spectrum(_subject(images, network, random=True), layer="input"))


def test_the_range_ends_where_there_are_no_eigenvalues_above_zero(values):
    images, _ = _gaussian(400, 1.0)
    weight = torch.zeros(60, 60)
    weight[:, :30] = torch.randn(60, 30, generator=torch.Generator().manual_seed(2))
    found = spectrum(_subject(images, Net(weight)))
    assert found.arrays["range"].tolist() == [11, 30]
    assert (found.arrays["eigenvalues"][30:] == 0).all()
    assert found.arrays["ranges"].tolist() == [[5, 30], [11, 30], [20, 30]]
    short = spectrum(_subject(images[:13], Net(weight)))
    assert short.arrays["range"].tolist() == [0, 0]
    assert not {"spectrum_alpha", "spectrum_alpha_weighted", "spectrum_r2"} & values(short).keys()
    assert values(short)["spectrum_alpha_least"] <= values(short)["spectrum_alpha_greatest"]
    assert short.arrays["range_alphas"].shape == (1,)  # ranks 5 to 12


@pytest.mark.parametrize("inputs", [True, False])
def test_the_input_is_what_enters_and_needs_no_pass_where_nothing_comes_before(inputs):
    images, network = _gaussian(100, 1.0)
    expected = images.flatten(1).numpy()
    if inputs:
        network.inputs = nn.Sequential(nn.Flatten(), nn.Softmax(dim=1))
        expected = torch.softmax(images.flatten(1), dim=1).numpy()
    else:
        network = nn.Sequential(nn.Flatten(), nn.Linear(60, 3))
    found = spectrum(_subject(images, network), layer="input")
    np.testing.assert_allclose(found.arrays["eigenvalues"], eigenspectrum(expected), rtol=1e-4, atol=1e-9)
    assert found.forwards == (100 if inputs else 0)


def test_white_noise_enters_as_it_is_and_belongs_to_the_seed():
    images, network = _gaussian(500, 1.0)
    seen = []
    network.inputs.register_forward_hook(lambda _layer, arguments, _output: seen.append(arguments[0].clone()))
    subject = _subject(images, network)
    for seed in (3, 3, 4):
        spectrum(subject._replace(seed=seed), noise=True)
    one, same, other = seen
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == images.shape
    assert abs(float(one.mean())) < 5 / one.numel() ** 0.5
    assert float(one.std()) == pytest.approx(1, abs=5 / (2 * one.numel()) ** 0.5)


@pytest.mark.parametrize(
    ("model", "layer", "units"),
    [
        (Spec(name="lenet"), None, 84),
        (Spec(name="lenet"), "conv2", 1600),
        (Spec(name="fully-connected", settings={"hidden": 50}), None, 50),
        (Spec(name="hidden-layer", settings={"hidden": 40}), None, 40),
        (Spec(name="lenet"), "relu3", 120),
        (Spec(name="lenet"), "input", 3072),
    ],
)
def test_layers_of_the_networks_of_the_lab(model, layer, units):
    network = build(model, generator("weights", 0))
    images = IMAGES[:300]
    found = spectrum(_subject(images, network), layer=layer)
    assert len(found.arrays["eigenvalues"]) == min(299, units)
    assert found.arrays["alive"].shape == (units,)
    varying = int(found.arrays["alive"].sum()) if layer == "relu3" else units  # behind a rectifier dead units are 0
    assert found.arrays["range"].tolist() == [11, min(299, varying)]
    assert math.isfinite({row.measure: row.value for row in found.measures}["spectrum_alpha"])


def test_several_batches_are_one_table(values):
    network = build(Spec(name="lenet"), generator("weights", 0)).eval()
    found = spectrum(_subject(IMAGES, network))
    with torch.no_grad():
        hidden = []
        hook = network.fc2.register_forward_hook(lambda _layer, _arguments, output: hidden.append(output))
        network(IMAGES)
        hook.remove()
    eigenvalues = eigenspectrum(hidden[0].numpy())
    np.testing.assert_allclose(found.arrays["eigenvalues"][:40], eigenvalues[:40], rtol=1e-3)
    assert values(found)["dead_units"] == pytest.approx(1 - float((hidden[0] > 0).any(dim=0).double().mean()))


def test_repeats_are_those_of_the_two_draws(monkeypatch):
    """Both come from the same images in the same order, and the first is the one whose plain spectrum is measured."""
    images, _ = _gaussian(200, 1.0)
    network = Net(torch.eye(60), noise=0.3)
    shown = []
    network.hidden.register_forward_hook(lambda _layer, _arguments, output: shown.append(output.clone().numpy()))
    found = spectrum(_subject(images, network, random=True))
    assert len(shown) == 2
    assert not np.allclose(*shown)
    np.testing.assert_allclose(found.arrays["eigenvalues"], eigenspectrum(shown[0]), rtol=1e-9)
    np.testing.assert_allclose(found.arrays["eigenvalues_draws"], cross_validated_spectrum(*shown), rtol=1e-9)


def test_what_cannot_be_measured_is_refused():
    images, network = _gaussian(20, 1.0)
    subject = _subject(images, network)
    with pytest.raises(SpecError, match="three ranks or more; got 500 to 11"):
        spectrum(subject, first=500, last=11)
    with pytest.raises(SpecError, match=r"no layer 'hiden'\. There are: inputs, hidden, relu, readout\. .*'hidden'\?"):
        spectrum(subject, layer="hiden")
    linear = nn.Sequential(nn.Flatten(), nn.Linear(60, 3))
    with pytest.raises(SpecError, match="a layer before its readout; Sequential has none: name a layer"):
        spectrum(_subject(images, linear))
    with pytest.raises(SpecError, match="activity: expected finite numbers; got 1200 that are not"):
        spectrum(_subject(images, Net(torch.full((60, 60), torch.nan))))
    assert EXAMINATIONS["spectrum"] is spectrum


@pytest.mark.parametrize("folder", ["cifar10-2000-units", "cifar10-2000-units-200-epochs"])
def test_the_kept_exponent_of_cifar10_as_it_enters_is_the_published_one(folder):
    """1.47, of all 10,000 test images over ranks 11 to 500."""
    path = Path(__file__).parents[2] / "results" / "local-learning" / folder / "tables" / "measures.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["attack"] == "spectrum-input"]
    found = {round(float(row["mean"]), 2) for row in rows if row["measure"] == "spectrum_alpha"}
    assert found == {1.47}
