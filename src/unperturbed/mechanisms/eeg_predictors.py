r"""Networks that predict a brain's responses from what the stages of an image network say.

Source: the predictors "dense", "rnn", "transformer" and "attention" of Guo et al. (2024), arXiv:2409.03646, known by
name only; the sizes are ours. The features of the stages, averaged over the image, become one vector: one behind the
other (``concat``), or each through a linear map of its own to :math:`2w` numbers and then their mean
(``project-and-mean``); after either, layer normalisation. With ``width`` w, T times and C channels:

=============  =======================================================================================
dense          a full layer of :math:`4w` units, GELU, a full layer of :math:`C T`
rnn            a GRU of w units over T times; it starts at tanh of a linear map of the vector, and its input is
               a learned vector for each time; a linear map to C
transformer    two decoder layers with 4 heads: T learned queries look at each other and at the vector
attention      one layer of 4 heads: T learned queries look at the vector; a linear map to C
=============  =======================================================================================

What queries look at are ``TOKENS`` linear maps of the vector: attention to a single one would be the same at all times.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

HEADS = 4
TOKENS = 8
LAYERS = 2


class Integration(nn.Module):
    """Features of several stages, (batch, features) each, to one vector, (batch, ``size``)."""

    def __init__(self, features: Sequence[int], width: int, *, project: bool, normalise: bool) -> None:
        super().__init__()
        self.size = 2 * width if project else sum(features)
        self.project = nn.ModuleList([nn.Linear(each, self.size) for each in features]) if project else None
        self.norm = nn.LayerNorm(self.size) if normalise else nn.Identity()

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the vector."""
        if self.project is None:
            return self.norm(torch.cat(list(features), dim=1))
        projected = [layer(each) for layer, each in zip(self.project, features, strict=True)]
        return self.norm(torch.stack(projected).mean(dim=0))


class Dense(nn.Module):
    """One hidden layer."""

    def __init__(self, size: int, width: int, channels: int, times: int) -> None:
        super().__init__()
        self.shape = (channels, times)
        self.hidden = nn.Linear(size, 4 * width)
        self.readout = nn.Linear(4 * width, channels * times)

    def forward(self, vector: Tensor) -> Tensor:
        """Return the responses, (batch, channels, times)."""
        return self.readout(F.gelu(self.hidden(vector))).unflatten(1, self.shape)


class Recurrent(nn.Module):
    """A GRU that starts at the vector and runs through time."""

    def __init__(self, size: int, width: int, channels: int, times: int) -> None:
        super().__init__()
        self.start = nn.Linear(size, width)
        self.times = nn.Embedding(times, width)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.readout = nn.Linear(width, channels)

    def forward(self, vector: Tensor) -> Tensor:
        """Return the responses, (batch, channels, times)."""
        inputs = self.times.weight.expand(len(vector), -1, -1)
        hidden, _ = self.cell(inputs, torch.tanh(self.start(vector))[None])
        return self.readout(hidden).transpose(1, 2)


class Attention(nn.Module):
    """Learned queries, one for each time, that attend to the vector; ``layers`` 0 is one attention and no more."""

    def __init__(self, size: int, width: int, channels: int, times: int, *, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Linear(size, TOKENS * width)
        self.times = nn.Embedding(times, width)
        if layers:
            layer = nn.TransformerDecoderLayer(width, HEADS, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
            self.look = nn.TransformerDecoder(layer, layers)
        else:
            self.look = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, channels)

    def forward(self, vector: Tensor) -> Tensor:
        """Return the responses, (batch, channels, times)."""
        tokens = self.tokens(vector).unflatten(1, (TOKENS, -1))
        queries = self.times.weight.expand(len(vector), -1, -1)
        if isinstance(self.look, nn.MultiheadAttention):
            seen, _ = self.look(queries, tokens, tokens, need_weights=False)
        else:
            seen = self.look(queries, tokens)
        return self.readout(self.norm(seen)).transpose(1, 2)


PREDICTORS: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "dense": Dense,
    "rnn": Recurrent,
    "transformer": partial(Attention, layers=LAYERS),
    "attention": partial(Attention, layers=0),
}
"""From the size of the vector, the width, channels and times to a predictor."""


def draw(branch: nn.Module, generator: torch.Generator) -> None:
    r"""Give all layers of ``branch`` initial weights from ``generator``.

    Matrices are uniform in :math:`\pm 1/\sqrt{\text{columns}}`, vectors for times standard normal, biases 0; layer
    normalisation starts as the identity.
    """
    for layer in branch.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if isinstance(layer, nn.Embedding):
                nn.init.normal_(parameter, generator=generator)
            elif parameter.ndim >= 2:
                bound = 1 / math.sqrt(parameter.shape[-1])
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            elif isinstance(layer, nn.LayerNorm) and name == "weight":
                nn.init.ones_(parameter)
            else:
                nn.init.zeros_(parameter)
