import itertools
import re

import numpy as np
import pytest

from unperturbed.measures.eeg_prediction import _halves, peak_latency, prediction_accuracy, spearman_brown
from unperturbed.records import SpecError

TIMES = np.arange(-20, 80) / 100


def drawn(*, signal, noise, images, repetitions, seed=0):
    """The signal (images, 1, 1) and measurements (images, repetitions, 1, 1) of these variances."""
    random = np.random.default_rng(seed)
    shown = random.normal(0, signal**0.5, (images, 1, 1))
    return shown, shown[:, None] + random.normal(0, noise**0.5, (images, repetitions, 1, 1))


def test_two_repetitions_have_one_division_into_halves():
    """Then every number is a plain correlation, or the mean of two."""
    random = np.random.default_rng(0)
    measured = random.standard_normal((9, 2, 3, 4))
    predicted = random.standard_normal((9, 3, 4))
    found = prediction_accuracy(predicted, measured, splits=40)
    first = _halves(2, 40, 0)[0][:, 0].mean()  # how often the first repetition is half A
    for channel, time in np.ndindex(3, 4):
        one, other = measured[:, :, channel, time].T
        r = lambda a, b: np.corrcoef(a, b)[0, 1]  # noqa: E731
        mean, shown = (one + other) / 2, predicted[:, channel, time]
        expected = (
            first * r(shown, one) + (1 - first) * r(shown, other),
            r(one, other),
            first * r(mean, one) + (1 - first) * r(mean, other),
        )
        got = (numbers[channel, time] for numbers in found)
        np.testing.assert_allclose(tuple(got), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("repetitions", [4, 6, 7])
def test_correlations_are_the_closed_forms(repetitions):
    signal, noise, images = 1.0, 4.0, 40_000
    shown, measured = drawn(signal=signal, noise=noise, images=images, repetitions=repetitions)
    found = prediction_accuracy(shown, measured, splits=12)
    a, b = -(-repetitions // 2), repetitions // 2
    half, whole = signal + noise / a, signal + noise / repetitions
    error = 4 / images**0.5
    assert found.r.item() == pytest.approx((signal / half) ** 0.5, abs=error)
    assert found.lower_ceiling.item() == pytest.approx(signal / (half * (signal + noise / b)) ** 0.5, abs=error)
    assert found.upper_ceiling.item() == pytest.approx((whole / half) ** 0.5, abs=error)


def test_without_a_signal_the_upper_ceiling_is_that_of_a_half_in_the_whole():
    _, measured = drawn(signal=0.0, noise=1.0, images=40_000, repetitions=8)
    found = prediction_accuracy(np.random.default_rng(1).standard_normal((40_000, 1, 1)), measured, splits=4)
    error = 4 / 40_000**0.5
    assert [x.item() for x in found] == pytest.approx([0, 0, 0.5**0.5], abs=error)


def test_without_noise_all_is_predicted():
    shown, measured = drawn(signal=1.0, noise=0.0, images=10, repetitions=5)
    found = prediction_accuracy(3 - 2 * shown, measured)
    assert [x.item() for x in found] == pytest.approx([-1, 1, 1], abs=1e-12)


def test_channels_and_times_are_kept_apart():
    random = np.random.default_rng(0)
    measured = random.standard_normal((50, 6, 3, 5)).astype(np.float32)
    predicted = measured.mean(axis=1)
    predicted[:, 1, 2] *= -1
    r = prediction_accuracy(predicted, measured, splits=5).r
    assert r[1, 2] < -0.4
    r[1, 2] *= -1
    assert (r > 0.4).all()
    alone = prediction_accuracy(predicted[:, 2:, 3:4], measured[:, :, 2:, 3:4], splits=5)
    np.testing.assert_allclose(alone.r.item(), r[2, 3], rtol=0, atol=1e-13)


@pytest.mark.parametrize("repetitions", [4, 5])
def test_each_division_into_halves_is_equally_likely(repetitions):
    a, b = _halves(repetitions, 6000, 0)
    assert ((a > 0) ^ (b > 0)).all()
    np.testing.assert_allclose([a.sum(axis=1), b.sum(axis=1)], 1, rtol=1e-15)
    size = -(-repetitions // 2)
    assert ((a > 0).sum(axis=1) == size).all()
    divisions = list(itertools.combinations(range(repetitions), size))
    counts = [(a[:, division] > 0).all(axis=1).sum() for division in divisions]
    expected = 6000 / len(divisions)
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    assert chi_square < len(divisions) - 1 + 5 * (2 * (len(divisions) - 1)) ** 0.5


def test_the_seed_decides_the_halves():
    _, measured = drawn(signal=1.0, noise=4.0, images=20, repetitions=10)
    one, same, other = (
        prediction_accuracy(measured[:, 0], measured, splits=3, seed=seed).r.item() for seed in (0, 0, 1)
    )
    assert one == same != other


def test_what_does_not_vary_has_no_correlation():
    _, measured = drawn(signal=1.0, noise=1.0, images=10, repetitions=4)
    found = prediction_accuracy(np.full((10, 1, 1), 0.1), measured)
    assert np.isnan(found.r.item())
    assert found.lower_ceiling.item() > 0
    flat = prediction_accuracy(measured[:, 0], np.full((10, 4, 1, 1), 0.1))
    assert all(np.isnan(numbers.item()) for numbers in flat)


@pytest.mark.parametrize(
    ("predicted", "measured", "splits", "says"),
    [
        (
            (5, 3, 4),
            (5, 2, 3, 5),
            1,
            "predicted: expected (5, 3, 5), images, channels and times as measured; got (5, 3, 4)",
        ),
        ((2, 1, 1), (2, 2, 1, 1), 1, "at least 3 images, 2 repetitions and 1 split; got 2, 2 and 1"),
        ((5, 1, 1), (5, 1, 1, 1), 1, "got 5, 1 and 1"),
        ((5, 1, 1), (5, 2, 1, 1), 0, "got 5, 2 and 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_one_line(predicted, measured, splits, says):
    with pytest.raises(SpecError, match=re.escape(says)):
        prediction_accuracy(np.zeros(predicted), np.zeros(measured), splits=splits)


@pytest.mark.parametrize("times_as_long", [0.5, 2.0, 8.0])
def test_spearman_and_brown_give_the_reliability_of_longer_measurements(times_as_long):
    signal, noise = 1.3, np.array([0.0, 0.2, 7.0])
    short, long = signal / (signal + noise), signal / (signal + noise / times_as_long)
    np.testing.assert_allclose(spearman_brown(short, times_as_long=times_as_long), long, rtol=1e-14)


def test_the_peak_is_the_largest_value_after_onset():
    curve = np.exp(-((TIMES - 0.11) ** 2) / 0.001)
    curve[3] = 2  # before onset
    curve[20] = 2  # at onset
    assert peak_latency(curve, TIMES) == 0.11
    several = np.stack([curve, np.roll(curve, 4)])
    np.testing.assert_array_equal(peak_latency(several, TIMES), [0.11, 0.04])
    assert isinstance(peak_latency(curve, TIMES), float)
    assert peak_latency(np.zeros(100), TIMES) == 0.01


def test_a_peak_needs_numbers_after_onset():
    curve = np.zeros(100)
    curve[40] = np.nan
    with pytest.raises(SpecError, match="got 79 times after 0 and 1 numbers that are not finite"):
        peak_latency(curve, TIMES)
    with pytest.raises(SpecError, match="got 0 times after 0"):
        peak_latency(np.zeros(20), TIMES[:20])
    curve[40], curve[5] = 1, np.nan
    assert peak_latency(curve, TIMES) == 0.2
