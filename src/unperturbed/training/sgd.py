r"""Stochastic gradient descent on the cross-entropy, for one network or for R matched networks as one program.

Source: Kunhardt, Deza and Poggio (2021), arXiv:2102.10534, section 3.3: momentum 0.9, weight decay 5e-4, batches of
125, the rate divided by 10 at half of the training. The update is that of ``torch.optim.SGD``:
:math:`v \leftarrow \mu v + \nabla L + \lambda w`, :math:`w \leftarrow w - \eta v`. Where a recipe says so it is that of
``torch.optim.Adam``, Kingma and Ba (2015), arXiv:1412.6980, algorithm 1; its weight decay is an L2 penalty, too.

R networks become one program by stacking their weights and mapping the network over them (``torch.func``); the loss
is the sum of their losses, so each network gets its own gradient and its own order of batches. Which form runs
changes the weights by rounding only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.func import functional_call, vmap

from unperturbed.mechanisms import NOTHING, Diverged, InnerAttack, Mechanism, Tools
from unperturbed.records import NotFinite, Recipe, SpecError
from unperturbed.tensors.streams import generator, seed_for, undisturbed
from unperturbed.training.augmentation import moved, places
from unperturbed.training.codes import AT_ONCE, Codes

if TYPE_CHECKING:
    from unperturbed.data.split import Split

DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}

AVERAGES = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq")}  # what PyTorch's optimisers remember


@dataclass(frozen=True)
class State:
    """One network in training: weights and buffers, momentum, the steps done and the sums over the present epoch.

    ``momentum`` has what the optimiser remembers of each parameter, under ``average/parameter``.
    """

    weights: dict[str, Tensor]
    momentum: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    step: int = 0
    loss_sum: float = 0.0
    seen: int = 0

    @property
    def loss(self) -> float:
        """Mean training loss (nats) of the epoch that was under way, or of the last one."""
        return self.loss_sum / self.seen if self.seen else float("nan")


def pack(states: Sequence[State]) -> bytes:
    """Return the states of networks that train together as one safetensors file, for ``unpack``."""
    tensors: dict[str, Tensor] = {}
    for index, state in enumerate(states):
        tensors |= {f"{index}/weights/{name}": value for name, value in state.weights.items()}
        tensors |= {f"{index}/momentum/{name}": value for name, value in state.momentum.items()}
    numbers = [{"step": state.step, "loss_sum": state.loss_sum, "seen": state.seen} for state in states]
    return save_tensors(tensors, metadata={"states": json.dumps(numbers)})


def unpack(content: bytes) -> list[State]:
    """Return the states that ``pack`` wrote."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    states = [State({}, {}, **numbers) for numbers in json.loads(header["__metadata__"]["states"])]
    for key, value in load_tensors(content).items():
        index, part, name = key.split("/", 2)
        getattr(states[int(index)], part)[name] = value
    return states


def begin(network: nn.Module) -> State:
    """Return the state of ``network`` before its first step."""
    return State({name: value.detach().clone() for name, value in network.state_dict().items()})


def choose_vectorised(network: nn.Module, device: torch.device, mechanism: Mechanism = NOTHING) -> bool:
    """Return whether many seeds should train as one program; with a mechanism they never do.

    On a GPU, small steps leave it idle, so they are joined. On a CPU a joined convolution is a grouped one and half as
    fast (``unperturbed bench training``), and matrix products of 125 rows already fill the cores, so only networks
    whose time goes into calls rather than arithmetic are joined.
    """
    if mechanism != NOTHING:
        return False
    if device.type == "cuda":
        return True
    convolutional = any(isinstance(layer, nn.Conv2d) for layer in network.modules())
    return not convolutional and sum(parameter.numel() for parameter in network.parameters()) < 200_000


