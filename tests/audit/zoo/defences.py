"""What the planted illusions are made of: layers and wrappers that hide the gradient, each as a user would write it."""

import math
import random

import torch
from scipy.ndimage import median_filter
from torch import Tensor, nn
from torch.nn import functional


def blur(images: Tensor) -> Tensor:
    """The images under the 3 x 3 binomial filter."""
    line = images.new_tensor([0.25, 0.5, 0.25])
    return functional.conv2d(
        functional.pad(images, (1, 1, 1, 1), mode="replicate"), torch.outer(line, line)[None, None]
    )


def median(images: Tensor) -> Tensor:
    """The images under the 3 x 3 median filter, in NumPy and SciPy."""
    pictures = images.detach().cpu().numpy()
    return torch.from_numpy(median_filter(pictures, size=(1, 1, 3, 3), mode="nearest")).to(images.dtype)


def differentiable_median(images: Tensor) -> Tensor:
    """The same filter in PyTorch."""
    patches = functional.unfold(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3)
    return patches.median(dim=1).values.view_as(images)


def passing_round(values: Tensor) -> Tensor:
    """Rounding whose derivative is 1."""
    return values + (values.round() - values).detach()


def cosines() -> Tensor:
    """The orthonormal 8 x 8 matrix of the discrete cosine transform."""
    frequency, place = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    matrix = torch.cos(math.pi * (2 * place + 1) * frequency / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def jpeg(images: Tensor, *, coarseness: float = 0.1, rounding=torch.round) -> Tensor:
    """Round the cosine coefficients of every block of 8 x 8 pixels, the higher frequencies more coarsely."""
    count, channels, height, width = images.shape
    matrix = cosines().to(images)
    order = torch.arange(8.0).to(images)
    coarse = coarseness * (1 + (order[:, None] + order) / 2)
    blocks = images.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = rounding(matrix @ blocks @ matrix.T / coarse) * coarse
    return (matrix.T @ coefficients @ matrix).transpose(3, 4).reshape(images.shape).clamp(0, 1)


class Quantised(nn.Module):
    """Sees ``levels`` intensities only."""

    def __init__(self, network: nn.Module, *, levels: int = 5) -> None:
        super().__init__()
        self.network = network
        self.levels = levels

    def forward(self, images: Tensor) -> Tensor:
        return self.network(torch.round(images * (self.levels - 1)) / (self.levels - 1))


class Detached(nn.Module):
    """Smooths a copy of the images that is cut off from the graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(blur(images.detach()))


class WithoutGradient(nn.Module):
    """Stretches the contrast to the whole range where no graph is recorded."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def stretch(self, images: Tensor) -> Tensor:
        darkest, brightest = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
        return (images - darkest) / (brightest - darkest).clamp(min=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            stretched = self.stretch(images)
        return self.network(stretched)


class Scaled(nn.Module):
    """Multiplies the logits: the same decisions, but a float32 cross-entropy that is 0."""

    def __init__(self, network: nn.Module, *, scale: float = 1e4) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * self.scale


class LogProbabilities(nn.Module):
    """The logarithm of sharp probabilities, all but one of which underflow to the guard."""

    def __init__(self, network: nn.Module, *, scale: float = 1000.0) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return torch.log(torch.softmax(self.scale * self.network(images), dim=1) + 1e-30)


class Probabilities(nn.Module):
    """Sharp probabilities where logits are expected."""

    def __init__(self, network: nn.Module, *, scale: float = 50.0) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.scale * self.network(images), dim=1)


class Spikes(nn.Module):
    """Noisy neurons, tanh(slope (x + sigma n)): fire or not, by Gaussian noise and a steep threshold."""

    def __init__(self, *, sigma: float = 1.0, slope: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma
        self.slope = slope

    def forward(self, values: Tensor) -> Tensor:
        return torch.tanh(self.slope * (values + self.sigma * torch.randn_like(values)))


class RandomResize(nn.Module):
    """Xie et al. (2018), arXiv:1711.01991: a random crop, resized to a random size, padded to ``size`` at random."""

    def __init__(self, *, size: int = 8, smallest: int = 6, crop: int = 3) -> None:
        super().__init__()
        self.size = size
        self.smallest = smallest
        self.crop = crop

    def forward(self, images: Tensor) -> Tensor:
        kept = images.shape[-1] - self.crop
        top, left = random.randint(0, self.crop), random.randint(0, self.crop)
        side = random.randint(self.smallest, self.size)
        small = functional.interpolate(
            images[..., top : top + kept, left : left + kept], size=(side, side), mode="nearest"
        )
        free = self.size - side
        above, before = torch.randint(free + 1, (2,)).tolist()
        return functional.pad(small, (before, free - before, above, free - above))


class KWinners(nn.Module):
    """Xiao et al. (2020), arXiv:1905.10510: only the largest activations pass; here they rest far below zero.

    A unit that wins brings its large negative value with it, and the derivative does not see who wins. So the slope
    within each linear piece says the opposite of what the jumps between the pieces do.
    """

    def __init__(self, *, keep: float = 0.1, rest: float = -3.0) -> None:
        super().__init__()
        self.keep = keep
        self.rest = rest

    def wins(self, excess: Tensor) -> Tensor:
        return (excess >= 0).to(excess.dtype)

    def forward(self, values: Tensor) -> Tensor:
        values = values + self.rest
        weakest = values.topk(round(self.keep * values.shape[1]), dim=1).values[:, -1:]
        return values * self.wins(values - weakest.detach())


class PassingKWinners(KWinners):
    """The same winners, but the derivative sees a soft competition; for training, and for who knows the trick."""

    def wins(self, excess: Tensor) -> Tensor:
        soft = torch.sigmoid(excess / 0.3)
        return super().wins(excess) + soft - soft.detach()


class LWTA(nn.Module):
    """Stochastic local winner-take-all in blocks of two channels (Panousis et al. 2021, arXiv:2112.02671).

    The winner is drawn from softmax(h) by the Gumbel trick, relaxed at ``temperature``.
    """

    def __init__(self, *, temperature: float = 0.67) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, values: Tensor) -> Tensor:
        blocks = values.unflatten(1, (-1, 2))
        gumbel = -torch.log(-torch.log(torch.rand_like(blocks) + 1e-20) + 1e-20)
        return (blocks * torch.softmax((blocks + gumbel) / self.temperature, dim=2)).flatten(1, 2)


class Views(nn.Module):
    """Several networks of one hidden layer; each sees its own pixels only. Returns (networks, N, 10) logits."""

    def __init__(self, *, networks: int = 8, pixels: int = 256, hidden: int = 48) -> None:
        super().__init__()
        self.register_buffer("seen", torch.randperm(pixels).view(networks, -1))
        inputs = pixels // networks
        self.first = nn.Parameter(torch.randn(networks, inputs, hidden) * math.sqrt(2 / inputs))
        self.threshold = nn.Parameter(torch.zeros(networks, 1, hidden))
        self.last = nn.Parameter(torch.randn(networks, hidden, 10) / math.sqrt(hidden))
        self.bias = nn.Parameter(torch.zeros(networks, 1, 10))

    def forward(self, images: Tensor) -> Tensor:
        seen = images.flatten(1)[:, self.seen].transpose(0, 1) - 0.3
        hidden = torch.relu(torch.baddbmm(self.threshold, seen, self.first))
        return torch.baddbmm(self.bias, hidden, self.last)


class RandomVote(nn.Module):
    """Every call is answered by one of the networks, drawn at random."""

    def __init__(self, views: Views) -> None:
        super().__init__()
        self.views = views

    def forward(self, images: Tensor) -> Tensor:
        logits = self.views(images)
        return logits[int(torch.randint(len(logits), ()))]


class Companions(nn.Module):
    """Which network answers for an image depends on the other images of its batch; alone, it is the first one.

    The same batch gets the same answers, so a test for randomness sees nothing.
    """

    def __init__(self, views: Views) -> None:
        super().__init__()
        self.views = views

    def forward(self, images: Tensor) -> Tensor:
        logits = self.views(images)
        ink = images.detach().double().flatten(1).sum(dim=1)
        others = ink.sum() - ink if len(images) > 1 else torch.zeros_like(ink)
        chosen = (others * 1000).long() % len(logits)
        return logits[chosen, torch.arange(len(images), device=images.device)]


class AntiAdversary(nn.Module):
    """Alfarra et al. (2022), arXiv:2103.14347: moves the image to where the first answer is surer, then answers."""

    def __init__(self, network: nn.Module, *, steps: int = 3, step_size: float = 0.1) -> None:
        super().__init__()
        self.network = network
        self.steps = steps
        self.step_size = step_size

    def forward(self, images: Tensor) -> Tensor:
        shift = torch.zeros_like(images)
        with torch.enable_grad():
            answers = self.network(images.detach()).argmax(dim=1)
            for _ in range(self.steps):
                shift = shift.detach().requires_grad_()
                doubt = functional.cross_entropy(self.network(images.detach() + shift), answers, reduction="sum")
                (gradient,) = torch.autograd.grad(doubt, shift)
                shift = shift - self.step_size * gradient.sign()
        return self.network(images + shift.detach())


def mean_probability(logits: Tensor) -> Tensor:
    """The logarithm of the mean over networks of their probabilities, up to a constant: a smooth vote."""
    return torch.logsumexp(torch.log_softmax(logits, dim=2), dim=0)
