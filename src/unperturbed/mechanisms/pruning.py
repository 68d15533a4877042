r"""Hidden units removed after learning: those whose weights vary most, the weakest, or any.

Source: Holzhausen et al. (2024), arXiv:2405.00679, and its code: the units that never converged are told from the
others by the variance of their incoming weights. Gaussian mixtures of 1, 2, ... up to 4 components are fitted to its
logarithm; one more component is taken as long as the likelihood ratio is significant (chi-squared with 3 degrees of
freedom, p < 0.01). Units are removed from the middle between the two largest means upwards; with one component none
is. A fit begins where k-means puts the components and at the published means -7.1, -8.5, -6.5, -6.0; the more likely of
the two counts.
Departs from the source: its code leaves variances outside of exp(-9) to exp(-3) out of the fit, a range that belongs to
one width of the layer, and so would not see units at their initial variance of 1; and it goes on with the mixture that
the last test has refused, so that it never finds a single component.
In the nervous system: synapses that win no competition are eliminated in development; that whole cells are told from
others by a mixture of all cells would count against the analogy.
Matched controls: ``by="magnitude"`` and ``by="random"``, which remove as many units.
"""

import warnings
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from unperturbed.mechanisms.contract import Mechanism
from unperturbed.mechanisms.installing import hidden_layered
from unperturbed.tensors.streams import generator

PUBLISHED_MEANS = (-7.1, -8.5, -6.5, -6.0)
FEW = 10  # units for a component: the likelihood of fewer has no upper bound worth the name
SIGNIFICANT = float(chi2.isf(0.01, df=3))  # a mean, a variance and a weight more


def pruning(*, by: Literal["variance", "magnitude", "random"] = "variance") -> Mechanism:
    """Return the removal of hidden units before the readout is trained: their weights are set to 0.

    How many go is decided by the variances, whatever ``by`` is.

    Args:
        by: the units with the largest variance, those with the smallest Euclidean norm, or units drawn by the seed.

    Raises:
        SpecError: when it is installed, if the network has no single hidden layer.
    """

    def install(network: nn.Module) -> None:
        hidden_layered(network, "pruning")

    def settle(network: nn.Module, seed: int) -> None:
        hidden = hidden_layered(network, "pruning").hidden
        synapses = hidden.raw()
        superfluous = unconverged(synapses.var(dim=1))
        count = int(superfluous.sum())
        if by == "variance":
            gone = superfluous.nonzero().squeeze(1)
        elif by == "magnitude":
            gone = torch.linalg.vector_norm(synapses, dim=1).argsort(stable=True)[:count]
        else:
            gone = torch.randperm(len(synapses), generator=generator("pruning", seed))[:count].to(synapses.device)
        synapses[gone] = 0
        hidden.put(synapses)

    return Mechanism(install=install, settle=settle)


def unconverged(variances: Tensor) -> Tensor:
    """Return which units belong to the component with the largest variances, none if there is one component.

    Args:
        variances: of the incoming weights of every unit, (units,).
    """
    logarithms = variances.double().log()
    means = mixture_means(logarithms[logarithms.isfinite()].cpu().numpy())
    if len(means) < 2:
        return torch.zeros_like(logarithms, dtype=torch.bool)
    return logarithms >= (means[-1] + means[-2]) / 2


def mixture_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of the Gaussian mixture of one to four components that likelihood ratios choose, sorted."""
    if len(values) < FEW:
        return values[:1]
    chosen, likelihood = _fit(values, 1)
    for components in range(2, min(len(PUBLISHED_MEANS), len(values) // FEW) + 1):
        means, more = _fit(values, components)
        if 2 * (more - likelihood) <= SIGNIFICANT:
            break
        chosen, likelihood = means, more
    return np.sort(chosen)


def _fit(values: NDArray[np.float64], components: int) -> tuple[NDArray[np.float64], float]:
    """Return the means of the most likely mixture that is found and the logarithm of its likelihood."""
    published = np.array(PUBLISHED_MEANS[:components])[:, None]
    mixtures = [
        GaussianMixture(components, means_init=start, max_iter=2000, random_state=0) for start in (None, published)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer values than components: the ratio says so
        likelihoods = [float(mixture.fit(values[:, None]).score(values[:, None])) for mixture in mixtures]
    best = int(np.argmax(likelihoods))
    means: NDArray[np.float64] = mixtures[best].means_  # pyright: ignore[reportAssignmentType] - there after a fit
    return means[:, 0], likelihoods[best] * len(values)
