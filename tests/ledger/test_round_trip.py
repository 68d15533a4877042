"""What goes in comes out: exactly, and in an order that depends on nothing but what it is."""

import json
import random
import re
import sqlite3
import struct

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from unperturbed.ledger import Ledger, LedgerError, Placement
from unperturbed.records import CurvePoint, Measurement, Recipe, StageCost


def bits(number):
    return struct.pack("<d", number)


def test_a_recorded_stage_is_found_with_its_artefact_and_its_cost(writer, tmp_path):
    with Ledger.open(tmp_path / "ledger") as ledger:
        stage = writer.attack(3)
        assert ledger.find(stage) is None
        recorded = writer.record(ledger, 3)
        assert ledger.find(stage) == recorded
        assert not ledger.has(writer.weights(3))
    with Ledger.open(tmp_path / "ledger", write=False) as ledger:
        found = ledger.find(stage)
        assert found == recorded
        assert (found.stage, found.kind, found.suffix, found.size) == (stage.digest(), "attack", ".npz", 6400)
        assert (found.seconds, found.forwards, found.backwards) == (1.0, 3, 6)
        assert (found.device, found.versions) == ("cpu", {"torch": "2.13.0"})
        assert ledger.read(found) == writer.content(3)
        assert ledger.path(found) == tmp_path / f"ledger/artefacts/{found.artefact[:2]}/{found.artefact}.npz"
        assert ledger.damaged == ()


