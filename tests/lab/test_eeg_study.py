"""Co-training with EEG from the study file to its claims, in two worlds that differ in nothing but what EEG says."""

import csv
import inspect
import io
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from unperturbed import lab
from unperturbed.attacks import ATTACKS
from unperturbed.data import load, recorded, recorded_repetitions
from unperturbed.data.recordings import simulate
from unperturbed.lab import courses
from unperturbed.ledger import Ledger
from unperturbed.mechanisms.eeg_controls import Responses
from unperturbed.records import Measurement, Spec, SpecError
from unperturbed.statistics import decide

RESULTS = Path(__file__).parents[2] / "results" / "eeg-cotraining"

STUDY = """
title = "Tiny co-training (simulated)"
question = "Does the EEG reach the network?"
source = "none"

[architectures]
network = "a small residual network"

[conditions.baseline]
says = "the classifier alone"
data = { name = "simulated-eeg", images = "digits", train = 200, test = 100, subjects = 1, repetitions = 10, test_repetitions = 20 }

[conditions.real]
says = "EEG that says something"
data = { name = "simulated-eeg", images = "digits", train = 200, test = 100, subjects = 1, repetitions = 10, test_repetitions = 20 }
mechanisms = [{ name = "eeg-cotraining", taps = "all", balance = "gradnorm", width = 32 }]

[conditions.no-weight]
says = "its error does not count"
data = { name = "simulated-eeg", images = "digits", train = 200, test = 100, subjects = 1, repetitions = 10, test_repetitions = 20 }
mechanisms = [{ name = "eeg-cotraining", taps = "all", delta2 = 0.0, width = 32 }]

[conditions.shuffled]
says = "EEG of other images"
data = { name = "simulated-eeg", images = "digits", train = 200, test = 100, subjects = 1, repetitions = 10, test_repetitions = 20 }
mechanisms = [{ name = "eeg-cotraining", taps = "all", balance = "gradnorm", width = 32, responses = "shuffled" }]

[conditions.nothing]
says = "EEG of the world in which it says nothing"
data = { name = "simulated-eeg", images = "digits", world = "none", train = 200, test = 100, subjects = 1, repetitions = 10, test_repetitions = 20 }
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
conditions = ["baseline", "no-weight"]
beside = "baseline"
images = 4

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
        run = ledger.latest_run().id
        measurements, costs = ledger.measurements(run), ledger.costs(run)
    return study, measurements, costs


def _values(measurements):
    return {(m.condition, m.attack, m.measure): m.value for m in measurements}


def test_the_network_as_trained_meets_the_recordings_of_its_data(finished):
    _, measurements, _ = finished
    found = _values(measurements)
    rows = [m for m in measurements if m.measure == "eeg_r"]
    assert {(m.condition, m.n) for m in rows} == {(n, 100) for n in ("real", "nothing", "no-weight", "shuffled")}
    ceilings = [found[name, "eeg", "eeg_ceiling_lower"] for name in ("real", "no-weight")]
    assert ceilings[0] == ceilings[1]  # of the recordings, whatever the network is
    assert found["real", "eeg", "cotraining_gradient_eeg"] > 0
    assert found["no-weight", "eeg", "cotraining_gradient_eeg"] == 0
    assert found["real", "eeg", "cotraining_squared_error"] < 1.2


def test_the_worlds_are_told_apart_and_so_are_pairings(finished):
    found = _values(finished[1])
    told, *untold = (found[name, "eeg", "eeg_r_parieto_occipital"] for name in ("real", "nothing", "shuffled"))
    assert told > 0.3  # 100 images: chance has a standard error of 0.1 in a channel
    assert max(map(abs, untold)) < 0.2


def test_a_branch_whose_error_does_not_count_changes_no_distance(finished):
    found = _values(finished[1])
    assert found["no-weight", "gain", "robustness_gain"] == 0.0
    assert ("baseline", "gain", "robustness_gain") not in found
    assert found["baseline", "gain", "f0"] == found["no-weight", "gain", "f0"]


def test_the_classifier_alone_is_attacked_once_for_all_that_it_stands_beside(finished):
    passes = {(c.condition, c.kind): c.forwards for c in finished[2] if c.kind == "gain"}
    assert passes["baseline", "gain"] == passes["no-weight", "gain"] > 0  # equal logits, equal passes: no second attack


def test_claims_read_what_was_examined(finished):
    study, measurements, _ = finished
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
        assert {plan.beside.condition for plan in gains if plan.beside} == {"baseline"}
        (decisive,) = (claim for claim in study.claims if claim.id == "D")
        (first,) = (contrast for contrast in decisive.contrasts if contrast.primary)
        assert (first.left.condition, first.right.condition, first.expect) == ("real", "shuffled", "greater")
        assert study.claims[0] == decisive


@pytest.mark.parametrize(
    ("folder", "world", "expected"),
    [
        ("simulated-robust-10-seeds", "robust", {"D": "supported"}),
        ("simulated-robust-laptop", "robust", {"D": "supported"}),
        ("simulated-none-12-seeds", "none", {"D": "undecided", "D0": "supported"}),
    ],
)
def test_the_kept_results_have_the_known_answer_of_their_world(folder, world, expected):
    """The decisive measure of each seed, as it is kept, through the claims as they are written today."""
    study = lab.load("eeg-cotraining", changes=lab.Changes(settings={"world": world}))
    text = (RESULTS / folder / "tables" / "seeds.csv").read_text(encoding="utf-8")
    measurements = [
        Measurement(
            row["architecture"], row["condition"], int(row["seed"]), int(row["epoch"]), "gain-l2", "robustness_gain",
            float(row["value"]), "", "higher", 30,
        )
        for row in csv.DictReader(io.StringIO(text))
    ]  # fmt: skip
    verdicts = {claim.id: claim for claim in decide(study, measurements).claims}
    assert {name: claim.verdict for name, claim in verdicts.items() if name in ("D", "D0")} == expected
    if world == "none":
        (low, high), effect = verdicts["D0"].interval, verdicts["D0"].effect
        assert effect == pytest.approx(-0.034, abs=5e-4)
        assert -1 < low < 0 < high < 1


@pytest.mark.parametrize(
    ("folder", "verdict"),
    [
        ("simulated-robust-10-seeds", "supported"),
        ("simulated-robust-laptop", "supported"),
        ("simulated-none-12-seeds", "undecided"),
    ],
)
def test_what_is_known_of_the_eeg_of_each_world_is_what_the_kept_pages_say_of_it(folder, verdict):
    """When it is best predicted, where, and whether it is predicted and found alike at all."""
    text = (RESULTS / folder / "tables" / "claims.csv").read_text(encoding="utf-8")
    found = {row["id"]: row["verdict"] for row in csv.DictReader(io.StringIO(text))}
    assert {name: found[name] for name in ("E1", "E2", "T", "S-EEG")} == dict.fromkeys(
        ("E1", "E2", "T", "S-EEG"), verdict
    )


@pytest.mark.parametrize(
    ("scale", "settings", "title"),
    [
        ("laptop", {}, "Co-training with EEG (simulated)"),
        ("laptop", {"data": "things-eeg2"}, "Co-training with EEG"),
        ("paper", {}, "Co-training with EEG (THINGS-EEG2)"),
        ("paper", {"data": "simulated-eeg"}, "Co-training with EEG (THINGS-EEG2) (simulated)"),
        ("faces-houses", {}, "Co-training with EEG (faces and houses, very small)"),
    ],
)
def test_the_title_says_simulated_where_the_data_are_and_nowhere_else(scale, settings, title):
    assert lab.load("eeg-cotraining", scale=scale, changes=lab.Changes(settings=settings)).title == title


def test_no_difference_is_claimed_where_the_simulated_eeg_says_nothing():
    def claimed(scale, **settings):
        study = lab.load("eeg-cotraining", scale=scale, changes=lab.Changes(settings=settings))
        return {claim.id: claim.margin for claim in study.claims if claim.id in ("D", "D0", "F")}

    for scale in ("smoke", "laptop", "long"):
        assert claimed(scale) == claimed(scale, world="robust") == {"D": None}
        assert claimed(scale, world="none") == {"D": None, "D0": 1.0}
    assert claimed("faces-houses", world="none") == {"D": None, "F": None}  # the scale names other data
    assert claimed("paper", world="none") == {"D": None}


def test_conditions_share_one_data_set_but_for_other_brains_and_none():
    study = lab.load("eeg-cotraining", scale="long")
    data = {trial.condition: trial.data.settings["responses"] for trial in study.trials}
    apart = {name: responses for name, responses in data.items() if responses != "real"}
    assert apart == {"other-subject": "other-subject", "gabor": "gabor"}
    kinds = {
        spec.settings["responses"]
        for trial in study.trials
        for spec in trial.mechanisms
        if "responses" in spec.settings
    }
    assert kinds == set(get_args(Responses))
    plans = [trial.examinations["gain-l2"] for trial in study.trials]
    assert [plan.beside is None for plan in plans] == [trial.condition == "baseline" for trial in study.trials]


def test_the_gain_is_measured_with_the_attacks_of_the_source():
    """PGD-L2 with 50 steps, PGD-Linf with 40 (tests/examinations), C&W-L2 with Foolbox's parameters."""
    plans = {
        label: plan.examination.settings
        for trial in lab.load("eeg-cotraining", scale="paper").trials
        for label, plan in trial.examinations.items()
        if plan.examination.name == "robustness-gain"
    }
    assert plans["gain-cw"] == {"form": "smallest", "norm": "l2", "attack": "carlini_wagner"}
    assert {name: plans[name]["norm"] for name in ("gain-grid-l2", "gain-grid-linf")} == {
        "gain-grid-l2": "l2", "gain-grid-linf": "linf",
    }  # fmt: skip
    defaults = {"binary_search_steps": 9, "steps": 10_000, "step_size": 0.01, "initial_const": 1e-3, "confidence": 0.0}
    signature = inspect.signature(ATTACKS["carlini_wagner"]).parameters
    assert {name: signature[name].default for name in defaults} == defaults


