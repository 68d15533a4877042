"""What every examination owes: declared measures, the same ones again, and a network that is as it was."""

import copy
import inspect
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from unperturbed import examinations
from unperturbed.data import Repetitions
from unperturbed.examinations import EXAMINATIONS, PASSES, Interrupted
from unperturbed.measures import QUANTITIES
from unperturbed.records import Spec, SpecError
from unperturbed.registry import complete

CHEAP = {
    "calibration": {"draws": 3},
    "certificates": {"n": 20, "n0": 5, "alpha": 0.05},
    "transfer": {"steps": 3},
    "gradients": {"draws": 3},
    "timing": {"batch_size": 4, "repeats": 2},
    "published-perturbation": {"grid": 10},
    "eeg-prediction": {"splits": 5},
    "representational-similarity": {"against": "eeg", "samples": 5},
    "estimators": {"draws": 2, "samples": 300, "units": 200, "last": 100},
}
ASKS_NOTHING = {"noise-strength"}  # of the network: there is nothing to interrupt
BY_THE_CLOCK = {"timing"}

pytestmark = pytest.mark.usefixtures("unchecked")


def _found(name, subject):
    return EXAMINATIONS[name](subject, **CHEAP.get(name, {}))


@pytest.fixture
def subject_of(deployed, with_branch):
    return lambda name, **rest: _subject(name, deployed, with_branch, **rest)


def _subject(name, deployed, with_branch, **rest):
    if name in ("eeg-prediction", "representational-similarity"):  # look at recordings
        subject = deployed(**rest)
        responses = np.random.default_rng(0).standard_normal((len(subject.images), 4, 3, 6))
        recorded = Repetitions(subject.images, responses, ("O1", "PO7", "Pz"), np.arange(6) / 20)
        subject = subject._replace(recorded=lambda: recorded)
        if name == "eeg-prediction":  # and at the network as it was trained
            network = with_branch(channels=3, times=6)
            subject = subject._replace(network=network, trained=lambda: network)
        return subject
    if name == "published-perturbation":  # looks behind the normalisation of one model
        return deployed(model="hidden-layer", **rest)
    return deployed("noise-injection" if name == "noise-strength" else "randomised-smoothing", **rest)


def test_every_file_of_the_folder_is_listed():
    folder = Path(inspect.getfile(examinations)).parent
    listed = {inspect.getmodule(function).__file__ for function in EXAMINATIONS.values()}
    assert {str(path) for path in folder.glob("*.py") if path.name not in {"__init__.py", "contract.py"}} == listed
    assert set(PASSES) == set(EXAMINATIONS)


@pytest.mark.parametrize("name", EXAMINATIONS)
def test_the_signature_is_a_schema_with_a_default_for_everything(name):
    spec = complete("examination", EXAMINATIONS, Spec(name=name))
    (subject, *settings) = inspect.signature(EXAMINATIONS[name]).parameters.values()
    assert subject.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(spec.settings) == {parameter.name for parameter in settings}


@pytest.mark.parametrize("name", EXAMINATIONS)
def test_measures_are_as_declared_the_same_again_and_nothing_is_disturbed(name, subject_of):
    subject = subject_of(name)
    for parameter in subject.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = _state(subject)
    found = _found(name, subject)
    assert _equal(_state(subject), before)

    assert found.measures
    for row in found.measures:
        quantity = QUANTITIES[row.measure]
        assert (row.unit, row.better) == (quantity.unit, quantity.better)
        assert quantity.lowest <= row.value <= quantity.highest
        assert row.n > 0
    assert len({row.measure for row in found.measures}) == len(found.measures)
    assert all(isinstance(array, np.ndarray) for array in found.arrays.values())
    assert all(0 <= accuracy <= 1 and n > 0 for _, accuracy, n in found.curves)

    if name not in BY_THE_CLOCK:
        torch.rand(7)
        again = _found(name, subject_of(name))
        assert again.measures == found.measures
        assert again.curves == found.curves
        assert (again.forwards, again.backwards) == (found.forwards, found.backwards)
        assert again.arrays.keys() == found.arrays.keys()
        for key, array in found.arrays.items():
            np.testing.assert_array_equal(again.arrays[key], array)


@pytest.mark.parametrize("name", sorted(set(EXAMINATIONS) - ASKS_NOTHING))
def test_an_interruption_is_heard_and_nothing_is_disturbed(name, subject_of):
    looks = []
    subject = subject_of(name, stopped=lambda: looks.append(0) or True)
    before = _state(subject)
    with pytest.raises(Interrupted):
        _found(name, subject)
    assert len(looks) < 100
    assert _equal(_state(subject), before)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("spectrum", {"first": 500, "last": 11}, "three ranks or more; got 500 to 11"),
        (
            "estimators",
            {"last": 800},
            "last within three quarters of the units; got 5, 0.5, 1400 samples, 1000 units and last = 800",
        ),
        ("estimators", {"samples": 900}, "more samples than units"),
        ("estimators", {"share": 0.0}, "a share above 0"),
        ("estimators", {"draws": 0}, "draws of at least 1"),
        ("robustness-gain", {"attack": "ddn", "norm": "linf"}, "ddn: norm must be 'l2', got 'linf'"),
        ("transfer", {"steps": 0}, "pgd: expected .*steps"),
        ("certificates", {"n": 9}, "9 draws cannot certify anything at alpha = 0.001; expected n of at least 10"),
        ("calibration", {"draws": 0}, "draws of at least 1; got 0"),
        ("gradients", {"draws": 1}, "draws of at least 2; got 1"),
        ("timing", {"repeats": 0}, "repeats of at least 1"),
        ("published-perturbation", {"grid": 1}, "a grid of at least 2 eps; got 1"),
        ("geometry", {"hull": 0.0}, "radius and hull above 0"),
        ("boundary", {"images": 0}, "images of at least 1; got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_network_is_looked_at(name, settings, message):
    spec = complete("examination", EXAMINATIONS, Spec(name=name, settings=settings))
    with pytest.raises(SpecError, match=message):
        examinations.check_spec(spec)
    for known in EXAMINATIONS:
        examinations.check_spec(complete("examination", EXAMINATIONS, Spec(name=known)))


def _state(subject):
    network = subject.network
    return {
        "weights": copy.deepcopy(network.state_dict()),
        "gradients": [None if each.grad is None else each.grad.clone() for each in network.parameters()],
        "modes": [module.training for module in network.modules()],
        "attributes": [{name: value for name, value in vars(module).items() if isinstance(value, float | int | str)} for module in network.modules()],
        "hooks": [(len(module._forward_pre_hooks), len(module._forward_hooks)) for module in network.modules()],
        "everywhere": len(torch.nn.modules.module._global_forward_pre_hooks),
        "images": subject.images.clone(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002
        "python": random.getstate(),
    }  # fmt: skip


def _equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other
