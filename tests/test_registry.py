"""A signature is the schema of its settings."""

from typing import Literal

import pytest

from unperturbed.records import Spec, SpecError
from unperturbed.registry import complete


def paint(*, colour: Literal["red", "blue"], coats: int = 2, gloss: float = 0.5, name: str | None = None) -> None:
    """An example."""


REGISTRY = {"paint": paint}


def given(**settings):
    return complete("job", REGISTRY, Spec(name="paint", settings=settings))


def test_defaults_are_written_out_and_whole_numbers_become_floats_where_a_float_is_meant():
    full = given(colour="red", gloss=1)
    assert full.settings == {"colour": "red", "coats": 2, "gloss": 1.0, "name": None}
    assert isinstance(full.settings["gloss"], float)
    assert full.digest() == given(colour="red", gloss=1.0).digest()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": "green"}, "paint: colour must be 'red' or 'blue', got 'green'."),
        ({"colour": "red", "coats": 1.5}, "paint: coats must be int, got 1.5."),
        ({"colour": "red", "coats": True}, "paint: coats must be int, got True."),
        ({"colour": "red", "gloss": "high"}, "paint: gloss must be float, got 'high'."),
        ({"colour": "red", "name": 3}, "paint: name must be str or none, got 3."),
        ({}, "paint needs the setting 'colour', which has no default."),
        (
            {"colour": "red", "coat": 1},
            "paint has no setting 'coat'. It has: colour, coats, gloss, name. Did you mean 'coats'?",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(SpecError) as caught:
        given(**settings)
    assert str(caught.value) == message


def test_an_unknown_name_lists_the_valid_ones():
    with pytest.raises(SpecError, match=r"There is no job 'pant'\. There are: paint\. Did you mean 'paint'\?"):
        complete("job", REGISTRY, Spec(name="pant"))
