import copy

import numpy as np
import pytest
import torch
from scipy.stats import norm

from unperturbed import mechanisms
from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.measures.certificates import certify
from unperturbed.records import Spec, SpecError

certificates = EXAMINATIONS["certificates"]

WEIGHT, BIAS, SIGMA = torch.tensor([3.0, 4.0]), -3.5, 0.25  # of length 5
DISTANCE = np.array([-0.3, 0.1, 0.2, 0.3])
IMAGES = (0.5 + torch.tensor(DISTANCE, dtype=torch.float32).view(4, 1) * WEIGHT / 5).view(4, 1, 1, 2)
LABELS = torch.tensor([0, 1, 0, 1])


def _smoothed(network, *others, draws=16):
    specs = [Spec(name="randomised-smoothing", settings={"sigma": SIGMA, "draws": draws}), *others]
    mechanism = mechanisms.build(specs)
    mechanism.install(network)
    mechanism.finish(network)
    return network.eval()


def test_the_radius_of_a_linear_network_is_its_distance_from_below_as_one_forward_without_noise_gives_it(
    linear, values
):
    base = linear(WEIGHT, BIAS)
    subject = Subject(_smoothed(copy.deepcopy(base)), IMAGES, LABELS, seed=3, random=True)
    found = certificates(subject, n=5000, alpha=0.001)
    radius = found.arrays["radius"]
    assert (radius <= np.abs(DISTANCE)).all()
    assert (radius >= np.abs(DISTANCE) - 0.05).all()
    assert found.arrays["predicted"].tolist() == [0, 1, 1, 1]  # the third is certified to be wrong
    with torch.no_grad():
        direct = certify(base, IMAGES, sigma=SIGMA, n=5000, alpha=0.001, seed=3)
    np.testing.assert_array_equal(radius, direct.radius)
    np.testing.assert_array_equal(found.arrays["votes"], direct.votes)
    assert found.forwards == 4 * 5100

    right = np.array([radius[0], radius[1], radius[3]])
    assert values(found) == {
        "average_certified_radius": pytest.approx(right.sum() / 4, rel=1e-12),
        "certified_0_25": (right >= 0.25).sum() / 4,
    }
    assert 0 < values(found)["certified_0_25"] < 0.75
    assert {row.measure: row.unit for row in found.measures}["average_certified_radius"] == "L2"
    radii, accuracy, counts = zip(*found.curves, strict=True)
    assert accuracy[:4] == tuple((right >= edge).sum() / 4 for edge in (0, 0.125, 0.25, 0.375))
    # From 0 in steps of 1/8 to the first one beyond what 5,000 draws can certify.
    largest = SIGMA * norm.ppf(0.001 ** (1 / 5000))
    assert radii == tuple(0.125 * step for step in range(len(radii)))
    assert radii[-2] <= largest < radii[-1]
    assert accuracy[-1] == 0
    assert set(counts) == {4}


def test_the_number_of_draws_at_deployment_is_of_no_account_and_costs_nothing(linear, answers):
    base, rows, votes = linear(WEIGHT, BIAS), [], []

    def counted(images, _asked):
        rows.append(len(images))
        return base(images)

    for draws in (1, 8):
        network = _smoothed(answers(counted), draws=draws)
        votes.append(certificates(Subject(network, IMAGES, LABELS, seed=3, random=True), n=200).arrays["votes"])
    np.testing.assert_array_equal(*votes)
    assert sum(rows) == 2 * 4 * (300 + 2)  # two more of each image show that there is no other noise


def test_a_network_without_its_draws_is_refused(deployed, linear):
    said = "certificates: expected a network with randomised-smoothing; FullyConnectedNet has no 'smoothing_noise'"
    for names in ((), ("noise-injection",)):
        with pytest.raises(SpecError, match=said):
            certificates(deployed(*names))
    with pytest.raises(SpecError, match="Linear has no 'smoothing_noise'"):
        certificates(Subject(linear(WEIGHT), IMAGES, LABELS, seed=0))


@pytest.mark.parametrize("other", ["winner-take-all", "noise-injection"])
def test_other_noise_besides_is_refused(deployed, other):
    with pytest.raises(
        SpecError, match=r"no noise but that of randomised-smoothing.* equal images get unequal answers"
    ):
        certificates(deployed("randomised-smoothing", other))


def test_too_few_draws_are_refused(deployed):
    with pytest.raises(
        SpecError, match=r"5 draws cannot certify anything at alpha = 0\.001; expected n of at least 10"
    ):
        certificates(deployed("randomised-smoothing"), n=5)
