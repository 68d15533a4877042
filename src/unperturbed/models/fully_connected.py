"""One hidden layer of rectified units on 3x32x32 intensities.

Source: Kunhardt, Deza and Poggio (2021), arXiv:2102.10534, section 3.1: 7,500 hidden units, chosen so that the number
of parameters (23,122,510) is of the order of ResNet50's. The nonlinearity is not stated there; ReLU is used.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FullyConnectedNet(nn.Module):
    """Images (batch, 3, 32, 32) to logits (batch, classes)."""

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(3 * 32 * 32, hidden)
        self.fc2 = nn.Linear(hidden, classes)
        self.relu = nn.ReLU()

    def forward(self, images: Float[Tensor, "batch 3 32 32"]) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.fc2(self.relu(self.fc1(torch.flatten(images, 1))))


def fully_connected(*, hidden: int = 7500, classes: int = 10) -> nn.Module:
    """Return an untrained network with one layer of ``hidden`` units."""
    return FullyConnectedNet(hidden, classes)
