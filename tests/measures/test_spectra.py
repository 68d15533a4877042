import numpy as np
import pytest

from unperturbed.measures.spectra import (
    cross_validated_spectrum,
    effective_rank,
    eigenspectrum,
    held_out_spectrum,
    marchenko_pastur_edges,
    marchenko_pastur_spectrum,
    participation_ratio,
    positive_ranks,
    power_law,
    power_laws,
    recovery,
    repeats_of_a_power_law,
    signal_share,
)
from unperturbed.records import SpecError


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("weights", ["none", "1/n"])
@pytest.mark.parametrize(("first", "last"), [(11, 500), (1, 3), (20, 800)])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.04, 2.67, 4.11])
def test_an_exact_power_law_has_its_exponent(alpha, first, last, weights):
    law = power_law(7.3 * np.arange(1, 1001.0) ** -alpha, first=first, last=last, weights=weights)
    assert law.alpha == pytest.approx(alpha, abs=1e-12)  # asked for: 1e-6
    assert (law.first, law.last, law.weights) == (first, last, weights)
    if alpha:
        assert law.r2 == pytest.approx(1, abs=1e-12)


def test_a_flat_spectrum_has_no_exponent_and_nothing_is_left_to_explain():
    law = power_law(np.ones(500))
    assert (law.alpha, law.r2) == (0, 1)


@pytest.mark.parametrize("weights", ["none", "1/n"])
def test_of_a_scattered_power_law_slope_and_r2_are_those_of_the_weighted_moments(weights):
    ranks = np.arange(1, 601.0)
    values = ranks**-1.2 * np.exp(0.3 * _normal(600))
    law = power_law(values, first=11, last=500, weights=weights)
    x, y = np.log(ranks[10:500]), np.log(values[10:500])
    weight = 1 / ranks[10:500] if weights == "1/n" else np.ones(490)
    (slope, offset) = np.polyfit(x, y, 1, w=np.sqrt(weight))
    assert law.alpha == pytest.approx(-slope, rel=1e-9)
    left = weight @ (y - slope * x - offset) ** 2
    assert law.r2 == pytest.approx(1 - left / (weight @ (y - np.average(y, weights=weight)) ** 2), rel=1e-9)
    assert law.r2 < 0.99


def test_weights_let_the_low_ranks_decide():
    """Two power laws, one behind the other: three quarters of the ranks 11 to 500 and a third of their logarithms are steep."""
    ranks = np.arange(1, 501.0)
    broken = np.where(ranks <= 125, ranks**-1.0, 125.0 * ranks**-2.0)
    alike, weighted = (power_law(broken, weights=weights).alpha for weights in ("none", "1/n"))
    assert weighted + 0.1 < alike


def test_both_ends_of_the_range_count_and_nothing_beyond():
    values = np.arange(1, 601.0) ** -1.0
    outside = values.copy()
    outside[[9, 500]] *= 100  # ranks 10 and 501
    assert power_law(outside).alpha == power_law(values).alpha
    for rank in (11, 500):
        inside = values.copy()
        inside[rank - 1] *= 100
        assert abs(power_law(inside).alpha - 1) > 0.01


def test_the_exponent_is_compared_over_ranges_that_exist():
    values = np.arange(1, 2001.0) ** -1.5
    ranges = [(law.first, law.last) for law in power_laws(values)]
    assert ranges == [(first, last) for first in (5, 11, 20) for last in (100, 200, 500, 800)]
    assert [law.alpha for law in power_laws(values)] == pytest.approx([1.5] * 12, abs=1e-12)
    assert [(law.first, law.last) for law in power_laws(values[:83])] == [(5, 83), (11, 83), (20, 83)]
    assert [(law.first, law.last) for law in power_laws(values[:12])] == [(5, 12)]
    values[299] = 0
    assert {law.last for law in power_laws(values)} == {100, 200, 299}
    assert {law.weights for law in power_laws(values, weights="1/n")} == {"1/n"}
    assert power_laws(values[:6]) == []


