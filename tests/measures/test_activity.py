import pytest
import torch
from torch import nn

from unperturbed.measures.activity import activity
from unperturbed.records import SpecError

torch.manual_seed(0)
IMAGES = torch.randn(4, 3, 5, 5)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.relu = nn.ReLU(inplace=True)
        self.readout = nn.Linear(18, 3)
        self.idle = nn.Linear(1, 1)
        self.pair = nn.Module()
        self.pair.forward = lambda x: (x, x)

    def forward(self, images):
        hidden, _ = self.pair(self.relu(self.conv(images)))
        return self.readout(hidden.flatten(1))


def test_it_is_what_the_layer_returns_although_the_next_one_works_in_place():
    net = Net()
    found = activity(net, net.conv, IMAGES)
    torch.testing.assert_close(found, net.conv(IMAGES).flatten(1).detach(), rtol=1e-6, atol=1e-6)
    assert (found < 0).any()
    torch.testing.assert_close(activity(net, net.relu, IMAGES), found.clamp_min(0))
    assert not net.conv._forward_hooks


def test_of_several_copies_and_of_several_passes_the_first_counts():
    net = Net()
    twice = lambda images: net(torch.cat([images, 0 * images]))  # noqa: E731
    torch.testing.assert_close(activity(twice, net.conv, IMAGES), activity(net, net.conv, IMAGES))
    again = lambda images: net(images) + net(0 * images)  # noqa: E731
    torch.testing.assert_close(activity(again, net.conv, IMAGES), activity(net, net.conv, IMAGES))


def test_a_layer_that_returns_no_rows_or_is_not_passed_is_refused():
    net = Net()
    with pytest.raises(SpecError, match="expected one that images pass; this Linear is passed by none"):
        activity(net, net.idle, IMAGES)
    with pytest.raises(SpecError, match="a row for each of 4 images; Module returns tuple"):
        activity(net, net.pair, IMAGES)
    with pytest.raises(SpecError, match=r"a row for each of 4 images; Conv2d returns a shape of \(2, 2, 3, 3\)"):
        activity(lambda images: net(images[:2]), net.conv, IMAGES)
    assert not any(layer._forward_hooks for layer in net.modules())
