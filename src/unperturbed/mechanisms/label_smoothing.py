r"""Label smoothing: a part of the target belongs to all classes alike.

Source: Szegedy et al. (2016), arXiv:1512.00567, section 7: :math:`q'(k) = (1 - s)\,\delta_{k,y} + s / K`, s = 0.1.
Matched control: none is needed; with s = 0 it is the cross-entropy.
"""

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from unperturbed.mechanisms.contract import Loss, Mechanism, Tools
from unperturbed.records import SpecError


def label_smoothing(*, amount: float = 0.1) -> Mechanism:
    """Return the cross-entropy with smoothed labels, in place of the plain one.

    Args:
        amount: s, the part of the target that is spread, 0 to 1.

    Raises:
        SpecError: an amount outside [0, 1].
    """
    if not 0 <= amount <= 1:
        raise SpecError(f"label-smoothing: amount must lie between 0 and 1, got {amount:g}")

    def objective(_loss: Loss, _tools: Tools) -> Loss:
        def smoothed(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(network(images), labels, reduction="none", label_smoothing=amount)

        return smoothed

    return Mechanism(objective=objective, own_loss=True)
