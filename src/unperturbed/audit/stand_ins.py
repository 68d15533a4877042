"""Classifiers made from the deployed one, for an attack to look through; none of them is ever judged.

Source: averaging over noise at the input, Athalye, Carlini & Wagner (2018), arXiv:1802.00420, section 4.1.2; gradients
estimated from differences of logits along random directions, both signs of each: Ilyas et al. (2018), arXiv:1804.08598,
equation 2.
"""

from typing import Any

import torch
from torch import Tensor

from unperturbed.attacks.classifier import Classifier
from unperturbed.tensors.streams import undisturbed


def frozen(classifier: Classifier, seed: int) -> Classifier:
    """Return the classifier with the same draws at every call (E4: the source of randomness frozen)."""

    def look(images: Tensor) -> Tensor:
        with undisturbed("frozen", seed, device=images.device):
            return classifier(images)

    return look


def alone(classifier: Classifier) -> Classifier:
    """Return the classifier shown one image at a time, so that no answer depends on its neighbours.

    As one vectorised program where PyTorch can make one and its answers are the same, else one after another.
    """

    def one_by_one(images: Tensor) -> Tensor:
        return torch.cat([classifier(image) for image in images.split(1)])

    together = torch.func.vmap(lambda image: classifier(image.unsqueeze(0)).squeeze(0), randomness="different")
    works: list[bool] = []

    def look(images: Tensor) -> Tensor:
        if not works:
            works.append(_same(together, one_by_one, images.detach()[:8]))
        return together(images) if works[0] else one_by_one(images)

    return look


def _same(together: Classifier, one_by_one: Classifier, images: Tensor) -> bool:
    with torch.no_grad():
        try:
            return torch.allclose(together(images), one_by_one(images), rtol=1e-4, atol=1e-5)
        except Exception:  # whatever the classifier does, vmap may refuse it in any way
            return False


def logarithm(classifier: Classifier) -> Classifier:
    """Return the logarithms of a classifier's probabilities: logits up to a constant, where not rounded to 0."""

    def look(images: Tensor) -> Tensor:
        probabilities = classifier(images)
        return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()

    return look


def smoothed(classifier: Classifier, *, sigma: float, draws: int) -> Classifier:
    """Return the mean logits over ``draws`` of the images with normal noise of standard deviation ``sigma``."""

    def look(images: Tensor) -> Tensor:
        total = classifier(images)
        for _ in range(draws):
            total = total + classifier(images + sigma * torch.randn_like(images))
        return total / (draws + 1)

    return look


def estimated(classifier: Classifier, *, sigma: float, directions: int) -> Classifier:
    """Return the classifier with a gradient from differences: ``2 * directions`` forwards, nothing differentiated.

    The gradient is that of the logits smoothed by noise of standard deviation ``sigma``.
    """

    class Differences(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, images: Tensor) -> Tensor:
            with torch.no_grad():
                ctx.save_for_backward(images)
                return classifier(images)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            (images,) = ctx.saved_tensors
            slope = torch.zeros_like(images)
            with torch.no_grad():
                for _ in range(directions):
                    step = sigma * torch.randn_like(images)
                    change = classifier(images + step) - classifier(images - step)
                    rise = (gradients[0] * change).sum(dim=1)
                    slope += rise.view(-1, 1, 1, 1) * step
            return slope / (2 * directions * sigma**2)

    return lambda images: Differences.apply(images)  # pyright: ignore[reportReturnType]
