import numpy as np
import pytest
import torch
from scipy.stats import chi2
from sklearn.mixture import GaussianMixture

from unperturbed import mechanisms
from unperturbed.mechanisms.pruning import mixture_means, pruning, unconverged
from unperturbed.models.hidden_layer import HiddenLayerNet, Synapses
from unperturbed.records import Spec
from unperturbed.tensors.streams import generator


def _mixed(seed, *groups):
    """Values of groups of (mean, deviation, number)."""
    random = np.random.Generator(np.random.PCG64(seed))
    return np.concatenate([random.normal(*group) for group in groups])


def _network(p=3.0, converged=90, wild=10, width=200):
    """Units of small variance, some of them with a mean above all else, and of large variance."""
    random = generator("synapses")
    spread = torch.cat([torch.full((converged,), 0.03), torch.full((wild,), 1.0)])
    spread *= 1 + 0.1 * torch.randn(len(spread), generator=random)
    network = HiddenLayerNet(len(spread), 3, 0.0, grey=True)
    network.hidden = Synapses(width, len(spread))
    network.hidden.p = p
    order = torch.randperm(len(spread), generator=random)
    synapses = spread[:, None] * torch.randn(len(spread), width, generator=random)
    synapses[:5] += 2
    network.hidden.put(synapses[order])
    return network, spread[order] > 0.5


@pytest.mark.parametrize(
    ("groups", "means"),
    [
        (((-2.0, 0.3, 400),), (-2.0,)),
        (((-2.0, 0.3, 380), (0.5, 0.2, 20)), (-2.0, 0.5)),
        (((-7.1, 0.1, 500), (-6.0, 0.1, 100), (-9.0, 0.1, 60)), (-9.0, -7.1, -6.0)),  # where published means begin
        (((0.0, 0.2, 200), (3.0, 0.2, 200), (6.0, 0.2, 200), (9.0, 0.2, 200)), (0.0, 3.0, 6.0, 9.0)),
    ],
)
def test_likelihood_ratios_choose_the_components_that_were_mixed(groups, means):
    found = mixture_means(_mixed(0, *groups))
    assert len(found) == len(means)
    np.testing.assert_allclose(found, means, rtol=0, atol=0.1)  # 4 standard errors of the smallest group


def test_where_k_means_begins_badly_the_published_means_find_the_mixture():
    """A wide group, which k-means cuts in two, and two that are close."""
    values = _mixed(9, (-8.9, 0.44, 290), (-6.33, 0.2, 97), (-5.9, 0.07, 258))
    np.testing.assert_allclose(mixture_means(values), [-8.9, -6.33, -5.9], rtol=0, atol=0.1)
    assert len(mixture_means(values + 20)) == 2  # out of their reach


def test_a_second_component_is_taken_where_the_likelihood_ratio_is_significant_at_one_percent():
    chosen = []
    for seed in range(60):
        values = _mixed(seed, (0.0, 1.0, 60), (3.0, 0.7, 12))
        one, two = (
            GaussianMixture(m, max_iter=2000, random_state=0).fit(values[:, None]).score(values[:, None])
            for m in (1, 2)
        )
        p_value = chi2.sf(2 * len(values) * (two - one), df=3)
        assert (len(mixture_means(values)) > 1) == (p_value < 0.01)
        chosen.append(p_value)
    assert sum(0.01 < p < 0.3 for p in chosen) > 5
    assert sum(1e-4 < p < 0.01 for p in chosen) > 5


@pytest.mark.parametrize(("n", "components"), [(14, 1), (25, 2)])
def test_ten_units_are_needed_for_every_component(n, components):
    assert len(mixture_means(_mixed(0, (0.0, 0.1, n - 4), (5.0, 0.1, 4)))) == components


def test_units_from_the_middle_of_the_two_largest_means_upwards_are_unconverged():
    logarithms = _mixed(0, (-9.0, 0.1, 100), (-1.0, 0.45, 400), (1.0, 0.45, 400))
    _, low, high = mixture_means(logarithms)
    found = unconverged(torch.from_numpy(np.exp(logarithms))).numpy()
    assert (low + high) / 2 == pytest.approx(0, abs=0.1)
    assert np.array_equal(found, logarithms >= (low + high) / 2)
    assert (np.abs(logarithms - (low + high) / 2) < 0.1).sum() > 3  # some lie near the middle


@pytest.mark.parametrize("p", [2.0, 3.0])
def test_by_variance_the_wild_units_are_removed_and_the_others_stay(p):
    network, wild = _network(p)
    before = network.hidden.weight.clone()
    pruning().settle(network, 0)
    gone = (network.hidden.weight == 0).all(dim=1)
    assert torch.equal(gone, wild)
    torch.testing.assert_close(network.hidden.weight[~gone], before[~gone], rtol=1e-5, atol=0)  # root and square
    assert (network.hidden(torch.rand(4, 200, generator=generator("inputs")))[:, gone] == 0).all()


def test_by_magnitude_and_at_random_as_many_units_are_removed():
    network, _ = _network()
    lengths = torch.linalg.vector_norm(network.hidden.raw(), dim=1)
    pruning(by="magnitude").settle(network, 0)
    gone = (network.hidden.weight == 0).all(dim=1)
    assert gone.sum() == 10
    assert lengths[gone].max() < lengths[~gone].min()
    drawn = []
    for seed in (0, 0, 1):
        network, wild = _network()
        pruning(by="random").settle(network, seed)
        drawn.append((network.hidden.weight == 0).all(dim=1))
        assert drawn[-1].sum() == 10
        assert not torch.equal(drawn[-1], wild)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("by", ["variance", "magnitude", "random"])
def test_with_one_component_nothing_is_removed(by):
    network, _ = _network(wild=0)
    before = network.hidden.weight.clone()
    pruning(by=by).settle(network, 0)
    assert (network.hidden.weight != 0).any(dim=1).all()
    torch.testing.assert_close(network.hidden.weight, before, rtol=1e-5, atol=0)


def test_units_that_are_gone_already_stay_and_few_units_are_no_mixture():
    network, wild = _network()
    pruning().settle(network, 0)
    pruning().settle(network, 0)
    assert torch.equal((network.hidden.weight == 0).all(dim=1), wild)
    for few in (0, 1, 2, 19):
        assert not unconverged(torch.linspace(1, 2, 19)[:few] ** 40).any()
    assert not unconverged(torch.ones(50)).any()


def test_it_acts_on_what_another_mechanism_has_learned():
    """Composed with a rule that learns: the units that the rule has left at their first size are removed."""
    network, wild = _network()
    both = mechanisms.build([Spec(name="krotov-hopfield"), Spec(name="pruning")])
    both.install(network)
    assert both.frozen
    assert both.learning is not None
    both.settle(network, 0)
    assert torch.equal((network.hidden.weight == 0).all(dim=1), wild)
