"""What each control keeps of the responses, and that every network draws its own."""

import numpy as np
import pytest
import torch

from unperturbed.mechanisms.eeg_controls import control

RANDOM = ["shuffled", "shuffled-within-class", "phase-randomised", "gaussian", "white"]


def drawn(x, labels, *, kind, seed=0):
    return control(torch.from_numpy(x), torch.from_numpy(labels), seed, kind=kind).numpy()


def traces(n=60, channels=3, times=20, seed=0):
    """Responses with a covariance of their own and mean 0 over the images."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((channels * times, channels * times)) / np.sqrt(channels * times)
    found = (random.standard_normal((n, channels * times)) @ mixing).reshape(n, channels, times)
    return found - found.mean(axis=0)


LABELS = np.arange(60) % 3


def test_shuffled_responses_are_those_of_other_images():
    x = traces()
    shuffled = drawn(x, LABELS, kind="shuffled")
    order = np.argsort(shuffled[:, 0, 0])
    assert np.array_equal(shuffled[order], x[np.argsort(x[:, 0, 0])])  # the same ones, each once
    assert (shuffled == x).all(axis=(1, 2)).mean() < 0.1  # a permutation leaves one of them in its place on average


def test_shuffled_within_class_stays_in_the_class_and_is_no_identity():
    x = traces()
    x[:, 0, 0] = np.arange(60)  # says which image it was
    rows = drawn(x, LABELS, kind="shuffled-within-class")[:, 0, 0].astype(int)
    assert sorted(rows) == list(range(60))
    assert np.array_equal(LABELS[rows], LABELS)
    assert (rows == np.arange(60)).mean() < 0.2
    apart = drawn(x, LABELS, kind="shuffled")[:, 0, 0].astype(int)
    assert (LABELS[apart] == LABELS).mean() < 0.7  # as three classes have it, 1 / 3


@pytest.mark.parametrize("times", [20, 21])
def test_random_phases_keep_every_amplitude_and_the_cross_spectrum_of_each_image(times):
    x = traces(times=times)
    turned = drawn(x, LABELS, kind="phase-randomised")
    before, after = np.fft.rfft(x), np.fft.rfft(turned)
    np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=0, atol=1e-12)  # float64
    np.testing.assert_allclose(after[:, 0] * after[:, 1].conj(), before[:, 0] * before[:, 1].conj(), rtol=0, atol=1e-11)
    inner = slice(1, (times + 1) // 2)
    turns = np.angle(after[:, 0, inner] / before[:, 0, inner])
    assert abs(np.exp(1j * turns).mean()) < 0.12  # 540 phases that are uniform: 3 standard errors of 1 / sqrt(540)
    constant = (turned.mean(axis=2) / x.mean(axis=2)).round(9)
    assert (np.abs(constant) == 1).all()
    assert abs(constant[:, 0].mean()) < 0.4  # 60 signs: 3 standard errors of 1 / sqrt(60)
    assert (constant == constant[:, :1]).all()  # the same for all channels


def test_gaussian_responses_have_the_covariance_within_sampling_error():
    x = traces(n=4000, channels=2, times=3)
    found = drawn(x, np.zeros(4000, np.int64), kind="gaussian").reshape(4000, -1)
    wanted = x.reshape(4000, -1).T @ x.reshape(4000, -1) / 4000
    got = found.T @ found / 4000
    error = np.sqrt((np.outer(np.diag(wanted), np.diag(wanted)) + wanted**2) / 4000)  # of a normal covariance
    assert np.abs(got - wanted).max() < 5 * error.max()
    assert np.abs(wanted - np.diag(np.diag(wanted))).max() > 10 * error.max()  # so that independent numbers would fail
    correlations = np.corrcoef(found[:, 0], x[:, 0, 0])
    assert abs(correlations[0, 1]) < 0.08  # 5 / sqrt(4000)


def test_gaussian_responses_work_with_fewer_images_than_numbers():
    x = traces(n=10)
    found = drawn(x, LABELS[:10], kind="gaussian").reshape(10, -1)
    assert np.linalg.matrix_rank(np.concatenate([found, x.reshape(10, -1)])) == 9  # within what X spans


def test_white_responses_are_standard_normal_and_reversed_ones_are_reversed():
    x = traces(n=600)
    white = drawn(x, np.zeros(600, np.int64), kind="white")
    assert abs(white.mean()) < 5 / 190  # 5 / sqrt(36000)
    assert abs(white.var() - 1) < 5 * np.sqrt(2) / 190
    assert np.array_equal(drawn(x, np.zeros(600, np.int64), kind="time-reversed"), np.flip(x, axis=2))


@pytest.mark.parametrize("kind", RANDOM)
def test_a_network_draws_the_same_numbers_every_time_and_every_network_its_own(kind):
    first, again, other = (drawn(traces(), LABELS, kind=kind, seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(first, again)
    assert np.isclose(first, other, rtol=0, atol=1e-9).mean() < 0.1  # what keeps its own place is kept


def test_real_responses_are_left_as_they_are_and_controls_in_their_precision():
    x = torch.from_numpy(traces()).float()
    assert control(x, torch.from_numpy(LABELS), 3, kind="real") is x
    for kind in (*RANDOM, "time-reversed"):
        assert control(x, torch.from_numpy(LABELS), 3, kind=kind).dtype == torch.float32
