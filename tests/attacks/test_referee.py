"""Foolbox as referee: at the same budget, it never breaks more than half a point more."""

import warnings

import numpy as np
import pytest
import torch

from unperturbed.attacks import fgsm, pgd, sweep

with warnings.catch_warnings():
    # Foolbox 3.3.4 imports eagerpy and GitPython with what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

RADII = {"linf": (0.05, 0.1, 0.15), "l2": (0.5, 1.0, 1.5)}


TRAVEL = {"linf": 2.5, "l2": 10.0}


def _theirs(attack, network, images, labels, radii, seed=0):
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _, _, broken = attack(model, images, labels, epsilons=list(radii))
    network.zero_grad(set_to_none=True)  # Foolbox leaves gradients behind
    accuracy = 1 - broken.double().mean(dim=1).numpy()
    assert 0.01 < accuracy[0] < 0.95
    return accuracy


@pytest.mark.parametrize("norm", list(RADII))
def test_fgsm_is_that_of_foolbox(digits, norm):
    network, images, labels = digits
    attack = {"linf": foolbox.attacks.LinfFastGradientAttack, "l2": foolbox.attacks.L2FastGradientAttack}[norm]()
    theirs = _theirs(attack, network, images, labels, RADII[norm])
    ours = sweep(network, images, labels, fgsm, eps=RADII[norm], norm=norm).accuracy
    assert ours.tolist() == pytest.approx(theirs.tolist(), abs=0.005)


@pytest.mark.parametrize("norm", list(RADII))
@pytest.mark.parametrize(("random_start", "seeds"), [(False, (0,)), (True, (0, 1))])
def test_pgd_is_at_least_as_strong_as_that_of_foolbox(digits, norm, random_start, seeds):
    """Accuracy after a random start varies by half a point with the seed: means are compared."""
    network, images, labels = digits[0], digits[1][:300], digits[2][:300]
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    attack = kind(steps=20, rel_stepsize=TRAVEL[norm] / 20, random_start=random_start)
    theirs, ours = [], []
    for seed in seeds:
        theirs.append(_theirs(attack, network, images, labels, RADII[norm][1:2], seed))
        ours += [
            sweep(
                *(network, images, labels, pgd),
                eps=[eps],
                norm=norm,
                steps=20,
                seed=seed,
                random_start=random_start,
            ).accuracy[0]
            for eps in RADII[norm][1:2]
        ]
    gain = np.mean(theirs, axis=0) - np.mean(np.reshape(ours, (len(seeds), 1)), axis=0)
    assert (gain >= -0.005).all()
