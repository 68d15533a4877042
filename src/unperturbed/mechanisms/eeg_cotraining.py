r"""Co-training with EEG: the network that classifies an image also predicts what a brain answered to it.

Source: Guo et al. (2024), arXiv:2409.03646, of which the abstract is what we know: a ResNet50 shared by a classifier
and an EEG predictor, cross-entropy and mean squared error balanced by :math:`\delta_1, \delta_2`. The three ways to
balance them are ours, since the paper's equation 1 could not be read. With the cross-entropy :math:`H` and the squared
error :math:`E`, a mean over channels and times, of an image:

.. math:: \text{fixed} &: \delta_1 H + \delta_2 E \\
    \text{uncertainty} &: H / \delta_1^2 + E / (2 \delta_2^2) + \log \delta_1 + \log \delta_2 \\
    \text{gradnorm} &: \delta_1 H + c\,\delta_2 E, \qquad
        c = \lVert \nabla \delta_1 \bar H \rVert / \lVert \nabla \delta_2 \bar E \rVert

``uncertainty`` is Kendall, Gal and Cipolla (2018), arXiv:1705.07115, section 3.3; the deltas are learned as logarithms
and start at the settings. ``gradnorm`` keeps of Chen et al. (2018), arXiv:1711.02257, that gradients count on the last
layer that both losses share, and departs from it in making them equal at once, every so many steps. That layer is the
last convolution of the last stage. The EEG is predicted from the last pass that the loss makes: where another mechanism
puts adversarial images into the loss, from those.

In the nervous system: the EEG 0.1 s after an image has what early visual cortex made of it. Against the analogy counts
every gain that EEG of other images gives as well, which is what the published controls found.
Matched controls: ``delta2=0``; other ``responses`` (``eeg_controls``), which each network draws for itself; and the
responses of another subject or of Gabor filters, which the data sets have (``unperturbed.data.recorded``).
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from unperturbed.mechanisms.contract import Loss, Mechanism, Tools, check_positive
from unperturbed.mechanisms.eeg_controls import Responses, control
from unperturbed.mechanisms.eeg_predictors import HEADS, PREDICTORS, Integration, draw
from unperturbed.mechanisms.installing import kept_weight
from unperturbed.models.resnet import ResNet
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

NAME = "eeg-cotraining"
BRANCH = "eeg"  # the part of the network that is removed at the end

Predictor = Literal["dense", "rnn", "transformer", "attention"]
IntegrationName = Literal["concat", "project-and-mean"]
Taps = Literal["last", "last-two", "all"]
Balance = Literal["fixed", "uncertainty", "gradnorm"]

STAGES: dict[Taps, int | None] = {"last": 1, "last-two": 2, "all": None}

_INTEGRATIONS: tuple[IntegrationName, ...] = ("concat", "project-and-mean")
_PREDICTORS: tuple[Predictor, ...] = ("dense", "rnn", "transformer", "attention")

CONFIGURATIONS: dict[str, dict[str, str]] = {
    f"{name}-{integration}-{taps}": {"predictor": name, "integration": integration, "taps": taps}
    for name, integration, taps in product(_PREDICTORS, _INTEGRATIONS, STAGES)
}
"""The 24 architectures, by name, as settings of ``eeg_cotraining``."""

LOGGED = (
    "cotraining_cross_entropy",
    "cotraining_squared_error",
    "cotraining_gradient_classifier",
    "cotraining_gradient_eeg",
    "cotraining_cosine",
)


class Branch(nn.Module):
    """From the features of the stages to responses; it also keeps the balance and the sums over the present epoch."""

    log_deltas: nn.Parameter | None
    balance: Tensor
    steps: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(
        self, integration: Integration, predictor: nn.Module, stages: list[str], log_deltas: Tensor | None
    ) -> None:
        super().__init__()
        self.integration = integration
        self.predictor = predictor
        self.stages = stages
        self.log_deltas = None if log_deltas is None else nn.Parameter(log_deltas)
        self.register_buffer("balance", torch.ones(()))  # c
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # of the epoch
        self.register_buffer("sums", torch.zeros(5))  # in the order of LOGGED
        self.register_buffer("counts", torch.zeros(2))  # images, and steps at which gradients were measured

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the predicted responses, (batch, channels, times)."""
        dtype = self.balance.dtype
        return self.predictor(self.integration([each.to(dtype) for each in features]))


