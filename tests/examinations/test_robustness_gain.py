"""The gain where every smallest perturbation is known: two linear classifiers."""

import numpy as np
import pytest
import torch

from unperturbed.examinations import EXAMINATIONS, Subject

gain = EXAMINATIONS["robustness-gain"]
SIDE = 4
WEIGHT = torch.linspace(-1, 1, 3 * SIDE * SIDE)
LENGTH = {"l2": float(WEIGHT.norm()), "linf": float(WEIGHT.abs().sum())}  # of the dual norm
DISTANCES = torch.tensor([0.03, 0.07, 0.11, 0.15, 0.24, 0.31])  # in L2, of the first classifier

pytestmark = pytest.mark.usefixtures("unchecked")


def pictures(distances=DISTANCES):
    """Images whose margin under ``WEIGHT`` lies as many L2 distances above 0, near the middle of the box."""
    return 0.5 + (distances[:, None] * WEIGHT / LENGTH["l2"]).view(-1, 3, SIDE, SIDE)


def subject(linear, *, further, distances=DISTANCES, labels=None):
    """The first classifier has its boundary ``further`` away from every image than the one beside."""
    offset = -float(WEIGHT.sum()) / 2  # a grey image lies on the boundary
    near, far = (linear(WEIGHT, offset + LENGTH["l2"] * more) for more in (0.0, further))
    images = pictures(distances)
    labels = torch.ones(len(images), dtype=torch.int64) if labels is None else labels
    return Subject(far, images, labels, seed=3, beside=lambda: near)


def beside(asked, **settings):
    """The subject with what the same examination finds of the network beside, alone."""
    alone = asked._replace(network=asked.beside(), beside=None)
    return asked._replace(found_beside=lambda: gain(alone, **settings).arrays)


@pytest.mark.parametrize(("norm", "attack"), [("l2", "fmn"), ("linf", "fmn"), ("l2", "ddn")])
def test_the_gain_of_a_linear_classifier(norm, attack, linear, values):
    found = gain(beside(subject(linear, further=0.05), norm=norm, attack=attack), norm=norm, attack=attack)
    near = DISTANCES.double().numpy() * LENGTH["l2"] / LENGTH[norm]
    far = (DISTANCES.double().numpy() + 0.05) * LENGTH["l2"] / LENGTH[norm]
    accuracy = 1e-3  # of the attack, which stops a little beyond the boundary
    np.testing.assert_allclose(found.arrays["s_beside"], near, rtol=accuracy)
    np.testing.assert_allclose(found.arrays["s"], far, rtol=accuracy)
    seen = values(found)
    assert seen["robustness_gain"] == pytest.approx(far.mean() / near.mean() - 1, abs=2 * accuracy)
    assert seen["robustness_gain_median"] == pytest.approx(np.median(far) / np.median(near) - 1, abs=2 * accuracy)
    assert (seen["f0"], seen["robustness_excluded"], seen["robustness_censored"]) == (1.0, 0.0, 0.0)


def test_the_grid_takes_the_smallest_eps_that_fools_and_counts_what_none_does(linear, values):
    # In L2: 0.03 0.07 0.11 0.15 0.24 0.31 beside, 0.09 0.13 0.17 0.21 0.30 0.37 for the network.
    seen = gain(beside(subject(linear, further=0.06), form="grid"), form="grid")
    np.testing.assert_array_equal(seen.arrays["s_beside"], [0.05, 0.1, 0.2, 0.2, 0.4, 0.4])
    np.testing.assert_array_equal(seen.arrays["s"], [0.1, 0.2, 0.2, 0.4, 0.4, 0.4])
    assert values(seen)["robustness_gain"] == pytest.approx(1.7 / 1.35 - 1, abs=1e-12)
    assert values(seen)["robustness_gain_median"] == pytest.approx(0.3 / 0.2 - 1, abs=1e-12)

    to_linf = LENGTH["l2"] / LENGTH["linf"]
    beyond = 34 / 255 / to_linf  # no eps of the grid reaches this far
    settings = {"form": "grid", "norm": "linf"}
    asked = subject(linear, further=beyond - 0.1, distances=torch.tensor([0.02, 0.14]))
    censored = gain(beside(asked, **settings), **settings)
    np.testing.assert_array_equal(censored.arrays["s"], [32 / 255, np.inf])
    assert values(censored)["robustness_censored"] == 0.5
    np.testing.assert_allclose(censored.arrays["s_beside"], [1 / 255, 8 / 255], rtol=1e-12)
    expected = (32 + 32) / (1 + 8) - 1  # the largest eps stands for what is beyond it
    assert values(censored)["robustness_gain"] == pytest.approx(expected, abs=1e-12)
    assert "robustness_gain_median" not in values(censored)


