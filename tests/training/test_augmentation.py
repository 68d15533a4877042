"""Images moved and mirrored: the windows are right, and training looks at exactly them, cut anywhere or not."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from unperturbed.data import Part, Split
from unperturbed.models import build
from unperturbed.records import Recipe, Spec, SpecError
from unperturbed.tensors.streams import generator
from unperturbed.training import begin, pack, train, unpack
from unperturbed.training.augmentation import moved, places
from unperturbed.training.codes import Codes

EXACT = Recipe(epochs=2, batch_size=25, learning_rate=0.05, crop=4, flip=True, precision="float64")
SPEC = Spec(name="lenet")


@pytest.fixture(scope="module")
def split():
    numbers = generator("images")
    images = torch.randint(1, 256, (60, 3, 32, 32), generator=numbers).to(torch.uint8)
    return Split((Part(images, torch.randint(0, 10, (60,), generator=numbers)),))


def test_a_window_is_the_image_moved_and_then_mirrored():
    image = torch.arange(1.0, 7.0).view(1, 1, 2, 3)

    def window(*place):
        return moved(image, torch.tensor([place]), crop=1)[0, 0].tolist()

    assert window(1, 1, 0) == [[1, 2, 3], [4, 5, 6]]
    assert window(1, 1, 1) == [[3, 2, 1], [6, 5, 4]]
    assert window(0, 1, 0) == [[0, 0, 0], [1, 2, 3]]
    assert window(2, 1, 0) == [[4, 5, 6], [0, 0, 0]]
    assert window(1, 2, 0) == [[2, 3, 0], [5, 6, 0]]
    assert window(1, 2, 1) == [[0, 3, 2], [0, 6, 5]]


def test_every_image_has_its_own_window_on_all_its_channels(split):
    images = split.images(split.fixed())
    windows = places([3], 1, 60, crop=4, flip=True)[0]
    padded = F.pad(images, (4, 4, 4, 4))
    found = moved(images, windows, crop=4)
    for index, (top, left, mirrored) in enumerate(windows.tolist()):
        expected = padded[index, :, top : top + 32, left : left + 32]
        assert torch.equal(found[index], expected.flip(2) if mirrored else expected)


def test_windows_are_even_and_those_of_seed_and_epoch():
    (windows,) = places([0], 1, 9000, crop=2, flip=True)
    for column in (0, 1):
        assert windows[:, column].bincount().tolist() == pytest.approx([1800] * 5, abs=4 * 1800**0.5)
    assert windows[:, 2].sum() == pytest.approx(4500, abs=4 * 2250**0.5)
    assert torch.equal(places([0], 1, 9000, crop=2, flip=True)[0], windows)
    assert not torch.equal(places([0], 2, 9000, crop=2, flip=True)[0], windows)
    assert not torch.equal(places([1], 1, 9000, crop=2, flip=True)[0], windows)
    assert not places([0], 1, 50, crop=2, flip=False)[0, :, 2].any()
    assert not places([0], 1, 50, crop=0, flip=True)[0, :, :2].any()


def test_training_sees_the_windows_and_no_others(split):
    network = build(SPEC, generator("weights", 7))
    (ours,) = train(network, [begin(network)], split, EXACT, seeds=[7], until=2)
    theirs = build(SPEC, generator("weights", 7)).double().train()
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in (1, 2):
        optimiser.param_groups[0]["lr"] = 0.05 if epoch == 1 else 0.005
        rows, windows = split.draw(generator("order", 7, epoch)), places([7], epoch, 60, crop=4, flip=True)[0]
        for batch, window in zip(rows.split(25), windows.split(25), strict=True):
            optimiser.zero_grad()
            images = moved(split.images(batch).double(), window, crop=4)
            F.cross_entropy(theirs(images), split.labels(batch)).backward()
            optimiser.step()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.weights[name], value, rtol=0, atol=1e-13)


def test_a_course_that_is_cut_sees_the_same_windows_as_one_that_is_not_and_so_do_networks_together(split):
    networks = [build(SPEC, generator("weights", seed)) for seed in (0, 1)]
    states = [begin(network) for network in networks]
    whole = train(networks[0], states, split, EXACT, seeds=[0, 1], until=2)
    kept = {}
    train(
        networks[0],
        states,
        split,
        EXACT,
        seeds=[0, 1],
        until=2,
        on_step=lambda now: kept.update({len(kept): pack(now())}),
    )
    resumed = train(networks[0], unpack(kept[1]), split, EXACT, seeds=[0, 1], until=2)
    (alone,) = train(networks[0], states[:1], split, EXACT, seeds=[0], until=2)
    for name, value in whole[0].weights.items():
        assert torch.equal(value, resumed[0].weights[name])
        torch.testing.assert_close(alone.weights[name], value, rtol=0, atol=1e-12)


def test_nothing_is_recorded_of_a_recipe_without_and_codes_are_refused(split):
    assert "crop" not in Recipe(epochs=1).canonical()
    assert "flip" not in Recipe(epochs=1).canonical()
    assert '"crop":4' in EXACT.canonical()
    network = build(SPEC, generator("weights", 0))
    codes = Codes(split, lambda images: images.flatten(1)[:, :4])
    with pytest.raises(SpecError, match="crop and flip move images; a readout of a frozen layer sees codes"):
        train(network, [begin(network)], codes, EXACT, seeds=[0], until=1)