def train(
    network: nn.Module,
    states: Sequence[State],
    split: Split | Codes,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    until: int,
    mechanism: Mechanism = NOTHING,
    attack: InnerAttack | None = None,
    device: torch.device | str = "cpu",
    on_step: Callable[[Callable[[], list[State]]], None] | None = None,
) -> list[State]:
    """Return ``states`` after ``until`` epochs in all; more than one state trains as one vectorised program.

    Args:
        network: supplies the structure; its weights are overwritten.
        states: where each network stands; a state may lie inside an epoch. All stand at the same step.
        split: the training images, on any device, or what a frozen layer makes of them.
        recipe: the optimiser and its schedule.
        seeds: one seed a network; it decides the order of the batches, with the number of the epoch.
        until: epochs since the start of the recipe.
        mechanism: installed in ``network`` already; its objective is what is descended.
        attack: what finds adversarial images for the objective of a mechanism that asks for them.
        device: where to train; the states returned lie on the CPU.
        on_step: called after every step with a function that returns the present states.

    Raises:
        SpecError: no seeds, seeds that do not match the states, states at different steps, or images to be moved that
            are codes of a frozen layer.
        Diverged: at the end of an epoch, the loss has not been finite or the weights are not; or the logits inside an
            attack are not.
    """
    if not seeds or len(seeds) != len(states):
        raise SpecError(f"train: expected one seed a network, got {len(seeds)} seeds for {len(states)} networks.")
    if len({state.step for state in states}) != 1:
        raise SpecError(f"train: all states must stand at the same step, got {[state.step for state in states]}.")
    if mechanism != NOTHING and len(states) > 1:
        raise SpecError(f"train: with a mechanism networks train one by one, got {len(states)} together.")
    augmented = recipe.crop > 0 or recipe.flip
    if augmented and isinstance(split, Codes):
        raise SpecError("train: crop and flip move images; a readout of a frozen layer sees codes: leave them out.")
    device = torch.device(device)
    split = split.to(device)
    split = split.of_person(seeds[0], mechanism.responses)
    program = _Program(network, states, recipe, device, mechanism, attack, split)
    batches = -(-len(split) // recipe.batch_size)
    step = states[0].step
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        for epoch in range(step // batches + 1, until + 1):
            program.set_rate(_learning_rate(recipe, epoch))
            first = step - (epoch - 1) * batches
            if first == 0:
                program.forget_losses()
            rows = torch.stack([split.draw(generator("order", seed, epoch)) for seed in seeds]).to(device)
            windows = None
            if augmented:
                windows = places(seeds, epoch, len(split), crop=recipe.crop, flip=recipe.flip).to(device)
            for batch in range(first, batches):
                part = slice(batch * recipe.batch_size, (batch + 1) * recipe.batch_size)
                batch_rows = rows[:, part].flatten(0, 1)
                images, labels = split.images(batch_rows), split.labels(batch_rows)
                if windows is not None:
                    images = moved(images, windows[:, part].flatten(0, 1), crop=recipe.crop)
                step += 1
                done = step / (recipe.epochs * batches)
                try:
                    seed = seed_for("step", seeds[0], epoch, batch)
                    program.step(images, labels, batch_rows, seed, done, fresh=batch == 0)
                except NotFinite as error:  # an attack inside the training looked before the end of the epoch
                    raise Diverged(f"Training diverged: seed {seeds[0]}, step {step}: {error}") from error
                if on_step is not None:
                    on_step(lambda: program.states(step))  # noqa: B023 - called before the next step
            program.check(epoch, step, seeds)
    return program.states(step)


def _learning_rate(recipe: Recipe, epoch: int) -> float:
    if recipe.schedule:
        passed = [factor for share, factor in recipe.schedule if epoch > share * recipe.epochs]
        return recipe.learning_rate * (passed[-1] if passed else 1.0)
    dropped = epoch > recipe.drop_at * recipe.epochs
    return recipe.learning_rate / (recipe.drop_by if dropped else 1.0)


def _refuse(name: str, *_where: object, **_settings: object) -> Tensor:
    raise SpecError(f"train: the mechanism asks for the attack {name!r}; pass one as attack=")


class _Program:
    """The weights of R networks on a device and the step that all of them take."""

    def __init__(
        self,
        network: nn.Module,
        states: Sequence[State],
        recipe: Recipe,
        device: torch.device,
        mechanism: Mechanism,
        attack: InnerAttack | None,
        split: Split | Codes,
    ) -> None:
        self.split = split
        self.count = len(states)
        self.mechanism = mechanism
        self.attack = attack or _refuse
        self.precision = recipe.precision
        if recipe.precision == "bfloat16" and device.type != "cuda":
            raise SpecError(f"train: precision bfloat16 needs a CUDA device, got {device}; use float32.")
        network = network.to(device=device, dtype=DTYPES[recipe.precision]).train()
        if self.count == 1:
            network.load_state_dict(states[0].weights)
            self.parameters = dict(network.named_parameters())
            self.buffers = dict(network.named_buffers())
            self.forward = network
        else:
            copies: dict[str, list[Tensor]] = {
                name: [state.weights[name] for state in states] for name in states[0].weights
            }
            stacked = {
                name: torch.stack(copy).to(device=device, dtype=network.state_dict()[name].dtype)
                for name, copy in copies.items()
            }
            self.parameters = {name: stacked[name].requires_grad_() for name, _ in network.named_parameters()}
            self.buffers = {name: stacked[name] for name, _ in network.named_buffers()}
            self.forward = self._joint_forward
        self.network = network
        trained = {name: each for name, each in self.parameters.items() if each.requires_grad}
        decaying = [each for each in trained.values() if getattr(each, "decays", True)]
        constant = [each for each in trained.values() if not getattr(each, "decays", True)]
        groups = [{"params": decaying}, *([{"params": constant, "weight_decay": 0.0}] if constant else [])]
        self.clip = recipe.clip
        self.averages = AVERAGES[recipe.optimiser]
        rate, decay = recipe.learning_rate, recipe.weight_decay
        if recipe.optimiser == "adam":
            self.optimiser = torch.optim.Adam(groups, lr=rate, weight_decay=decay, fused=True)
        else:
            self.optimiser = torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, weight_decay=decay, fused=True)
        for name, parameter in trained.items():
            for average in self.averages:
                key = f"{average}/{name}"
                if key in states[0].momentum:  # not there for a parameter that never got a gradient
                    stacked = torch.stack([state.momentum[key] for state in states]).view(parameter.shape)
                    self.optimiser.state[parameter][average] = torch.empty_like(parameter).copy_(stacked)
                    if recipe.optimiser == "adam":
                        done = torch.tensor(float(states[0].step), device=parameter.device)
                        self.optimiser.state[parameter]["step"] = done
        self.loss_sum = torch.tensor([state.loss_sum for state in states], dtype=torch.float64, device=device)
        self.seen = states[0].seen
        self.sums = [self.loss_sum.clone()]  # of the losses, what was there before and then step by step

    def _joint_forward(self, images: Tensor) -> Tensor:
        per_network = images.unflatten(0, (self.count, -1))
        return vmap(lambda weights, buffers, x: functional_call(self.network, (weights, buffers), (x,)))(
            self.parameters, self.buffers, per_network
        ).flatten(0, 1)

    def set_rate(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def forget_losses(self) -> None:
        self.loss_sum.zero_()
        self.seen = 0
        self.sums = [self.loss_sum.clone()]

    def _losses(self, network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        reduced = self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16) if reduced else nullcontext():
            logits = network(images.to(DTYPES[self.precision]))
        return F.cross_entropy(logits.to(DTYPES[self.precision]), labels, reduction="none")

    def _every(self) -> Iterator[Tensor]:
        for rows in self.split.fixed().split(AT_ONCE):
            yield self.split.images(rows).to(DTYPES[self.precision])

    def step(self, images: Tensor, labels: Tensor, rows: Tensor, seed: int, done: float, *, fresh: bool) -> None:
        if self.mechanism == NOTHING:
            losses = self._losses(self.forward, images, labels).view(self.count, -1)
        else:
            recorded = self.split.recorded(rows)
            theirs = None if recorded is None else recorded[:, 0]
            tools = Tools(self.attack, seed, self.mechanism.attacked, done, fresh, self._every, theirs)
            objective = self.mechanism.objective(self._losses, tools)
            with undisturbed("training", seed, device=images.device):
                losses = objective(self.network, images.to(DTYPES[self.precision]), labels).view(1, -1)
        self.optimiser.zero_grad(set_to_none=True)
        losses.mean(1).sum().backward()
        if self.clip is not None:
            self._shorten(self.clip)
        self.optimiser.step()
        self.sums.append(losses.detach().sum(1))
        self.loss_sum += self.sums[-1]
        self.seen += losses.shape[1]

    def _shorten(self, longest: float) -> None:
        gradients = [each.grad for each in self.parameters.values() if each.grad is not None]
        lengths = torch.stack([each.reshape(self.count, -1).norm(dim=1) for each in gradients]).norm(dim=0)
        factors = (longest / lengths).clamp(max=1.0)
        for each in gradients:
            each.mul_(factors.view(-1, *(1 for _ in each.shape[1:])) if self.count > 1 else factors.squeeze())

    def check(self, epoch: int, step: int, seeds: Sequence[int]) -> None:
        lost = torch.stack([~each.isfinite() for each in self.sums]).tolist()
        for index, seed in enumerate(seeds):
            steps = [step - len(lost) + place for place, row in enumerate(lost, 1) if row[index]]
            if steps:
                where = f"after epoch {epoch}, from step {steps[0]} on"
                raise Diverged(f"Training diverged: the loss of seed {seed} is not finite {where}.")
            weights = [each if self.count == 1 else each[index] for each in self.parameters.values()]
            if not all(torch.stack([each.isfinite().all() for each in weights]).tolist()):
                raise Diverged(f"Training diverged: the weights of seed {seed} are not finite after step {step}.")

    def states(self, step: int) -> list[State]:
        def each(value: Tensor) -> list[Tensor]:
            parts = [value] if self.count == 1 else list(value)
            return [part.detach().to("cpu", copy=True).contiguous() for part in parts]

        weights = {name: each(value) for name, value in (self.parameters | self.buffers).items()}
        momentum = {
            f"{average}/{name}": each(self.optimiser.state[parameter][average])
            for name, parameter in self.parameters.items()
            for average in self.averages
            if self.optimiser.state[parameter].get(average) is not None
        }
        sums = self.loss_sum.tolist()
        return [
            State(
                {name: copies[index] for name, copies in weights.items()},
                {name: copies[index] for name, copies in momentum.items()},
                step,
                sums[index],
                self.seen,
            )
            for index in range(self.count)
        ]