def test_networks_of_all_conditions_share_the_subject_of_their_seed():
    (people,) = {trial.subjects for trial in lab.load("eeg-cotraining").trials}
    assert people == tuple(f"subject {number}" for number in range(1, 6))
    few = lab.load("eeg-cotraining", changes=lab.Changes(settings={"subjects": 2}))
    assert few.trials[0].subjects == tuple(f"subject {number}" for number in (1, 2, 1, 2, 1))
    paper = lab.load("eeg-cotraining", scale="paper", changes=lab.Changes(settings={"subject": 7}))
    assert {trial.subjects for trial in paper.trials} == {("subject 7",) * 5}
    assert lab.load("defences").trials[0].subjects == ()
    assert "subjects" not in lab.load("defences").trials[0].canonical()


def test_scales_with_real_recordings_do_not_say_simulated():
    for scale, name in (("paper", "things-eeg2"), ("faces-houses", "faces-houses-eeg")):
        study = lab.load("eeg-cotraining", scale=scale)
        assert {trial.data.name for trial in study.trials} == {name}
        assert "simulated" not in study.title


def test_recordings_come_from_the_folder_that_the_run_was_given(tmp_path):
    """The subject is that of the seed, and files are looked for where the user said."""
    machine = courses.Machine(torch.device("cpu"), None, {})
    asked = {}
    for name, settings in (("simulated-eeg", {"images": "digits", "train": 40, "test": 30}), ("things-eeg2", {})):
        stage = SimpleNamespace(data=Spec(name=name, settings=settings), seed=7)
        station = courses.Station({}, None, 0, machine, None, None, tmp_path, accept_inexact=True)
        asked[name] = lab.evaluation._recorded(stage, station)
    expected = recorded_repetitions(
        Spec(name="simulated-eeg", settings={"images": "digits", "train": 40, "test": 30}), seed=7
    )
    assert (asked["simulated-eeg"]().responses == expected.responses).all()
    with pytest.raises(SpecError, match=str(tmp_path)):
        asked["things-eeg2"]()
    assert lab.evaluation._recorded(SimpleNamespace(data=Spec(name="digits")), station) is None


