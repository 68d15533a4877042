"""The steps of CONTRIBUTING.md, taken: a file, a line in ``MECHANISMS``, a name in a study. Nothing else is touched."""

import importlib.util

import pytest
import torch

from unperturbed import lab
from unperturbed.ledger import Ledger
from unperturbed.mechanisms import MECHANISMS
from unperturbed.records import Spec, SpecError

FILE = '''
"""Dimming: a network that sees darker images. Matched control: amount = 1."""

from torch import Tensor, nn

from unperturbed.mechanisms.contract import Mechanism
from unperturbed.mechanisms.installing import in_front


class Dimmed(nn.Module):
    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, images: Tensor) -> Tensor:
        return self.amount * images


def dimming(*, amount: float = 0.5) -> Mechanism:
    return Mechanism(install=lambda network: in_front(network, "dimmed", Dimmed(amount)))
'''

STUDY = """
title = "Does dimming help?"
question = "Does a new mechanism run?"
source = "none"

[architectures]
net = "a small network"

[conditions.plain]
says = "no mechanism"
data = { name = "digits" }

[conditions.dimmed]
says = "darker images, softer labels"
data = { name = "digits" }
mechanisms = [{ name = "dimming", amount = 0.25 }, { name = "label-smoothing" }]

[attacks.own]
attack = "fgsm"
eps = [0, "8/255"]
images = 60

[attacks.through]
attack = "fgsm"
eps = [0, "8/255"]
images = 60
through = { amount = 0.0 }

[scales.laptop]
says = "seconds"
seeds = 2

[scales.laptop.architectures.net]
model = { name = "fully-connected", hidden = 16 }
recipe = { epochs = 3, learning_rate = 0.1 }
evaluate = [3]
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    (tmp_path / "dimming.py").write_text(FILE, encoding="utf-8")
    written = importlib.util.spec_from_file_location("dimming", tmp_path / "dimming.py")
    module = importlib.util.module_from_spec(written)
    written.loader.exec_module(module)
    monkeypatch.setitem(MECHANISMS, "dimming", module.dimming)
    path = tmp_path / "dimming.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def test_a_new_mechanism_is_trained_attacked_and_recorded(study, tmp_path):
    loaded = lab.load(str(study))
    with Ledger.open(tmp_path / "ledger") as ledger:
        lab.run(loaded, ledger, device=torch.device("cpu"), command="test")
        curves = ledger.curves(ledger.latest_run().id)
    (trial,) = (trial for trial in loaded.trials if trial.condition == "dimmed")
    assert trial.mechanisms[0] == Spec(name="dimming", settings={"amount": 0.25})
    accuracy = {(point.condition, point.seed, point.attack, point.eps > 0): point.accuracy for point in curves}
    assert len(accuracy) == 2 * 2 * 2 * 2
    for seed in (0, 1):
        # Through a copy that sees nothing but black there is no gradient, and so no attack.
        assert accuracy["dimmed", seed, "through", True] == accuracy["dimmed", seed, "through", False] > 0.2
        assert accuracy["dimmed", seed, "own", True] < accuracy["dimmed", seed, "own", False]
        assert accuracy["plain", seed, "own", False] != accuracy["dimmed", seed, "own", False]


def test_its_settings_are_checked_like_those_of_any_other(study):
    study.write_text(STUDY.replace("amount = 0.25", "amont = 0.25"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"dimming has no setting 'amont'. It has: amount. Did you mean 'amount'\?"):
        lab.load(str(study))


def test_without_its_line_in_the_list_it_is_unknown(study, monkeypatch):
    monkeypatch.delitem(MECHANISMS, "dimming")
    with pytest.raises(SpecError, match="There is no mechanism 'dimming'"):
        lab.load(str(study))