@pytest.mark.parametrize(("samples", "units"), [(60, 12), (12, 60), (20, 20)])
def test_the_spectrum_is_that_of_the_singular_values_of_the_centred_activity(samples, units):
    activity = _normal(samples, units) * np.arange(1, units + 1) + 50
    singular = np.linalg.svd(activity - activity.mean(axis=0), compute_uv=False)
    found = eigenspectrum(activity)
    assert len(found) == min(samples - 1, units)
    np.testing.assert_allclose(found, (singular**2 / (samples - 1))[: len(found)], rtol=1e-9)
    np.testing.assert_allclose(found.sum(), activity.var(axis=0, ddof=1).sum(), rtol=1e-12)


def test_a_power_law_that_is_built_in_comes_out():
    """Orthonormal columns without a mean, times standard deviations of n ** -alpha / 2: the covariance is known exactly."""
    columns, _ = np.linalg.qr(np.column_stack([np.ones(700), _normal(700, 600)]))
    rotation, _ = np.linalg.qr(_normal(600, 600, seed=1))
    activity = np.sqrt(699) * columns[:, 1:] * np.arange(1, 601.0) ** (-4.11 / 2) @ rotation
    found = eigenspectrum(activity + 3)
    assert power_law(found).alpha == pytest.approx(4.11, abs=1e-6)
    assert power_law(found, weights="1/n").alpha == pytest.approx(4.11, abs=1e-6)


def test_directions_without_variance_are_exactly_zero():
    activity = _normal(3000, 5) @ _normal(5, 300, seed=1)
    found = eigenspectrum(activity)
    assert (found[:5] > 1).all()
    assert (found[5:] == 0).all()
    assert positive_ranks(found) == 5
    assert (eigenspectrum(activity[:200])[5:] == 0).all()  # fewer samples than units


def test_dimensions_of_simple_spectra():
    assert participation_ratio(np.full(7, 0.3)) == pytest.approx(7, rel=1e-12)
    assert effective_rank(np.full(7, 0.3)) == pytest.approx(7, rel=1e-12)
    spectrum = np.array([3.0, 1.0, 0.0])
    assert participation_ratio(spectrum) == pytest.approx(16 / 10, rel=1e-12)
    assert effective_rank(spectrum) == pytest.approx(np.exp(np.log(4) - 0.75 * np.log(3)), rel=1e-12)
    assert participation_ratio(spectrum[:1]) == effective_rank(spectrum[:1]) == 1


