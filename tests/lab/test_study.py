"""A study file is checked in every word before anything runs."""

from pathlib import Path

import pytest

from unperturbed import lab
from unperturbed.lab.study_file import find
from unperturbed.records import SpecError, Study

TINY = Path(__file__).with_name("tiny.toml")


def edited(tmp_path, old, new):
    text = TINY.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "images = 50",
            "imagse = 50",
            "mine.toml has no setting 'attacks.fgsm.imagse'. It has: attack, settings, eps, grid, "
            "images, epochs, through. Did you mean 'images'?",
        ),
        (
            "epochs = 3 }",
            "epochs = 3, momentun = 0.9 }",
            "architectures.fully-connected.recipe has no setting 'momentun'. It has: "
            "epochs, batch_size, learning_rate, momentum, weight_decay, drop_at, drop_by, precision. Did you mean 'momentum'?",
        ),
        (
            "hidden = 16",
            "hiden = 16",
            "fully-connected has no setting 'hiden'. It has: hidden, classes. Did you mean 'hidden'?",
        ),
        (
            'name = "lenet" }',
            'name = "lenett" }',
            "There is no model 'lenett'. There are: lenet, fully-connected, resnet, wide-resnet. Did you mean 'lenet'?",
        ),
        (
            'digits = "digits"',
            'digits = "mnits"',
            "There is no data set 'mnits'. There are: digits, photographs, mnist, "
            "cifar10, fusion. Did you mean 'mnist'?",
        ),
        (
            'attack = "pgd"',
            'attack = "pdg"',
            "There is no attack 'pdg'. There are: fgsm, pgd, apgd, apgd_targeted, square, uniform_noise, gaussian_noise, noise_search, carlini_wagner, deepfool, ddn, fmn, fab, fab_targeted. Did you mean 'pgd'?",
        ),
        (
            "steps = 5",
            "stepz = 5",
            "pgd has no setting 'stepz'. It has: norm, steps, step_size, random_start, restarts, loss, eot, persist, shrinking, published. "
            "Did you mean 'steps'?",
        ),
        (
            "eps = [0, 0.05, 0.1]",
            "eps = [0, 0.1, 0.05]",
            "attacks.pgd: eps must increase from 0 or more, got [0.0, 0.1, 0.05].",
        ),
        (
            "eps = [0, 0.05, 0.1]",
            "eps = [-0.1, 0.05]",
            "attacks.pgd: eps must increase from 0 or more, got [-0.1, 0.05].",
        ),
        (
            "eps = [0, 0.05, 0.1]",
            'eps = [0, "a/b"]',
            "attacks.pgd: eps must be numbers such as 0.1 or '8/255', got 'a/b'.",
        ),
        ("seeds = 2", "seeds = 0", "mine: seeds must be at least 1, got 0."),
        (
            "evaluate = [1, 3]",
            "evaluate = [1, 4]",
            "architectures.fully-connected.evaluate must increase and end by epoch 3, got [1, 4].",
        ),
        (
            '"fully-connected: digits > objects"',
            '"fully-connected: digits >> objects"',
            "claim A: cannot read 'fully-connected: digits >> objects'. Write 'lenet: digits > objects @ last'.",
        ),
        (
            '"fully-connected: digits > objects"',
            '"fully-connected: digitz > objects"',
            "There is no condition 'digitz'. "
            "There are: digits, objects, objects-then-digits, fusion-digit. Did you mean 'digits'?",
        ),
        (
            'data = { name = "@objects" }',
            'data = { name = "@object" }',
            "conditions.objects.data: @object names no entry of [settings]. It has: digits, objects.",
        ),
    ],
)
def test_a_wrong_word_is_refused_in_one_line(tmp_path, old, new, message):
    with pytest.raises(SpecError) as caught:
        lab.load(edited(tmp_path, old, new))
    assert str(caught.value) == message


