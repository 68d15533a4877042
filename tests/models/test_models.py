"""Published parameter counts, torchvision's names, and initial weights that depend on the seed alone."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from unperturbed.models import MODELS, build, count_parameters
from unperturbed.models.resnet import Thinned
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator


def structure(name, **settings):
    with torch.device("meta"):
        return MODELS[name](**settings)


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("lenet", {}, 62_006),
        ("fully-connected", {}, 23_122_510),
        ("resnet", {}, 23_520_842),
        ("resnet", {"depth": 18}, 11_173_962),  # the widely used 32x32 variants of He et al.
        ("resnet", {"depth": 34}, 21_282_122),
        ("resnet", {"depth": 101}, 42_512_970),
        ("imagenet-resnet", {}, 25_557_032),  # torchvision's
        ("imagenet-resnet", {"depth": 18}, 11_689_512),
        ("imagenet-resnet", {"depth": 101}, 44_549_160),
    ],
)
def test_parameter_counts_are_the_published_ones(name, settings, count):
    assert count_parameters(structure(name, **settings)) == count


@pytest.mark.parametrize(("depth", "entries"), [(18, 122), (34, 218), (50, 320), (101, 626)])
def test_resnets_have_as_many_entries_as_torchvisions(depth, entries):
    assert len(structure("resnet", depth=depth).state_dict()) == entries


def test_resnet50_has_torchvisions_names_and_shapes():
    shapes = {name: tuple(value.shape) for name, value in structure("resnet").state_dict().items()}
    expected = {
        "bn1.running_mean": (64,),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.num_batches_tracked": (),
        "layer1.2.conv3.weight": (256, 64, 1, 1),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.bias": (1024,),
        "layer4.2.bn3.running_var": (2048,),
        "fc.weight": (10, 2048),
        "fc.bias": (10,),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert shapes["conv1.weight"] == (64, 3, 3, 3)  # the one layer that differs: torchvision's is 7x7


@pytest.mark.parametrize("name", MODELS)
def test_every_model_maps_images_to_logits(name):
    settings = {"fully-connected": {"hidden": 8}, "resnet": {"depth": 8, "width": 4}}
    settings["imagenet-resnet"] = {"depth": 8, "width": 4, "size": 64}
    settings = settings.get(name, {})
    network = build(Spec(name=name, settings={**settings, "classes": 7}), generator("weights", 0))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_generator():
    before = torch.random.get_rng_state()
    first, again, other = (build(Spec(name="lenet"), generator("weights", seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_initial_weights_follow_pytorchs_defaults():
    ours = build(Spec(name="fully-connected", settings={"hidden": 400}), generator("weights", 0)).fc1
    theirs = nn.Linear(3072, 400)
    bound = 3072**-0.5
    for weights in (ours.weight, theirs.weight):
        assert 0.999 * bound < weights.abs().max() <= bound
    # standard error of a variance of 1.2 million uniform values: 0.08 %
    torch.testing.assert_close(ours.weight.var(), theirs.weight.var(), rtol=0.01, atol=0)


def test_he_start_has_the_variance_of_the_fan_out():
    network = build(Spec(name="resnet", settings={"depth": 18, "start": "he-out"}), generator("weights", 0))
    weight = network.layer4[1].conv2.weight  # 512 x 512 x 3 x 3: 2.4 million values
    torch.testing.assert_close(weight.var().item(), 2 / (512 * 9), rtol=0.01, atol=0)


def test_a_depth_that_does_not_exist_is_refused():
    with pytest.raises(SpecError, match=r"resnet: depth must be one of 8, 10, 18, 34, 50, 101, got 51\."):
        build(Spec(name="resnet", settings={"depth": 51}), generator("weights", 0))


def test_an_unknown_model_suggests_the_nearest():
    with pytest.raises(SpecError, match=r"There is no model 'lenett'.*There are: lenet, .*Did you mean 'lenet'\?"):
        build(Spec(name="lenett"), generator("weights", 0))


def test_a_misspelt_setting_is_refused():
    with pytest.raises(SpecError, match=r"fully-connected has no setting 'hiden'\. It has: hidden, classes\. Did you"):
        build(Spec(name="fully-connected", settings={"hiden": 5}), generator("weights", 0))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_shortcut_is_a_strided_convolution(stride):
    ours = Thinned(4, 8, 1, stride, bias=False).double()
    theirs = nn.Conv2d(4, 8, 1, stride, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(3, 4, 9, 9, dtype=torch.float64, requires_grad=True)
    gradients = []
    for layer in (ours, theirs):
        out = layer(images)
        gradients.append([out, *torch.autograd.grad(out.square().sum(), [images, layer.weight])])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)  # float64


def test_a_small_resnet_survives_images_that_lie_channels_last():
    script = """
import torch
from unperturbed.models import build
from unperturbed.records import Spec
from unperturbed.tensors.streams import generator
torch.set_num_threads(2)
network = build(Spec(name="resnet", settings={"depth": 8, "width": 4}), generator("weights", 0))
for step in range(60):
    images = torch.rand([25, 7, 10][step % 3], 3, 32, 32).to(memory_format=torch.channels_last)
    network(images.requires_grad_()).sum().backward()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
