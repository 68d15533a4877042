r"""What a design can see: the probability that a two-sided t test finds a difference that is there.

Source: Cohen (1988), Statistical Power Analysis, chapter 2: under a true difference :math:`\delta` the statistic has a
noncentral t distribution with noncentrality :math:`\delta / se`; the power is the probability beyond the critical
values of the central one, on both sides.

Departs from the source: the unpaired test is Welch's, so its degrees of freedom are Satterthwaite's at the true
standard deviations; the distribution is then approximate (at n = 5 within 0.02 of simulation).
"""

from __future__ import annotations

import math

from scipy import stats
from scipy.optimize import root_scalar

from unperturbed.records import SpecError
from unperturbed.statistics.significance import welch_error

# A standard normal value is beyond 8 with probability 1e-15: what needs one does not happen.
FAR = 8.0


def paired_power(difference: float, sd: float, n: int, *, alpha: float = 0.05) -> float:
    """Return the power of the paired t test, in [alpha, 1].

    Args:
        difference: the true mean difference.
        sd: the standard deviation of the paired differences, in the same unit; above 0.
        n: pairs; at least 2.
        alpha: level of the test.
    """
    _check(n, sd)
    return _power(difference / (sd / math.sqrt(n)), n - 1, alpha)


def unpaired_power(difference: float, sd1: float, n1: int, sd2: float, n2: int, *, alpha: float = 0.05) -> float:
    """Return the power of Welch's test of two independent samples, in [alpha, 1]; arguments as for `paired_power`."""
    _check(min(n1, n2), max(sd1, sd2))
    error, df = welch_error(sd1, n1, sd2, n2)
    return _power(difference / error, df, alpha)


def paired_detectable(sd: float, n: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest true difference that the paired t test finds with probability ``power``."""
    _check(n, sd)
    return sd / math.sqrt(n) * _noncentrality(n - 1, power, alpha)


def unpaired_detectable(sd1: float, n1: int, sd2: float, n2: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest true difference that Welch's test finds with probability ``power``."""
    _check(min(n1, n2), max(sd1, sd2))
    error, df = welch_error(sd1, n1, sd2, n2)
    return error * _noncentrality(df, power, alpha)


def _check(n: int, sd: float) -> None:
    if n < 2 or not sd > 0:
        raise SpecError(
            f"power: expected at least 2 values with a standard deviation above 0, got {n} with {sd}; "
            "a design without spread has no power to compute."
        )


def _power(noncentrality: float, df: float, alpha: float) -> float:
    shift = abs(noncentrality)
    critical = float(stats.t.isf(alpha / 2, df))
    # P(T < -c) under a shift is P(T > c) under its mirror image; SciPy's lower tail itself is NaN in places.
    return float(stats.nct.sf(critical, df, shift) + stats.nct.sf(critical, df, -shift))


def _noncentrality(df: float, power: float, alpha: float) -> float:
    if not alpha < power < 1:
        raise SpecError(f"power: expected a probability above alpha ({alpha}) and below 1, got {power}; 0.8 is usual.")
    # Beyond, t misses the critical value only if a normal value is below -8 or the standard error 8 times too large.
    furthest = FAR + FAR * float(stats.t.isf(alpha / 2, df))
    return float(root_scalar(lambda shift: _power(shift, df, alpha) - power, bracket=(0.0, furthest)).root)
