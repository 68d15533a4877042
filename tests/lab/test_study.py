"""A study file is checked in every word before anything runs."""

from functools import cache
from pathlib import Path

import pytest

from unperturbed import lab
from unperturbed.lab.study_file import find, names, read
from unperturbed.records import Association, Cell, SpecError, Study, Sweep, Variable

TINY = Path(__file__).with_name("tiny.toml")


@cache
def loaded(name, scale):
    """A study of the lab, resolved once: the large ones take seconds."""
    return lab.load(name, scale=scale)


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
            "images, epochs, conditions, through. Did you mean 'images'?",
        ),
        (
            "epochs = 3 }",
            "epochs = 3, momentun = 0.9 }",
            "architectures.fully-connected.recipe has no setting 'momentun'. It has: "
            "epochs, optimiser, batch_size, learning_rate, momentum, weight_decay, drop_at, drop_by, schedule, clip, crop, flip, precision. Did you mean 'momentum'?",
        ),
        (
            "hidden = 16",
            "hiden = 16",
            "fully-connected has no setting 'hiden'. It has: hidden, classes. Did you mean 'hidden'?",
        ),
        (
            'name = "lenet" }',
            'name = "lenett" }',
            "There is no model 'lenett'. There are: lenet, fully-connected, hidden-layer, resnet, imagenet-resnet, wide-resnet. Did you mean 'lenet'?",
        ),
        (
            'digits = "digits"',
            'digits = "mnits"',
            "There is no data set 'mnits'. There are: digits, photographs, mnist, "
            "cifar10, fusion, simulated-eeg, things-eeg2, faces-houses-eeg. Did you mean 'mnist'?",
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


def test_a_claim_about_certain_settings_is_left_out_of_others(tmp_path):
    with_claim = 'id = "A"\nwhere = { objects = "photographs" }'
    assert len(lab.load(edited(tmp_path, 'id = "A"', with_claim)).claims) == 1
    assert lab.load(edited(tmp_path, 'id = "A"', with_claim.replace("photographs", "cifar10"))).claims == ()
    with pytest.raises(SpecError) as caught:
        lab.load(edited(tmp_path, 'id = "A"', 'id = "A"\nwhere = { object = "photographs" }'))
    assert str(caught.value) == "There is no setting 'object'. There are: digits, objects. Did you mean 'objects'?"


def test_a_claim_of_no_difference_may_have_a_margin_of_its_own(tmp_path):
    def claim(margin, sign="="):
        text = edited(tmp_path, 'digits > objects"]', f'digits {sign} objects"]\nmargin = {margin}')
        return lab.load(text).claims[0]

    assert claim(0.5).margin == 0.5
    with pytest.raises(SpecError) as caught:
        claim(0.5, ">")
    assert str(caught.value) == (
        "claim A: margin = 0.5, but none of its contrasts expects no difference. "
        "Write 'left = right', or leave the margin out."
    )
    for margin, expected in (("0", "greater than 0"), ("-0.1", "greater than 0"), ("inf", "a finite number")):
        with pytest.raises(SpecError, match=rf"claims\.0\.margin: input should be {expected}, got {margin}\."):
            claim(margin)


def test_a_number_stands_on_the_right_of_a_condition(tmp_path):
    (claim,) = lab.load(edited(tmp_path, 'digits > objects"]', 'digits > 0.45"]')).claims
    assert claim.contrasts[0].right.number == 0.45
    with pytest.raises(SpecError) as caught:
        lab.load(edited(tmp_path, 'digits > objects"]', '0.45 > objects"]'))
    message = "claim A: a number stands on the right of a condition, got 'fully-connected: 0.45 > objects'."
    assert str(caught.value) == message


def test_a_condition_may_have_a_recipe_of_its_own(tmp_path):
    own = 'says = "digits"\nrecipe = { learning_rate = 0.5, schedule = [[0.5, 0.1]] }'
    trials = lab.load(edited(tmp_path, 'says = "digits"', own)).trials
    rates = {trial.condition: (trial.recipe.learning_rate, trial.recipe.schedule) for trial in trials}
    assert rates["digits"] == (0.5, ((0.5, 0.1),))
    assert rates["objects"] == (0.01, ())
    with pytest.raises(SpecError) as caught:
        lab.load(edited(tmp_path, 'says = "digits"', own.replace("learning_rate = 0.5", "epochs = 9")))
    message = (
        "conditions.digits.recipe: epochs are those of the architecture, whose conditions are compared at equal epochs."
    )
    assert str(caught.value) == message


CLAIM = '"fully-connected: digits > objects"'
SWEEP = """
[sweeps.half]
conditions = ["objects", "fusion-digit"]
match = "f0[fgsm]"

[scales.laptop]
"""


def with_sweep(tmp_path, claim, *, sweep=SWEEP):
    path = Path(edited(tmp_path, CLAIM, claim))
    path.write_text(path.read_text(encoding="utf-8").replace("\n[scales.laptop]\n", sweep, 1), encoding="utf-8")
    return str(path)


def test_a_sweep_stands_on_the_right_of_a_contrast(tmp_path):
    study = lab.load(with_sweep(tmp_path, '"fully-connected: digits > half[pgd] @ last"'))
    clean = Variable(measure="f0", attack="fgsm")
    assert study.sweeps == {"half": Sweep(conditions=("objects", "fusion-digit"), match=clean)}
    contrast, _ = study.claims[0].contrasts
    assert (contrast.left.condition, contrast.right) == (
        "digits", Cell(architecture="fully-connected", condition="half", attack="pgd"),
    )  # fmt: skip
    assert contrast.paired
    assert Study.model_validate_json(study.model_dump_json()) == study
    assert lab.load(str(TINY)).sweeps == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fully-connected: f0[pgd] ~+ R[fgsm]", {}),
        ("fully-connected: f0[pgd]~-R[fgsm] @ first", {"expect": "less", "epoch": "first"}),
        (
            "fully-connected: f0[pgd] ~+ R[fgsm] | R_8_255[fgsm] @ 3",
            {"control": Variable(measure="R_8_255", attack="fgsm"), "epoch": 3},
        ),
        ("f0[pgd] ~+ R[fgsm]", {"architecture": None}),
        (
            "fully-connected: f0[pgd] - R_8_255[fgsm] ~- R[fgsm]",
            {"rival": Variable(measure="R_8_255", attack="fgsm"), "expect": "less"},
        ),
    ],
)
def test_a_claim_may_be_an_association(tmp_path, text, expected):
    claim = lab.load(edited(tmp_path, CLAIM, f'"{text}"')).claims[0]
    whole = {
        "x": Variable(measure="f0", attack="pgd"), "y": Variable(measure="R", attack="fgsm"), "expect": "greater",
        "architecture": "fully-connected",
    }  # fmt: skip
    assert claim.associations == (Association(**(whole | expected)),)
    assert [contrast.primary for contrast in claim.contrasts] == [False]


