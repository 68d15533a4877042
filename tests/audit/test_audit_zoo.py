"""The audit against planted illusions, each beside an attack that knows the trick, and against honest networks."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the zoo is a package of test material beside this file

from zoo import HONEST, ILLUSIONS

from unperturbed.audit import audit

pytestmark = pytest.mark.usefixtures("unchecked")

WITHIN = 0.05  # the five points
SEEDS = range(5)


@pytest.mark.parametrize("name", list(ILLUSIONS))
def test_planted_illusions_are_flagged_and_broken(name):
    planted = ILLUSIONS[name]().on(100)
    found = audit(
        planted.classifier, planted.images, planted.labels, norm=planted.norm, eps=planted.eps, budget="quick"
    )
    assert set(planted.expected_flags) & set(found.fired), found.fired
    robust = found.random.robust_vote if found.random else found.robust_accuracy
    assert found.verdict != "trustworthy"
    assert robust <= planted.knowing() + WITHIN


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", list(HONEST))
def test_honest_networks_are_not_flagged(name, seed):
    honest = HONEST[name](seed)
    found = audit(
        honest.classifier, honest.images[:100], honest.labels[:100], norm=honest.norm, eps=honest.eps, budget="quick"
    )
    assert found.fired == ()
    assert found.verdict == "trustworthy"
    # A distance is measured in float32, and the curve must not lose an image that was broken at the edge of the ball.
    assert {point.eps: point.accuracy for point in found.curve}[honest.eps] == pytest.approx(found.robust_accuracy)
    assert found.suite_accuracy - found.robust_accuracy <= 0.02  # nothing was left for anything adaptive to find