def test_an_unreadable_file_and_an_unknown_study_are_refused(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("title = ", encoding="utf-8")
    with pytest.raises(SpecError, match=r"broken.toml cannot be read as TOML: Invalid value"):
        lab.load(str(path))
    with pytest.raises(
        SpecError, match=r"There is no study 'distribution-and-tusk'.*Did you mean 'distribution-and-task'"
    ):
        lab.load("distribution-and-tusk")
    with pytest.raises(SpecError, match=r"There is no study file gone.toml. Make one with: unperturbed new gone"):
        lab.load("gone.toml")
    with pytest.raises(SpecError, match=r"There is no scale 'huge'. There are: smoke, laptop, paper"):
        lab.load("distribution-and-task", scale="huge")


def test_changes_choose_seeds_cells_epochs_and_data():
    changes = lab.Changes(seeds=3, only=("digits", "lenet"), until_epoch=10, settings={"digits": "mnist"})
    study = lab.load("distribution-and-task", scale="paper", changes=changes)
    (trial,) = study.trials
    assert (trial.architecture, trial.condition, trial.data.name) == ("lenet", "digits", "mnist")
    assert trial.epochs == (1, 10)
    assert trial.recipe.epochs == 300
    assert trial.seeds == (0, 1, 2)
    assert not study.comparable  # the objects are not cifar10
    assert "after epoch 10" in study.remarks[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"only": ("digit",)}, "--only: there is no condition 'digit'."),
        ({"until_epoch": 301}, "--until-epoch must lie between 1 and 300, got 301."),
        ({"until_epoch": 0}, "--until-epoch must lie between 1 and 300, got 0."),
        ({"seeds": 0}, "distribution-and-task: seeds must be at least 1, got 0."),
        ({"pretraining_epochs": 0}, "--pretraining-epochs must lie between 1 and 300, got 0."),
        ({"settings": {"digit": "mnist"}}, "distribution-and-task has no setting 'digit'. It has: digits, objects."),
    ],
)
def test_changes_that_name_what_does_not_exist_are_refused(changes, message):
    with pytest.raises(SpecError) as caught:
        lab.load("distribution-and-task", scale="paper", changes=lab.Changes(**changes))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("scale", ["smoke", "laptop", "paper"])
def test_the_study_resolves_at_every_scale_and_survives_a_round_trip(scale):
    study = lab.load("distribution-and-task", scale=scale)
    assert Study.model_validate_json(study.model_dump_json()) == study
    assert {claim.id for claim in study.claims} >= {f"K{number}" for number in range(1, 14)}
    assert len(study.published) == 108
    cells = {(trial.architecture, trial.condition) for trial in study.trials}
    if scale != "smoke":
        missing = [
            cell
            for claim in study.claims
            for contrast in claim.contrasts
            for cell in (contrast.left, contrast.right)
            if (cell.architecture, cell.condition) not in cells
        ]
        assert not missing, "every claim must be decided at this scale"


def test_at_paper_scale_the_recipe_is_the_published_one():
    changes = lab.Changes(settings={"digits": "mnist", "objects": "cifar10"})
    study = lab.load("distribution-and-task", scale="paper", changes=changes)
    assert study.comparable
    assert len(study.seeds) == 20
    recipes = {trial.architecture: (trial.recipe, trial.epochs) for trial in study.trials}
    for architecture, (recipe, epochs) in recipes.items():
        large = architecture == "resnet"
        assert recipe.learning_rate == (0.1 if large else 0.01)
        assert recipe.epochs == epochs[-1] == (125 if large else 300)
        assert (recipe.batch_size, recipe.momentum, recipe.weight_decay) == (125, 0.9, 5e-4)
        assert (recipe.drop_at, recipe.drop_by) == (0.5, 10)


def test_conditions_name_mechanisms_and_attacks_go_through_what_a_network_has():
    study = lab.load("defences", scale="laptop")
    plans = {trial.condition: trial.attacks for trial in study.trials}
    assert plans["winner-take-all"]["pgd-adaptive"].through == {"temperature": 0.67, "mode": "expected"}
    assert plans["pgd-training"]["pgd-adaptive"].through == {}
    assert plans["noise-injection"]["pgd-noise-off"].through == {"active": False}
    # Chance takes votes and draws; without it one is enough.
    assert [plans[name]["pgd-eot"].votes for name in ("winner-take-all", "winner-take-all-argmax")] == [9, 1]
    assert plans["winner-take-all"]["pgd-eot"].attack.settings["eot"] == 16
    assert plans["winner-take-all-argmax"]["pgd-eot"].attack.settings["eot"] == 1
    # Where the first draw that errs may be luck, or the copy that errs is not the network, an image stays.
    kept = {
        (name, label): plans[name][label].attack.settings["persist"]
        for name in plans
        for label in ("pgd", "pgd-adaptive")
    }
    assert kept["winner-take-all", "pgd"]
    assert kept["winner-take-all-argmax", "pgd-adaptive"]
    assert not kept["winner-take-all-argmax", "pgd"]
    assert not kept["pgd-training", "pgd-adaptive"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "trades"', 'name = "trade"', "There is no mechanism 'trade'.*Did you mean 'trades'"),
        ("attacked_temperature = 0.67", "attacked_temprature = 0.67", "has no setting 'attacked_temprature'"),
        ("temperature = 0.67, mode", "temprature = 0.67, mode", "through 'temprature', which no layer of any network"),
    ],
)
def test_wrong_words_about_mechanisms_are_named(tmp_path, old, new, message):
    text = find("defences").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SpecError, match=message):
        lab.load(str(path))