def test_associations_may_be_secondary_and_of_what_is_examined(tmp_path):
    text = TINY.read_text(encoding="utf-8").replace(
        'secondary = ["fully-connected: digits > objects @ first"]', 'secondary = ["ece[sureness] ~- R[fgsm]"]'
    )
    path = tmp_path / "mine.toml"
    path.write_text(text + '\n[examinations.sureness]\nexamination = "calibration"\n', encoding="utf-8")
    claim = lab.load(str(path)).claims[0]
    assert [(each.primary, str(each.x)) for each in claim.associations] == [(False, "ece[sureness]")]
    assert [contrast.primary for contrast in claim.contrasts] == [True]


def test_a_claim_of_associations_needs_no_attack_of_its_own(tmp_path):
    text = TINY.read_text(encoding="utf-8").split("[[claims]]")[0].replace("attacks.fgsm", "attacks.plain")
    path = tmp_path / "mine.toml"
    path.write_text(f'{text}\n[[claims]]\nid = "A"\nsays = "a"\nprimary = ["f0[pgd] ~+ R[plain]"]\n', encoding="utf-8")
    assert lab.load(str(path)).claims[0].contrasts == ()


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (
            '"fully-connected: f0[pgd] ~ R[fgsm]"',
            "claim A: cannot read 'fully-connected: f0[pgd] ~ R[fgsm]'. Write 'lenet: R[fgsm] ~+ f0[fgsm] @ last', ~- if "
            "one falls, and '| f0[fgsm]' before the epoch for what is held constant.",
        ),
        (
            '"f0 ~+ R[fgsm]"',
            "claim A: expected a measure of an attack or examination such as 'f0[fgsm]', got 'f0'.",
        ),
        ('"f0[pdg] ~+ R[fgsm]"', "There is no attack 'pdg'. There are: fgsm, pgd, learning. Did you mean 'pgd'?"),
        (
            '"f0[pgd] ~+ R[fgsm] | f0[pdg]"',
            "There is no attack 'pdg'. There are: fgsm, pgd, learning. Did you mean 'pgd'?",
        ),
        (
            '"f0[pgd] - f0[fgsm] ~+ R[fgsm] | R_8_255[fgsm]"',
            "claim A: nothing can be held constant where two correlations are compared, got 'f0[pgd] - f0[fgsm] ~+ "
            "R[fgsm] | R_8_255[fgsm]'.",
        ),
        (
            '"lenett: f0[pgd] ~+ R[fgsm]"',
            "There is no architecture 'lenett'. There are: lenet, fully-connected. Did you mean 'lenet'?",
        ),
        (
            '"f0[pgd] ~+ R[fgsm] @ early"',
            "claim A: the epoch must be first, last or a number, got 'early'.",
        ),
        (
            '"fully-connected: digits > objects @ lats"',
            "claim A: the epoch must be first, last, early, middle or a number, got 'lats'.",
        ),
        (
            '"fully-connected: half > digits"',
            "claim A: a sweep stands on the right of a condition of its own architecture, got "
            "'fully-connected: half > digits'.",
        ),
        (
            '"lenet/digits > fully-connected/half"',
            "claim A: a sweep stands on the right of a condition of its own architecture, got "
            "'lenet/digits > fully-connected/half'.",
        ),
        (
            '"fully-connected: digits > hlaf"',
            "There is no condition 'hlaf'. There are: digits, objects, objects-then-digits, fusion-digit, half. "
            "Did you mean 'half'?",
        ),
    ],
)
def test_a_wrong_word_in_an_association_or_about_a_sweep_is_refused(tmp_path, claim, message):
    with pytest.raises(SpecError) as caught:
        lab.load(with_sweep(tmp_path, claim))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[sweeps.half]", "[sweeps.digits]", "sweeps.digits: there is a condition of this name. Give the sweep another one."),
        (
            '["objects", "fusion-digit"]',
            '["objects", "fusion-digits"]',
            "There is no condition 'fusion-digits'. There are: digits, objects, objects-then-digits, fusion-digit. "
            "Did you mean 'fusion-digit'?",
        ),
        (
            '["objects", "fusion-digit"]',
            '["objects"]',
            "mine.toml: sweeps.half.conditions: tuple should have at least 2 items after validation, not 1, got ['objects'].",
        ),
        (
            "f0[fgsm]",
            "f0 under fgsm",
            "sweeps.half: expected a measure of an attack or examination such as 'f0[fgsm]', got 'f0 under fgsm'.",
        ),
        ("f0[fgsm]", "f0[fgms]", "There is no attack 'fgms'. There are: fgsm, pgd, learning. Did you mean 'fgsm'?"),
        ("]\nmatch", "]\nmatched = 1\nmatch", "mine.toml has no setting 'sweeps.half.matched'. It has: conditions, match. Did you mean 'match'?"),
    ],
)  # fmt: skip
def test_a_wrong_word_in_a_sweep_is_refused(tmp_path, old, new, message):
    with pytest.raises(SpecError) as caught:
        lab.load(with_sweep(tmp_path, CLAIM, sweep=SWEEP.replace(old, new)))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('id = "A"', 'id = "A"\nmeasure = "A_8_256"'),
        (CLAIM, '"A_8_256[pgd] ~+ R[fgsm]"'),
        (CLAIM, '"f0[pgd] ~+ A_8_256[fgsm]"'),
        (CLAIM, '"f0[pgd] ~+ R[fgsm] | A_8_256[fgsm]"'),
    ],
)
def test_a_measure_that_a_claim_names_must_exist(tmp_path, old, new):
    with pytest.raises(SpecError, match=r"There is no measure 'A_8_256'\. There are: .*Did you mean 'A_8_255'\?$"):
        lab.load(edited(tmp_path, old, new))


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
    study = loaded("defences", "laptop")
    plans = {trial.condition: trial.attacks for trial in study.trials}
    assert plans["winner-take-all"]["pgd-adaptive"].through == {"temperature": 0.67, "mode": "expected"}
    assert plans["pgd-training"]["pgd-adaptive"].through == {}
    assert plans["noise-injection"]["pgd-noise-off"].through == {"active": False}
    assert {name: plan["pgd-at-1"].through for name, plan in plans.items() if "pgd-at-1" in plan} == {
        "winner-take-all": {"temperature": 1.0},
        "winner-take-all-hot": {"temperature": 1.0},
    }
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


