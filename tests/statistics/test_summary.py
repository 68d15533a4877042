import math

import pytest

from unperturbed.records import Measurement, PublishedValue
from unperturbed.statistics import compare, summarise


def row(seed, value, *, condition="digits", epoch=1, attack="fgsm", measure="R") -> Measurement:
    return Measurement("lenet", condition, seed, epoch, attack, measure, value, "fraction", "higher", 500)


def printed(mean, sd, **cell) -> PublishedValue:
    cell = {"condition": "digits", "epoch": 1, **cell}
    return PublishedValue(table="1", architecture="lenet", mean=mean, sd=sd, n=20, **cell)


def test_summarises_each_cell_epoch_attack_and_measure_on_its_own():
    rows = [
        row(0, 0.4), row(0, 0.9, epoch=10), row(1, 0.6), row(0, 0.1, condition="objects"), row(2, 0.8),
        row(0, 0.3, attack="pgd-linf"), row(0, 0.2, measure="R on [0, 8/255]"), row(1, 0.7, epoch=10),
    ]  # fmt: skip
    first, later, *others = summarise(rows)
    assert first[:5] == ("lenet", "digits", 1, "fgsm", "R")
    assert (first.mean, first.sd, first.n) == pytest.approx((0.6, 0.2, 3))  # SD with n - 1
    assert (first.unit, first.better) == ("fraction", "higher")
    assert (later.epoch, later.mean, later.n) == (10, pytest.approx(0.8), 2)
    assert [(other.condition, other.attack, other.measure, other.n) for other in others] == [
        ("objects", "fgsm", "R", 1), ("digits", "pgd-linf", "R", 1), ("digits", "fgsm", "R on [0, 8/255]", 1)
    ]  # fmt: skip
    assert all(math.isnan(other.sd) for other in others)


def test_an_undefined_value_makes_the_mean_undefined():
    (summary,) = summarise([row(0, 0.4), row(1, math.nan)])
    assert math.isnan(summary.mean)
    assert summary.n == 2


def test_deviation_is_in_published_standard_deviations():
    summaries = summarise([row(0, 0.40), row(1, 0.44), row(0, 0.5, epoch=10), row(0, 0.3, condition="objects")])
    (found,) = compare(
        summaries, [printed(0.45, 0.02), printed(0.45, 0.02, epoch=25), printed(0.45, 0.02, condition="x")]
    )
    assert found.ours.mean == pytest.approx(0.42)
    assert found.published.mean == 0.45
    assert (found.difference, found.deviation) == pytest.approx((-0.03, -1.5))


def test_a_printed_value_of_another_attack_or_measure_is_no_comparison():
    summaries = summarise([row(0, 0.4)])
    assert compare(summaries, [printed(0.4, 0.1, attack="pgd-linf"), printed(0.4, 0.1, measure="accuracy")]) == ()


def test_a_source_without_spread_gives_no_deviation():
    (found,) = compare(summarise([row(0, 0.4)]), [printed(0.5, 0.0)])
    assert found.difference == pytest.approx(-0.1)
    assert math.isnan(found.deviation)
