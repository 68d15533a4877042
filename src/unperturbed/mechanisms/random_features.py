"""Random features: the hidden layer stays as it was drawn, and the readout alone is trained.

Source: Rahimi and Recht (2007), "Random features for large-scale kernel machines", whose maps are other ones; here the
rectified projections that the network starts with, variance 2 / inputs (He et al. 2015, arXiv:1502.01852, equation 10).
The stored run of spectral regularisation of Holzhausen et al. (2024), arXiv:2405.00679, is such a network: its hidden
weights have not moved.
It is a control itself, of every rule that learns the hidden layer: ``krotov_hopfield``, ``spherical_kmeans``. Matched
control: the network that learns both layers by back-propagation.
"""

from torch import nn

from unperturbed.mechanisms.contract import OWN_CODES, Mechanism
from unperturbed.mechanisms.installing import hidden_layered


def random_features() -> Mechanism:
    """Return a hidden layer that keeps its initial weights.

    Raises:
        SpecError: when it is installed, if the network has no single hidden layer.
    """

    def install(network: nn.Module) -> None:
        hidden_layered(network, "random-features").hidden.weight.requires_grad_(False)

    return Mechanism(install=install, alone=OWN_CODES, frozen=True)
