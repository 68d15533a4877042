r"""Mixed adversarial training: half the steps on clean images, the others on one of four kinds of changed ones.

Source: the scheme of the comparison that the second study rebuilds: at each step one of eight equal chances, four of
them "clean" and one each for PGD, FGSM, Carlini and Wagner's attack, and random noise. Which attack had which settings
is not given there; ours reach the ball. The draw is for each batch, or for each image.
Matched control: ``adversarial_training`` with the same PGD.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from unperturbed.mechanisms.contract import ATTACKS, DRAWS, Loss, Mechanism, Tools, check_positive
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

BRANCHES = ("clean", "pgd", "fgsm", "carlini_wagner", "noise")


def mixed_training(
    *,
    clean: float = 0.5,
    attacks: str = "pgd fgsm carlini_wagner noise",
    granularity: Literal["batch", "example"] = "batch",
    eps: float = 8 / 255,
    steps: int = 5,
    step_size: float = 0.01,
    random_start: bool = True,
    cw_steps: int = 20,
    sigma: float = 0.1,
) -> Mechanism:
    """Return training on a mixture of clean and changed images.

    How often each branch was taken is kept with the weights, in the buffer ``branches``: images, in the order of
    ``BRANCHES``. Their shares are recorded with the training.

    Args:
        clean: probability of a clean draw; the attacks share the rest evenly.
        attacks: any of ``pgd fgsm carlini_wagner noise``, separated by spaces.
        granularity: whether a draw decides about a batch or about an image.
        eps: radius of PGD and FGSM in Linf, as a fraction of full scale.
        steps: gradients of PGD.
        step_size: of PGD, change of intensity per step; the published 3 steps of 0.01 do not reach 8/255.
        random_start: whether PGD begins at a random point of the ball; with 3 steps of 0.01 in a ball of 0.3 that would
            be all it does.
        cw_steps: gradients of C&W, which looks for the smallest Euclidean change with one constant.
        sigma: standard deviation of the noise, above 0.

    Raises:
        SpecError: a probability outside [0, 1], no such attack, or a size or number of steps that is not above 0.
    """
    check_positive("mixed-training", sigma=sigma, eps=eps, steps=steps, step_size=step_size, cw_steps=cw_steps)
    chosen = attacks.split()
    unknown = [name for name in chosen if name not in BRANCHES[1:]]
    if unknown or not chosen or not 0 <= clean <= 1:
        raise SpecError(
            f"mixed-training: expected clean from 0 to 1 and attacks among {', '.join(BRANCHES[1:])}; "
            f"got {clean:g} and {attacks!r}"
        )
    shares = torch.tensor(
        [clean, *((1 - clean) / len(chosen) if name in chosen else 0.0 for name in BRANCHES[1:])], dtype=torch.float64
    )

    def install(network: nn.Module) -> None:
        network.register_buffer("branches", torch.zeros(len(BRANCHES), dtype=torch.int64))

    def changed(network: nn.Module, images: Tensor, labels: Tensor, branch: str, tools: Tools) -> Tensor:
        if branch == "clean":
            return images
        if branch == "noise":
            return tools.noisy(images, "mixed noise", sigma).clamp(0, 1)
        if branch == "fgsm":
            return tools.worst(network, images, labels, "fgsm", eps=eps)
        if branch == "pgd":
            settings = {
                "eps": eps,
                "steps": steps,
                "step_size": step_size,
                "random_start": random_start,
                "persist": True,
            }
            return tools.worst(network, images, labels, "pgd", published=True, **settings)
        return tools.worst(
            network, images, labels, "carlini_wagner", steps=cw_steps, binary_search_steps=1, initial_const=None
        )

    def objective(loss: Loss, tools: Tools) -> Loss:
        def on_a_mixture(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            draws = len(images) if granularity == "example" else 1
            drawn = torch.multinomial(shares, draws, replacement=True, generator=generator("branch", tools.seed))
            drawn = drawn.to(images.device).expand(len(images))
            mixture = images.clone()
            for number in drawn.unique().tolist():
                rows = (drawn == number).nonzero().squeeze(1)
                mixture[rows] = changed(network, images[rows], labels[rows], BRANCHES[number], tools)
            taken = network.get_buffer("branches")
            taken += torch.bincount(drawn, minlength=len(BRANCHES)).to(taken)
            return loss(network, mixture, labels)

        return on_a_mixture

    return Mechanism(install=install, objective=objective, alone=f"{ATTACKS}; {DRAWS}", facts=_shares)


def _shares(weights: Mapping[str, Tensor]) -> dict[str, float]:
    taken = weights["branches"].double()
    return {f"branch_{name}": float(share) for name, share in zip(BRANCHES, taken / taken.sum(), strict=True)}
