r"""A rectifier with a power: strong currents count for more than in proportion.

Source: Krotov and Hopfield (2019), doi:10.1073/pnas.1820458116, with the exponent that Holzhausen et al. (2024),
arXiv:2405.00679, use on MNIST and CIFAR-10: :math:`h_\mu = \max(I_\mu, 0)^n`, n = 4.5; n = 10 is reported for CIFAR-10,
too.
In the nervous system: the spiking threshold makes firing rates a power of the mean potential, with exponents near 2 to
5 measured in visual cortex; larger ones would count against the analogy.
Matched control: ``power=1``, the plain rectifier.
"""

from torch import nn

from unperturbed.mechanisms.contract import Mechanism
from unperturbed.mechanisms.installing import hidden_layered
from unperturbed.records import SpecError


def rectified_power(*, power: float = 4.5) -> Mechanism:
    """Return a hidden layer whose activity is a power of the rectified current.

    Args:
        power: n, at least 1; below, the gradient of a silent unit would be no number.

    Raises:
        SpecError: a smaller power; when it is installed, if the network has no single hidden layer.
    """
    if not power >= 1:
        raise SpecError(f"rectified-power: power must be at least 1, got {power:g}")

    def install(network: nn.Module) -> None:
        hidden_layered(network, "rectified-power").activation.power = power

    return Mechanism(install=install)