def test_recording_again_keeps_the_first(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        first = writer.record(ledger, 1)
        again = ledger.record(writer.attack(1), b"other", suffix=".safetensors", seconds=99, device="cuda", versions={})
        assert again == first
        assert len(list(tmp_path.glob("artefacts/*/*"))) == 1


def test_stages_may_share_an_artefact(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        for seed in (1, 2):
            ledger.record(writer.weights(seed), b"same", suffix=".npz", seconds=0, device="cpu", versions={})
        assert [ledger.read(ledger.find(writer.weights(seed))) for seed in (1, 2)] == [b"same", b"same"]
        assert len(list(tmp_path.glob("artefacts/*/*"))) == 1


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(eps=[-0.0, 5e-324, 1 / 3], values=[])
@given(
    eps=st.lists(st.floats(allow_nan=False), min_size=1, max_size=5, unique=True),
    values=st.lists(st.floats(), max_size=4),
)
def test_every_float_comes_back_bit_for_bit(writer, tmp_path, eps, values):
    values = [0.1 + 0.2, 5e-324, -0.0, float("inf"), *values]
    with Ledger.open(tmp_path) as ledger:
        stage = writer.weights(len(ledger.runs()))
        ledger.record(
            stage,
            b"",
            suffix=".npz",
            curves=[(one, values[index % 3], 1) for index, one in enumerate(eps)],
            measures=[(f"m{index:02}", value, "", "", 1) for index, value in enumerate(values)],
            seconds=0.1,
            device="cpu",
            versions={},
        )
        run = ledger.begin_run(writer.STUDY, "", {})
        ledger.place(run, stage.digest(), "a", "c", 0, 1, "training")
        points = {bits(point.eps): bits(point.accuracy) for point in ledger.curves(run)}
        assert points == {bits(one): bits(values[index % 3]) for index, one in enumerate(eps)}
        measured = [measurement.value for measurement in ledger.measurements(run)]
        # SQLite keeps one NaN, without its payload.
        assert [value != value or bits(value) for value in measured] == [
            value != value or bits(value) for value in values
        ]


def test_the_rows_of_a_run_carry_their_cell(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        writer.record(ledger, 2)
        network = writer.weights(2)
        ledger.record(
            network,
            b"weights",
            suffix=".safetensors",
            measures=[("parameters", 62006, "1", "", 1)],
            seconds=2.5,
            forwards=7,
            backwards=8,
            device="cuda:0",
            versions={"torch": "2.13.0"},
        )
        run = ledger.begin_run(writer.STUDY, "unperturbed run distribution", {"python": "3.11"})
        ledger.place(run, writer.attack(2).digest(), "narrow", "digits", 2, 1, "pgd 40")
        ledger.place(run, network.digest(), "narrow", "digits", 2, 1, "training")
        cell = ("narrow", "digits", 2, 1)
        assert ledger.curves(run) == [
            CurvePoint(*cell, "pgd 40", eps, 1 / (3 + eps), 100) for eps in (0.0, 0.1, 0.2, 0.3)
        ]
        assert ledger.measurements(run) == [
            Measurement(*cell, "", "parameters", 62006.0, "1", "", 1),
            Measurement(*cell, "pgd 40", "R", 1 / 3 + 2, "", "higher", 100),
            Measurement(*cell, "pgd 40", "time", 2 / 7, "s", "lower", 1),
        ]
        assert ledger.costs(run) == [
            StageCost(*cell, "pgd 40", 2 / 3, 2, 4, "cpu", {"torch": "2.13.0"}),
            StageCost(*cell, "training", 2.5, 7, 8, "cuda:0", {"torch": "2.13.0"}),
        ]
        assert list(ledger.artefacts(run, "training")) == [
            (Placement(run, network.digest(), *cell, "training"), ledger.find(network))
        ]
        other = ledger.begin_run(writer.STUDY, "", {})
        assert (ledger.curves(other), ledger.measurements(other), ledger.costs(other)) == ([], [], [])


def test_the_order_of_recording_changes_no_table(writer, tmp_path):
    numbers = list(range(12))
    tables = []
    for shuffle in range(3):
        random.Random(shuffle).shuffle(numbers)
        with Ledger.open(tmp_path / str(shuffle)) as ledger:
            for number in numbers:
                writer.record(ledger, number)
            random.Random(shuffle + 10).shuffle(numbers)
            # SQLite then reverses every order that a query does not ask for.
            ledger._connection.execute(f"PRAGMA reverse_unordered_selects = {shuffle % 2}")
            tables.append(writer.rows(ledger, numbers))
    assert tables[0] == tables[1] == tables[2]
    assert [len(table) for table in tables[0]] == [48, 24, 12]
    for table, repeated in zip(tables[0], (4, 2, 1), strict=True):
        assert [row.seed for row in table] == sorted(list(range(12)) * repeated)
    assert [point.eps for point in tables[0][0]] == list(writer.EPS) * 12


def test_placing_again_is_no_change_and_placing_another_is_refused(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        run = ledger.begin_run(writer.STUDY, "", {})
        for _ in range(2):
            ledger.place(run, "a" * 64, "wide", "fusion", 7, 3, "fgsm")
        assert ledger.placements(run) == [Placement(run, "a" * 64, "wide", "fusion", 7, 3, "fgsm")]
        message = f"run {run} has stage aaaaaaaaaaaa as fgsm of wide, fusion, seed 7, epoch 3; stage bbbbbbbbbbbb came"
        with pytest.raises(LedgerError, match=re.escape(message)):
            ledger.place(run, "b" * 64, "wide", "fusion", 7, 3, "fgsm")
        assert len(ledger.placements(run)) == 1


def test_runs_remember_their_study_command_versions_and_end(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        assert ledger.latest_run() is None
        first = ledger.begin_run(writer.STUDY, "unperturbed run distribution --seeds 2", {"torch": "2.13.0"})
        other = ledger.begin_run(writer.STUDY.model_copy(update={"name": "other"}), "run other", {})
        ledger.finish_run(first, "failed", 12.25, "pgd: out of memory")
    with Ledger.open(tmp_path, write=False) as ledger:
        run, second = ledger.runs()
        assert (run.id, run.study, run.command) == (first, "distribution", "unperturbed run distribution --seeds 2")
        assert (run.versions, run.status, run.seconds) == ({"torch": "2.13.0"}, "failed", 12.25)
        assert (run.error, second.status, second.seconds, second.error) == ("pgd: out of memory", "running", None, None)
        assert ledger.latest_run() == second
        assert ledger.latest_run("distribution") == run
        assert ledger.latest_run("missing") is None
        study = ledger.study(first)
        assert study == writer.STUDY
        assert study.digest() == writer.STUDY.digest()
        assert list(study.architectures) == ["wide", "narrow"], "the order of the report is lost"
        with pytest.raises(LedgerError, match=f"there is no run 9. It has: {first}, {other}."):
            ledger.study(9)


def test_a_study_of_another_form_is_named(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        run = ledger.begin_run(writer.STUDY, "", {})
    with sqlite3.connect(tmp_path / "ledger.sqlite") as other:
        other.execute("""UPDATE runs SET record = '{"name":"old"}'""")
    other.close()
    with (
        Ledger.open(tmp_path, write=False) as ledger,
        pytest.raises(LedgerError, match=f"the study of run {run} was written by another version"),
    ):
        ledger.study(run)


def test_a_run_whose_process_is_gone_is_interrupted(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        run = ledger.begin_run(writer.STUDY, "", {})
    with Ledger.open(tmp_path) as ledger:
        assert [(one.id, one.status) for one in ledger.runs()] == [(run, "interrupted")]


def test_why_names_the_nearest_difference(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        assert ledger.why(writer.weights(1)) == "new"
        for seed in (1, 2, 3):
            ledger.record(writer.weights(seed), b"%d" % seed, suffix=".npz", seconds=0, device="cpu", versions={})
        assert ledger.why(writer.weights(2)) == "recorded"
        assert ledger.why(writer.weights(2, learning_rate=0.1)) == "new: recipe.learning_rate 0.01 -> 0.1"
        assert ledger.why(writer.attack(2)) == "new", "stages of another kind are not compared"
        start = writer.weights(3).model_copy(update={"start": writer.weights(1)})
        assert ledger.why(start) == "new", "many differences explain nothing"
        changed = writer.weights(1).model_copy(
            update={"data": writer.Spec(name="digits", settings={"alpha": 0.5}), "data_digest": "e" * 64}
        )
        assert ledger.why(changed) == (
            "new: data.settings {} -> absent, data.settings.alpha absent -> 0.5, "
            f'data_digest "{"d" * 36}... -> "{"e" * 36}...'
        )


def test_any_sqlite_tool_reads_the_views(writer, tmp_path):
    with Ledger.open(tmp_path) as ledger:
        writer.rows(ledger, [1])
        ledger.record(
            writer.weights(1),
            b"",
            suffix=".npz",
            measures=[("clean", 0.5, "", "higher", 9)],
            seconds=0,
            device="cpu",
            versions={},
        )
        ledger.place(1, writer.weights(1).digest(), "narrow", "digits", 1, 1, "training")
    tool = sqlite3.connect(tmp_path / "ledger.sqlite")
    assert tool.execute(
        "SELECT eps, accuracy FROM curves WHERE attack = 'fgsm' AND eps > 0.15 ORDER BY eps"
    ).fetchall() == [
        (0.2, 1 / 2.2),
        (0.3, 1 / 2.3),
    ]
    assert tool.execute("SELECT attack, measure, value FROM results ORDER BY 1, 2").fetchall() == [
        ("", "clean", 0.5),
        ("fgsm", "R", 1 / 3 + 1),
        ("fgsm", "time", 1 / 7),
    ]
    assert tool.execute("SELECT kind, seconds FROM costs ORDER BY 1").fetchall() == [("fgsm", 1 / 3), ("training", 0.0)]
    assert tool.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert (
        Recipe.model_validate(
            json.loads(tool.execute("SELECT record FROM stages WHERE kind = 'training'").fetchone()[0])["recipe"]
        )
        == writer.weights(1).recipe
    )
    tool.close()
