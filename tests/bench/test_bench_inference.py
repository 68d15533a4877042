"""The benchmark of inference: all forms are timed on the network that they name."""

import pytest
import torch

from unperturbed.bench import inference
from unperturbed.mechanisms.winner_take_all import WinnerTakeAll
from unperturbed.records import SpecError


def test_every_form_is_measured_and_compared_with_the_rectified_one():
    rows = inference.measure(repeats=1, batch_size=2)
    assert [row.network.split(",")[0] for row in rows] == ["rectified", *3 * ["winner-take-all"]]
    assert rows[0].ratio == 1.0
    assert all(row.ratio == pytest.approx(row.milliseconds / rows[0].milliseconds) for row in rows)
    assert "batches of 2" in inference.table(rows).title


def test_the_general_form_is_the_short_one_without_its_shortcut():
    network = inference._network(inference._generally)
    layers = [layer for layer in network.modules() if isinstance(layer, WinnerTakeAll)]
    assert len(layers) == 31
    hidden = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).repeat(20, 1)
    short = WinnerTakeAll(2, 0.01, "sampled")
    torch.manual_seed(0)
    assert (layers[0](hidden).mean() - short(hidden).mean()).abs() < 0.05  # 20,000 rows, SD below 1


def test_no_repeats_are_refused():
    with pytest.raises(
        SpecError, match=r"^bench inference: repeats and batch_size must be at least 1, got 0 and 128\.$"
    ):
        inference.measure(repeats=0)
