import hashlib

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.stats import norm as normal
from sklearn.datasets import load_digits
from torch import nn

from unperturbed.attacks import judge, pgd, protocols
from unperturbed.attacks.protocols import autoattack, protocol
from unperturbed.records import SpecError
from unperturbed.tensors.streams import undisturbed


@pytest.fixture(autouse=True)
def _unchecked():
    """Shapes are checked where the attacks are tested; here 5,000 queries would take three times as long."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


# What the protocols are


@pytest.mark.parametrize(
    ("version", "norm", "names"),
    [
        ("standard", "linf", STANDARD),
        ("standard", "l2", STANDARD),
        ("standard", "l1", STANDARD),
        ("plus", "linf", ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")),
        ("plus", "l2", ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")),
        ("rand", "linf", ("apgd-ce", "apgd-dlr")),
        ("rand", "l2", ("apgd-ce", "apgd-dlr")),
    ],
)
def test_the_numbers_are_those_of_the_authors(version, norm, names):
    peer = pytest.importorskip("pyautoattack")
    theirs = peer.AutoAttack(
        None, norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[norm], eps=0.1, version=version, seed=0
    )
    ours = protocol(version, norm=norm, eps=0.1)
    assert tuple(member.name for member in ours.members) == tuple(theirs.attacks_to_run) == names
    for member in ours.members:
        settings = member.attack.settings
        assert settings["norm"] == norm
        if member.name in ("apgd-ce", "apgd-dlr", "apgd-t"):
            run = theirs.apgd_targeted if member.name == "apgd-t" else theirs.apgd
            assert (settings["steps"], settings["rho"]) == (run.n_iter, run.thr_decr) == (100, 0.75)
            assert (settings["restarts"], settings["eot"]) == (run.n_restarts, run.eot_iter)
            assert settings["loss"] == {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-t": "dlr"}[member.name]
            assert settings["decide"] == ("last" if version == "rand" else "mean")
        elif member.name.startswith("fab"):
            run = theirs.fab
            assert (settings["steps"], settings["within"]) == (run.n_iter, run.eps) == (100, 0.1)
            assert (settings["alpha_max"], settings["eta"], settings["beta"]) == (run.alpha_max, run.eta, run.beta)
            assert settings["restarts"] == (run.n_restarts if member.name == "fab" else 1)  # set to 1 when it runs
        else:
            run = theirs.square
            assert (settings["queries"], settings["p_init"]) == (run.n_queries, run.p_init) == (5000, 0.8)
            assert (settings["rescale"], settings["restarts"]) == (run.rescale_schedule, run.n_restarts) == (False, 1)
        if "target_classes" in settings:
            assert settings["target_classes"] == run.n_target_classes


def test_the_digest_is_that_of_every_setting():
    plan = protocol("standard", eps=8 / 255)
    assert plan.digest() == hashlib.sha256(plan.canonical().encode()).hexdigest()
    for word in ('"steps":100', '"queries":5000', '"target_classes":9', '"version":"standard"', '"revision":1'):
        assert word in plan.canonical()
    others = [
        protocol("plus", eps=8 / 255),
        protocol("rand", eps=8 / 255),
        protocol("standard", eps=0.03),
        protocol("standard", eps=8 / 255, norm="l2"),
        protocol("standard", eps=8 / 255, seed=1),
    ]
    assert len({plan.digest(), *(other.digest() for other in others)}) == 6
    assert protocol("standard", eps=8 / 255).digest() == plan.digest()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"steps": 10},
            r"^autoattack has no setting 'steps'; got 10. Its numbers are its authors': with others it is not ",
        ),
        ({"queries": 100}, r"^autoattack has no setting 'queries'; got 100. "),
        (
            {"version": "rand", "norm": "l1"},
            r"^AutoAttack: version 'rand' is not defined for norm 'l1'. .* l1: standard.$",
        ),
        ({"eps": -0.1}, r"^eps: expected a finite number, 0 or larger; got -0.1$"),
        ({"draws": 1}, r"^autoattack: expected draws of at least 2; got 1$"),
    ],
)
def test_what_is_not_autoattack_is_refused(tent, pixel, settings, message):
    with pytest.raises(SpecError, match=message):
        autoattack(tent, *pixel, **{"eps": 0.1, **settings})


def test_a_protocol_that_does_not_exist_is_refused():
    with pytest.raises(
        SpecError, match=r"^AutoAttack: version 'custom' is not defined for norm 'linf'. There are linf: "
    ):
        protocol("custom", eps=0.1)
    with pytest.raises(SpecError, match=r"^AutoAttack: version 'standard' is not defined for norm 'l0'."):
        protocol("standard", norm="l0", eps=0.1)


# What they find


@pytest.fixture(scope="module")
def small():
    """A linear problem with so many classes, balanced, in float64, and the Linf distance to its nearest boundary."""

    def make(classes, linear):
        random = torch.Generator().manual_seed(1)
        classifier = linear(torch.randn(classes, 12, generator=random, dtype=torch.float64))
        images = 0.4 + 0.2 * torch.rand(12, 3, 2, 2, generator=random, dtype=torch.float64)
        with torch.no_grad():
            classifier.bias -= classifier(images).mean(dim=0)
            logits = classifier(images)
        labels = logits.argmax(dim=1)
        weight = classifier.weight.detach()
        gaps = logits.gather(1, labels[:, None]) - logits
        critical = gaps / (weight[labels][:, None] - weight[None]).abs().sum(dim=2)
        return classifier, images, labels, critical.nan_to_num(torch.inf).amin(dim=1)

    return make


def test_a_linear_classifier_breaks_exactly_where_its_margin_is_too_small(small, linear):
    classifier, images, labels, critical = small(3, linear)
    eps = float(critical.sort().values[8:10].mean())
    labels = labels.clone()
    labels[0] = (labels[0] + 1) % 3  # one is wrong from the start
    expected = (critical >= eps) & (torch.arange(12) > 0)
    calls = []
    result = autoattack(classifier, images, labels, eps=eps, progress=lambda *done: calls.append(done))
    assert result.robust.tolist() == expected.tolist()
    assert result.clean_accuracy == 11 / 12
    assert result.robust_accuracy == float(expected.double().mean())
    verdict = judge(classifier, images, labels, result.images, norm="linf", eps=eps)
    assert torch.equal(verdict.success, ~expected)
    assert torch.equal(result.images[expected], images[expected])
    assert torch.equal(result.images[0], images[0])
    # The rows tell a story without gaps.
    assert [row.name for row in result.attacks] == list(STANDARD)
    left = 11
    for row in result.attacks:
        assert row.attacked == left
        left -= row.broke
        assert row.accuracy == left / 12
    assert sum(row.forwards for row in result.attacks) + 5 * 12 == result.forwards  # the look at the start, 5 draws
    assert sum(row.backwards for row in result.attacks) == result.backwards
    assert result.attacks[3].backwards == 0
    assert calls[-1] == (48, 48)
    assert sorted(calls) == calls
    assert result.digest == protocol("standard", eps=eps).digest()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_too_few_classes_are_stated(small, linear, classes):
    classifier, images, labels, _ = small(classes, linear)
    result = autoattack(classifier, images, labels, eps=0.4)
    assert result.robust_accuracy == 0
    assert {
        f"apgd-t: dlr towards a class needs 4 classes and the classifier has {classes}: the margin stood in for it"
    } == {*(remark for remark in result.remarks if "margin" in remark)} or classes >= 4
    for name in ("apgd-t", "fab-t"):
        assert f"{name}: 9 target classes are asked for and there are {classes - 1}: all of them" in result.remarks


def test_at_a_radius_of_zero_nothing_is_attacked(small, linear):
    classifier, images, labels, _ = small(5, linear)
    result = autoattack(classifier, images, labels, eps=0)
    assert (result.robust_accuracy, result.backwards) == (1.0, 0)
    assert [row.attacked for row in result.attacks] == [0] * 4


def test_the_attacks_are_not_taken_at_their_word(small, linear, monkeypatch):
    """One returns images far outside the ball, the others give the images back."""
    classifier, images, labels, _ = small(5, linear)

    def liar(classifier, images, labels, seed, **settings):
        return 1 - images

    def lazy(classifier, images, labels, seed, **settings):
        return images.clone()

    assert (classifier(1 - images).argmax(dim=1) != labels).sum() > 5
    monkeypatch.setattr(protocols, "FUNCTIONS", {**dict.fromkeys(protocols.FUNCTIONS, lazy), "apgd": liar})
    monkeypatch.setattr(protocols, "complete", lambda kind, functions, spec, apart: spec)
    result = autoattack(classifier, images, labels, eps=0.01)
    assert result.robust_accuracy == 1
    assert torch.equal(result.images, images)


def test_neither_batch_nor_the_global_generator_matters(trained):
    network, images, labels = trained[0]["defended"], trained[1][:40], trained[2][:40]
    state = torch.get_rng_state()
    whole = autoattack(network, images, labels, eps=0.32)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 < whole.attacks[1].broke < whole.attacks[0].broke < whole.attacks[0].attacked < 40
    parts = autoattack(network, images, labels, eps=0.32, batch_size=7)
    assert torch.equal(parts.robust, whole.robust)
    assert [row[:4] for row in parts.attacks] == [row[:4] for row in whole.attacks]
    # Rounding, amplified by signs: an intensity may step the other way.
    assert ((parts.images - whole.images).abs() > 1e-5).double().mean() < 0.01


def test_where_square_breaks_what_gradients_have_left_the_result_says_so():
    """The gradient leads away from the boundary."""

    def masked(images):
        x = images.mean(dim=(1, 2, 3))
        turned = -x + 2 * x.detach()
        return torch.stack([torch.full_like(x, 0.53), turned], dim=1)

    images = torch.linspace(0.49, 0.5, 4, dtype=torch.float64).view(4, 1, 1, 1).expand(4, 1, 3, 3).contiguous()
    result = autoattack(masked, images, torch.zeros(4, dtype=torch.int64), eps=0.1)
    assert [row.broke for row in result.attacks][-1] > 0
    assert any(remark.startswith(f"square broke {result.attacks[-1].broke} images") for remark in result.remarks)


# Randomness


class Noisy(nn.Module):
    """A linear classifier of two classes whose margin has normal noise with a standard deviation of 1."""

    def __init__(self, linear):
        super().__init__()
        slope = torch.linspace(0.3, 1.2, 12)
        self.linear = linear(torch.stack([-slope, slope]) / 2, torch.tensor([0.9, -0.9]))

    def forward(self, images):
        noise = torch.randn(len(images), 1)
        return self.linear(images - 0.5) + torch.cat([-noise, noise], dim=1) / 2


def test_of_a_random_classifier_fresh_draws_give_the_accuracy(linear):
    """In closed form: at the worst corner the margin is 1.8 - eps * 9 + slope @ (0.5 - x), with unit noise."""
    noisy = Noisy(linear)
    images = 0.4 + 0.2 * torch.rand(60, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(60, dtype=torch.int64)
    eps, draws = 0.15, 60
    with torch.no_grad():
        logits = noisy.linear(images - 0.5)
        corner = noisy.linear(images + eps - 0.5)
    exact = float(np.mean(normal.cdf((corner[:, 0] - corner[:, 1]).numpy())))
    clean = float(np.mean(normal.cdf((logits[:, 0] - logits[:, 1]).numpy())))
    result = autoattack(noisy, images, labels, version="rand", eps=eps, draws=draws)
    assert result.fresh is not None
    assert abs(result.clean_accuracy - clean) < 4 * (clean * (1 - clean) / 60) ** 0.5
    # Points that were wrong once need not be the corner: a little above, never far below.
    assert exact - 4 * (exact * (1 - exact) / (60 * draws)) ** 0.5 < result.fresh.mean < exact + 0.1
    low, high = result.fresh.interval
    assert low < result.fresh.mean < high
    # The authors' number: two attacks, each with one draw at the end; an image has to be lucky twice.
    assert result.robust_accuracy < result.fresh.mean - 0.1
    assert result.attacks[0].backwards == 20 * 100 * (result.attacks[0].attacked - _wrong_at_once(result, 0))
    assert any(
        remark.startswith(
            f"one draw decides in version 'rand', so that {result.robust_accuracy:.4f} is biased down; 60 "
        )
        and f"give {result.fresh.mean:.4f} (95 % interval {low:.4f} to {high:.4f})" in remark
        for remark in result.remarks
    )


def _wrong_at_once(result, row):
    """Images that the first look of the attack, one more draw, found wrong: they were never climbed."""
    attacked, backwards = result.attacks[row].attacked, result.attacks[row].backwards
    assert backwards % 2000 == 0
    assert 0 <= attacked - backwards // 2000 < attacked / 3
    return attacked - backwards // 2000


def test_a_version_that_does_not_fit_is_named(small, linear):
    classifier, images, labels, _ = small(5, linear)
    said = autoattack(classifier, images[:3], labels[:3], version="rand", eps=0).remarks
    assert "the classifier is not random: version 'standard' is the one that its authors ask for" in said
    noisy = Noisy(linear)
    said = autoattack(noisy, images[:3].float(), torch.zeros(3, dtype=torch.int64), eps=0.2).remarks
    assert "the classifier is random: version 'rand' is the one that its authors ask for" in said


# Referee


@pytest.fixture(scope="module")
def trained():
    """Two small networks on digits of 8 x 8: as usual, and with PGD of five steps; and the images they have not seen."""
    raw = load_digits()
    images, labels = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16, torch.tensor(raw.target)
    networks = {}
    for name, eps in (("undefended", 0.0), ("defended", 0.15)):
        with undisturbed("training", 0):
            network = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
            optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
            for _ in range(8):
                for batch in torch.randperm(1300).split(50):
                    shown = pgd(network, images[batch], labels[batch], eps=eps, steps=5) if eps else images[batch]
                    optimiser.zero_grad()
                    nn.functional.cross_entropy(network(shown), labels[batch]).backward()
                    optimiser.step()
        optimiser.zero_grad()
        networks[name] = network.eval()
    return networks, images[1300:1500], labels[1300:1500]


@pytest.mark.parametrize(("which", "norm", "eps"), [("undefended", "linf", 0.15), ("defended", "linf", 0.2)])
def test_standard_agrees_with_the_authors_code(trained, which, norm, eps):
    peer = pytest.importorskip("pyautoattack")
    networks, images, labels = trained
    network = networks[which]
    ours = autoattack(network, images, labels, norm=norm, eps=eps)
    with undisturbed("referee", 0):
        run = peer.AutoAttack(network, norm="Linf", eps=eps, version="standard", seed=0)
        found, _ = run.run_standard_evaluation(images, labels)
    theirs = 1 - float(judge(network, images, labels, found, norm=norm, eps=eps + 1e-6).success.double().mean())
    assert 0.05 < theirs < ours.clean_accuracy - 0.2
    assert ours.robust_accuracy == pytest.approx(theirs, abs=0.005 + 1e-9)  # one image
