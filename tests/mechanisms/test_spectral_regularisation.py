"""The penalty by hand, the eigenvectors of an epoch, and what differs between the definition and what was published."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from unperturbed import models
from unperturbed.mechanisms import NOTHING, Tools
from unperturbed.mechanisms.spectral_regularisation import power_law_penalty, spectral_regularisation
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator

UNITS = 12
IMAGES = torch.rand(120, 3, 32, 32, generator=generator("images"), dtype=torch.float64)
BATCH, LABELS = IMAGES[:30], torch.arange(30) % 10


def _cross_entropy(network, images, labels):
    return F.cross_entropy(network(images), labels, reduction="none")


def _case(**settings):
    mechanism = spectral_regularisation(**settings)
    network = models.build(Spec(name="hidden-layer", settings={"hidden": UNITS}), generator("weights", 0)).double()
    mechanism.install(network)
    return mechanism, network.train()


def _losses(mechanism, network, *, fresh=False, loss=_cross_entropy, images=IMAGES):
    tools = Tools(lambda *_, **__: None, 0, NOTHING.attacked, 1.0, fresh, lambda: iter(images.split(50)))
    return mechanism.objective(loss, tools)(network, images[:30], LABELS)


def _zero(network, images, labels):
    return 0 * network(images).sum(dim=1)


def _penalty(mechanism, network, **where):
    """Return what is added to the loss of every image."""
    added = _losses(mechanism, network, loss=_zero, **where)
    assert (added == added[0]).all()
    return added[0]


def test_the_penalty_is_the_sum_of_the_equation():
    spectrum = torch.tensor([9.0, 4.0, 3.0, 1.0, 0.5], dtype=torch.float64)
    target = torch.tensor([8.0, 4.0, 2.0, 2.0, 1.0], dtype=torch.float64)
    tail = [(1.5 - 1) ** 2 + 0.5, (0.5 - 1) ** 2, (0.5 - 1) ** 2]
    assert power_law_penalty(spectrum, target, rank=2).item() == pytest.approx(sum(tail) / 5, rel=1e-12)
    assert power_law_penalty(target, target, rank=0) == 0


@pytest.mark.parametrize("exponent", [1.0, 2.62])
def test_the_penalty_as_defined_is_that_of_the_variances_along_the_eigenvectors(exponent):
    mechanism, network = _case(exponent=exponent, rank=3, strength=0.5)
    with torch.no_grad():  # otherwise the mean of a batch is 0 anyway
        network.readout.normalisation.bias.copy_(torch.randn(UNITS, generator=generator("bias")))
    other = copy.deepcopy(network)  # every pass in training mode changes the normalisation
    with torch.no_grad():
        network.eval()
        every = network.readout.normalisation(network.code(IMAGES))
        vectors = torch.linalg.eigh(torch.cov(every.T)).eigenvectors
        network.train()
        batch = network.readout.normalisation(network.code(BATCH))
        lambdas = sorted((vectors.T @ torch.cov(batch.T) @ vectors).diagonal().tolist(), reverse=True)
    gamma = [lambdas[2] * 3**exponent / n**exponent for n in range(1, UNITS + 1)]
    ratios = [value / target - 1 for value, target in zip(lambdas, gamma, strict=True)]
    expected = 0.5 / UNITS * sum(r**2 + max(0, r) for r in ratios[3:])
    assert _penalty(mechanism, other, fresh=True).item() == pytest.approx(expected, rel=1e-9)


def test_the_penalty_as_published_is_that_of_uncentred_moments_and_an_absolute_target():
    mechanism, network = _case(form="published", exponent=1.0, rank=0, strength=0.01)
    with torch.no_grad():
        last = network.hidden(network.inputs(IMAGES[100:]))  # the last of batches of 50
        batch = network.hidden(network.inputs(BATCH))
        vectors = torch.linalg.eigh(last.T @ last).eigenvectors.flip(1)
        lambdas = (vectors.T @ (batch.T @ batch / 29) @ vectors).diagonal().tolist()
    assert lambdas[0] > 10 * torch.linalg.eigvalsh(torch.cov(batch.T))[-1]  # the mean is what is seen
    ratios = [n * value - 1 for n, value in enumerate(lambdas, 1)]
    expected = 0.01 / UNITS * sum(r**2 + max(0, r) for r in ratios)
    assert _penalty(mechanism, network, fresh=True).item() == pytest.approx(expected, rel=1e-9)


def test_the_target_is_in_proportion_to_the_spectrum_as_defined_and_not_as_published():
    """Currents that are twice as large: the rule as defined sees the same law, the published one another size."""
    found = {}
    for form in ("nassar", "published"):
        for scale in (1.0, 2.0):
            mechanism, network = _case(form=form, rank=3)
            network.readout.normalisation = torch.nn.Identity()  # which would take the scale out
            with torch.no_grad():
                network.hidden.weight *= scale
                found[form, scale] = _penalty(mechanism, network, fresh=True).item()
    assert found["nassar", 2.0] == pytest.approx(found["nassar", 1.0], rel=1e-6)
    assert found["published", 2.0] != pytest.approx(found["published", 1.0], rel=0.05)


@pytest.mark.parametrize("form", ["nassar", "published"])
def test_eigenvectors_are_taken_at_the_first_step_of_an_epoch_and_kept(form):
    mechanism, network = _case(form=form, rank=1)
    assert torch.equal(network.spectral_basis, torch.eye(UNITS, dtype=torch.float64))
    _losses(mechanism, network, fresh=True)
    taken = network.spectral_basis.clone()
    torch.testing.assert_close(taken.T @ taken, torch.eye(UNITS, dtype=torch.float64), rtol=0, atol=1e-10)
    with torch.no_grad():
        network.hidden.weight *= -0.5
        network.hidden.weight[0] *= 3
    _losses(mechanism, network)
    assert torch.equal(network.spectral_basis, taken)
    assert "spectral_basis" in network.state_dict()
    _losses(mechanism, network, fresh=True)
    assert not torch.equal(network.spectral_basis, taken)
    assert network.training
    assert network.readout.normalisation.training


def test_no_gradient_goes_through_the_target():
    """The gradient of the hidden weights is that of the penalty with the target held where it is."""
    mechanism, network = _case(rank=2, strength=3.0)
    _losses(mechanism, network, fresh=True)
    basis, weight = network.spectral_basis, network.hidden.weight

    def spectrum():
        hidden = network.readout.normalisation(network.code(BATCH))
        return torch.einsum("ni,ij,nj->n", basis.T, torch.cov(hidden.T), basis.T).sort(descending=True).values

    ranks = torch.arange(1, UNITS + 1, dtype=torch.float64)
    held = spectrum()[1].item() * 2 / ranks
    (found,) = torch.autograd.grad(_penalty(mechanism, network), weight)
    (expected,) = torch.autograd.grad(3 * power_law_penalty(spectrum(), held, rank=2), weight)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)  # float64, two orders of summation
    (through,) = torch.autograd.grad(3 * power_law_penalty(spectrum(), spectrum()[1] * 2 / ranks, rank=2), weight)
    assert (found - through).abs().max() > 1e-3


def test_training_with_it_brings_the_spectrum_to_the_power_law():
    mechanism, network = _case(rank=2)
    images = 2 * IMAGES - 1  # of either sign, so that no unit is silent for all of them
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    found = []
    for step in range(100):
        optimiser.zero_grad()
        found.append(_penalty(mechanism, network, fresh=step % 10 == 0, images=images))
        found[-1].backward()
        optimiser.step()
    assert found[0] > 1
    assert found[-1] < 0.01


def test_an_attack_inside_the_loss_is_not_what_is_regularised():
    """What a loss does to the network in evaluation mode leaves no trace in the penalty."""

    def attacked(network, images, labels):
        losses = _cross_entropy(network, images, labels)
        network.eval()
        network(1 - images)
        network.train()
        return losses

    mechanism, network = _case(rank=2)
    _losses(mechanism, network, fresh=True)
    expected = _losses(mechanism, network)
    torch.testing.assert_close(_losses(mechanism, network, loss=attacked), expected, rtol=1e-12, atol=0)
    assert not network.hidden._forward_hooks
    assert not network.readout.normalisation._forward_hooks


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": 0.0}, "spectral-regularisation: strength must be above 0, got 0"),
        ({"exponent": -1.0}, "spectral-regularisation: exponent must be above 0, got -1"),
        ({"rank": 0}, "spectral-regularisation: rank must be at least 1 in the form nassar, got 0"),
        (
            {"rank": -1, "form": "published"},
            "spectral-regularisation: rank must be at least 0 in the form published, got -1",
        ),
        ({"rank": 12}, "spectral-regularisation: rank must be below the 12 units of the layer, got 12"),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(SpecError, match=f"^{message}$"):
        _case(**settings)
