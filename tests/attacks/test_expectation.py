"""Accuracy of random classifiers: what the interval covers, and what a lucky draw does not change."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm

from unperturbed.attacks import noise_search
from unperturbed.attacks.expectation import crossed_interval, expectation

SIMULATIONS = 400


def _coin(shares):
    """Right with a probability of its own for every image: the one that its first intensity says."""

    def classifier(images):
        margin = images[:, 0, 0, 0] - torch.rand(len(images))
        return torch.stack([margin, -margin], dim=1)

    images = torch.as_tensor(shares, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return classifier, images, torch.zeros(len(images), dtype=torch.int64)


def test_numbers_are_those_of_the_draws():
    shares = np.repeat([1.0, 0.9, 0.6, 0.4, 0.0], 100)
    found = expectation(*_coin(shares), draws=200, seed=1)
    assert found.draws == 200
    assert found.per_image.shape == (500,)
    np.testing.assert_allclose(found.per_image[:100], 1)
    np.testing.assert_allclose(found.per_image[400:], 0)
    for group in (1, 2, 3):
        part = found.per_image[100 * group : 100 * (group + 1)]
        assert part.mean() == pytest.approx(shares[100 * group], abs=4 * 0.5 / 20_000**0.5)
    assert found.mean == pytest.approx(found.per_image.mean(), abs=1e-12)
    # One draw varies over the images alone: the root of the mean of p (1 - p), over that of n; 200 draws know it to 5 %.
    assert found.single_sd == pytest.approx((np.mean(shares * (1 - shares)) / 500) ** 0.5, rel=0.2)
    assert found.vote == pytest.approx(0.6, abs=0.002)  # 200 draws of 0.6 are outvoted once in 500 images at most
    assert not found.deterministic


def test_a_classifier_without_randomness_gets_the_interval_of_wilson(digits):
    network, images, labels = digits
    found = expectation(network, images, labels, draws=3)
    right = int((network(images).argmax(dim=1) == labels).sum())
    count, quantile = len(images), norm.ppf(0.975)
    centre = (right + quantile**2 / 2) / (count + quantile**2)
    half = quantile / (count + quantile**2) * (right * (count - right) / count + quantile**2 / 4) ** 0.5
    assert found.interval == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert found.mean == found.vote == pytest.approx(right / count)
    assert found.single_sd == 0
    assert found.deterministic


@pytest.mark.parametrize("right", [True, False])
def test_images_that_are_all_right_or_all_wrong_leave_a_doubt(right):
    low, high = crossed_interval(np.full((5, 40), right))
    assert (low, high) == pytest.approx((0.9124, 1.0) if right else (0.0, 0.0876), abs=1e-4)


def test_randomness_that_is_shared_by_the_images_widens_the_interval():
    """A network whose weights are drawn is right on all or on few images: 500 images are no more than 20 draws."""
    random = np.random.default_rng(0)
    whole = random.random((20, 1)) < np.full((1, 500), 0.5)
    alone = random.random((20, 500)) < 0.5
    widths = [np.diff(crossed_interval(right)).item() for right in (whole, alone)]
    assert widths[0] > 0.35
    assert widths[1] < 0.1


# Images (count, spread of their difficulty), draws, and how much a draw shifts all images at once.
@pytest.mark.parametrize(
    ("images", "draws", "mean", "spread", "shift"),
    [
        (100, 20, 1.0, 2.0, 0.0),
        (100, 20, 1.0, 1.0, 1.0),
        (200, 20, 6.0, 2.0, 0.7),
        (50, 10, -3.0, 1.5, 0.0),
        (300, 5, 1.0, 1.0, 0.5),
    ],
)
def test_the_interval_covers_other_images_and_other_draws(images, draws, mean, spread, shift):
    """Over 400 simulations: fewer than the lower 0.1 % point of a binomial with 95 % would say that it does not."""
    random = np.random.default_rng(0)
    truth = norm.cdf(mean / (1 + spread**2 + shift**2) ** 0.5)
    covered = 0
    for _ in range(SIMULATIONS):
        difficulty = mean + spread * random.standard_normal((1, images)) + shift * random.standard_normal((draws, 1))
        low, high = crossed_interval(random.standard_normal((draws, images)) < difficulty)
        covered += low <= truth <= high
    assert covered >= binom.ppf(0.001, SIMULATIONS, 0.95)


def test_the_interval_covers_the_expectation_of_a_random_classifier():
    """The same from end to end: new images and a new seed each time. 150 times 0.9 less three standard errors is 124."""
    random = np.random.default_rng(1)
    covered = 0
    for seed in range(150):
        found = expectation(*_coin(random.beta(2, 1, 60)), draws=5, seed=seed, confidence=0.9)
        covered += found.interval[0] <= 2 / 3 <= found.interval[1]
    assert covered >= 124


def test_a_smaller_confidence_gives_a_narrower_interval():
    right = np.random.default_rng(0).random((20, 200)) < 0.7
    widths = [np.diff(crossed_interval(right, confidence=confidence)).item() for confidence in (0.5, 0.9, 0.99)]
    assert widths == sorted(widths)
    assert widths[0] < 0.5 * widths[2]


def test_draws_are_fresh_and_decided_by_the_seed_alone():
    problem = _coin(np.full(64, 0.5))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = expectation(*problem, draws=4, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    again, other = (expectation(*problem, draws=4, seed=seed) for seed in (3, 4))
    assert first.per_image.tolist() == again.per_image.tolist() != other.per_image.tolist()
    assert len(set(first.per_image.tolist())) > 2  # draws differ from each other


def test_batches_draw_apart():
    """Two batches with the same draws would count one draw twice."""
    found = expectation(*_coin(np.full(64, 0.5)), draws=10, batch_size=32)
    assert found.per_image[:32].tolist() != found.per_image[32:].tolist()
    assert found.mean == pytest.approx(0.5, abs=4 * 0.5 / 640**0.5)


def test_the_same_network_is_asked_as_often_as_said(digits, counter):
    network, images, labels = digits
    watched = counter(network)
    expectation(watched, images[:100], labels[:100], draws=7, batch_size=30)
    assert watched.forwards == 700
    assert watched.backwards == 0


def test_a_lucky_draw_is_not_a_success(digits, counter):
    """Noise at inference, and an attack that may change nothing: it only looks until a draw is wrong."""
    network, images, labels = digits[0], digits[1][:200], digits[2][:200]

    def noisy(images):
        return network(images + 0.25 * torch.randn_like(images))

    watched = counter(noisy)
    found = noise_search(watched, images, labels, eps=0.0, draws=30)
    never_wrong = len(watched.seen[-1]) / 200
    clean, attacked = (expectation(noisy, shown, labels) for shown in (images, found))
    assert never_wrong < clean.interval[0] - 0.1
    assert attacked.mean == pytest.approx(clean.mean, abs=1e-12)
    assert clean.vote > clean.mean + 0.02  # another classifier: clean and attacked votes belong together