@pytest.mark.parametrize(("samples", "units"), [(60, 12), (12, 60)])
def test_cross_validation_is_the_product_of_projections_on_the_axes_of_the_first(samples, units):
    first, second = _normal(samples, units) + 4, _normal(samples, units, seed=1) - 2
    second += first
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    axes = np.linalg.svd(a, full_matrices=False).Vh[: min(samples - 1, units)]
    expected = [(a @ axis) @ (b @ axis) / (samples - 1) for axis in axes]
    np.testing.assert_allclose(cross_validated_spectrum(first, second), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(cross_validated_spectrum(first, second, components=4), expected[:4], rtol=1e-9)
    np.testing.assert_allclose(cross_validated_spectrum(first, first), eigenspectrum(first), rtol=1e-9)
    swapped = cross_validated_spectrum(first, first, swaps=3)
    np.testing.assert_allclose(swapped, eigenspectrum(first), rtol=1e-9)


@pytest.mark.parametrize(("first", "other"), [((60, 12), (40, 12)), ((12, 60), (40, 60))])
def test_held_out_variance_is_that_of_the_others_along_the_axes_of_the_first(first, other):
    one, two = _normal(*first) + 4, _normal(*other, seed=1) * np.arange(1, other[1] + 1)
    axes = np.linalg.svd(one - one.mean(axis=0), full_matrices=False).Vh[: min(first[0] - 1, first[1])]
    expected = (two @ axes.T).var(axis=0, ddof=1)
    np.testing.assert_allclose(held_out_spectrum(one, two), expected, rtol=1e-8)
    np.testing.assert_allclose(held_out_spectrum(one, one), eigenspectrum(one), rtol=1e-8)


@pytest.mark.parametrize("alpha", [0.7, 1.0, 1.5])
def test_cross_validation_recovers_the_exponent_of_the_signal_and_a_plain_spectrum_does_not(alpha):
    """The simulation at half its size and half signal, where 0.05 is to be kept. At full size, in seven seconds each,
    plain, cross-validated and noise-free spectra give 0.44, 0.67 and 0.66; 0.61, 1.00 and 0.97; 0.60, 1.47 and 1.50."""
    repeats = repeats_of_a_power_law(alpha, signal_share=0.5, samples=1400, units=1000, directions=750)
    found = recovery(repeats, last=250)
    assert found.cross_validated == pytest.approx(found.noise_free, abs=0.05)
    assert found.noise_free == pytest.approx(alpha, abs=0.05)
    assert found.plain < found.noise_free - 0.2
    assert signal_share(repeats.first, repeats.second) == pytest.approx(0.5, abs=0.02)


def test_the_swap_of_repeats_changes_next_to_nothing():
    repeats = repeats_of_a_power_law(1.0, signal_share=0.5, samples=700, units=500, directions=375)
    plain, swapped = (cross_validated_spectrum(repeats.first, repeats.second, swaps=swaps) for swaps in (0, 6))
    alphas = [power_law(values, last=125, weights="1/n").alpha for values in (plain, swapped)]
    assert alphas[0] == pytest.approx(alphas[1], abs=0.02)
    assert not np.array_equal(plain, swapped)


def test_at_a_weak_signal_cross_validation_is_too_low_and_plain_spectra_much_more():
    """As published: a sixth of the variance is signal in recordings."""
    repeats = repeats_of_a_power_law(1.0, signal_share=0.165, samples=1400, units=1000, directions=750)
    found = recovery(repeats, last=250)
    assert found.plain + 0.4 < found.cross_validated < found.noise_free - 0.02


def test_swaps_are_tosses_of_the_seed():
    pair = _normal(30, 8), _normal(30, 8, seed=1)
    one, same, other = (cross_validated_spectrum(*pair, swaps=2, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    # The mean over all 2 ** 3 tosses of three stimuli is what many tosses come to.
    few = [each - each.mean(axis=0) for each in (_normal(3, 2), _normal(3, 2, seed=1))]  # each repeat without its mean
    every = []
    for number in range(8):
        coin = np.array([[number >> place & 1] for place in range(3)], dtype=bool)
        every.append(cross_validated_spectrum(np.where(coin, *few), np.where(coin, *few[::-1])))
    many = cross_validated_spectrum(*few, swaps=4000)
    np.testing.assert_allclose(many, np.mean(every, axis=0), atol=5 * np.std(every) / 4000**0.5)


@pytest.mark.parametrize(("samples", "units"), [(2001, 400), (301, 600)])
def test_white_noise_follows_marchenko_and_pastur_and_shares_nothing_between_repeats(samples, units):
    """Eigenvalues repel each other: their quantiles are nearer to the law than independent ones would be."""
    first, second = _normal(samples, units), _normal(samples, units, seed=1)
    found, expected = eigenspectrum(first), marchenko_pastur_spectrum(samples, units)
    ranks = np.interp(-found, -expected, np.arange(len(expected)))
    np.testing.assert_allclose(ranks, np.arange(len(found)), atol=4)  # of 300 or 400: 3.1 at most for four seeds
    low, high = marchenko_pastur_edges(samples, units)
    np.testing.assert_allclose([found[-1], found[0]], [low, high], rtol=0.05)
    shared = cross_validated_spectrum(first, second)
    # A product of independent projections: standard deviation sqrt(lambda / (M - 1)) for each component.
    standard = shared / np.sqrt(found / (samples - 1))
    assert abs(standard.mean()) < 4 / len(standard) ** 0.5
    assert standard.std() == pytest.approx(1, abs=4 / (2 * len(standard)) ** 0.5)
    assert abs(signal_share(first, second)) < 4 / (samples * units) ** 0.5
    held = held_out_spectrum(first, second)
    assert abs(power_law(held, last=200).alpha) < 0.03 < 0.1 < power_law(found, last=200).alpha
    assert power_law(expected, last=200).alpha == pytest.approx(power_law(found, last=200).alpha, abs=0.01)


@pytest.mark.parametrize(("samples", "units"), [(1001, 100), (501, 500), (101, 400)])
def test_the_white_spectrum_has_the_moments_of_the_law(samples, units):
    """Per unit the mean is 1 and the mean square 1 + K / (M - 1)."""
    expected, ratio = marchenko_pastur_spectrum(samples, units), units / (samples - 1)
    assert len(expected) == min(samples - 1, units)
    assert expected.sum() / units == pytest.approx(1, rel=2e-3)  # a sum over quantiles for an integral
    assert np.square(expected).sum() / units == pytest.approx(1 + ratio, rel=2e-3)
    low, high = marchenko_pastur_edges(samples, units)
    assert low == pytest.approx((1 - ratio**0.5) ** 2, rel=1e-12)
    assert low <= expected[-1] < expected[0] <= high
    assert high == pytest.approx((1 + ratio**0.5) ** 2, rel=1e-12)
    assert (np.diff(expected) < 0).all()


def test_published_fits_take_the_size_of_eigenvalues_below_zero_and_find_an_exponent_in_nothing():
    """Two repeats without any signal: a fit to the sizes gives a number, where there is nothing to fit."""
    shared = cross_validated_spectrum(_normal(200, 150), _normal(200, 150, seed=1))
    assert (shared < 0).any()
    as_published = power_law(np.abs(shared), last=100, weights="1/n").alpha
    assert np.isfinite(as_published)
    rank = 11 + int(np.argmin(shared[10:] > 0))
    with pytest.raises(SpecError) as caught:
        power_law(shared, last=100, weights="1/n")
    assert str(caught.value) == (
        f"power_law: expected eigenvalues above 0 from rank 11 to 100; got {shared[rank - 1]:g} at rank {rank}: let the "
        f"range end before it"
    )


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (11, 12, "expected a rank of at least 1 and three ranks or more; got 11 to 12"),
        (500, 11, "expected a rank of at least 1 and three ranks or more; got 500 to 11"),
        (0, 50, "expected a rank of at least 1 and three ranks or more; got 0 to 50"),
        (11, 101, "expected eigenvalues up to rank 101; got 100: fewer samples or units than that, lower last"),
        (11, 100, "expected eigenvalues above 0 from rank 11 to 100; got 0 at rank 60: let the range end before it"),
    ],
)
def test_a_range_that_cannot_be_fitted_is_refused(first, last, said):
    values = np.arange(1, 101.0) ** -1.0
    values[59:] = 0
    with pytest.raises(SpecError) as caught:
        power_law(values, first=first, last=last)
    assert str(caught.value) == f"power_law: {said}"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            lambda: eigenspectrum(np.full((5, 3), 0.1)),
            "activity: expected units that vary; got constant activations of 5 samples",
        ),
        (
            lambda: eigenspectrum(np.ones((1, 3))),
            "activity: expected a shape (samples, units), two samples or more; got (1, 3)",
        ),
        (
            lambda: eigenspectrum(np.array([[1.0, np.nan], [np.inf, 2.0]])),
            "activity: expected finite numbers; got 2 that are not",
        ),
        (
            lambda: cross_validated_spectrum(_normal(5, 3), _normal(5, 2)),
            "repeats: expected two of the same shape; got (5, 3) and (5, 2)",
        ),
        (
            lambda: cross_validated_spectrum(_normal(5, 9), _normal(5, 9), components=0),
            "components: expected 1 to 4, as there are 5 samples of 9 units; got 0",
        ),
        (
            lambda: cross_validated_spectrum(_normal(5, 9), _normal(5, 9), components=5),
            "components: expected 1 to 4, as there are 5 samples of 9 units; got 5",
        ),
        (
            lambda: held_out_spectrum(_normal(5, 3), _normal(5, 2)),
            "activity: expected the same units twice; got 3 and 2",
        ),
        (
            lambda: participation_ratio(np.array([2.0, -1.0])),
            "eigenvalues: expected some above 0 and none below; got -1 to 2",
        ),
        (lambda: effective_rank(np.array([])), "eigenvalues: expected some above 0 and none below; got none"),
    ],
)
def test_activity_that_has_no_spectrum_is_refused(asked, said):
    with pytest.raises(SpecError) as caught:
        asked()
    assert str(caught.value) == said
