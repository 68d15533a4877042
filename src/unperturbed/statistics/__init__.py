"""Arrays become estimates, intervals, effects, p-values and verdicts on claims; NumPy, SciPy and statsmodels only."""

from unperturbed.statistics.associations import Point, Relation
from unperturbed.statistics.claims import MARGIN, ClaimResult, Decisions, decide, rule
from unperturbed.statistics.contrasts import Arm, Match, Published, Row
from unperturbed.statistics.correlation_maps import (
    CorrelationMap,
    GroupDifference,
    correlation_map,
    group_difference,
)
from unperturbed.statistics.effects import d_z, hedges_g
from unperturbed.statistics.intervals import Interval, paired_bootstrap, unpaired_bootstrap
from unperturbed.statistics.linear_association import Pearson, Slope, mixed_effects, pearson
from unperturbed.statistics.matching import interpolated
from unperturbed.statistics.power import paired_detectable, paired_power, unpaired_detectable, unpaired_power
from unperturbed.statistics.rank_correlation import cluster_bootstrap, cluster_permutation, spearman
from unperturbed.statistics.shares import wilson
from unperturbed.statistics.significance import TTest, holm, paired_t, sign_flip, welch, welch_from_summary
from unperturbed.statistics.summary import Comparison, Summary, compare, summarise

__all__ = [
    "MARGIN",
    "Arm",
    "ClaimResult",
    "Comparison",
    "CorrelationMap",
    "Decisions",
    "GroupDifference",
    "Interval",
    "Match",
    "Pearson",
    "Point",
    "Published",
    "Relation",
    "Row",
    "Slope",
    "Summary",
    "TTest",
    "cluster_bootstrap",
    "cluster_permutation",
    "compare",
    "correlation_map",
    "d_z",
    "decide",
    "group_difference",
    "hedges_g",
    "holm",
    "interpolated",
    "mixed_effects",
    "paired_bootstrap",
    "paired_detectable",
    "paired_power",
    "paired_t",
    "pearson",
    "rule",
    "sign_flip",
    "spearman",
    "summarise",
    "unpaired_bootstrap",
    "unpaired_detectable",
    "unpaired_power",
    "welch",
    "welch_from_summary",
    "wilson",
]
