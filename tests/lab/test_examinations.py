"""Examinations in a study: which networks undergo them, what stands beside, stopping, and claims about two attacks."""

import io

import numpy as np
import pytest
import torch

from unperturbed import lab
from unperturbed.ledger import Ledger
from unperturbed.records import SpecError
from unperturbed.report.gather import gather
from unperturbed.report.overview import overview_rows
from unperturbed.statistics import decide

STUDY = """
title = "Tiny examinations"
question = "Are networks examined?"
source = "none"

[architectures]
net = "a small network"

[conditions.plain]
says = "no mechanism"
data = { name = "digits" }

[conditions.competition]
says = "winner-take-all"
data = { name = "digits" }
mechanisms = [{ name = "winner-take-all" }]

[attacks.weak]
attack = "uniform_noise"
eps = [0, "8/255"]
images = 60

[attacks.strong]
attack = "pgd"
settings = { steps = 5 }
eps = [0, "8/255", 0.2]
images = 60

[examinations.calibration]
examination = "calibration"
settings = { draws = 2 }
images = 40

[examinations.foreign]
examination = "transfer"
settings = { steps = 3 }
conditions = ["competition"]
beside = "plain"
images = 30

[scales.laptop]
says = "seconds"
seeds = 3

[scales.laptop.architectures.net]
model = { name = "fully-connected", hidden = 32 }
recipe = { epochs = 2 }
evaluate = [1, 2]
seeds = { foreign = 2 }

[[claims]]
id = "A"
says = "Many steps break more than noise"
attack = "weak"
measure = "A_8_255"
primary = ["net: plain[strong] < plain"]

[[claims]]
id = "B"
says = "Competition is worse calibrated"
attack = "calibration"
measure = "ece"
primary = ["net: competition > plain"]
"""


def _study(folder, old="", new="", **changes):
    path = folder / "tiny-examinations.toml"
    path.write_text(STUDY.replace(old, new), encoding="utf-8")
    return lab.load(str(path), changes=lab.Changes(**changes))


def _run(study, folder, **options):
    with Ledger.open(folder) as ledger:
        outcome = lab.run(study, ledger, device=torch.device("cpu"), command="test", **options)
        number = ledger.latest_run().id
        return outcome, ledger.curves(number), ledger.measurements(number)


def test_who_undergoes_an_examination(tmp_path):
    study = _study(tmp_path)
    outcome, curves, measurements = _run(study, tmp_path / "whole")
    seen = {(m.condition, m.seed, m.epoch) for m in measurements if m.attack == "calibration"}
    assert seen == {(condition, seed, 2) for condition in ("plain", "competition") for seed in (0, 1, 2)}
    transferred = {(m.condition, m.seed, m.n) for m in measurements if m.attack == "foreign"}
    assert transferred == {("competition", 0, 30), ("competition", 1, 30)}
    (at_0, at_8) = (p for p in curves if p.attack == "foreign" and p.seed == 0)
    assert (at_0.eps, at_8.eps) == (0.0, pytest.approx(8 / 255))
    assert at_8.accuracy <= at_0.accuracy
    assert (outcome.computed, outcome.reused) == (2, 0)
    again, *tables = _run(study, tmp_path / "whole")
    assert (again.computed, again.reused) == (0, 2)
    assert tables == [curves, measurements]


def test_what_survives_every_attack_is_about_the_same_test_images_in_the_same_order(tmp_path):
    study = _study(tmp_path)
    _run(study, tmp_path / "ledger")
    with Ledger.open(tmp_path / "ledger") as ledger:
        number = ledger.latest_run().id
        content = gather(ledger, number)
        labels = {
            (label, place.condition, place.seed): np.load(io.BytesIO(ledger.read(stored)))["labels"]
            for label in ("weak", "strong", "foreign")
            for place, stored in ledger.artefacts(number, label)
            if place.epoch == 2
        }
    assert {len(found) for found in labels.values()} == {60, 30}
    for found in labels.values():
        assert found.tolist() == labels["strong", "plain", 0][: len(found)].tolist()
    accuracy = {(m.attack, m.condition, m.seed): m.value for m in content.measurements if m.epoch == 2
                and (m.attack, m.measure) in {("weak", "A_8_255"), ("strong", "A_8_255"), ("foreign", "A_eps")}}  # fmt: skip
    survivors = {(each.label, each.condition, each.seed): each.images for each in content.survivors}
    assert survivors.keys() == accuracy.keys()
    for key, images in survivors.items():
        assert images.mean() == pytest.approx(accuracy[key], rel=1e-12)
    for row in (row for row in overview_rows(content) if row["kind"] == "worst"):
        left = [
            (survivors["weak", row["condition"], seed] & survivors["strong", row["condition"], seed]).mean()
            for seed in (0, 1, 2)
        ]
        assert (row["images"], row["n"]) == (60, 3)  # the transfer is of two seeds only
        assert row["mean"] == pytest.approx(np.mean(left), rel=1e-12)


