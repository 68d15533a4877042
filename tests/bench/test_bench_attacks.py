"""The benchmark of attacks: what it counts, how it asks other libraries, and what it says."""

import importlib.util
import inspect
import io
import json
import sys
import types

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.functional import cross_entropy

from unperturbed.attacks import ATTACKS, judge, pgd, sweep
from unperturbed.bench import attacks as bench
from unperturbed.bench import contestants, networks, peers
from unperturbed.bench.networks import Counted, Network, Witness, owed
from unperturbed.bench.peers import PEERS, Task
from unperturbed.records import Recipe, SpecError

MODULES = {
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "art": "art",
    "pyautoattack": "pyautoattack",
    "adv_lib": "adv_lib",
}
ABSENT = {name for name, module in MODULES.items() if importlib.util.find_spec(module) is None}
RADII = (0.06, 0.11, 0.165)  # no image of the linear network is nearer than 5 % to its own limit


def here(name):
    return pytest.param(name, marks=pytest.mark.skipif(name in ABSENT, reason=f"{name} is not installed"))


@pytest.fixture(scope="module")
def network():
    """Two classes, linear, away from the edges of the box: the smallest perturbations are known."""
    random = torch.Generator().manual_seed(5)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        weight = torch.randn(2, 48, generator=random)
        classifier[1].weight.copy_(weight)
        classifier[1].bias.copy_(-0.5 * weight.sum(dim=1))
    pulls = torch.linspace(0.04, 0.28, 12).view(12, 1) * weight[torch.arange(12) % 2].sign()
    images = (0.45 + 0.1 * torch.rand(12, 48, generator=random) + pulls).view(12, 3, 4, 4)
    with torch.no_grad():
        labels = classifier(images).argmax(dim=1)
    labels[0] = 1 - labels[0]  # one is wrong from the start
    return Network("linear", classifier.eval(), images, labels)


@pytest.fixture
def small(network, monkeypatch):
    """One case of every kind on the linear network, in seconds."""
    monkeypatch.setattr(bench, "NETWORKS", {"linear": lambda count, root: network})
    monkeypatch.setattr(bench, "THREADS", 1)  # many tests may share few cores
    monkeypatch.setattr(bench, "OFTEN", 1)
    cases = (
        bench.Case("fgsm", Task("fgsm", "linf", RADII), ("linear",), inherit=False),
        bench.Case("fgsm_inherited", Task("fgsm", "linf", RADII), ("linear",)),
        bench.Case("pgd", Task("pgd", "linf", RADII, steps=20), ("linear",)),
        bench.Case("ddn", Task("ddn", "l2", steps=100), ("linear",)),
        bench.Case("curve", Task("fmn", "linf", steps=50), ("linear",), peers=False, curve=RADII),
    )
    monkeypatch.setattr(bench, "CASES", cases)
    return network


def closed_form(network, dual):
    """Return the distance of every image to its nearest boundary; 0 where it is on the wrong side."""
    layer = network.classifier[1]
    with torch.no_grad():
        logits = network.classifier(network.images)
        rows = torch.arange(len(logits))
        margins = logits[rows, network.labels].unsqueeze(1) - logits
        slopes = (layer.weight[network.labels].unsqueeze(1) - layer.weight).norm(p=dual, dim=2)
    distances = (margins / slopes).masked_fill(slopes == 0, torch.inf)
    return distances.amin(dim=1).clamp_min(0)


def left(network):
    """Return the accuracy at 0 and at every radius, in closed form."""
    return [float((closed_form(network, 1) > eps).double().mean()) for eps in (0.0, *RADII)]


def test_a_module_counts_images_forward_and_gradients_back(network):
    counted = Counted(network.classifier)
    images = network.images.clone().requires_grad_()
    logits = counted(images)
    for column in (0, 1):
        torch.autograd.grad(logits[:, column].sum(), images, retain_graph=True)
    with torch.no_grad():
        counted(images[:5])
    assert (counted.forwards, counted.backwards) == (12 + 5, 2 * 12)