def test_every_trial_knows_where_files_are_looked_for(tmp_path, monkeypatch):
    path = tmp_path / "tiny-eeg.toml"
    path.write_text(STUDY, encoding="utf-8")
    seen = []
    monkeypatch.setattr(lab.pipeline, "run_trial", lambda _, station: seen.append(station) or 0)
    with Ledger.open(tmp_path) as ledger:
        lab.run(lab.load(str(path)), ledger, device=torch.device("cpu"), data_root=tmp_path, accept_inexact=True)
    assert {(station.data_root, station.accept_inexact) for station in seen} == {(tmp_path, True)}


def test_a_network_beside_must_have_the_same_test_images():
    digits, photographs = Spec(name="digits"), Spec(name="photographs")
    machine = courses.Machine(torch.device("cpu"), None, {})
    station = courses.Station({photographs.canonical(): load(photographs)}, None, 0, machine, None, None)
    stage = SimpleNamespace(
        examination=Spec(name="robustness-gain"), images=5, beside=SimpleNamespace(data=photographs)
    )
    with pytest.raises(SpecError, match=r"robustness-gain: expected a network beside with the same test images, got"):
        lab.evaluation._found_beside(stage, load(digits).test, station)


def test_files_as_things_eeg2_has_them_go_through_the_whole_study(tmp_path, monkeypatch):
    """Five concepts and two people in place of 1,654 and ten: what the scale `paper` does, on files that were written."""
    photographs = load(Spec(name="photographs"), root=tmp_path).train.parts[0]
    folder = tmp_path / "things-eeg2"
    made = simulate(
        folder,
        photographs.images[:400].numpy() / 255,
        photographs.labels[:400].numpy(),
        seed=3,
        training_concepts=5,
        test_images=20,
        test_repetitions=20,
    )
    for name in ("read_subject", "things_in"):
        monkeypatch.setattr(recorded, name, partial(getattr(recorded, name), layout=made.layout))
    text = STUDY.replace(
        'name = "simulated-eeg", images = "digits", train = 200, test = 100, subjects = 1, repetitions = 10, test_repetitions = 20',
        'name = "things-eeg2", subject = 2',
    )
    text = text.replace(
        'subject = 2 }\nmechanisms = [{ name = "eeg-cotraining", taps = "all", balance = "gradnorm", width = 32, responses = "shuffled" }]',
        'subject = 2, responses = "other-subject" }\nmechanisms = [{ name = "eeg-cotraining", taps = "all", width = 32 }]',
    )
    text = text.replace('images = "digits", world = "none", train = 200', "train = 200")
    path = tmp_path / "tiny-things.toml"
    path.write_text(text, encoding="utf-8")
    study = lab.load(str(path), changes=lab.Changes(only=("baseline", "real", "no-weight", "shuffled")))
    assert {trial.subjects for trial in study.trials} == {("subject 2",)}
    assert [trial.data.settings["responses"] for trial in study.trials] == ["real", "real", "real", "other-subject"]
    with Ledger.open(tmp_path / "runs") as ledger:
        outcome = lab.run(study, ledger, device=torch.device("cpu"), command="test", data_root=tmp_path)
        assert not outcome.failed
        found = _values(ledger.measurements(ledger.latest_run().id))
    ceiling = made.answers[1].lower_ceiling(20).mean(axis=0).max()
    assert found["real", "eeg", "eeg_ceiling_lower"] == pytest.approx(ceiling, abs=0.2)  # of 20 images
    assert np.isfinite(found["shuffled", "eeg", "eeg_r"])
    assert found["no-weight", "gain", "robustness_gain"] == 0.0