def eeg_cotraining(
    *,
    predictor: Predictor = "dense",
    integration: IntegrationName = "concat",
    taps: Taps = "last",
    shared: bool = False,
    balance: Balance = "fixed",
    delta1: float = 1.0,
    delta2: float = 1.0,
    every: int = 10,
    width: int = 256,
    channels: int = 17,
    times: int = 100,
    responses: Responses = "real",
) -> Mechanism:
    """Return training that predicts the responses recorded with the images, beside their classes.

    Args:
        predictor: of the responses, see ``eeg_predictors``.
        integration: how the features of several stages become one vector.
        taps: the stages that are read.
        shared: the predictor reads the very vector that the classifier's readout has: not even normalised, so that
            both differ in no parameter before it.
        balance: of the two losses.
        delta1: weight of the cross-entropy, above 0; with ``uncertainty`` where it starts.
        delta2: weight of the squared error, at least 0; above 0 where the balance is not fixed.
        every: steps between two measurements of the gradients, from the first step of each epoch on.
        width: w of the predictor, a multiple of 4.
        channels: of the responses.
        times: of the responses.
        responses: what is predicted: those of the images, or one of the controls of ``eeg_controls``.

    Raises:
        SpecError: settings out of their range, or ``shared`` with other taps or another integration; when it is
            installed, if the network is no residual one; in training, if the data have no responses, or others.
    """
    check_positive(NAME, delta1=delta1, every=every, width=width, channels=channels, times=times)
    if delta2 < 0 or (delta2 == 0 and balance != "fixed"):
        least = "of at least 0" if balance == "fixed" else f"above 0, since {balance} divides by it or by its gradient"
        raise SpecError(f"{NAME}: expected delta2 {least}, got {delta2:g}")
    if width % HEADS:
        raise SpecError(f"{NAME}: width must be a multiple of {HEADS}, got {width}")
    if shared and (taps, integration) != ("last", "concat"):
        raise SpecError(
            f"{NAME}: a shared predictor reads the last vector as it is, with taps 'last' and integration 'concat'; "
            f"got {taps!r} and {integration!r}"
        )

    def install(network: nn.Module) -> None:
        place = _residual(network).fc.weight.device
        with torch.device("meta"):  # so that PyTorch's layers draw nothing from the global generator
            branch = _branch(_residual(network))
        branch = branch.to_empty(device=place)
        for tensor in (*branch.parameters(), *branch.buffers()):
            nn.init.zeros_(tensor)
        if branch.log_deltas is not None:
            branch.log_deltas.decays = False  # pyright: ignore[reportAttributeAccessIssue] - read by the optimiser
        if hasattr(network, BRANCH):
            raise SpecError(f"{NAME}: {type(network).__name__} has an EEG branch already: name the mechanism once")
        network.add_module(BRANCH, branch)

    def _branch(network: ResNet) -> Branch:
        read = network.stages[-(STAGES[taps] or len(network.stages)) :]
        features = [_features(network, stage) for stage in read]
        whole = Integration(features, width, project=integration == "project-and-mean", normalise=not shared)
        logarithms = torch.zeros(2) if balance == "uncertainty" else None
        return Branch(whole, PREDICTORS[predictor](whole.size, width, channels, times), read, logarithms)

    def settle(network: nn.Module, seed: int) -> None:
        branch = _installed(network)
        draw(branch, generator("eeg branch", seed))
        with torch.no_grad():
            branch.balance.fill_(1.0)
            if branch.log_deltas is not None:
                branch.log_deltas.copy_(torch.tensor([delta1, delta2]).log())

    def objective(loss: Loss, tools: Tools) -> Loss:
        def both(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            recorded = _checked(tools.responses, channels, times)
            branch = _installed(network)
            with _listening(network, branch.stages) as features:
                entropy = loss(network, images, labels)
            error = (branch(features) - recorded.to(entropy)).square().mean(dim=(1, 2))
            if tools.fresh:
                for tally in (branch.steps, branch.sums, branch.counts):
                    tally.zero_()
            look = int(branch.steps) % every == 0
            gradients = _gradients(network, entropy, error) if look else None
            if gradients is not None and balance == "gradnorm":
                first, second = (gradient.norm() for gradient in gradients)
                if float(second) > 0:
                    branch.balance.copy_(delta1 * first / (delta2 * second))
            weights, constant = _weights(branch, delta1, delta2)
            _note(branch, entropy, error, weights, gradients)
            return weights[0] * entropy + weights[1] * error + constant

        return both

    def finish(network: nn.Module) -> None:
        delattr(network, BRANCH)

    def predicted(recorded: Tensor, labels: Tensor, seed: int) -> Tensor:
        return control(recorded, labels, seed, kind=responses)

    return Mechanism(install=install, objective=objective, finish=finish, settle=settle, responses=predicted)


def _weights(branch: Branch, delta1: float, delta2: float) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the factors of both losses, and what is added to them."""
    if branch.log_deltas is not None:
        first, second = branch.log_deltas
        return (torch.exp(-2 * first), 0.5 * torch.exp(-2 * second)), first + second
    return (torch.full_like(branch.balance, delta1), delta2 * branch.balance), torch.zeros_like(branch.balance)


def _gradients(network: nn.Module, entropy: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of both mean losses by the weight of the last shared layer."""
    weight = last_shared(network)
    (first,) = torch.autograd.grad(entropy.mean(), weight, retain_graph=True)
    (second,) = torch.autograd.grad(error.mean(), weight, retain_graph=True)
    return first, second


def _note(
    branch: Branch,
    entropy: Tensor,
    error: Tensor,
    weights: tuple[Tensor, Tensor],
    gradients: tuple[Tensor, Tensor] | None,
) -> None:
    with torch.no_grad():
        branch.steps += 1
        branch.counts[0] += len(entropy)
        branch.sums[:2] += torch.stack([entropy.sum(), error.sum()])
        if gradients is not None:
            first, second = (each.flatten() for each in gradients)
            lengths = weights[0] * first.norm(), weights[1] * second.norm()
            branch.counts[1] += 1
            branch.sums[2:] += torch.stack([*lengths, F.cosine_similarity(first, second, dim=0)])


def last_shared(network: nn.Module) -> Tensor:
    """Return the weight of the last layer that the classifier and the EEG predictor share."""
    resnet = _residual(network)
    *_, block = resnet.get_submodule(resnet.stages[-1]).children()
    layer = [each for each in block.children() if isinstance(each, nn.Conv2d)][-1]
    return kept_weight(layer)


def training_log(network: nn.Module) -> dict[str, float]:
    """Return means over the last epoch by the names in ``LOGGED``; NaN before the first step.

    Args:
        network: with its EEG branch, as it was trained; not a deployed one.

    Returns:
        Cross-entropy (nats) and squared error of an image, the lengths of their gradients by the last shared layer, as
        weighted in the loss, and the cosine between these, from -1 to 1.
    """
    branch = _installed(network)
    counts = branch.counts.repeat_interleave(torch.tensor([2, 3], device=branch.counts.device))
    return dict(zip(LOGGED, (branch.sums / counts).tolist(), strict=True))


def predicted_responses(network: nn.Module, images: Tensor) -> Tensor:
    """Return the responses that a network with its EEG branch predicts, (batch, channels, times), without gradient.

    Args:
        network: as it was trained, in evaluation mode; not a deployed one.
        images: intensities in [0, 1].
    """
    branch = _installed(network)
    with torch.no_grad(), _listening(network, branch.stages) as features:
        network(images)
        return branch(features)


@contextmanager
def _listening(network: nn.Module, stages: list[str]) -> Generator[list[Tensor]]:
    """Yield a list that has the features of the stages, averaged over the image, after each pass of the network."""
    features: list[Tensor] = [torch.empty(0)] * len(stages)

    def listen(place: int, _stage: nn.Module, _arguments: object, hidden: Tensor) -> None:
        features[place] = torch.flatten(F.adaptive_avg_pool2d(hidden, 1), 1)

    handles = [
        network.get_submodule(stage).register_forward_hook(partial(listen, place)) for place, stage in enumerate(stages)
    ]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def _features(network: ResNet, stage: str) -> int:
    """Return how many feature maps a stage gives."""
    norms = [layer for layer in network.get_submodule(stage).modules() if isinstance(layer, nn.BatchNorm2d)]
    return norms[-1].num_features


def _residual(network: nn.Module) -> ResNet:
    if not isinstance(network, ResNet):
        raise SpecError(f"{NAME}: expected the model resnet, got {type(network).__name__}")
    return network


def _installed(network: nn.Module) -> Branch:
    branch = getattr(network, BRANCH, None)
    if not isinstance(branch, Branch):
        raise SpecError(f"{NAME}: expected a network with its EEG branch, got one without, as it is deployed")
    return branch


def _checked(responses: Tensor | None, channels: int, times: int) -> Tensor:
    if responses is None:
        raise SpecError(
            f"{NAME}: expected data with recorded responses, got none; train on simulated-eeg, things-eeg2 or "
            "faces-houses-eeg"
        )
    if responses.shape[1:] != (channels, times):
        raise SpecError(
            f"{NAME}: expected responses of {channels} channels and {times} times, got {tuple(responses.shape[1:])}; "
            "set channels and times"
        )
    return responses
