import pytest
import torch

from unperturbed.data.split import Part, Split


@pytest.fixture
def black():
    """Ten black images, one of each class: they say nothing, so that weight decay and penalties alone move anything."""
    return Split((Part(torch.zeros(10, 3, 32, 32, dtype=torch.uint8), torch.arange(10)),))
