"""The benchmark of local learning: both forms learn the same, and every form is timed."""

import numpy as np
import pytest
import torch

from unperturbed.bench import learning
from unperturbed.mechanisms import Lesson
from unperturbed.mechanisms.krotov_hopfield import krotov_hopfield
from unperturbed.models.hidden_layer import HiddenLayerNet, Synapses
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

INPUTS = torch.rand(250, 30, generator=generator("inputs"))


def test_every_form_is_measured_and_compared_with_ours():
    before = torch.get_num_threads()
    rows = learning.measure(INPUTS, repeats=1, units=20, steps=2, threads=(1, 2))
    assert torch.get_num_threads() == before
    assert [(row.form.split(",")[0], row.threads) for row in rows] == [
        (form, threads) for threads in (1, 2) for form in ("ours", "published", "published")
    ]
    assert [row.steps for row in rows[:3]] == [3, 2, 2]  # of the three that an epoch has
    for row in rows:
        ours = rows[0] if row.threads == 1 else rows[3]
        assert row.ratio == pytest.approx(row.seconds / ours.seconds)
        assert row.minutes == pytest.approx(100 * row.seconds / 60)
    assert rows[0].ratio == 1
    assert "20 units, 250 images, batches of 100, medians of 1" in learning.table(rows).title


def test_time_of_a_few_steps_is_scaled_to_an_epoch(monkeypatch):
    monkeypatch.setattr(learning, "in_turn", lambda forms, repeats, device: [6.0, 2.0, 4.0])
    rows = learning.measure(INPUTS, units=20, steps=2, threads=(1,))
    assert [row.seconds for row in rows] == [6.0, 3.0, 6.0]  # an epoch has three steps


def test_the_published_form_that_is_timed_learns_what_ours_learns():
    mechanism = krotov_hopfield(p=3.0, k=7, delta=0.4, learning_rate=0.04, epochs=100, batch_size=100)
    network = HiddenLayerNet(20, 10, 0.0, grey=True)
    network.hidden = Synapses(30, 20)
    mechanism.install(network.double())
    mechanism.learning.begin(network, 0)
    synapses = network.hidden.raw().numpy()
    inputs = INPUTS.double()
    mechanism.learning.epoch([network], Lesson(inputs, [0], 1, lambda _: None))
    order = torch.randperm(250, generator=generator("order", 0, 1))
    for rows in order.split(100):
        learning.published_step(synapses, inputs[rows].numpy().T, 0.04)
    np.testing.assert_allclose(synapses, network.hidden.raw().numpy(), rtol=1e-9, atol=1e-12)  # float64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": 0}, r"bench learning: repeats and steps must be at least 1, got 0 and 20\."),
        ({"steps": 0}, r"bench learning: repeats and steps must be at least 1, got 3 and 0\."),
        ({"units": 6}, r"bench learning: expected at least 7 units and 100 images, got 6 and 250\."),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(SpecError, match=f"^{message}$"):
        learning.measure(INPUTS, **settings)


def test_without_the_digits_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("UNPERTURBED_DATA", raising=False)
    monkeypatch.setattr("unperturbed.data.files.pooch.os_cache", lambda _: tmp_path)
    with pytest.raises(SpecError, match="mnist needs the file train-images-idx3-ubyte"):
        learning.digits(tmp_path)
