r"""What an attack climbs: a number for every image that grows as its classification gives way.

``ce``, the cross-entropy, is evaluated through the margin

.. math:: m = \log \sum_{j \ne y} e^{z_j} - z_y, \qquad L = \log(1 + e^m), \qquad \nabla L = \sigma(m) \nabla m,

of which it is an increasing function with a positive factor in its gradient: the sign of the gradient, its direction,
and which of two images has the larger loss are those of the cross-entropy, whatever the scale of the logits. Departs
from usual code: there, :math:`p_y - 1` is rounded to 0 in float32 once a network is confident (:math:`m < -17`), and
later all of the gradient; the attack goes astray or stands still, which looks like robustness. ``rounded_ce`` is that
usual code. ``margin``: Carlini & Wagner (2017), arXiv:1608.04644, section IV-B, :math:`f_6`. ``dlr``, the difference of
logits ratio: Croce & Hein (2020), arXiv:2003.01690, equations 6 and 7. ``mse``: squares of the logits less the one-hot
label.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from unperturbed.attacks.inputs import check_classes
from unperturbed.records import SpecError
from unperturbed.tensors.norms import wide

Loss = Literal["ce", "rounded_ce", "margin", "dlr", "mse"]

SMALLEST_NUMBER_OF_CLASSES = {"dlr": 3, "dlr towards a class": 4}  # with fewer, the margin stands in


def fallback(loss: str, classes: int, *, towards: bool = False) -> str | None:
    """Return the sentence that a result must state where the loss asked for is not defined for so few classes.

    >>> fallback("dlr", 2)
    'dlr needs 3 classes and the classifier has 2: the margin stood in for it'
    """
    needs = SMALLEST_NUMBER_OF_CLASSES["dlr towards a class" if towards else "dlr"]
    if loss == "dlr" and classes < needs:
        name = "dlr towards a class" if towards else "dlr"
        return f"{name} needs {needs} classes and the classifier has {classes}: the margin stood in for it"
    return None


def objective(
    logits: Float[Tensor, "batch classes"],
    labels: Integer[Tensor, " batch"],
    *,
    loss: str = "ce",
    targets: Integer[Tensor, " batch"] | None = None,
    towards: Integer[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch"]:
    """Return what is to be made large, in float32 or wider.

    Args:
        logits: of each image.
        labels: the true classes.
        loss: see above.
        targets: the classes that the images shall be taken for; ``None``: any class but the true one.
        towards: any wrong class is a success, but this one is looked for; ``None``: whichever is near.
    """
    logits = logits.to(wide(logits.dtype))
    if targets is not None:
        check_classes("targets", targets, logits.shape[1])
    if loss == "rounded_ce":
        return (
            -cross_entropy(logits, targets.long(), reduction="none")
            if targets is not None
            else cross_entropy(logits, labels.long(), reduction="none")
        )
    if loss == "mse":
        wanted = targets if targets is not None else labels
        squares = (logits - one_hot(wanted.long(), logits.shape[1])).square().sum(dim=1)
        return -squares if targets is not None else squares
    if towards is not None:
        gain = _of(logits, towards) - _of(logits, labels)
    elif targets is not None:
        others = logits.scatter(1, targets.long().unsqueeze(1), -torch.inf)
        gain = _of(logits, targets) - (others.logsumexp(dim=1) if loss == "ce" else others.amax(dim=1))
    else:
        others = logits.scatter(1, labels.long().unsqueeze(1), -torch.inf)
        gain = (others.logsumexp(dim=1) if loss == "ce" else others.amax(dim=1)) - _of(logits, labels)
    if loss != "dlr":
        return gain
    return gain / _spread(logits, of_a_target=towards is not None or targets is not None)


def check_loss(loss: str) -> None:
    """Refuse a loss that is not known.

    >>> check_loss("hinge")
    Traceback (most recent call last):
    unperturbed.records.SpecError: loss: expected one of ce, rounded_ce, margin, dlr, mse; got 'hinge'
    """
    if loss not in get_args(Loss):
        raise SpecError(f"loss: expected one of {', '.join(get_args(Loss))}; got {loss!r}")


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes.long().unsqueeze(1)).squeeze(1)


def _spread(logits: Tensor, *, of_a_target: bool) -> Tensor | float:
    needs = SMALLEST_NUMBER_OF_CLASSES["dlr towards a class" if of_a_target else "dlr"]
    if logits.shape[1] < needs:
        return 1.0
    ordered = logits.sort(dim=1, descending=True).values
    if of_a_target:
        return ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12
    return ordered[:, 0] - ordered[:, 2] + 1e-12