@pytest.mark.parametrize(("scale", "images"), [("paper", 50_000), ("full", 1_300)])
def test_the_whole_variational_loss_is_weighted_by_the_number_of_training_images(scale, images):
    terms = {
        trial.condition: {spec.name: spec.settings["kl"] for spec in trial.mechanisms if spec.settings.get("kl")}
        for trial in loaded("defences", scale).trials
    }
    weight = pytest.approx(1 / images, rel=2e-3)
    both = {"indian-buffet": weight, "winner-take-all": weight}
    assert {name: found for name, found in terms.items() if found} == {
        "winner-take-all-bayes": both,
        "winner-take-all-gaussian": both | {"gaussian-weights": weight},
    }


@pytest.mark.parametrize(
    ("scale", "claims", "epochs", "steps", "warm_up", "crop"),
    [("laptop", set(), 15, 5, 0.5, 0), ("paper", {"L5", "L5-pgd"}, 30, 5, 0.0, 4),
     ("authors", {"L1", "L1-pgd"}, 150, 10, 0.0, 4)],
)  # fmt: skip
def test_winner_take_all_is_trained_as_the_claims_of_the_scale_say(scale, claims, epochs, steps, warm_up, crop):
    study = loaded("defences", scale)
    assert {claim.id for claim in study.claims if claim.id[:2] in ("L1", "L5")} == claims
    trials = {trial.condition: trial for trial in study.trials}
    for condition in ("winner-take-all", "pgd-training", "winner-take-all-hot", "winner-take-all-argmax"):
        trial = trials[condition]
        inner = next(spec.settings for spec in trial.mechanisms if spec.name == "adversarial-training")
        assert (trial.recipe.epochs, inner["steps"], inner["warm_up"]) == (epochs, steps, warm_up)
        assert (trial.recipe.crop, trial.recipe.flip) == (crop, crop > 0)


