import re

import pytest

from unperturbed.data import CATALOGUE, DATASETS, check_spec, load
from unperturbed.data.fusion import DIGIT_SETS, OBJECT_SETS
from unperturbed.records import Spec, SpecError


@pytest.mark.parametrize("act", [check_spec, load])
@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        (
            "mnits",
            {},
            "There is no data set 'mnits'. There are: digits, photographs, mnist, cifar10, fusion, simulated-eeg, things-eeg2, faces-houses-eeg. "
            "Did you mean 'mnist'?",
        ),
        (
            "digits",
            {"interpolaton": "pad"},
            "digits has no setting 'interpolaton'. It has: interpolation, contrast. Did you mean 'interpolation'?",
        ),
        (
            "fusion",
            {"contrast": 0.5},
            "fusion has no setting 'contrast'. It has: digits, objects, alpha, task, interpolation.",
        ),
        ("digits", {"contrast": "half"}, "digits: contrast must be float, got 'half'."),
        ("digits", {"contrast": 1.5}, "digits: contrast must be from 0 to 1, got 1.5."),
        ("digits", {"contrast": float("nan")}, "digits: contrast must be from 0 to 1, got nan."),
        ("fusion", {"alpha": -0.1}, "fusion: alpha must be from 0 to 1, got -0.1."),
        ("fusion", {"task": "both"}, "fusion: task must be 'digit' or 'object', got 'both'."),
        ("fusion", {"digits": "cifar10"}, "fusion: digits must be 'digits' or 'mnist', got 'cifar10'."),
        (
            "photographs",
            {"train": 0},
            "photographs: train must be from 10 to 20000 and a multiple of 10, got 0.",
        ),
        (
            "photographs",
            {"test": 55},
            "photographs: test must be from 10 to 5000 and a multiple of 10, got 55.",
        ),
    ],
)
def test_a_wrong_name_or_setting_is_refused_in_one_line(act, name, settings, says):
    with pytest.raises(SpecError, match=f"^{re.escape(says)}"):
        act(Spec(name=name, settings=settings))


def test_defaults_are_written_out_and_numbers_have_one_form():
    full = check_spec(Spec(name="fusion", settings={"alpha": 1}))
    assert full.canonical() == (
        '{"name":"fusion","settings":{"alpha":1.0,"digits":"digits","interpolation":"bilinear",'
        '"objects":"photographs","task":"digit"}}'
    )
    assert check_spec(full) == full


def test_checking_does_not_load(bare):
    assert check_spec(Spec(name="cifar10")).settings == {"contrast": 1.0}


def test_the_catalogue_lists_every_data_set_with_its_kind():
    recorded = ["simulated-eeg", "things-eeg2", "faces-houses-eeg"]  # images with responses: sets made from other sets
    assert [*CATALOGUE, *recorded] == list(DATASETS)
    assert {name for name, entry in CATALOGUE.items() if entry.kind == "digits"} == set(DIGIT_SETS)
    assert {name for name, entry in CATALOGUE.items() if entry.kind == "objects"} == set(OBJECT_SETS)
