"""LeNet for 32x32 colour images: two 5x5 convolutions with max-pooling, then 400-120-84-classes.

Source: LeCun et al. (1998), doi:10.1109/5.726791, figure 2, in the form that is common for CIFAR-10 (62,006 parameters
for 10 classes). Departs from the source: ReLU for tanh, max-pooling for trained subsampling, complete connections, no
radial-basis output.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from jaxtyping import Float
from torch import Tensor, nn


class LeNet(nn.Module):
    """Images (batch, 3, 32, 32) to logits (batch, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)
        self.relu1, self.relu2, self.relu3, self.relu4 = (nn.ReLU() for _ in range(4))

    def forward(self, images: Float[Tensor, "batch 3 32 32"]) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        hidden = F.max_pool2d(self.relu1(self.conv1(images)), 2)
        hidden = F.max_pool2d(self.relu2(self.conv2(hidden)), 2)
        hidden = self.relu3(self.fc1(torch.flatten(hidden, 1)))
        return self.fc3(self.relu4(self.fc2(hidden)))


def lenet(*, classes: int = 10) -> nn.Module:
    """Return an untrained LeNet."""
    return LeNet(classes)
