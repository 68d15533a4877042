"""The 126 Welch tests of Kunhardt, Deza and Poggio, recomputed from their printed means and standard deviations.

The outcomes below were computed apart from this code, from the same tables: > the first is larger, < the second, = not
significant at 0.05; in brackets p to two digits where it is 1e-6 or more.
"""

import re

import pytest

from unperturbed.statistics import welch_from_summary

TESTS = {
    "T1": ("digits", "objects"),
    "T2": ("fusion-digit", "fusion-object"),
    "T3": ("digits", "fusion-digit"),
    "T4": ("objects", "fusion-object"),
    "T5": ("digits", "objects-then-digits"),
    "T6": ("objects", "digits-then-objects"),
    "T7": ("objects-then-digits", "digits-then-objects"),
}
OUTCOMES = """
T1 lenet            1: >; 10: >; 25: >; 50: >; 150: >; 300: >
T1 resnet           1: = (0.43); 10: >; 25: >; 50: >; 100: >; 125: >
T1 fully-connected  1: >; 10: >; 25: >; 50: >; 150: >; 300: >
T2 lenet            1: = (0.85); 10: >; 25: >; 50: >; 150: >; 300: >
T2 resnet           1: = (0.89); 10: >; 25: >; 50: >; 100: >; 125: >
T2 fully-connected  1: >; 10: >; 25: >; 50: >; 150: >; 300: >
T3 lenet            1: >; 10: >; 25: >; 50: >; 150: >; 300: >
T3 resnet           1: = (0.88); 10: >; 25: >; 50: >; 100: >; 125: >
T3 fully-connected  1: >; 10: >; 25: >; 50: >; 150: >; 300: >
T4 lenet            1: = (0.57); 10: >; 25: > (0.015); 50: = (0.068); 150: >; 300: > (4.1e-05)
T4 resnet           1: = (0.53); 10: > (0.013); 25: >; 50: = (0.44); 100: > (0.00019); 125: > (3.6e-06)
T4 fully-connected  1: >; 10: >; 25: >; 50: >; 150: >; 300: >
T5 lenet            1: >; 10: >; 25: >; 50: >; 150: > (3.2e-05); 300: > (6.6e-05)
T5 resnet           1: <; 10: < (8.9e-05); 25: = (0.93); 50: = (0.47); 100: = (0.24); 125: = (0.77)
T5 fully-connected  1: >; 10: >; 25: >; 50: >; 150: <; 300: <
T6 lenet            1: > (9.9e-05); 10: < (0.0008); 25: < (0.0017); 50: < (0.019); 150: < (0.00024); 300: < (0.00011)
T6 resnet           1: > (1e-06); 10: = (0.18); 25: = (0.71); 50: = (0.52); 100: = (0.4); 125: > (0.038)
T6 fully-connected  1: <; 10: <; 25: = (0.13); 50: > (2.5e-05); 150: >; 300: >
T7 lenet            1: >; 10: >; 25: >; 50: >; 150: >; 300: >
T7 resnet           1: >; 10: >; 25: >; 50: >; 100: >; 125: >
T7 fully-connected  1: >; 10: >; 25: >; 50: >; 150: >; 300: >
"""
ROWS = [line.split(maxsplit=2) for line in OUTCOMES.strip().splitlines()]


@pytest.mark.parametrize(("name", "architecture", "outcomes"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_reproduces_every_outcome_and_every_p_as_printed(printed, name, architecture, outcomes):
    left, right = TESTS[name]
    expected = re.findall(r"(\d+): ([<>=])(?: \(([^)]+)\))?", outcomes)
    assert len(expected) == 6
    for epoch, sign, bracket in expected:
        test = welch_from_summary(*printed[architecture, left, int(epoch)], *printed[architecture, right, int(epoch)])
        found = "=" if test.p >= 0.05 else ">" if test.t > 0 else "<"
        assert (epoch, found) == (epoch, sign)
        assert f"{test.p:.2g}" == bracket if bracket else test.p < 1e-6


def test_the_printed_symbols_miss_one_difference(printed):
    """ResNet50, epoch 10: the source marks no effect of pretraining on objects; its values show one."""
    test = welch_from_summary(*printed["resnet", "objects-then-digits", 10], *printed["resnet", "digits", 10])
    assert test.t > 0
    assert test.p == pytest.approx(8.9e-5, rel=0.01)  # two digits are known