def test_a_network_that_stands_beside_is_trained_where_it_is_not_there(tmp_path):
    whole = _run(_study(tmp_path), tmp_path / "whole")[2]
    alone = _run(_study(tmp_path, only=("competition",)), tmp_path / "alone")[2]
    foreign = [[m for m in rows if m.attack == "foreign"] for rows in (whole, alone)]
    assert foreign[0] == foreign[1]
    assert foreign[0]


def test_a_study_stopped_in_an_examination_goes_on_to_the_same_tables(tmp_path):
    study = _study(tmp_path)
    whole = _run(study, tmp_path / "whole")[1:]
    doing = []
    with pytest.raises(lab.Stopped):  # while the first network is calibrated
        _run(
            study,
            tmp_path / "stopped",
            on_update=lambda update: doing.append(update.doing),
            stopped=lambda: any("strong, seed 2" in words for words in doing),
        )
    assert _run(study, tmp_path / "stopped")[1:] == whole


def test_a_claim_can_be_about_two_attacks_or_about_an_examination(tmp_path):
    study = _study(tmp_path)
    measurements = _run(study, tmp_path / "whole")[2]
    attacks, calibration = decide(study, measurements).claims
    (row,) = attacks.rows
    assert (row.left.attack, row.right.attack, row.paired, row.n) == ("strong", "", True, 3)
    left, right = (
        {m.seed: m.value for m in measurements if (m.condition, m.attack, m.measure) == ("plain", name, "A_8_255")}
        for name in ("strong", "weak")
    )
    assert row.difference == pytest.approx(sum(left[seed] - right[seed] for seed in left) / 3, abs=1e-12)
    assert calibration.rows[0].left.mean > 0


def test_explain_names_every_examination(tmp_path):
    study = _study(tmp_path)
    study, datasets = lab.runner.load_datasets(study)
    words = [plan.what for plan in lab.explain(study, None, datasets)]
    assert sum(word.startswith("calibration") for word in words) == 6
    assert sum(word.startswith("transfer") for word in words) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'examination = "calibration"',
            'examination = "calibraton"',
            r"There is no examination 'calibraton'\. .*Did you mean 'calibration'\?",
        ),
        ("draws = 2", "drawz = 2", r"calibration has no setting 'drawz'\. It has: draws\. Did you mean 'draws'\?"),
        ('beside = "plain"', 'beside = "plane"', r"There is no condition 'plane'\. .*Did you mean 'plain'\?"),
        (
            "evaluate = [1, 2]",
            'evaluate = [1, 2]\nconditions = ["competition"]',
            r"examinations\.foreign: beside = 'plain', which this scale does not train\.",
        ),
        ("seeds = { foreign", "seeds = { forein", r"There is no attack or examination 'forein'\. .*'foreign'\?"),
        ("plain[strong]", "plain[strog]", r"There is no attack 'strog'\. .*Did you mean 'strong'\?"),
        ('attack = "calibration"', 'attack = "calibratio"', r"There is no attack 'calibratio'\. .*'calibration'\?"),
    ],
)
def test_a_wrong_word_about_examinations_is_refused_in_one_line(tmp_path, old, new, message):
    with pytest.raises(SpecError, match=message):
        _study(tmp_path, old, new)


def test_a_scale_may_bring_settings_of_its_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        STUDY.replace('data = { name = "digits" }', 'data = { name = "@images" }')
        .replace("[architectures]", '[settings]\nimages = "photographs"\n\n[architectures]')
        .replace("seeds = 3", 'seeds = 3\nsettings = { images = "digits" }'),
        encoding="utf-8",
    )
    assert {trial.data.name for trial in lab.load(str(path)).trials} == {"digits"}
    changed = lab.load(str(path), changes=lab.Changes(settings={"images": "photographs"}))
    assert {trial.data.name for trial in changed.trials} == {"photographs"}
