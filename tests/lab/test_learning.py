"""A hidden layer that a rule learns is a stage of its own: stopped and gone on, shared by readouts, kept as it was."""

import pytest
import torch
from safetensors.torch import load as load_tensors

from unperturbed import lab
from unperturbed.ledger import Ledger
from unperturbed.records import SpecError

STUDY = """
title = "Tiny local learning"
question = "Does a learned layer survive a stop?"
source = "none"

[architectures]
net = "a hidden layer"

[conditions.local]
says = "learned without labels"
data = { name = "digits" }
mechanisms = [{ name = "krotov-hopfield", epochs = 4 }, { name = "rectified-power", power = 2.0 }]

[conditions.local-linear]
says = "the same layer under another readout"
data = { name = "digits" }
mechanisms = [{ name = "krotov-hopfield", epochs = 4 }]

[conditions.random]
says = "not learned"
data = { name = "digits" }
mechanisms = [{ name = "random-features" }]

[attacks.fgsm]
attack = "fgsm"
eps = [0, "8/255"]
images = 20

[scales.laptop]
says = "seconds"
seeds = 2

[scales.laptop.architectures.net]
model = { name = "hidden-layer", hidden = 24 }
recipe = { epochs = 3, optimiser = "adam", learning_rate = 0.01 }
evaluate = [1, 3]
"""


def _study(folder, text=STUDY):
    path = folder / "learning.toml"
    path.write_text(text, encoding="utf-8")
    return lab.load(str(path))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return _study(tmp_path_factory.mktemp("study"))


def _run(study, folder, stop_after=None):
    looks = iter(range(10**9))
    stopped = (lambda: next(looks) >= stop_after) if stop_after is not None else (lambda: False)
    with Ledger.open(folder) as ledger:
        return lab.run(study, ledger, device=torch.device("cpu"), command="test", stopped=stopped)


def _weights(folder, label="training"):
    with Ledger.open(folder, write=False) as ledger:
        found = ledger.artefacts(ledger.latest_run().id, label)
        return {place: (stored.stage, load_tensors(ledger.read(stored))) for place, stored in found}


def _tables(folder):
    with Ledger.open(folder, write=False) as ledger:
        number = ledger.latest_run().id
        return ledger.curves(number), ledger.measurements(number)


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    outcome = _run(study, folder)
    assert (outcome.computed, outcome.failed) == (3, {})
    return folder


@pytest.mark.parametrize("stop_after", [3, 30, 60, 75])  # within the second epoch of the rule, and in the readouts
def test_a_stopped_study_goes_on_to_the_same_tables(study, whole, tmp_path, stop_after, monkeypatch):
    monkeypatch.setattr("unperturbed.lab.learning.CHECKPOINT_EVERY", 0.0)
    with pytest.raises(lab.Stopped):
        _run(study, tmp_path, stop_after)
    _run(study, tmp_path)
    assert _tables(tmp_path) == _tables(whole)


def test_what_was_learned_is_shared_and_is_left_as_it_is_by_the_readout(whole):
    learned, trained = _weights(whole, "learning"), _weights(whole)
    stages = {place.condition: stage for place, (stage, _) in learned.items() if place.seed == 0}
    assert stages["local"] == stages["local-linear"]
    assert "random" not in stages
    hidden = {(place.condition, place.seed): weights["hidden.weight"] for place, (_, weights) in learned.items()}
    for place, (_, weights) in trained.items():
        if place.condition != "random":
            expected = hidden[place.condition, place.seed]
            torch.testing.assert_close(weights["hidden.weight"], expected, rtol=0, atol=0)
    seeds = {place.seed: weights["hidden.weight"] for place, (_, weights) in learned.items()}
    assert not torch.equal(seeds[0], seeds[1])


def test_the_readout_alone_is_trained(whole):
    trained = {(place.condition, place.seed, place.epoch): weights for place, (_, weights) in _weights(whole).items()}
    first, last = trained["random", 0, 1], trained["random", 0, 3]
    torch.testing.assert_close(first["hidden.weight"], last["hidden.weight"], rtol=0, atol=0)
    assert not torch.equal(first["readout.weight"], last["readout.weight"])


def test_what_would_be_learned_is_explained(study, whole):
    _, datasets = lab.runner.load_datasets(study)
    new = lab.explain(study, None, datasets)
    assert ("net/local", "krotov-hopfield on digits, seed 0", "new") in new
    with Ledger.open(whole, write=False) as ledger:
        assert {plan.why for plan in lab.explain(study, ledger, datasets)} == {"recorded"}


def test_an_attack_inside_the_training_of_a_frozen_layer_is_refused(tmp_path):
    both = STUDY.replace(
        '{ name = "random-features" }', '{ name = "random-features" }, { name = "adversarial-training" }'
    )
    with pytest.raises(SpecError) as caught:
        _run(_study(tmp_path, both), tmp_path / "ledger")
    message = "pgd inside training: expected a network that is trained whole, got a frozen hidden layer"
    assert str(caught.value) == message


def test_another_model_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(SpecError) as caught:
        _study(tmp_path, STUDY.replace('"hidden-layer", hidden = 24', '"lenet"'))
    assert str(caught.value) == "krotov-hopfield: expected the model hidden-layer, got LeNet"


def test_two_rules_are_refused(tmp_path):
    twice = STUDY.replace('{ name = "random-features" }', '{ name = "krotov-hopfield" }, { name = "krotov-hopfield" }')
    with pytest.raises(SpecError) as caught:
        _study(tmp_path, twice)
    assert str(caught.value) == "mechanisms: expected one rule at most that learns the hidden layer, got 2"


def test_the_facts_of_learning_are_measured(whole):
    _, measurements = _tables(whole)
    found = {(row.condition, row.measure) for row in measurements if row.attack == "learning"}
    assert found == {
        (condition, measure)
        for condition in ("local", "local-linear")
        for measure in ("converged_units", "negative_units")
    }
