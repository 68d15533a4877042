r"""How large a difference is beside the spread over seeds.

Sources: Hedges (1981), Journal of Educational Statistics 6, 107-128, equation 6e:
:math:`g = J(\nu)\,(m_1 - m_2) / s_p`, :math:`J(\nu) = \Gamma(\nu/2) / (\sqrt{\nu/2}\,\Gamma((\nu - 1)/2))`,
:math:`\nu = n_1 + n_2 - 2`. Cohen (1988), Statistical Power Analysis, section 2.3.5:
:math:`d_z = \bar d / s_d`. Both are without unit, positive where left is larger, and NaN without spread.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from unperturbed.statistics.samples import differences, sample, spread


def hedges_g(left: ArrayLike, right: ArrayLike) -> float:
    """Return the difference of two independent means in pooled standard deviations, corrected for small samples."""
    left, right = sample(left, name="left"), sample(right, name="right")
    sd1, sd2 = spread(left), spread(right)
    if math.isnan(sd1) or math.isnan(sd2) or sd1 == sd2 == 0:
        return math.nan
    df = left.size + right.size - 2
    pooled = math.sqrt(((left.size - 1) * sd1**2 + (right.size - 1) * sd2**2) / df)
    correction = np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / math.sqrt(df / 2)
    return float(correction * (left.mean() - right.mean()) / pooled)


def d_z(left: ArrayLike, right: ArrayLike) -> float:
    """Return the mean of the paired differences in standard deviations of these differences."""
    difference, sd = differences(left, right)
    return float(difference.mean()) / sd if sd > 0 else math.nan
