"""Mechanisms in a study: trained with, deployed, attacked through a copy, and the same again after a stop."""

import pytest
import torch

from unperturbed import lab
from unperturbed.ledger import Ledger
from unperturbed.records import Spec

STUDY = """
title = "Tiny defences"
question = "Do mechanisms run, stop and go on?"
source = "none"

[architectures]
net = "a small network"

[conditions.plain]
says = "no mechanism"
data = { name = "digits" }

[conditions.competition]
says = "winner-take-all, adversarial training"
data = { name = "digits" }
mechanisms = [{ name = "winner-take-all" }, { name = "adversarial-training", steps = 2, step_size = 0.02 }]

[attacks.own]
attack = "pgd"
settings = { steps = 5, eot = 2 }
eps = [0, "8/255"]
images = 30

[attacks.through]
attack = "pgd"
settings = { steps = 5, eot = 2 }
eps = [0, "8/255"]
images = 30
through = { temperature = 0.67, mode = "expected" }

[scales.laptop]
says = "seconds"
seeds = 2

[scales.laptop.architectures.net]
model = { name = "fully-connected", hidden = 32 }
recipe = { epochs = 2 }
evaluate = [2]
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "defences.toml"
    path.write_text(STUDY, encoding="utf-8")
    return lab.load(str(path))


def _tables(study, folder, stop_after=None, **options):
    looks = iter(range(10**9))
    with Ledger.open(folder) as ledger:
        if stop_after is not None:
            options["stopped"] = lambda: next(looks) >= stop_after
        try:
            lab.run(study, ledger, device=torch.device("cpu"), command="test", **options)
        except lab.Stopped:
            return None
        number = ledger.latest_run().id
        return ledger.curves(number), ledger.measurements(number)


def test_what_is_known_of_a_training_is_recorded_with_it(study, tmp_path):
    first, *_ = study.trials
    mixed = Spec(name="mixed-training", settings={"attacks": "noise", "clean": 0.25})
    trial = first.model_copy(update={"mechanisms": (mixed,), "attacks": {}, "seeds": (0,)})
    _, measurements = _tables(study.model_copy(update={"trials": (trial,)}), tmp_path)
    facts = {row.measure: row for row in measurements if row.attack == ""}
    assert facts["branch_clean"].value + facts["branch_noise"].value == pytest.approx(1)
    assert 0 < facts["branch_clean"].value < facts["branch_noise"].value
    assert (facts["branch_pgd"].value, facts["branch_pgd"].unit) == (0, "fraction")


@pytest.mark.parametrize("stop_after", [5, 60])
def test_a_stopped_study_of_mechanisms_goes_on_to_the_same_tables(study, tmp_path, stop_after):
    whole = _tables(study, tmp_path / "whole")
    assert whole is not None
    assert _tables(study, tmp_path / "stopped", stop_after=stop_after) is None
    assert _tables(study, tmp_path / "stopped") == whole


def test_what_is_attacked_through_a_copy_is_judged_as_deployed(study, tmp_path):
    curves, measurements = _tables(study, tmp_path)
    clean = {(point.condition, point.seed, point.attack): point.accuracy for point in curves if point.eps == 0.0}
    for condition in ("plain", "competition"):
        for seed in (0, 1):
            # The judge's draws belong to the attack's stream, so that only a random network may differ a little.
            gap = abs(clean[condition, seed, "own"] - clean[condition, seed, "through"])
            assert gap <= (0.2 if condition == "competition" else 0)
    assert {m.measure for m in measurements if m.attack == "through"} >= {"A_8_255", "f0"}


def test_networks_with_a_mechanism_train_one_by_one_whatever_is_asked(study, tmp_path):
    asked = _tables(study, tmp_path / "asked", vectorised=True)
    curves = {point for point in asked[0] if point.condition == "competition"}
    assert curves == {point for point in _tables(study, tmp_path / "not")[0] if point.condition == "competition"}
