"""Co-training with EEG from the study file to its claims, in two worlds that differ in nothing but what EEG says."""

import pytest
import torch

from unperturbed import lab
from unperturbed.ledger import Ledger
from unperturbed.records import Spec
from unperturbed.statistics import decide

STUDY = """
title = "Tiny co-training (simulated)"
question = "Does the EEG reach the network?"
source = "none"

[architectures]
network = "a small residual network"

[conditions.baseline]
says = "the classifier alone"
data = { name = "simulated-eeg", images = "digits", train = 200, test = 100, test_repetitions = 20 }

[conditions.real]
says = "EEG that says something"
data = { name = "simulated-eeg", images = "digits", train = 200, test = 100, test_repetitions = 20 }
mechanisms = [{ name = "eeg-cotraining", taps = "all", balance = "gradnorm", width = 32 }]

[conditions.no-weight]
says = "its error does not count"
data = { name = "simulated-eeg", images = "digits", train = 200, test = 100, test_repetitions = 20 }
mechanisms = [{ name = "eeg-cotraining", taps = "all", delta2 = 0.0, width = 32 }]

[conditions.nothing]
says = "EEG of the world in which it says nothing"
data = { name = "simulated-eeg", images = "digits", world = "none", train = 200, test = 100, test_repetitions = 20 }
mechanisms = [{ name = "eeg-cotraining", taps = "all", balance = "gradnorm", width = 32 }]

[attacks.pgd]
attack = "pgd"
settings = { steps = 3 }
eps = [0, "8/255"]
images = 5

[examinations.eeg]
examination = "eeg-prediction"
images = 5

[examinations.gain]
examination = "robustness-gain"
settings = { form = "grid" }
conditions = ["no-weight"]
beside = "baseline"
images = 6

[scales.laptop]
says = "seconds"
seeds = 1

[scales.laptop.architectures.network]
model = { name = "resnet", depth = 8, width = 4 }
recipe = { epochs = 6, optimiser = "adam", learning_rate = 5e-3, batch_size = 20, weight_decay = 0 }
evaluate = [6]

[[claims]]
id = "T"
says = "The branch predicts EEG"
attack = "eeg"
measure = "eeg_r"
primary = ["network: real > nothing", "network: real > 0"]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study and its measurements, once for all tests."""
    folder = tmp_path_factory.mktemp("eeg")
    path = folder / "tiny-eeg.toml"
    path.write_text(STUDY, encoding="utf-8")
    study = lab.load(str(path))
    with Ledger.open(folder) as ledger:
        outcome = lab.run(study, ledger, device=torch.device("cpu"), command="test")
        assert not outcome.failed
        measurements = ledger.measurements(ledger.latest_run().id)
    return study, measurements


def _values(measurements):
    return {(m.condition, m.attack, m.measure): m.value for m in measurements}


def test_the_network_as_trained_meets_the_recordings_of_its_data(finished):
    _, measurements = finished
    found = _values(measurements)
    rows = [m for m in measurements if m.measure == "eeg_r"]
    assert {(m.condition, m.n) for m in rows} == {("real", 100), ("nothing", 100), ("no-weight", 100)}
    ceilings = [found[name, "eeg", "eeg_ceiling_lower"] for name in ("real", "no-weight")]
    assert ceilings[0] == ceilings[1]  # of the recordings, whatever the network is
    assert found["real", "eeg", "cotraining_gradient_eeg"] > 0
    assert found["no-weight", "eeg", "cotraining_gradient_eeg"] == 0
    assert found["real", "eeg", "cotraining_squared_error"] < 1.2


def test_the_worlds_are_told_apart_where_the_class_is_in_the_eeg(finished):
    found = _values(finished[1])
    told, untold = (found[name, "eeg", "eeg_r_parieto_occipital"] for name in ("real", "nothing"))
    assert told > 0.3  # 100 images: chance has a standard error of 0.1 in a channel
    assert abs(untold) < 0.2


def test_a_branch_whose_error_does_not_count_changes_no_distance(finished):
    found = _values(finished[1])
    assert found["no-weight", "gain", "robustness_gain"] == 0.0
    assert ("baseline", "gain", "robustness_gain") not in found


def test_claims_read_what_was_examined(finished):
    study, measurements = finished
    (claim,) = decide(study, measurements).claims
    worlds, zero = claim.rows
    assert worlds.difference == pytest.approx(worlds.left.mean - worlds.right.mean)
    assert zero.right.mean == 0


def test_the_built_in_study_says_simulated_and_compares_at_equal_seeds():
    for scale in ("smoke", "laptop", "long"):
        study = lab.load("eeg-cotraining", scale=scale, changes=lab.Changes(settings={"world": "none"}))
        assert "simulated" in study.title
        assert {trial.data.name for trial in study.trials} == {"simulated-eeg"}
        assert {trial.data.settings["world"] for trial in study.trials} == {"none"}
        gains = [
            plan
            for trial in study.trials
            for plan in trial.examinations.values()
            if plan.examination.name == "robustness-gain"
        ]
        assert gains
        assert {plan.beside.condition for plan in gains} == {"baseline"}
        (decisive,) = (claim for claim in study.claims if claim.id == "D")
        (first,) = (contrast for contrast in decisive.contrasts if contrast.primary)
        assert (first.left.condition, first.right.condition, first.expect) == ("real", "shuffled", "greater")
        assert study.claims[0] == decisive


def test_recordings_are_loaded_once_for_all_networks_of_a_study():
    loads = [
        lab.evaluation._recorded(Spec(name="simulated-eeg", settings={"responses": kind})) for kind in ("real", "white")
    ]
    assert loads[0].args == loads[1].args
    assert lab.evaluation._recorded(Spec(name="digits")) is None


def test_the_study_of_the_recordings_has_the_same_conditions_and_claims():
    simulated, recorded = lab.load("eeg-cotraining", scale="long"), lab.load("eeg-cotraining-things", scale="paper")
    assert {trial.data.name for trial in recorded.trials} == {"things-eeg2"}
    assert "simulated" not in recorded.model_dump_json()
    assert [trial.condition for trial in recorded.trials] == [trial.condition for trial in simulated.trials]
    assert [trial.data.settings["responses"] for trial in recorded.trials] == [
        trial.data.settings["responses"] for trial in simulated.trials
    ]
    of_the_simulation = [claim for claim in simulated.claims if claim.id == "E1-occipital"]
    assert list(recorded.claims) == [claim for claim in simulated.claims if claim not in of_the_simulation]
