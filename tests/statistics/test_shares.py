"""The interval of a share against its defining equation."""

import math

import pytest
from scipy.stats import norm

from unperturbed.statistics import wilson


@pytest.mark.parametrize(("share", "n"), [(0.0, 7), (1.0, 7), (0.3, 10), (0.784, 500)])
def test_limits_of_wilson_are_where_the_share_is_just_rejected(share, n):
    low, high = wilson(share, n)
    assert 0 <= low <= share <= high <= 1
    for limit in (low, high):  # |share - p| = z sqrt(p (1 - p) / n)
        assert abs(share - limit) == pytest.approx(
            norm.ppf(0.975) * math.sqrt(limit * (1 - limit) / n), rel=1e-9, abs=1e-7
        )