def test_owed_passes_are_those_of_a_pgd_that_stops_at_the_first_success(network):
    """Counted by hand: one image after the other, from the image itself, the clean image looked at once."""
    forwards, backwards, steps = 0, 0, 6
    for image, label in zip(network.images.split(1), network.labels.split(1), strict=True):
        forwards += 1  # the clean image; every try starts there again
        with torch.no_grad():
            broken = bool(network.classifier(image).argmax() != label)
        for eps in RADII:
            if broken:
                continue
            point = image.clone()
            for step in range(steps + 1):
                point = point.detach().requires_grad_()
                logits = network.classifier(point)
                forwards += step > 0
                if bool(logits.argmax() != label):
                    broken = True
                    break
                if step == steps:
                    break
                backwards += 1
                (gradient,) = torch.autograd.grad(cross_entropy(logits, label), point)
                moved = point + 2.5 * eps / steps * gradient.sign()
                point = torch.minimum(torch.maximum(moved, image - eps), image + eps).clamp(0, 1)
            forwards += 1  # the judge
    counted = owed(network, pgd, norm="linf", eps=RADII, steps=steps, random_start=False)
    assert counted == (forwards / 12, backwards / 12)
    assert 0 < backwards < 12 * len(RADII) * steps


def test_a_witness_owes_one_look_at_the_clean_image_and_nothing_to_images_that_are_broken(network):
    witness = Witness(network)
    assert witness.images.shape == (12, 3, 4, 5)
    assert witness.mask[..., :-1].all()
    assert not witness.mask[..., -1].any()
    images = witness.images.clone().requires_grad_()
    for _ in range(2):
        torch.autograd.grad(witness(images).sum(), images)
    assert witness.forwards == 12
    assert witness.backwards == 2 * 11  # the first image is misclassified: it owes no gradient


@pytest.mark.parametrize("name", [here(name) for name in PEERS])
def test_peers_return_one_batch_for_every_radius_or_the_nearest_images(name, network):
    peer = PEERS[name]
    for attack, norm in peer.offers:
        if attack == "autoattack" or attack in peer.left_out:
            continue  # below
        smallest = attack in ("carlini_wagner", "deepfool", "ddn", "fmn")
        task = Task(attack, norm, () if smallest else RADII, steps=20, searches=2)
        found = peers.prepare(name, network.classifier, network.images, task)(network.images, network.labels)
        assert len(found) == (1 if smallest else len(RADII))
        for eps, images in zip(task.eps or (None,), found, strict=True):
            verdict = judge(network.classifier, network.images, network.labels, images, norm=norm, eps=eps)
            assert bool(verdict.in_box.all())
            assert bool(verdict.in_ball.all())
            if eps is not None:
                reachable = closed_form(network, 1) < 0.9 * eps
                assert bool(verdict.success[reachable].all()), (attack, eps)


@pytest.mark.skipif("pyautoattack" in ABSENT, reason="pyautoattack is not installed")
def test_autoattack_of_the_peer_breaks_what_can_be_broken(network):
    task = Task("autoattack", "linf", (0.3,))  # so far that its first attack ends it
    (found,) = peers.prepare("pyautoattack", network.classifier, network.images, task)(network.images, network.labels)
    verdict = judge(network.classifier, network.images, network.labels, found, norm="linf", eps=0.3)
    assert bool(verdict.success.all())


@pytest.mark.skipif("adv_lib" in ABSENT, reason="adv_lib is not installed")
def test_modules_that_stand_in_for_others_are_gone_after_the_import():
    before = {name: sys.modules.get(name) for name in ("visdom", "torchvision", "distutils", "distutils.version")}
    with peers._stand_ins():
        assert isinstance(sys.modules["visdom"], types.ModuleType)
    assert {name: sys.modules.get(name) for name in before} == before


def test_fgsm_takes_the_passes_that_are_owed_and_peers_take_more(small):
    rows = {row.library: row for row in bench.measure(repeats=1, only="fgsm")}
    ours = rows["unperturbed"]
    assert ours.owed == (1 + len(RADII), 1.0)
    assert (ours.forwards, ours.backwards) == ours.owed
    assert ours.ratio == 1.0
    expected = {"foolbox": (8.0, 4.0), "torchattacks": (3.0, 3.0)}  # Foolbox attacks eps = 0 as well, and scores
    for name in set(expected) - ABSENT:
        assert (rows[name].forwards, rows[name].backwards) == expected[name]
    for row in rows.values():
        if row.runs:
            assert row.eps == (0.0, *RADII)
            assert row.accuracy == pytest.approx(left(small))  # one step is all that a linear classifier needs


