import sys

import pytest
import torch

from unperturbed.examinations import EXAMINATIONS, Interrupted, Subject
from unperturbed.records import SpecError

audited = EXAMINATIONS["audit"]


@pytest.fixture
def problem(linear):
    """A linear network in the middle of the box, and how far each image is from the boundary in the Linf norm."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(48, generator=random)
    images = 0.4 + 0.2 * torch.rand(60, 3, 4, 4, generator=random)
    network = linear(weight, -0.5 * float(weight.sum())).eval()
    with torch.no_grad():
        labels = network(images).argmax(dim=1)
        distance = (images.flatten(1) @ weight + network.bias).abs() / weight.abs().sum()
    return Subject(network, images, labels, seed=1), distance


@pytest.mark.usefixtures("unchecked")
def test_an_honest_network_keeps_its_closed_form_and_is_trusted(problem, values):
    subject, distance = problem
    eps = float(distance.median()) + 1e-4
    found = audited(subject, eps=eps)
    left = float((distance > eps).double().mean())
    flags = found.arrays["flags"].tolist()
    expected = {"f0": 1.0, "A_eps": left, "A_eps_plain": left, "audit_flags": len(flags), "audit_verdict": 0}
    assert values(found) == expected, flags
    for radius, accuracy, count in found.curves:
        assert count == 60
        assert accuracy == pytest.approx(float((distance > radius).double().mean()), abs=1 / 60 + 1e-9)
    assert (eps, left, 60) in found.curves
    assert found.arrays["critical_eps"].shape == (60,)
    assert len(found.arrays["reasons"]) >= 1


@pytest.mark.usefixtures("unchecked")
def test_an_illusion_is_called_one(problem, values, answers):
    """Logits so large that single precision has no gradient of the rounded cross-entropy left."""
    subject, distance = problem
    vain = answers(lambda images, _asked: 1e6 * subject.network(images)).eval()
    eps = float(distance.quantile(0.8))
    found = audited(subject._replace(network=vain), eps=eps)
    assert values(found)["A_eps_plain"] > 0.9
    assert values(found)["A_eps"] == pytest.approx(0.2, abs=0.02)
    assert values(found)["audit_flags"] == len(found.arrays["flags"]) > 0
    assert values(found)["audit_verdict"] == 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("looks", [40, 400])
def test_the_middle_of_an_audit_can_be_interrupted(problem, looks):
    subject, _ = problem
    left = iter(range(looks))
    with pytest.raises(Interrupted):
        audited(subject._replace(stopped=lambda: next(left, None) is None), eps=0.02)
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_an_interruption_that_an_audit_took_for_a_failure_is_not_forgotten(problem, monkeypatch):
    subject, _ = problem

    def deaf(network, images, *_rest, **_settings):
        with pytest.raises(Interrupted):
            network(images)

    monkeypatch.setattr(sys.modules[audited.__module__], "audit", deaf)
    with pytest.raises(Interrupted):
        audited(subject._replace(stopped=lambda: True))


@pytest.mark.parametrize("random", [False, True])
def test_the_audit_is_told_what_is_known(problem, monkeypatch, random):
    subject, _ = problem
    told = {}

    def listening(*given, **settings):
        told.update(settings, given=given)
        raise SpecError("enough")

    monkeypatch.setattr(sys.modules[audited.__module__], "audit", listening)
    beside = torch.nn.Flatten()
    subject = subject._replace(random=random, beside=lambda: beside)
    with pytest.raises(SpecError, match="enough"):
        audited(subject, budget="standard", norm="l2", eps=0.5)
    assert told.pop("given") == (subject.network, subject.images, subject.labels)
    assert told.pop("on_update") == subject.look
    assert told == {
        "eps": 0.5,
        "norm": "l2",
        "budget": "standard",
        "twin": beside,
        "traits": ["random"] if random else [],
        "seed": 1,
        "batch_size": 500,
    }
