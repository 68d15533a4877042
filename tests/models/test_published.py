"""Published weights in files of torchvision's layout: read without running them, and fitted name by name."""

import os
import pickle
import re
from contextlib import suppress
from hashlib import sha256

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unperturbed.models import build
from unperturbed.models.imagenet_resnet import DEVIATION, MEAN
from unperturbed.models.published import begin_with, read_weights
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator

TINY = {"depth": 8, "width": 4, "size": 32}


def network(seed=0, **settings):
    return build(Spec(name="imagenet-resnet", settings=TINY | settings), generator("weights", seed))


@pytest.fixture
def tensors():
    """Weights of another seed, with a readout of 1,000 classes."""
    return network(seed=9).state_dict()


def refused(function, *arguments):
    with pytest.raises(SpecError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_three_forms_give_the_same_tensors_and_the_digest_of_the_file(tmp_path, tensors):
    paths = [tmp_path / name for name in ("w.safetensors", "w.pth", "old.pt")]
    save_file(tensors, paths[0])
    torch.save({name: nn.Parameter(value) if value.is_floating_point() else value for name, value in tensors.items()},
               paths[1])  # fmt: skip
    torch.save(tensors, paths[2], _use_new_zipfile_serialization=False)
    for path in paths:
        found = read_weights(path)
        assert found.digest == sha256(path.read_bytes()).hexdigest()
        assert sorted(found.tensors) == sorted(tensors)
        assert all(torch.equal(found.tensors[name], value) for name, value in tensors.items())
        assert not any(value.requires_grad for value in found.tensors.values())


def test_a_readout_of_as_many_classes_is_taken_and_any_other_keeps_its_own(tmp_path, tensors):
    path = tmp_path / "w.pth"
    torch.save(tensors, path)
    published = read_weights(path)
    same, fewer = network(), network(classes=7)
    own = {name: value.clone() for name, value in fewer.state_dict().items() if name.startswith("fc.")}
    for each in (same, fewer):
        begin_with(each, published)
    assert all(torch.equal(value, tensors[name]) for name, value in same.state_dict().items())
    for name, value in fewer.state_dict().items():
        assert torch.equal(value, own[name] if name.startswith("fc.") else tensors[name])


def test_a_file_without_a_readout_or_without_counts_of_batches_is_enough(tmp_path, tensors):
    path = tmp_path / "w.pth"
    kept = {name: value for name, value in tensors.items() if not name.startswith("fc.") and "num_batches" not in name}
    torch.save(kept, path)
    begun = network(classes=7)
    begin_with(begun, read_weights(path))
    assert all(torch.equal(begun.state_dict()[name], value) for name, value in kept.items())


def test_every_entry_that_does_not_fit_is_named_in_one_line(tmp_path, tensors):
    path = tmp_path / "w.pth"
    wrong = dict(tensors)
    del wrong["bn1.bias"], wrong["layer2.0.conv1.weight"]
    wrong["conv1.weight"] = torch.zeros(4, 3, 3, 3)
    wrong["layer9.weight"] = torch.zeros(1)
    torch.save(wrong, path)
    begun = network()
    before = {name: value.clone() for name, value in begun.state_dict().items()}
    assert refused(begin_with, begun, read_weights(path)) == (
        f"{path}: expected the weights of this network; missing: bn1.bias, layer2.0.conv1.weight; besides: "
        "layer9.weight; of another shape: conv1.weight is (4, 3, 7, 7) there and (4, 3, 3, 3) here."
    )
    assert all(torch.equal(value, before[name]) for name, value in begun.state_dict().items())
    torch.save({"fc.weight": torch.zeros(1000, 16)}, path)
    assert " and " in refused(begin_with, begun, read_weights(path))
    assert refused(begin_with, begun, read_weights(path)).endswith(" more.")


class Harmful:
    """Pickled, it is an order to make a file."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_no_code_of_a_file_runs(tmp_path, monkeypatch, tensors, form):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if form == "plain":
        path.write_bytes(pickle.dumps({"conv1.weight": Harmful()}))
    else:
        torch.save(tensors | {"extra": Harmful()}, path, _use_new_zipfile_serialization=form == "zip")
    assert refused(read_weights, path) == (
        f"{path} is refused: its pickle asks for more than names and tensors, or is damaged; nothing was run, get the "
        "file from its authors."
    )
    assert not (tmp_path / "ran").exists()
    with suppress(Exception):  # what it makes is no weights
        torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # so the file does run where it is unpickled


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(tmp_path, tensors, suffix):
    path = tmp_path / f"w{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        message = refused(read_weights, path)
        assert message.startswith(f"{path} cannot be read, it is truncated or damaged (") or "is refused" in message


def test_what_is_no_weights_is_refused(tmp_path, tensors):
    path = tmp_path / "w.pth"
    assert refused(read_weights, path) == (
        f"{path} cannot be read (No such file or directory); give the path of a file of weights."
    )
    for content, says in (
        ([torch.zeros(1)], "expected names with their tensors; got list."),
        ({}, "expected names with their tensors; got dict."),
        (
            {"state_dict": tensors, "epoch": 90},
            "expected names with their tensors; these have none: state_dict, epoch.",
        ),
        (tensors | {"bn1.bias": torch.tensor([1.0, float("nan")])}, "got NaN or infinity in bn1.bias; get the file"),
    ):
        torch.save(content, path)
        assert says in refused(read_weights, path)
    other = tmp_path / "w.npz"
    assert refused(read_weights, other).startswith(f"{other}: expected weights as .safetensors, .pth, .pt; got another")


def test_images_are_enlarged_and_normalised_as_those_of_imagenet():
    small, large = network(), network(size=48)
    images = torch.rand(2, 3, 32, 32, generator=generator("images", 0))
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    torch.testing.assert_close(small.intake(images), (images - mean) / deviation, rtol=0, atol=1e-6)  # float32
    grey = torch.full((1, 3, 32, 32), 0.5)
    assert large.intake(grey).shape == (1, 3, 48, 48)
    expected = ((0.5 - mean) / deviation).expand(3, 48, 48)
    torch.testing.assert_close(large.intake(grey)[0], expected, rtol=0, atol=1e-6)


def test_feature_maps_have_the_published_sizes():
    """He et al. (2016), table 1: of 224x224 pixels, 56x56 enter the first stage and 7x7 leave the fourth."""
    whole = network(depth=10, size=224)
    sizes = {}
    for name in ("conv1", "layer1", "layer2", "layer3", "layer4"):
        whole.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: sizes.update({name: tuple(out.shape[-2:])})
        )
    whole(torch.rand(2, 3, 32, 32))
    assert sizes == {
        "conv1": (112,) * 2,
        "layer1": (56,) * 2,
        "layer2": (28,) * 2,
        "layer3": (14,) * 2,
        "layer4": (7,) * 2,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"weights": "folder/w.pth"},
            "a file that ends in .safetensors, .pth, .pt, got 'folder/w.pth'; `unperturbed data",
        ),
        ({"weights": "w.npz"}, "a file that ends in .safetensors, .pth, .pt, got 'w.npz'; `unperturbed data"),
        ({"size": 31}, "imagenet-resnet: size must be at least 32, got 31."),
        ({"depth": 9}, "imagenet-resnet: depth must be one of 8, 10, 18, 34, 50, 101, got 9."),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SpecError, match=re.escape(message)):
        network(**settings)
