"""Calibration of one network: does it know how often it is right? See :mod:`unperturbed.measures.calibration`.

Departs from the source: of a random network, the probabilities are means over draws, as its users would take them.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturbed.attacks import Passes
from unperturbed.attacks.classifier import predict
from unperturbed.examinations.contract import BATCH_SIZE, Found, Subject, measured
from unperturbed.measures.calibration import expected_calibration_error, predicted
from unperturbed.records import SpecError
from unperturbed.tensors.streams import undisturbed


def calibration(subject: Subject, *, draws: int = 16) -> Found:
    """Return the accuracy, the confidence and the error of the confidence.

    One forward for each image, of a random network one for each draw; every draw is a forward of its own, so that noise
    in the weights is drawn anew, too.

    Args:
        subject: what is examined.
        draws: whose mean is the probability of a random network; of no account for any other.

    Returns:
        ``f0``, ``ece`` and ``mean_confidence``; ``mean_confidence_right`` where at least one image is right. The array
        ``probabilities`` is (images, classes) in single precision.

    Raises:
        SpecError: draws below 1, or a network whose answers are no logits.
    """
    if draws < 1:
        raise SpecError(f"calibration: expected draws of at least 1; got {draws}")
    passes = Passes(subject.network)
    parts = [_probabilities(subject, passes, start, draws) for start in range(0, len(subject.labels), BATCH_SIZE)]
    probabilities, labels = np.concatenate(parts), subject.labels.cpu().numpy()
    confidence, right = predicted(probabilities, labels)
    values = {
        "f0": float(right.mean()),
        "ece": expected_calibration_error(probabilities, labels),
        "mean_confidence": float(confidence.mean()),
    }
    if right.any():
        values["mean_confidence_right"] = float(confidence[right].mean())
    return Found(
        measured(values, len(labels)),
        arrays={"probabilities": probabilities, "labels": labels},
        forwards=passes.forwards,
    )


def _probabilities(subject: Subject, passes: Passes, start: int, draws: int) -> NDArray[np.float32]:
    images, labels = subject.images[start : start + BATCH_SIZE], subject.labels[start : start + BATCH_SIZE]
    drawn: list[Tensor] = []
    with undisturbed("calibration", subject.seed, start, device=images.device):
        for _ in range(draws if subject.random else 1):
            subject.look()
            drawn.append(predict(passes, images, labels).double().softmax(dim=1))
    return torch.stack(drawn).mean(dim=0).float().cpu().numpy()
