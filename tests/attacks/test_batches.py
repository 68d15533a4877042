"""How many images go through at once is found while the work is done, and changes nothing."""

import copy

import numpy as np
import pytest
import torch

from unperturbed.attacks import batches, fgsm, noise_search, pgd, sweep
from unperturbed.attacks.batches import in_batches
from unperturbed.records import SpecError


class _Machine:
    """A clock, and work that takes ``cost(size)`` seconds an image."""

    def __init__(self, cost=lambda size: 1.0, room=10**9, error=torch.OutOfMemoryError):
        self.now, self.cost, self.room, self.error = 0.0, cost, room, error
        self.done, self.tried = [], []

    def perf_counter(self):
        return self.now

    def work(self, part):
        size = part.stop - part.start
        self.tried.append(size)
        if size > self.room:
            raise self.error("out of memory")
        self.now += size * self.cost(size)
        self.done.append(part)
        return size


@pytest.fixture
def machine(monkeypatch):
    def make(**settings):
        built = _Machine(**settings)
        monkeypatch.setattr(batches, "time", built)
        return built

    return make


def _covered(done, count):
    return [index for part in done for index in range(part.start, part.stop)] == list(range(count))


@pytest.mark.parametrize("count", [1, 127, 128, 129, 500, 10_000])
@pytest.mark.parametrize("batch_size", [None, 1, 7, 64, 10_000])
def test_every_image_is_worked_on_once_and_in_order(machine, count, batch_size):
    machine = machine(cost=lambda size: 1 / size)
    in_batches(count, machine.work, batch_size=batch_size)
    assert _covered(machine.done, count)


def test_a_given_size_is_kept(machine):
    machine = machine(cost=lambda size: 1 / size)
    in_batches(100, machine.work, batch_size=30)
    assert machine.tried == [30, 30, 30, 10]


@pytest.mark.parametrize("batch_size", [0, -5])
def test_no_image_at_once_is_refused(machine, batch_size):
    with pytest.raises(SpecError, match=rf"^batch_size: expected at least 1; got {batch_size}$"):
        in_batches(100, machine().work, batch_size=batch_size)


def test_batches_grow_as_long_as_that_pays(machine):
    machine = machine(cost=lambda size: max(1 / size, 1 / 256))  # no gain beyond 256
    in_batches(3000, machine.work)
    assert machine.tried[:3] == [128, 256, 512]
    assert set(machine.tried[3:-1]) == {256}


def test_batches_do_not_grow_beyond_the_largest(machine):
    machine = machine(cost=lambda size: 1 / size)
    in_batches(20_000, machine.work)
    assert max(machine.tried) == batches.LARGEST
    assert machine.tried[:5] == [128, 256, 512, 1024, 2048]


def test_the_smallest_stays_where_larger_ones_are_slower(machine):
    machine = machine(cost=float)
    in_batches(1000, machine.work)
    assert machine.tried[:2] == [128, 256]
    assert set(machine.tried[2:-1]) == {128}


def test_speed_is_that_of_passes_and_not_of_images(machine):
    """A batch whose images are broken at once takes no time for each, and says nothing about larger ones."""
    machine = machine(cost=lambda size: 1 / size)
    easy = iter([10, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000])

    def work(part):
        machine.work(part)
        machine.now += 1 - (part.stop - part.start) * machine.cost(part.stop - part.start)  # a second for every batch
        return next(easy)

    in_batches(1200, work)
    assert machine.tried[:4] == [128, 256, 512, 256]  # 1,000 passes a second, whether of 256 or of 512


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB."),
        (RuntimeError, "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        (RuntimeError, "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried"),
    ],
    ids=["CUDA", "Linux", "Windows"],
)
def test_half_is_tried_where_memory_runs_out(machine, error, words):
    machine = machine(cost=lambda size: 1 / size, room=100, error=lambda _: error(words))
    in_batches(500, machine.work)
    assert machine.tried[:4] == [128, 64, 64, 64]  # and it does not grow again
    assert _covered(machine.done, 500)
    machine.tried.clear()
    machine.done.clear()
    in_batches(500, machine.work, batch_size=401)
    assert machine.tried[:4] == [401, 201, 101, 51]
    assert _covered(machine.done, 500)


def test_memory_that_does_not_hold_one_image_is_the_callers_affair(machine):
    machine = machine(room=0)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        in_batches(5, machine.work)
    assert machine.tried[-1] == 1


def test_other_errors_are_not_taken_for_a_lack_of_memory(machine):
    machine = machine(room=10, error=RuntimeError)
    machine.error = lambda _: RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        in_batches(500, machine.work)
    assert machine.tried == [128]


def test_what_this_system_says_when_memory_runs_out_is_understood():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15, dtype=torch.float64)
    assert batches._out_of_memory(raised.value)


FIELDS = ("correct", "prediction", "critical_eps", "linf", "l2", "confidence", "adversarial", "originals", "refused")


@pytest.mark.parametrize("batch_size", [1, 7, 1000, None])
@pytest.mark.parametrize(
    ("attack", "settings"),
    [(fgsm, {}), (pgd, {"steps": 8}), (pgd, {"steps": 8, "random_start": False}), (noise_search, {"draws": 10})],
    ids=["fgsm", "pgd", "pgd without a random start", "noise_search"],
)
def test_no_result_depends_on_the_batches(two_classes, attack, settings, batch_size):
    classifier, images, labels = two_classes
    labels = torch.where(torch.arange(40) % 9 == 0, 1 - labels, labels)
    whole, parts = (
        sweep(classifier, images, labels, attack, eps=[0.0, 0.03, 0.06], keep=9, batch_size=size, **settings)
        for size in (40, batch_size)
    )
    for name in FIELDS:
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-7)
    assert parts.forwards == whole.forwards
    # An image that is just found broken is in the graph of the others, and gets its last gradient with theirs.
    assert whole.backwards - 40 <= parts.backwards <= whole.backwards


def test_no_result_depends_on_a_lack_of_memory(two_classes):
    classifier, images, labels = two_classes

    def small(images):
        if len(images) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return classifier(images)

    whole, parts = (
        sweep(each, images, labels, pgd, eps=[0.0, 0.03, 0.06], steps=8, keep=9) for each in (classifier, small)
    )
    for name in FIELDS:
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_convolutional_network_gives_the_same_in_any_batch_and_order(digits, dtype):
    """In float32 the last digits of a gradient, and so a sign where it is nearly 0, may differ: success does not."""
    network, images, labels = copy.deepcopy(digits[0]).to(dtype), digits[1][:60].to(dtype), digits[2][:60]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    whole = sweep(network, images, labels, pgd, eps=[0.05, 0.1], steps=10, keep=60, batch_size=60)
    other = sweep(network, images[order], labels[order], pgd, eps=[0.05, 0.1], steps=10, keep=60, batch_size=11)
    assert (other.correct == whole.correct[:, order]).mean() > (1 if dtype == torch.float64 else 0.99) - 1e-9
    if dtype == torch.float64:
        np.testing.assert_allclose(other.adversarial, whole.adversarial[:, order], rtol=0, atol=1e-7)
