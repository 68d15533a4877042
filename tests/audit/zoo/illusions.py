"""Planted illusions: what a usual evaluation leaves is far above what an attack that knows the trick leaves.

Nothing here is new: gradients that are zero, cut off, vanished, shattered or random (Athalye et al. 2018,
arXiv:1802.00420; Tramer et al. 2020, arXiv:2002.08347).
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attacks import Classifier, robust
from .defences import (
    LWTA,
    AntiAdversary,
    Companions,
    Detached,
    KWinners,
    LogProbabilities,
    PassingKWinners,
    Probabilities,
    Quantised,
    RandomResize,
    RandomVote,
    Scaled,
    Spikes,
    Views,
    WithoutGradient,
    blur,
    differentiable_median,
    jpeg,
    mean_probability,
    median,
    passing_round,
)
from .digits import EPS, NORM, audited, cnn, train


@dataclass(frozen=True)
class Illusion:
    """A classifier that looks robust and is not.

    ``knowing()`` is the accuracy that an attack which knows the trick leaves, judged on the classifier as it is
    (majority of fresh draws for a random one). An audit should fire at least one of ``expected_flags``: the checks of
    Carlini et al. C1-C12, coherence and surrogates E1-E5, Pintor et al. I1-I6, P1 (probabilities), R1 (randomness),
    B1 (depends on the batch), O1 (optimises at inference).
    """

    name: str
    classifier: Classifier
    images: Tensor
    labels: Tensor
    norm: str
    eps: float
    attack: Callable[[Tensor, Tensor], float]  # (images, labels) to the accuracy that is left
    expected_flags: tuple[str, ...]
    random: bool = False

    def knowing(self) -> float:
        return _left(self.attack, self.images, self.labels)

    def on(self, count: int) -> "Illusion":
        """The same on the first ``count`` images."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])


@cache
def _left(attack: Callable[[Tensor, Tensor], float], images: Tensor, labels: Tensor) -> float:
    return attack(images, labels)


@cache
def base() -> nn.Module:
    """The undefended network that the wrappers share."""
    return train(cnn, rate=0.1)


@cache
def views() -> Views:
    """Eight networks, each of which sees its own eighth of the pixels."""

    def objective(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        logits = network(images)
        return len(logits) * functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))

    return train(Views, epochs=20, objective=objective)


def _illusion(
    classifier: Classifier,
    surrogate: Classifier,
    expected_flags: tuple[str, ...],
    *,
    random: bool = False,
    draws: int = 1,
) -> Illusion:
    images, labels = audited()
    attack = partial(robust, surrogate=surrogate, draws=draws, votes=25 if random else 1)
    return Illusion("", classifier, images, labels, NORM, EPS, partial(attack, classifier), expected_flags, random)


def quantised_input() -> Illusion:
    network = Quantised(base()).eval()
    steps = network.levels - 1
    return _illusion(
        network,
        lambda images: base()(passing_round(images * steps) / steps),
        ("I1", "C6", "C11", "C4"),
    )


def detached_preprocessing() -> Illusion:
    return _illusion(
        Detached(base()).eval(),
        lambda images: base()(blur(images)),
        ("I1", "C11", "C6", "C4"),
    )


def no_grad_preprocessing() -> Illusion:
    network = WithoutGradient(base()).eval()
    return _illusion(
        network,
        lambda images: base()(network.stretch(images)),
        ("I1", "C11", "C6", "C4"),
    )


def numpy_preprocessing() -> Illusion:
    return _illusion(
        lambda images: base()(median(images)),
        lambda images: base()(differentiable_median(images)),
        ("I1", "C11", "C6", "C4"),
    )


def huge_logit_scale() -> Illusion:
    return _illusion(Scaled(base()).eval(), base(), ("I1", "C12", "C6"))


def log_softmax_underflow() -> Illusion:
    return _illusion(LogProbabilities(base()).eval(), base(), ("I1", "C6", "C12"))