def test_fgsm_that_inherits_judges_only_what_no_smaller_radius_broke(small):
    rows = {row.library: row for row in bench.measure(repeats=1, only="fgsm_inherited")}
    ours = rows["unperturbed"]
    unbroken = [1.0, *left(small)[:-1]]  # before the clean image and before every radius
    assert ours.forwards == pytest.approx(sum(unbroken))
    assert ours.owed == pytest.approx((sum(unbroken), left(small)[0]))
    assert ours.backwards == 1.0  # of the whole batch: what is wrong from the start is known only after the forward
    assert ours.budget == "fgsm linf (fgsm_inherited)"


def test_pgd_of_every_library_leaves_what_the_closed_form_leaves(small):
    rows = bench.measure(repeats=2, only="pgd")
    present = [row for row in rows if row.runs]
    assert [row.library for row in present] == [
        "unperturbed",
        *(n for n in PEERS if PEERS[n].can(Task("pgd", "linf")) and n not in ABSENT),
    ]
    for row in present:
        assert row.runs == 2
        assert row.accuracy == pytest.approx(left(small))
    ours = present[0]
    assert ours.forwards + ours.backwards <= 1.1 * sum(ours.owed)
    assert "largest excess over the best peer: +0.0 points" in ours.note
    assert all(row.backwards > ours.backwards for row in present[1:])


@pytest.mark.skipif("ddn" not in ATTACKS, reason="ddn is not written yet")
def test_distances_are_means_over_what_all_broke(small):
    rows = [row for row in bench.measure(repeats=1, only="ddn") if row.runs]
    optimum = closed_form(small, 2)[1:]
    for row in rows:
        assert row.found == 1.0
        assert 0.999999 <= row.distance / float(optimum.mean()) <= 1.05  # float32


def test_images_that_are_not_broken_are_infinitely_far_and_who_finds_few_has_no_mean(network):
    clean = closed_form(network, 2).numpy() > 0
    one = network.images.clone()
    one[1] = 1 - one[1]  # the mirror image lies beyond the boundary
    some = contestants._judged([one], Task("ddn", "l2"), network)
    assert np.isfinite(some.distance).tolist() == [True, True] + [False] * 10  # the first is wrong from the start
    every = contestants.Outcome(distance=np.where(clean, 1.0, 0.0))
    assert bench._broken_by_all([some, every], clean).tolist() == clean.tolist()
    rows = [
        bench._row(
            bench.Case("ddn", Task("ddn", "l2")),
            network,
            contestants.Contestant(name, "1", lambda: None, lambda _: every, Counted(network.classifier)),
            bench._Timed([1.0], 1.0, 1.0, outcome),
            clean,
            clean,
        )
        for name, outcome in (("some", some), ("every", every))
    ]
    assert [row.found for row in rows] == [pytest.approx(1 / 11), 1.0]
    assert [row.distance for row in rows] == [None, 1.0]
    assert [row.median for row in rows] == [None, 1.0]


@pytest.mark.skipif("fmn" not in ATTACKS, reason="fmn is not written yet")
def test_the_curve_of_one_run_is_set_beside_pgd(small):
    ours, reference = bench.measure(repeats=1, only="curve")
    assert reference.library == "unperturbed pgd"
    gap = max(abs(a - b) for a, b in zip(ours.accuracy, reference.accuracy, strict=True))
    assert f"largest difference to PGD-40: {100 * gap:.1f} points" in ours.note


def test_a_library_that_is_missing_is_said_and_left_out(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "foolbox", None)
    rows = {row.library: row for row in bench.measure(repeats=1, only="fgsm")}
    assert rows["foolbox"].seconds is None
    assert "foolbox cannot be imported" in rows["foolbox"].note
    assert "pip install unperturbed[bench]" in rows["foolbox"].note
    assert rows["unperturbed"].seconds > 0


