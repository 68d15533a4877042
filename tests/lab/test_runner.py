"""What a run computes, what it reuses, and what is left when it is disturbed."""

import io
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from unperturbed import lab, models
from unperturbed.attacks import Evidence
from unperturbed.lab import courses, weights
from unperturbed.lab.runner import load_datasets
from unperturbed.ledger import Ledger, LedgerError
from unperturbed.measures import measure_evidence
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator

TINY = Path(__file__).with_name("tiny.toml")
CPU = torch.device("cpu")


def run(study, folder, **options):
    with Ledger.open(folder) as ledger:
        return lab.run(study, ledger, device=CPU, command="test", **options)


def tables(folder):
    with Ledger.open(folder, write=False) as ledger:
        number = ledger.latest_run().id
        return ledger.curves(number), ledger.measurements(number)


def finish_times(folder):
    with Ledger.open(folder, write=False) as ledger:
        number = ledger.latest_run().id
        return {
            place[1:]: stored.finished
            for label in ("training", "fgsm", "pgd")
            for place, stored in ledger.artefacts(number, label)
        }


def test_a_second_run_reuses_everything(tiny, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    before = finish_times(folder)
    outcome = run(tiny, folder)
    assert (outcome.computed, outcome.reused, outcome.failed) == (0, 6, {})
    assert finish_times(folder) == before
    assert tables(folder) == tables(finished)


def test_more_seeds_compute_only_the_new_ones(tiny, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    before = finish_times(folder)
    three = lab.load(str(TINY), changes=lab.Changes(seeds=3))
    assert run(three, folder).computed == 6
    after = finish_times(folder)
    assert len(after) == 1.5 * len(before)
    assert {place: after[place] for place in before} == before


def test_a_course_that_was_ended_early_goes_on_to_the_same_numbers(tiny, finished, tmp_path):

    early = lab.load(str(TINY), changes=lab.Changes(until_epoch=2, only=("fully-connected",)))
    run(early, tmp_path)
    run(tiny, tmp_path)
    assert tables(tmp_path) == tables(finished)


def test_seeds_that_train_together_give_the_same_accuracy(tiny, finished, tmp_path):
    run(tiny, tmp_path, vectorised=True)
    for joint, alone in zip(tables(tmp_path)[0], tables(finished)[0], strict=True):
        # rounding in float32 may move single images across the boundary: 50 images, so one is 0.02
        assert joint[:6] == alone[:6]
        assert joint.accuracy == pytest.approx(alone.accuracy, abs=0.1 if joint.n == 10 else 0.04)


def test_a_seed_starts_from_the_same_weights_in_every_condition(tiny, tmp_path, monkeypatch):
    seen = {}
    real = weights.train

    def watched(network, states, split, recipe, *, seeds, **options):
        if states[0].step == 0:
            for seed, state in zip(seeds, states, strict=True):
                seen.setdefault((recipe.epochs, seed), []).append(state.weights)
        return real(network, states, split, recipe, seeds=seeds, **options)

    monkeypatch.setattr(weights, "train", watched)
    plain = tiny.model_copy(update={"trials": tuple(t for t in tiny.trials if t.pretraining is None)})
    run(plain, tmp_path)
    assert [len(starts) for starts in seen.values()] == [3, 3, 1, 1]
    for starts in seen.values():
        for other in starts[1:]:
            assert all(torch.equal(starts[0][name], other[name]) for name in other)
    assert not torch.equal(seen[3, 0][0]["fc1.weight"], seen[3, 1][0]["fc1.weight"])


def test_pretraining_hands_its_weights_on(tiny, finished):
    _, datasets = load_datasets(tiny)
    trial = next(t for t in tiny.trials if t.pretraining and t.architecture == "lenet")
    lane, _ = courses.courses(trial, datasets)
    first = lane.training[2]
    assert (first.start.data.name, first.data.name, first.start.epoch) == ("photographs", "digits", 2)
    with Ledger.open(finished, write=False) as ledger:
        machine = courses.Machine(CPU, None, {})
        station = courses.Station(datasets, ledger, 0, machine, lambda *_: None, lambda: False)
        place = weights._place(first, datasets[first.data.canonical()].train, station)
        (state,) = weights._resume([first], [place], 6, ledger)
        handed = weights.load_weights(first.start, ledger)
    assert state.step == 0
    assert all(torch.equal(state.weights[name], handed[name]) for name in handed)


def test_recorded_numbers_follow_from_the_recorded_images_and_weights(tiny, finished):
    study, datasets = load_datasets(tiny)
    with Ledger.open(finished, write=False) as ledger:
        number = ledger.latest_run().id
        curves, measurements = ledger.curves(number), ledger.measurements(number)
        places = list(ledger.artefacts(number, "fgsm"))
        assert len(places) == 2 * (4 * 2 + 2)
        for place, stored in places:
            key = (place.architecture, place.condition, place.seed, place.epoch, "fgsm")
            with np.load(io.BytesIO(ledger.read(stored)), allow_pickle=False) as arrays:
                evidence = Evidence.from_arrays(dict(arrays))
            assert [point.accuracy for point in curves if point[:5] == key] == evidence.accuracy.tolist()
            ours = {row.measure: row.value for row in measurements if row[:5] == key}
            assert ours == {row.measure: row.value for row in measure_evidence(evidence, chance=0.1)}

            trial = next(t for t in study.trials if (t.architecture, t.condition) == key[:2])
            lane = courses.courses(trial, datasets)[place.seed]
            network = models.build(trial.model, generator("any"))
            network.load_state_dict(weights.load_weights(lane.training[place.epoch], ledger))
            test = datasets[trial.data.canonical()].test
            rows = test.fixed()[:50]
            with torch.no_grad():
                clean = network.eval()(test.images(rows)).argmax(1) == test.labels(rows)
            assert evidence.accuracy[0] == clean.double().mean().item(), "accuracy at eps = 0 is the clean accuracy"


def test_a_damaged_artefact_is_found_and_computed_again(tiny, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    with Ledger.open(folder, write=False) as ledger:
        paths = [ledger.path(stored) for label in ("training", "pgd") for _, stored in ledger.artefacts(1, label)][::5]
    for path in paths:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with Ledger.open(folder) as ledger:
        outcome = lab.run(tiny, ledger, device=CPU, command="test")
        assert len(ledger.damaged) == len(paths) > 1
    assert outcome.computed > 0
    for mended, sound in zip(tables(folder), tables(finished), strict=True):
        assert len(mended) == len(sound)
        for left, right in zip(mended, sound, strict=True):  # one seed trained alone differs from two by rounding
            for here, there in zip(left, right, strict=True):
                assert here == (pytest.approx(there, rel=1e-4) if isinstance(there, float) else there)


@pytest.mark.parametrize("asked_at", [1, 40, 150, 200])
def test_a_run_that_is_asked_to_stop_goes_on_to_the_same_tables(tiny, finished, tmp_path, asked_at):
    asked = iter(range(asked_at))
    with pytest.raises(lab.Stopped):
        run(tiny, tmp_path, stopped=lambda: next(asked, None) is None)
    with Ledger.open(tmp_path, write=False) as ledger:
        assert ledger.latest_run().status == "interrupted"
    run(tiny, tmp_path)
    assert tables(tmp_path) == tables(finished)


def test_training_that_diverges_fails_its_trial_and_no_other(tiny, tmp_path):
    wild = tuple(
        t.model_copy(update={"recipe": t.recipe.model_copy(update={"learning_rate": 1e30})})
        if t.condition == "objects"
        else t
        for t in tiny.trials
        if t.architecture == "fully-connected" and t.pretraining is None
    )
    outcome = run(tiny.model_copy(update={"trials": wild}), tmp_path)
    assert outcome.computed == 2
    assert list(outcome.failed) == ["fully-connected/objects"]
    assert "the loss of seed 0 is not finite after epoch 1" in outcome.failed["fully-connected/objects"]


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tiny, finished, tmp_path):
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", tmp_path], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a small file system can be mounted by root only")
    try:
        with pytest.raises(LedgerError, match=r"no space left"):
            run(tiny, tmp_path / "ledger")
        with Ledger.open(tmp_path / "ledger", write=False) as ledger:
            assert not ledger.verify()
        subprocess.run(["mount", "-o", "remount,size=100m", tmp_path], check=True)
        run(tiny, tmp_path / "ledger")
        assert tables(tmp_path / "ledger") == tables(finished)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_explain_names_what_is_new_and_why(tiny, finished, tmp_path):
    _, datasets = load_datasets(tiny)
    with Ledger.open(finished, write=False) as ledger:
        assert {plan.why for plan in lab.explain(tiny, ledger, datasets)} == {"recorded"}
        faster = tiny.trials[0].model_copy(
            update={"recipe": tiny.trials[0].recipe.model_copy(update={"learning_rate": 0.1})}
        )
        plans = lab.explain(tiny.model_copy(update={"trials": (faster,)}), ledger, datasets)
    assert "new: recipe.learning_rate 0.01 -> 0.1" in {plan.why for plan in plans}
    assert {plan.why for plan in lab.explain(tiny, None, datasets)} == {"new"}


def test_progress_ends_at_one_and_never_goes_back(tiny, tmp_path):
    updates = []
    run(tiny, tmp_path, on_update=updates.append)
    done = [update.done for update in updates]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1.0, abs=1e-6)
    assert any(update.seconds_left for update in updates)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "--device must be auto, cpu or cuda, got 'gpu'."),
        ("meta", "--device must be auto, cpu or cuda, got 'meta'."),
    ],
)
def test_an_unknown_device_is_refused(name, message):
    with pytest.raises(SpecError) as caught:
        lab.choose_device(name)
    assert str(caught.value) == message


def test_a_checkpoint_at_the_end_of_an_unrecorded_epoch_is_recorded(tiny, tmp_path):
    early = lab.load(str(TINY), changes=lab.Changes(until_epoch=2, only=("fully-connected/digits",)))
    run(early, tmp_path)
    before = tables(tmp_path)
    with Ledger.open(tmp_path, write=False) as ledger:
        paths = [ledger.path(stored) for place, stored in ledger.artefacts(1, "training") if place.epoch == 2]
    for path in paths:
        path.unlink()
    assert len(paths) == 2
    run(early, tmp_path)
    assert tables(tmp_path) == before
