import numpy as np
import pytest
import torch

from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.records import SpecError

calibration = EXAMINATIONS["calibration"]

TABLE = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.8, 0.1, 0.1]])
LABELS = torch.tensor([0, 2, 2, 0])


def _shown(table):
    """Images that hold their own probabilities."""
    return table.view(len(table), 1, 1, -1)


def test_what_is_found_is_what_the_probabilities_say(answers, values):
    network = answers(lambda images, _asked: images.flatten(1).log() + 3)
    found = calibration(Subject(network, _shown(TABLE), LABELS, seed=0))
    # Confidences 0.7, 0.6, 0.5, 0.8, each in a bin of its own; the second is wrong.
    assert values(found) == pytest.approx(
        {"f0": 0.75, "ece": (0.3 + 0.6 + 0.5 + 0.2) / 4, "mean_confidence": 0.65, "mean_confidence_right": 2 / 3},
        abs=1e-6,  # the probabilities are in single precision
    )
    np.testing.assert_allclose(found.arrays["probabilities"], TABLE.numpy(), atol=1e-6)
    np.testing.assert_array_equal(found.arrays["labels"], LABELS.numpy())
    assert (network.asked, found.forwards, found.backwards) == (1, 4, 0)


def test_of_a_random_network_the_probabilities_are_the_mean_over_draws(answers):
    """The mean of the probabilities, not of the logits: the first draw is sure, the others know nothing."""
    network = answers(lambda images, asked: images.flatten(1).log() if asked == 0 else torch.zeros(len(images), 3))
    found = calibration(Subject(network, _shown(TABLE), LABELS, seed=0, random=True), draws=4)
    np.testing.assert_allclose(found.arrays["probabilities"], TABLE.numpy() / 4 + 0.25, atol=1e-6)
    assert (network.asked, found.forwards) == (4, 16)
    # Declared to be without chance, it is asked once.
    network.asked = 0
    certain = calibration(Subject(network, _shown(TABLE), LABELS, seed=0), draws=4)
    np.testing.assert_allclose(certain.arrays["probabilities"], TABLE.numpy(), atol=1e-6)


def test_draws_belong_to_the_seed_and_differ_between_batches(answers):
    network = answers(lambda images, _asked: torch.randn(len(images), 3))
    images, labels = torch.zeros(1000, 1, 1, 3), torch.zeros(1000, dtype=torch.long)

    def probabilities(seed):
        found = calibration(Subject(network, images, labels, seed=seed, random=True), draws=2)
        return found.arrays["probabilities"]

    np.testing.assert_array_equal(probabilities(0), probabilities(0))
    assert len(np.unique(probabilities(0)[:, 0])) == 1000
    assert not np.isin(probabilities(1), probabilities(0)).any()


def test_the_confidence_of_what_is_right_is_left_out_where_nothing_is(answers, values):
    network = answers(lambda images, _asked: images.flatten(1).log())
    found = values(calibration(Subject(network, _shown(TABLE[:1]), torch.tensor([1]), seed=0)))
    assert found == pytest.approx({"f0": 0.0, "ece": 0.7, "mean_confidence": 0.7}, abs=1e-6)


def test_no_draws_are_refused(answers):
    network = answers(lambda images, _asked: images.flatten(1))
    with pytest.raises(SpecError, match="calibration: expected draws of at least 1; got 0"):
        calibration(Subject(network, _shown(TABLE), LABELS, seed=0), draws=0)