@pytest.mark.parametrize(("norm", "steps"), [("l2", 50), ("linf", 40)])
def test_the_grid_is_attacked_with_as_many_steps_as_published(linear, monkeypatch, norm, steps):
    asked, sweep = [], gain.__globals__["sweep"]
    monkeypatch.setitem(gain.__globals__, "sweep", lambda *args, **rest: asked.append(rest) or sweep(*args, **rest))
    gain(subject(linear, further=0.05)._replace(beside=None), form="grid", norm=norm)
    assert [(each["norm"], each["steps"]) for each in asked] == [(norm, steps)]


def test_without_a_grid_nothing_is_said_of_means_where_one_image_is_never_broken(linear, values):
    asked = beside(subject(linear, further=0.0))
    asked = asked._replace(network=linear(torch.zeros_like(WEIGHT), 1.0))
    seen = values(gain(asked))
    assert seen["robustness_censored"] == 1.0
    assert "robustness_gain" not in seen
    turned = subject(linear, further=0.0)._replace(beside=lambda: linear(torch.zeros_like(WEIGHT), 1.0))
    assert values(gain(beside(turned)))["robustness_censored"] == 1.0  # of either of both
    assert "robustness_gain_median" not in seen


def test_only_images_that_both_classify_correctly_count(linear, values):
    distances = torch.tensor([-0.08, -0.02, 0.05, 0.20, 0.25])  # the first is wrong for both, the second beside only
    labels = torch.tensor([1, 1, 1, 1, 0])  # and the last for both
    found = gain(beside(subject(linear, further=0.05, distances=distances, labels=labels)))
    assert found.arrays["images"].tolist() == [2, 3]
    assert values(found)["f0"] == pytest.approx(0.6)
    assert values(found)["robustness_excluded"] == pytest.approx(0.6)
    assert values(found)["robustness_gain"] == pytest.approx(0.35 / 0.25 - 1, abs=2e-3)

    nobody = gain(beside(subject(linear, further=0.05, labels=torch.zeros(6, dtype=torch.int64))))
    assert values(nobody) == {"f0": 0.0, "robustness_excluded": 1.0}


def test_the_bootstrap_draws_pairs_of_images(linear):
    distances = torch.linspace(0.02, 0.4, 40)
    asked = beside(subject(linear, further=0.0, distances=distances))
    offset = -float(WEIGHT.sum()) / 2
    same = gain(asked)
    np.testing.assert_allclose(same.arrays["interval"], [0.0, 0.0], atol=1e-12)

    # s = s' + 0.1: the gain of a resample is 0.1 over its mean s', so the limits follow from those of the mean.
    further = gain(asked._replace(network=linear(WEIGHT, offset + 0.1 * LENGTH["l2"])))
    mean, error = distances.mean().item(), distances.std(unbiased=False).item() / len(distances) ** 0.5
    expected = [0.1 / (mean + 1.96 * error), 0.1 / (mean - 1.96 * error)]
    np.testing.assert_allclose(further.arrays["interval"], expected, rtol=0.03)  # 10,000 draws of a mean of 40


def test_alone_it_says_how_far_the_boundary_is_and_nothing_of_a_gain(linear, values):
    distances = torch.tensor([-0.08, 0.05, 0.20, 0.25])  # the first is wrong
    labels = torch.ones(4, dtype=torch.int64)
    alone = subject(linear, further=0.0, distances=distances, labels=labels)._replace(beside=None)
    found = gain(alone)
    assert values(found) == pytest.approx({"f0": 0.75, "critical_l2": 0.20}, rel=1e-3)
    assert found.arrays["right"].tolist() == [False, True, True, True]
    np.testing.assert_allclose(found.arrays["sizes"][1:], distances[1:].numpy(), rtol=1e-3)
    assert values(gain(alone, norm="linf")) == {"f0": 0.75}


def test_the_network_beside_is_not_attacked_again(linear, answers):
    asked = beside(subject(linear, further=0.05))
    near = answers(lambda images, _: asked.beside()(images))
    with_it = gain(asked._replace(beside=lambda: near))
    assert near.asked == 0
    assert with_it.forwards == gain(asked._replace(beside=None, found_beside=None)).forwards