def probabilities_as_logits() -> Illusion:
    return _illusion(Probabilities(base()).eval(), base(), ("P1",))


def gaussian_noise() -> Illusion:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 5),
            nn.BatchNorm2d(16),
            Spikes(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 36, 64),
            nn.BatchNorm1d(64),
            Spikes(),
            nn.Linear(64, 10),
        )

    gentle = train(build, epochs=12)
    deployed = deepcopy(gentle)
    for spikes in _layers(deployed, Spikes):
        spikes.slope = 20.0
    return _illusion(deployed, gentle, ("R1", "E1", "E2", "C10"), random=True)


def random_resize() -> Illusion:
    def build() -> nn.Module:
        return nn.Sequential(RandomResize(), cnn(size=8, channels=16, kernel=3))

    network = train(build, epochs=20, batch=25)

    def mean_of_draws(images: Tensor) -> Tensor:
        return torch.cat([network(part) for part in images.chunk(8)])

    return _illusion(network, mean_of_draws, ("R1", "C10", "E1", "C5"), random=True, draws=8)


def k_winners() -> Illusion:
    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs in (256, 512):
            layers += [nn.Linear(inputs, 512), nn.BatchNorm1d(512, affine=False), PassingKWinners()]
        return nn.Sequential(*layers, nn.Linear(512, 10))

    passing = train(build)
    deployed = nn.Sequential(*(KWinners() if isinstance(layer, PassingKWinners) else layer for layer in passing)).eval()
    # E2: a softened copy breaks what its own gradient leaves. Which of the others fires depends on rounding in training.
    return _illusion(deployed, passing, ("C6", "C2", "C3", "C4", "C5", "I6", "C1", "E2"))


def stochastic_lwta() -> Illusion:
    """Nine convolutions in blocks of two; trained at temperature 0.67, deployed at 0.01 and still sampled.

    As in the published network it is the depth that turns the gradient into noise; the KL term is left out there too.
    """

    def block(inputs: int, **settings: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, 16, 3, **settings), nn.BatchNorm2d(16), LWTA()]

    def build() -> nn.Module:
        same = [layer for _ in range(6) for layer in block(16, padding=1)]
        return nn.Sequential(*block(1, stride=2), *same, *block(16), *block(16), nn.Flatten(), nn.Linear(16 * 9, 10))

    warm = train(build)
    deployed = deepcopy(warm)
    for layer in _layers(deployed, LWTA):
        layer.temperature = 0.01
    return _illusion(deployed, warm, ("R1", "E1", "E2"), random=True)


def jpeg_blocks() -> Illusion:
    return _illusion(
        lambda images: base()(jpeg(images)),
        lambda images: base()(jpeg(images, rounding=passing_round)),
        ("I1", "C11", "C6", "C4"),
    )


def random_vote() -> Illusion:
    return _illusion(
        RandomVote(views()).eval(),
        lambda images: mean_probability(views()(images)),
        ("R1", "C10", "E1"),
        random=True,
    )


def self_attack() -> Illusion:
    return _illusion(AntiAdversary(base()).eval(), base(), ("O1", "C5", "C6"))


def answers_by_batch() -> Illusion:
    return _illusion(
        Companions(views()).eval(),
        lambda images: mean_probability(views()(images)),
        ("B1",),
    )


def _layers(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, kind)]


def _member(build: Callable[[], Illusion]) -> Callable[[], Illusion]:
    return cache(lambda: replace(build(), name=build.__name__))


ILLUSIONS: dict[str, Callable[[], Illusion]] = {
    build.__name__: _member(build)
    for build in (
        quantised_input,
        detached_preprocessing,
        no_grad_preprocessing,
        numpy_preprocessing,
        huge_logit_scale,
        log_softmax_underflow,
        probabilities_as_logits,
        gaussian_noise,
        random_resize,
        k_winners,
        stochastic_lwta,
        jpeg_blocks,
        random_vote,
        self_attack,
        answers_by_batch,
    )
}
