"""The evaluation that is fooled, and the attack that knows the trick; plain PyTorch, independent of the package.

Sources: Madry et al. (2018), arXiv:1706.06083 (projected gradient ascent); Carlini & Wagner (2017), arXiv:1608.04644
(the margin as a loss); Athalye et al. (2018), arXiv:1802.00420 (surrogates in the backward pass, mean over draws).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .digits import EPS, seeded

Classifier = Callable[[Tensor], Tensor]


def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Fraction answered correctly, one draw."""
    return _right(classifier, images, labels, votes=1).double().mean().item()


def vote(classifier: Classifier, images: Tensor, labels: Tensor, *, votes: int = 25) -> float:
    """Fraction answered correctly by the majority of ``votes`` fresh draws."""
    return _right(classifier, images, labels, votes=votes).double().mean().item()


def plain(classifier: Classifier, images: Tensor, labels: Tensor, *, eps: float = EPS, seed: int = 0) -> float:
    """Accuracy left by PGD-20: random start, float32 cross-entropy, own gradient, last iterate, one draw.

    Without a gradient nothing moves, and the accuracy is the clean one.
    """
    with seeded(seed):
        moved = _start(images, eps)
        for _ in range(20):
            moved.requires_grad_()
            logits = classifier(moved)
            if not logits.requires_grad:
                return accuracy(classifier, images, labels)
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved, allow_unused=True)
            if gradient is None:
                return accuracy(classifier, images, labels)
            moved = _step(moved, gradient, images, eps=eps, size=eps / 8)
        return accuracy(classifier, moved, labels)


def robust(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    surrogate: Classifier,
    rounds: tuple[int, ...] = (25, 100, 100, 200),
    draws: int = 1,
    votes: int = 1,
    eps: float = EPS,
    seed: int = 0,
) -> float:
    """Accuracy left by PGD on the margin, through ``surrogate``, with steps that shrink from ``eps`` to 0.

    Each of the ``rounds`` starts afresh, with so many steps. The classifier as deployed is the judge: only the images
    that the majority of ``votes`` draws still gets right go to the next round; at the end all are judged once more, with
    fresh draws. ``draws`` gradients are averaged.
    """
    with seeded(seed):
        found = images.clone()
        standing = torch.arange(len(images))
        for steps in rounds:
            centres, truth = images[standing], labels[standing]
            moved = _start(centres, eps)
            for step in range(steps):
                moved.requires_grad_()
                many = surrogate(moved.repeat(draws, 1, 1, 1))
                (gradient,) = torch.autograd.grad(-_margin(many, truth.repeat(draws)).sum(), moved)
                moved = _step(moved, gradient, centres, eps=eps, size=eps * (1 - step / steps))
            found[standing] = moved
            standing = standing[_right(classifier, moved, truth, votes=votes)]
            if not len(standing):
                break
        return vote(classifier, found, labels, votes=votes)


def _right(classifier: Classifier, images: Tensor, labels: Tensor, *, votes: int) -> Tensor:
    with torch.no_grad():
        counts = sum(functional.one_hot(classifier(images).argmax(dim=1), 10) for _ in range(votes))
    return counts.argmax(dim=1) == labels


def _start(images: Tensor, eps: float) -> Tensor:
    return (images + eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)


def _step(moved: Tensor, gradient: Tensor, images: Tensor, *, eps: float, size: float) -> Tensor:
    return (moved.detach() + size * gradient.sign()).clamp(images - eps, images + eps).clamp(0, 1)


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return logits.gather(1, labels[:, None])[:, 0] - others
