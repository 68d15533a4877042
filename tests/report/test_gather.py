"""From a ledger on disk to what a report shows."""

import io

import numpy as np
import pytest

from unperturbed.ledger import Ledger
from unperturbed.records import AttackStage, ExaminationStage, TrainingStage
from unperturbed.report.confidence import counted
from unperturbed.report.content import Picture, Shown
from unperturbed.report.gather import fitting, gather, pictured
from unperturbed.report.overview import overview_rows


def packed(**arrays):
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def probabilities(seed):
    table = np.random.default_rng(seed).random((40, 10)).astype(np.float32) ** 4
    return table / table.sum(axis=1, keepdims=True)


LABELS = np.arange(40) % 10


@pytest.fixture(scope="module")
def gathered(make_defences, tmp_path_factory):
    """Two conditions of three seeds; calibration of the first seed of one of them is not there."""
    study = make_defences().study
    with Ledger.open(tmp_path_factory.mktemp("gathered")) as ledger:
        run = ledger.begin_run(study, "unperturbed run defences", {})
        for trial in study.trials[:2]:
            for seed in trial.seeds:
                weights = TrainingStage(
                    revision=1, model=trial.model, data=trial.data, data_digest=trial.condition, recipe=trial.recipe,
                    seed=seed, epoch=15,
                )  # fmt: skip
                stages = []
                if (trial.condition, seed) != ("regular", 0):
                    plan = trial.examinations["sureness"]
                    stage = ExaminationStage(revision=1, examination=plan.examination, images=40, weights=weights)
                    stages.append(("sureness", stage, packed(probabilities=probabilities(seed), labels=LABELS)))
                for label in ("fgsm", "pgd", "pgd-eot", "carlini-wagner"):
                    plan = trial.attacks[label]
                    stage = AttackStage(
                        revision=1, attack=plan.attack, eps=plan.eps, images=40, through=plan.through, weights=weights
                    )
                    critical = broken_at(trial.condition, seed, label)
                    stages.append((label, stage, packed(**attacked(plan.eps), critical_eps=critical)))
                plan = trial.examinations["autoattack"]
                random = trial.condition == "noise-augmentation"
                stage = ExaminationStage(
                    revision=1, examination=plan.examination, images=20, random=random, weights=weights
                )
                stages.append(("autoattack", stage, packed(robust=broken_at(trial.condition, seed, "aa")[:20] > 0.01)))
                for label, stage, content in stages:
                    measures = MEASURES.get(label, ())
                    if label == "autoattack" and random:
                        measures = (*measures, ("A_eps_drawn", 0.4, "fraction", "higher", 20))
                    recorded = ledger.record(
                        stage, content, suffix=".npz", measures=measures, seconds=1.0, device="cpu", versions={}
                    )
                    ledger.place(run, recorded.stage, trial.architecture, trial.condition, seed, 15, label)
        yield gather(ledger, run)


AT_EIGHT = (("A_8_255", 0.5, "fraction", "higher", 40),)
MEASURES = {
    "fgsm": AT_EIGHT,
    "pgd": AT_EIGHT,
    "pgd-eot": AT_EIGHT,
    "autoattack": (("A_eps", 0.5, "fraction", "higher", 20),),
}


def broken_at(condition, seed, label):
    """The smallest eps that broke each image: before, at and after 8/255, or none."""
    rng = np.random.default_rng([len(condition), seed, len(label)])
    return rng.choice([0.0, 4 / 255, 8 / 255, 8 / 255 + 1e-9, 0.0315, 16 / 255, np.inf], 40)


def attacked(eps):
    original = np.full((1, 3, 4, 4), 0.5, dtype=np.float32)
    return {
        "eps": np.array(eps),
        "originals": original,
        "labels": np.array([7]),
        "prediction": np.array([[7 if value == 0 else 2] for value in eps]),
        "adversarial": np.stack([original + value for value in eps]),
    }


def test_probabilities_come_from_the_first_seed_that_was_examined(gathered):
    assert [(found.condition, found.seed, found.epoch, found.label) for found in gathered.confidences] == [
        ("regular", 1, 15, "sureness"),
        ("noise-augmentation", 0, 15, "sureness"),
    ]
    for found in gathered.confidences:
        every, correct, bins = counted(probabilities(found.seed), LABELS)
        assert (found.every, found.correct, found.bins) == (every, correct, bins)
        assert sum(every) == 400


