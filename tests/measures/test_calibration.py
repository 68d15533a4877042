import numpy as np
import pytest

from unperturbed.measures.calibration import expected_calibration_error, predicted
from unperturbed.records import SpecError


def _two_classes(confidence, right):
    """Probabilities and labels with these confidences, all predicted to be of class 0."""
    top = np.array(confidence, dtype=np.float64)
    return np.stack([top, 1 - top], axis=1), np.where(right, 0, 1)


def test_the_error_is_that_of_three_bins_by_hand():
    # (0.6, 0.667]: 0.61, 0.65, of which one is right; (0.8, 0.867]: 0.85, wrong; (0.933, 1]: 0.95 and 1, both right.
    found = expected_calibration_error(*_two_classes([0.61, 0.65, 0.85, 0.95, 1.0], [True, False, False, True, True]))
    by_hand = 2 / 5 * abs(0.5 - 0.63) + 1 / 5 * 0.85 + 2 / 5 * abs(1 - 0.975)
    assert found == pytest.approx(by_hand, rel=1e-12)


def test_a_probability_at_an_edge_belongs_to_the_bin_below():
    pair = _two_classes([0.75, 0.7501], [True, False])
    assert expected_calibration_error(*pair, bins=4) == pytest.approx((0.25 + 0.7501) / 2, rel=1e-12)
    pair = _two_classes([0.7499, 0.75], [True, False])
    assert expected_calibration_error(*pair, bins=4) == pytest.approx(abs(0.7499 + 0.75 - 1) / 2, rel=1e-12)


def test_surplus_and_lack_do_not_cancel_between_bins_and_do_within_one():
    pair = _two_classes([0.6, 0.9], [True, False])
    assert expected_calibration_error(*pair) == pytest.approx((0.4 + 0.9) / 2, rel=1e-12)
    assert expected_calibration_error(*pair, bins=1) == pytest.approx(abs(0.75 - 0.5), rel=1e-12)


def test_a_network_that_is_right_as_often_as_it_says_has_no_error():
    pair = _two_classes([0.75] * 4 + [0.6] * 5, [True] * 3 + [False] + [True] * 3 + [False] * 2)
    assert expected_calibration_error(*pair) == pytest.approx(0, abs=1e-12)


def test_neither_the_order_of_images_nor_that_of_classes_matters_and_half_precision_hardly():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(10, 0.3), size=400)
    labels = random.integers(10, size=400)
    found = expected_calibration_error(probabilities, labels)
    order, classes = random.permutation(400), random.permutation(10)
    moved = expected_calibration_error(probabilities[order][:, np.argsort(classes)], classes[labels[order]])
    assert moved == pytest.approx(found, rel=1e-12)
    # Half precision has 11 bits: a confidence is wrong by 1/2048 at most; hardly an image changes its bin.
    assert expected_calibration_error(probabilities.astype(np.float16), labels) == pytest.approx(found, abs=0.01)


def test_the_predicted_class_is_the_first_of_the_most_probable():
    confidence, right = predicted(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([0, 0]))
    assert confidence.tolist() == [0.5, 0.8]
    assert right.tolist() == [True, False]


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "said"),
    [
        ([[2.0, -1.0]], [0], 15, r"none below 0 and a sum of 1 for every image; got -1 and sums of 1 to 1"),
        ([[3.0, 1.0]], [0], 15, r"got 1 and sums of 4 to 4: are they logits\?"),
        ([[np.nan, 1.0]], [0], 15, r"sums of nan to nan"),
        ([[0.5, 0.5]], [0, 1], 15, r"labels: expected 1, one for each image; got a shape of \(2,\)"),
        ([0.5, 0.5], [0], 15, r"expected a shape \(images, classes\); got \(2,\)"),
        ([[0.5, 0.5]], [0], 0, r"bins: expected at least 1; got 0"),
    ],
)
def test_what_are_no_probabilities_is_refused(probabilities, labels, bins, said):
    with pytest.raises(SpecError, match=said):
        expected_calibration_error(np.array(probabilities), np.array(labels), bins=bins)
