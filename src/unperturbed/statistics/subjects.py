"""Whose responses a network was trained beside, and when that person counts as a population of its own.

Networks of several conditions that share a person are no independent witnesses of what goes with what. Where people
cross conditions, both are resampled, and what is inferred is about other conditions and other people.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from unperturbed.records import Study
from unperturbed.statistics.rank_correlation import FEWEST

Subjects = Mapping[tuple[str, str, int], str]  # by architecture, condition and seed


def subjects_of(study: Study) -> Subjects:
    """Return the subject of each network whose images were recorded with."""
    return {
        (trial.architecture, trial.condition, seed): subject
        for trial in study.trials
        for seed, subject in zip(trial.seeds, trial.subjects, strict=False)  # none: nothing was recorded
    }


def crossing(clusters: Sequence[Hashable], subjects: Sequence[str]) -> Sequence[str] | None:
    """Return the subjects of networks if these are to be resampled, else ``None``.

    That is where every network has one, one of them has networks of several clusters, and there are at least four.

    >>> crossing("aabbccdd", "12123434"), crossing("aabbccdd", "12121212")
    ('12123434', None)
    """
    pairs = set(zip(clusters, subjects, strict=True))
    different = set(subjects)
    return subjects if "" not in different and FEWEST <= len(different) < len(pairs) else None
