r"""Dropout: every activation is set to 0 by chance, in training and, if asked, at inference.

Source: Srivastava et al. (2014), Journal of Machine Learning Research 15:1929, section 4:
:math:`\tilde y = r\,y` with :math:`r \sim \mathrm{Bernoulli}(1 - p)`; and Gal and Ghahramani (2016), arXiv:1506.02142,
for chance at inference. Departs from the first: activations are divided by :math:`1 - p` when some are dropped, where
there the weights are multiplied by it afterwards, which has the same expectation.
It is a control itself, of ``noise_injection`` and ``winner_take_all``: chance behind the same rectifiers, whose size is
neither learned nor decided by competition. Matched control: ``rate=0``, which drops nothing.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from unperturbed.mechanisms.contract import DRAWS, Mechanism, Traits
from unperturbed.mechanisms.installing import behind, switch, switched
from unperturbed.records import SpecError


class Dropout(nn.Module):
    """Activations, some of them 0 and the others larger; parameters: none.

    ``active`` is the switch; training and evaluation mode do not change it.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.active = True

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what is left, or everything where the switch is off."""
        if not self.active or self.rate == 0:
            return hidden
        return hidden * (torch.rand_like(hidden) >= self.rate) / (1 - self.rate)


def dropout(*, rate: float = 0.5, deployed: bool = False) -> Mechanism:
    """Return dropout behind every rectifier.

    Args:
        rate: p, the chance of an activation to be dropped, from 0 to below 1.
        deployed: whether activations are dropped at inference too, and while the network is attacked in training.

    Raises:
        SpecError: a rate outside [0, 1); when it is installed, if the network has no rectifier.
    """
    if not 0 <= rate < 1:
        raise SpecError(f"dropout: rate must be at least 0 and below 1, got {rate:g}")

    def install(network: nn.Module) -> None:
        behind(network, nn.ReLU, "dropout", lambda: Dropout(rate))

    def attacked(network: nn.Module) -> AbstractContextManager[None]:
        return switched(network, Dropout, active=deployed)

    def finish(network: nn.Module) -> None:
        switch(network, Dropout, active=deployed)

    traits = Traits(random=deployed and rate > 0)
    return Mechanism(install=install, attacked=attacked, finish=finish, traits=traits, alone=DRAWS)
