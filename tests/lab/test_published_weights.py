"""A study whose networks begin with published weights: from the file to the record that results are kept under."""

import pytest
import torch

from unperturbed import lab, models
from unperturbed.lab import courses, weights
from unperturbed.lab.runner import load_datasets
from unperturbed.ledger import Ledger
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator

CPU = torch.device("cpu")
STUDY = """
title = "Tiny"
question = "?"
source = "none"

[architectures]
network = "a small residual network"

[conditions.plain]
says = "digits"
data = { name = "simulated-eeg", images = "digits", train = 40, test = 20, subjects = 1, repetitions = 2, test_repetitions = 2 }

[conditions.cotrained]
says = "with a branch"
data = { name = "simulated-eeg", images = "digits", train = 40, test = 20, subjects = 1, repetitions = 2, test_repetitions = 2 }
mechanisms = [{ name = "eeg-cotraining", width = 8 }]

[attacks.fgsm]
attack = "fgsm"
eps = [0, "8/255"]
images = 5

[examinations.gain]
examination = "robustness-gain"
beside = "plain"
images = 2

[scales.laptop]
says = "seconds"
seeds = 2

[scales.laptop.architectures.network]
model = { name = "imagenet-resnet", depth = 8, width = 4, size = 32, classes = 10, weights = "tiny.pth" }
recipe = { epochs = 1, batch_size = 20 }
evaluate = [1]
"""


def write(folder, seed):
    """Write weights of torchvision's names for 1,000 classes; return them."""
    spec = Spec(name="imagenet-resnet", settings={"depth": 8, "width": 4, "size": 32})
    tensors = models.build(spec, generator("weights", seed)).state_dict()
    (folder / "imagenet-weights").mkdir(exist_ok=True)
    torch.save(tensors, folder / "imagenet-weights" / "tiny.pth")
    return tensors


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(STUDY, encoding="utf-8")
    return lab.load(str(path))


def test_every_network_begins_with_the_file_and_a_readout_of_its_own(tmp_path, study):
    tensors = write(tmp_path, 9)
    known, datasets = load_datasets(study, root=tmp_path)
    machine = courses.Machine(CPU, None, {})
    with Ledger.open(tmp_path / "ledger") as ledger:
        station = courses.Station(datasets, ledger, 0, machine, lambda *_: None, lambda: False, tmp_path)
        begun = {
            (trial.condition, lane.seed): weights._place(
                lane.training[1], datasets[trial.data.canonical()].train, station
            ).trained.state_dict()
            for trial in known.trials
            for lane in courses.courses(trial, datasets)
        }
    assert len(begun) == 4
    for found in begun.values():
        shared = [name for name in tensors if not name.startswith("fc.")]
        assert all(torch.equal(found[name], tensors[name]) for name in shared)
        assert found["fc.weight"].shape == (10, 16)
    readouts = {key: found["fc.weight"] for key, found in begun.items()}
    assert not torch.equal(readouts["plain", 0], readouts["plain", 1])
    assert torch.equal(readouts["plain", 0], readouts["cotrained", 0])


def test_results_are_kept_under_the_digest_of_the_file(tmp_path, study):
    write(tmp_path, 9)
    known, datasets = load_datasets(study, root=tmp_path)
    with Ledger.open(tmp_path / "ledger") as ledger:
        assert not lab.run(study, ledger, device=CPU, data_root=tmp_path).failed
        assert {plan.why for plan in lab.explain(known, ledger, datasets)} == {"recorded"}
        assert lab.run(study, ledger, device=CPU, data_root=tmp_path).computed == 0
        (tmp_path / "imagenet-weights" / "tiny.pth").unlink()
        with pytest.raises(SpecError, match=r"tiny\.pth is missing; `unperturbed data fetch imagenet-weights` says"):
            lab.run(study, ledger, device=CPU, data_root=tmp_path)
        write(tmp_path, 8)
        other, _ = load_datasets(study, root=tmp_path)
        assert "recorded" not in {plan.why for plan in lab.explain(other, ledger, datasets)}
    assert {trial.weights_digest for trial in known.trials}.isdisjoint(trial.weights_digest for trial in other.trials)
    beside = [plan.beside for trial in known.trials for plan in trial.examinations.values() if plan.beside]
    assert {trial.weights_digest for trial in beside} == {trial.weights_digest for trial in known.trials}


def test_a_file_that_does_not_fit_is_refused_before_anything_runs(tmp_path, study):
    tensors = write(tmp_path, 9)
    torch.save({name: tensor for name, tensor in tensors.items() if name != "bn1.bias"},
               tmp_path / "imagenet-weights" / "tiny.pth")  # fmt: skip
    with pytest.raises(SpecError, match=r"tiny\.pth: expected the weights of this network; missing: bn1\.bias\."):
        load_datasets(study, root=tmp_path)


def test_a_file_that_changes_under_a_run_is_noticed(tmp_path, study):
    write(tmp_path, 9)
    known, datasets = load_datasets(study, root=tmp_path)
    write(tmp_path, 8)
    trial = known.trials[0]
    machine = courses.Machine(CPU, None, {})
    with Ledger.open(tmp_path / "ledger") as ledger:
        station = courses.Station(datasets, ledger, 0, machine, lambda *_: None, lambda: False, tmp_path)
        stage = courses.courses(trial, datasets)[0].training[1]
        with pytest.raises(SpecError, match=rf"tiny\.pth: expected the file with SHA-256 {trial.weights_digest}, with"):
            weights._place(stage, datasets[trial.data.canonical()].train, station)


def test_the_paper_scale_begins_with_published_weights():
    study = lab.load("eeg-cotraining", scale="paper")
    settings = {trial.model.name: trial.model.settings for trial in study.trials}
    assert settings == {
        "imagenet-resnet": {
            "depth": 50, "width": 64, "classes": 1654, "size": 224, "weights": "resnet50-0676ba61.pth",
        }
    }  # fmt: skip
