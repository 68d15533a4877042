"""Interval of a share, such as an accuracy.

Source: Wilson (1927), doi:10.1080/01621459.1927.10502953, as statsmodels computes it: it stays within 0 and 1, and is
of use at 0 of n too.
"""

from __future__ import annotations

from typing import Any

from statsmodels.stats.proportion import proportion_confint

from unperturbed.statistics.intervals import Interval


def wilson(share: float, n: int, *, confidence: float = 0.95) -> Interval:
    """Return the interval of a share that was ``share`` of ``n``.

    >>> [round(end, 4) for end in wilson(0.0, 100)]
    [0.0, 0.037]
    """
    limits: Any = proportion_confint(share * n, n, alpha=1 - confidence, method="wilson")
    low, high = limits
    return Interval(max(min(float(low), share), 0.0), min(max(float(high), share), 1.0))  # rounding put 0 of 7 outside
