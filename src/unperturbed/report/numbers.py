"""How a number is written in the report: one function per kind of quantity, ``–`` where there is none."""

from __future__ import annotations

import math

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
RHO = "\N{GREEK SMALL LETTER RHO}"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def absent(value: float | None) -> bool:
    """Return whether there is no number to write: None, NaN or infinite."""
    return value is None or not math.isfinite(value)


def decimals(value: float | None, digits: int = 4) -> str:
    """Return ``value`` with ``digits`` decimals, a minus sign and not a hyphen.

    >>> decimals(0.52054), decimals(-0.1), decimals(-0.00001), decimals(None)
    ('0.5205', '−0.1000', '0.0000', '–')
    """
    if value is None or absent(value):
        return MISSING
    return f"{value:z.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 4) -> str:
    """Return ``value`` with its sign, for differences.

    >>> signed(0.25), signed(-0.25, 1), signed(-0.04, 1)
    ('+0.2500', '−0.2', '+0.0')
    """
    if value is None or absent(value):
        return MISSING
    return f"{value:+z.{digits}f}".replace("-", MINUS)


def percent(value: float | None) -> str:
    """Return a fraction as a percentage with one decimal.

    >>> percent(0.98765), percent(float("nan"))
    ('98.8%', '–')
    """
    if value is None or absent(value):
        return MISSING
    return f"{100 * value:.1f}%"


def probability(value: float | None) -> str:
    """Return a p-value with two significant digits.

    >>> probability(0.0431), probability(0.5), probability(3.21e-7), probability(0.0)
    ('0.043', '0.50', '3.2·10⁻⁷', '< 10⁻³⁰⁰')
    """
    if value is None or absent(value):
        return MISSING
    if value < 1e-300:
        return "< 10⁻³⁰⁰"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = int(exponent)
    if power < -3:
        return f"{mantissa}·10{str(power).translate(SUPERSCRIPTS)}"
    return f"{value:.{1 - power}f}"


def interval(low: float | None, high: float | None, digits: int = 4) -> str:
    """Return an interval in brackets.

    >>> interval(-0.1, 0.2, 2), interval(None, 0.2)
    ('[−0.10, 0.20]', '–')
    """
    if low is None or high is None or absent(low) or absent(high):
        return MISSING
    return f"[{decimals(low, digits)}, {decimals(high, digits)}]"


def spread(mean: float | None, sd: float | None, digits: int = 4) -> str:
    """Return a mean and its standard deviation, the latter only where there is one.

    >>> spread(0.5, 0.01), spread(0.5, None), spread(None, None)
    ('0.5000 ± 0.0100', '0.5000 ± –', '–')
    """
    return MISSING if absent(mean) else f"{decimals(mean, digits)} ± {decimals(sd, digits)}"


def whole(value: float | None) -> str:
    """Return a count with thin spaces between the thousands.

    >>> whole(23122510), whole(None)
    ('23\u202f122\u202f510', '–')
    """
    if value is None or absent(value):
        return MISSING
    return f"{round(value):,}".replace(",", "\u202f")


def duration(seconds: float | None) -> str:
    """Return a time in the unit that reads best.

    >>> duration(0.25), duration(12.34), duration(754), duration(8000)
    ('0.25 s', '12.3 s', '12 min 34 s', '2 h 13 min')
    """
    if seconds is None or absent(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def radius(eps: float) -> str:
    """Return an eps as a fraction of full scale, in 255ths too where it is a whole number of them.

    >>> radius(0.3), radius(8 / 255), radius(0.0125), radius(0.0)
    ('0.3', '8/255', '0.0125', '0')
    """
    steps = eps * 255
    if 0 < steps < 33 and math.isclose(steps, round(steps), abs_tol=1e-4):
        return f"{round(steps)}/255"
    return f"{eps:.4g}"