@pytest.mark.parametrize("scale", ["laptop", "full"])
def test_two_attacks_that_a_claim_compares_on_one_network_have_the_same_images(scale):
    """Else the contrast is left out of the report."""
    study = loaded("defences", scale)
    plans = {trial.condition: trial.attacks for trial in study.trials}
    compared = {
        (side.condition, side.attack or claim.attack)
        for claim in study.claims
        for contrast in claim.contrasts
        for side in (contrast.left, contrast.right)
        if contrast.left.attack != contrast.right.attack and claim.id.startswith("L")
    }
    assert {plans[condition][attack].images for condition, attack in compared} == {50}


def test_an_inverted_range_of_a_fit_is_refused_before_anything_is_trained():
    with pytest.raises(SpecError, match="three ranks or more; got 11 to 5"):
        lab.load("local-learning", scale="laptop", changes=lab.Changes(settings={"last": 5}))


def test_it_is_at_no_scale_that_trains_on_other_numbers_of_images():
    for scale in ("smoke", "laptop", "middle"):
        assert not {trial.condition for trial in loaded("defences", scale).trials} & {
            "winner-take-all-bayes",
            "winner-take-all-gaussian",
        }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "trades"', 'name = "trade"', "There is no mechanism 'trade'.*Did you mean 'trades'"),
        ("attacked_temperature = 0.67", "attacked_temprature = 0.67", "has no setting 'attacked_temprature'"),
        (
            'winner-take-all", mode = "argmax"',
            'winner-take-all", mode = "argmax", units = 4',
            "winner-take-all: 6 channels cannot be divided into blocks of 4; .* this one: 2, 3, 6",
        ),
        ("temperature = 0.67, mode", "temprature = 0.67, mode", "through 'temprature', which no layer of any network"),
        (
            'through = { temperature = 1.0 }\nconditions = ["winner-take-all"',
            'through = { temperature = 1.0 }\nconditions = ["winner-takes-all"',
            "There is no condition 'winner-takes-all'.*Did you mean 'winner-take-all'",
        ),
    ],
)
def test_wrong_words_about_mechanisms_are_named(tmp_path, old, new, message):
    text = find("defences").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SpecError, match=message):
        lab.load(str(path))


SCALES = [(name, scale) for name in names() for scale in read(find(name)).scales]


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_study_of_the_lab_loads_at_every_scale(name, scale):
    study = loaded(name, scale)
    assert len({trial.canonical() for trial in study.trials}) == len(study.trials) > 1
    assert study.claims


def test_what_the_claims_of_local_learning_are_about_is_trained():
    study = lab.load("local-learning")
    decided = {
        cell.condition
        for claim in study.claims
        for contrast in claim.contrasts
        for cell in (contrast.left, contrast.right)
        if cell.number is None
    }
    along = {condition for sweep in study.sweeps.values() for condition in sweep.conditions}
    assert decided - {*study.sweeps} | along <= {trial.condition for trial in study.trials}


def test_a_network_may_stand_beside_itself_unless_it_is_examined_alone_anyway():
    def beside(name, condition, label):
        (trial,) = (trial for trial in lab.load(name, scale="smoke").trials if trial.condition == condition)
        other = trial.examinations[label].beside
        return other and other.condition

    assert beside("defences", "regular", "transfer") == "regular"  # transferred from itself: a white box
    assert beside("eeg-cotraining", "baseline", "gain-l2") is None
    assert beside("eeg-cotraining", "real", "gain-l2") == "baseline"