def test_what_survives_within_8_255_is_known_image_by_image_of_every_network(gathered):
    found = {(each.condition, each.seed, each.label): each.images for each in gathered.survivors}
    attacks = ("fgsm", "pgd", "pgd-eot")
    networks = [(condition, seed) for condition in ("regular", "noise-augmentation") for seed in (0, 1, 2)]
    expected = {(*network, label) for network in networks for label in attacks}
    assert found.keys() == expected | {("regular", seed, "autoattack") for seed in (0, 1, 2)}
    for condition, seed, label in expected:
        critical = broken_at(condition, seed, label)
        assert found[condition, seed, label].tolist() == [bool(eps > 0.0314) for eps in critical]
    assert found["regular", 0, "autoattack"].tolist() == (broken_at("regular", 0, "aa")[:20] > 0.01).tolist()


def test_the_worst_is_over_the_images_that_all_attacks_of_a_network_had(gathered):
    rows = {row["condition"]: row for row in overview_rows(gathered) if row["kind"] == "worst"}
    for condition, images in (("regular", 20), ("noise-augmentation", 40)):
        left = []
        for seed in (0, 1, 2):
            standing = [broken_at(condition, seed, label) > 0.0314 for label in ("fgsm", "pgd", "pgd-eot")]
            if condition == "regular":  # the other one is random, and AutoAttack decides about that by one draw
                standing.append(broken_at(condition, seed, "aa")[:20] > 0.01)
            left.append(np.mean([all(marks) for marks in zip(*(each[:images] for each in standing), strict=True)]))
        assert (rows[condition]["images"], rows[condition]["n"]) == (images, 3)
        assert rows[condition]["mean"] == pytest.approx(np.mean(left), rel=1e-12)


def test_one_attack_of_each_function_is_pictured_for_pgd_the_one_that_claims_are_about(gathered, content):
    assert pictured(gathered.study) == ["fgsm", "pgd-eot", "carlini-wagner"]
    assert [(picture.attack, picture.condition) for picture in gathered.pictures] == [
        (attack, condition)
        for attack in ("fgsm", "pgd-eot", "carlini-wagner")
        for condition in ("regular", "noise-augmentation")
    ]
    assert pictured(content.study) == ["fgsm", "pgd-linf"]
    about_l2 = content.study.claims[0].model_copy(update={"attack": "pgd-l2"})
    assert pictured(content.study.model_copy(update={"claims": (about_l2,)})) == ["fgsm", "pgd-l2"]


def test_a_study_without_these_functions_pictures_its_first_attack(content):
    trials = tuple(
        trial.model_copy(update={"attacks": {"noise": trial.attacks["uniform-noise"]}})
        for trial in content.study.trials
    )
    assert pictured(content.study.model_copy(update={"trials": trials})) == ["noise"]


def test_pictures_show_original_and_wrong_label_at_every_strength(gathered):
    picture = gathered.pictures[0]
    assert (picture.label, picture.prediction) == ("photograph 7", "photograph 7")
    assert [(shown.eps, shown.prediction) for shown in picture.adversarial] == [
        (pytest.approx(value / 255), "photograph 2") for value in (2, 4, 8, 16)
    ]


def test_large_or_many_pictures_are_shown_at_fewer_strengths():
    image = np.zeros((3, 10, 10))
    picture = Picture("c", "a", "fgsm", image, "1", "1", tuple(Shown(eps, image, "2") for eps in (0.1, 0.2, 0.3, 0.4)))

    def strengths(pixels):
        return [[shown.eps for shown in found.adversarial] for found in fitting([picture] * 2, pixels=pixels)]

    assert strengths(1800) == [[0.1, 0.2, 0.3, 0.4]] * 2  # 2 pictures of 1 + 2 x 4 tiles of 100 pixels
    assert strengths(1799) == [[0.2, 0.3, 0.4]] * 2
    assert strengths(1000) == [[0.2, 0.4]] * 2
    assert strengths(1) == [[0.4]] * 2
    assert fitting([]) == ()
