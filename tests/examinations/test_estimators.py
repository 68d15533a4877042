"""What is said of the estimators of spectra is what they do, at worst over the draws, and a wrong one is found out."""

import numpy as np
import pytest
import torch
from torch import nn

from unperturbed.examinations import Subject
from unperturbed.examinations.estimators import estimators
from unperturbed.measures.spectra import PowerLaw, power_law

SMALL = {"draws": 3, "samples": 600, "units": 400, "last": 150}


def _found(seed=0, **settings):
    return estimators(Subject(nn.Identity(), torch.zeros(1), torch.zeros(1), seed), **(SMALL | settings))


def test_estimators_are_as_the_claims_say_and_no_network_or_seed_changes_them(values):
    found = _found()
    worst = values(found)
    assert worst["fit_error"] < 1e-12
    assert abs(worst["recovery_gap"]) < 0.1
    assert worst["recovery_gap_plain"] < -0.2
    assert abs(worst["white_share"]) < 0.02
    assert worst["white_rank_gap"] < 0.02
    assert values(_found(seed=7)) == worst
    assert values(_found(draws=2)).keys() == worst.keys()


def test_the_worst_of_the_draws_is_named(values):
    found = _found()
    worst, drawn = values(found), found.arrays
    assert {len(each) for each in drawn.values()} == {3}
    for name in ("fit_error", "recovery_gap", "white_share", "white_rank_gap"):
        assert abs(worst[name]) == np.abs(drawn[name]).max()
    assert worst["recovery_gap_plain"] == drawn["recovery_gap_plain"].max()
    assert len(set(drawn["recovery_gap"])) == 3


def test_a_wrong_estimator_is_found_out(monkeypatch, values):
    def steeper(*arguments, **settings):
        law = power_law(*arguments, **settings)
        return PowerLaw(law.alpha * 1.001, law.r2, law.first, law.last, law.weights)

    monkeypatch.setitem(estimators.__globals__, "power_law", steeper)
    assert values(_found())["fit_error"] > 1e-6
    monkeypatch.setitem(estimators.__globals__, "eigenspectrum", lambda table: np.linspace(2, 0.1, table.shape[1]))
    assert values(_found())["white_rank_gap"] > 0.01
    monkeypatch.setitem(estimators.__globals__, "signal_share", lambda *_pair: 0.3)
    assert values(_found())["white_share"] == pytest.approx(0.3)


def test_plain_spectra_are_right_where_all_is_signal(values):
    assert values(_found(share=1.0))["recovery_gap_plain"] == pytest.approx(0, abs=1e-12)