@pytest.mark.skipif("torchattacks" in ABSENT, reason="torchattacks is not installed")
def test_a_library_that_fails_is_said_and_does_not_stop_the_others(small, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of\nluck")

    monkeypatch.setitem(PEERS, "torchattacks", PEERS["torchattacks"]._replace(ask=fail))
    rows = {row.library: row for row in bench.measure(repeats=2, only="fgsm")}
    assert rows["torchattacks"].note == "failed: RuntimeError: out of luck"
    assert rows["torchattacks"].seconds is None
    assert rows["unperturbed"].seconds > 0


def test_short_runs_are_timed_more_often_after_the_first_round(small, monkeypatch):
    monkeypatch.setattr(bench, "OFTEN", 4)
    monkeypatch.setattr(bench, "SHORT", 1e9)
    assert {row.runs for row in bench.measure(repeats=3, only="fgsm") if row.runs} == {1 + 2 * 4}


def test_an_attack_of_ours_that_is_missing_is_said(small, monkeypatch):
    monkeypatch.setattr(contestants, "ATTACKS", {name: each for name, each in ATTACKS.items() if name != "pgd"})
    rows = {row.library: row for row in bench.measure(repeats=1, only="pgd")}
    assert rows["unperturbed"].note == "unperturbed: there is no attack 'pgd' yet"
    assert rows["foolbox"].seconds > 0


def test_what_takes_long_is_timed_once(small, monkeypatch):
    monkeypatch.setattr(bench, "LONG", 0.0)
    assert {row.runs for row in bench.measure(repeats=3, only="fgsm") if row.runs} == {1}


def test_the_world_is_left_as_it_was(small):
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    bench.measure(repeats=1, only="fgsm")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in small.classifier.parameters())


def test_rows_become_a_table_of_100_columns_json_and_markdown(small):
    told = []
    rows = bench.measure(repeats=1, only="fgsm", progress=lambda doing, done, left: told.append((doing, done, left)))
    assert told[0] == ("fgsm, linear: building the network", 0.0, None)
    text = io.StringIO()
    Console(file=text, width=100, color_system=None).print(bench.table(rows))
    lines = text.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert "…" not in text.getvalue()
    assert any("unperturbed" in line and " 1.00 " in line for line in lines)
    assert json.loads(json.dumps([row._asdict() for row in rows]))[0]["library"] == "unperturbed"
    written = bench.markdown(rows).splitlines()
    assert written[0].startswith("| case | network | n | library")
    assert len(written) >= 2 + len(rows)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"repeats": 0}, "bench attacks: expected repeats and images of at least 1; got 0 and 512"),
        ({"images": 0}, "bench attacks: expected repeats and images of at least 1; got 3 and 0"),
        ({"only": "fgms"}, "There is no case 'fgms'. There are: fgsm, fgsm_inherited, pgd, apgd, carlini_wagner, "
         "deepfool, ddn, fmn, autoattack, curve. Did you mean 'fgsm'?"),
    ],
)  # fmt: skip
def test_bad_words_are_refused(settings, says):
    with pytest.raises(SpecError) as refusal:
        bench.measure(**settings)
    assert str(refusal.value) == says


def test_every_case_names_networks_and_attacks_that_exist():
    for case in bench.CASES:
        assert set(case.networks) <= set(networks.NETWORKS)
        if case.task.attack in ATTACKS:
            keywords = contestants.settings(case.task)
            assert set(keywords) <= set(inspect.signature(ATTACKS[case.task.attack]).parameters)


def test_networks_are_trained_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("UNPERTURBED_DATA", raising=False)
    for name in ("DIGITS", "FEW_PHOTOGRAPHS", "HARDENING"):
        monkeypatch.setattr(networks, name, Recipe(epochs=1, learning_rate=0.01))
    first = networks.hardened_lenet(16)
    assert first.name == "PGD-trained (photographs)"
    assert first.images.shape == (16, 3, 32, 32)
    assert not first.classifier.training
    assert len(list((tmp_path / "unperturbed" / "bench").iterdir())) == 2  # with the undefended one it started from
    monkeypatch.setattr(networks, "_trained", None)
    monkeypatch.setattr(networks, "_hardened", None)
    again = networks.hardened_lenet(16)
    assert torch.equal(first.classifier(first.images), again.classifier(again.images))


def test_our_evidence_is_what_a_judge_finds_in_the_images(network):
    evidence = sweep(network.classifier, network.images, network.labels, pgd, eps=RADII, steps=5, keep=12)
    for row, eps in enumerate(RADII):
        found = torch.from_numpy(evidence.adversarial[row])
        verdict = judge(network.classifier, network.images, network.labels, found, norm="linf", eps=eps)
        assert (~verdict.success).tolist() == evidence.correct[row].tolist()
