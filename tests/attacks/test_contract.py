"""What every attack promises, by being listed."""

import copy
import inspect
import random
import re
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

import unperturbed.attacks
from unperturbed.attacks import ATTACKS, judge, sweep
from unperturbed.attacks.sweep import within_budget
from unperturbed.records import SpecError

ORDER = {"linf": torch.inf, "l2": 2, "l1": 1}
NOISE = ("uniform_noise", "gaussian_noise")  # do not ask the classifier
WITHOUT_GRADIENTS = (*NOISE, "noise_search", "square")


def _signature(name):
    return inspect.signature(ATTACKS[name]).parameters


def _norms(name):
    return get_args(get_type_hints(ATTACKS[name])["norm"])


def _named(pairs):
    return [pytest.param(*pair, id="-".join(pair)) for pair in pairs]


EVERY = [(name, norm) for name in ATTACKS for norm in _norms(name)]
BUDGET = [pair for pair in EVERY if within_budget(ATTACKS[pair[0]])]
ASKING = [pair for pair in EVERY if pair[0] not in NOISE]
CLIMBING = [pair for pair in EVERY if pair[0] not in WITHOUT_GRADIENTS]
WITHIN_REACH = [pair for pair in CLIMBING if pair != ("fgsm", "l1")]  # which moves one pixel, to 0 or 1 at most
LEAVING = [pair for pair in BUDGET if pair[0] not in (*NOISE, "fgsm")]
every = pytest.mark.parametrize(("name", "norm"), _named(EVERY))
asking = pytest.mark.parametrize(("name", "norm"), _named(ASKING))
climbing = pytest.mark.parametrize(("name", "norm"), _named(CLIMBING))
budget = pytest.mark.parametrize(("name", "norm"), _named(BUDGET))


def _random(name):
    start = _signature(name).get("random_start")
    return name in WITHOUT_GRADIENTS or (start is not None and start.default)


def _patience(name, **settings):
    """More steps for what looks for the smallest, and what else of ``settings`` the attack has."""
    taken = {"steps": 60, "binary_search_steps": 6, **settings} if not within_budget(ATTACKS[name]) else {}
    return {setting: value for setting, value in taken.items() if setting in _signature(name)}


def _broken(attack, name, classifier, images, labels, *, norm):
    adversarial = attack(name, classifier, images, labels, norm=norm)
    verdict = judge(classifier, images, labels, adversarial, norm=norm, eps=attack.confined(name, norm))
    assert verdict.in_box.all()
    assert verdict.in_ball.all()
    return verdict.success


@pytest.fixture
def some(digits):
    network, images, labels = digits
    return network, images[:12], labels[:12]


def test_every_attack_of_the_folder_is_listed_by_its_own_name():
    files = Path(unperturbed.attacks.__file__).parent.glob("*.py")
    written = {name for file in files for name in re.findall(r"^@pure\ndef (\w+)\(", file.read_text(), re.MULTILINE)}
    assert written == set(ATTACKS)
    assert list(ATTACKS) == [attack.__name__ for attack in ATTACKS.values()]


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_images_keep_type_shape_box_and_ball(some, name, norm, dtype, attack):
    network, images, labels = some
    network, images = copy.deepcopy(network).to(dtype), images.to(dtype)
    before = images.clone()
    adversarial = attack(name, network, images, labels, norm=norm)
    assert adversarial.dtype == dtype
    assert adversarial.shape == images.shape
    assert torch.equal(images, before)
    assert not torch.equal(adversarial, images)
    verdict = judge(network, images, labels, adversarial, norm=norm, eps=attack.confined(name, norm))
    assert verdict.in_box.all()
    assert verdict.in_ball.all()
    if within_budget(ATTACKS[name]) and norm != "l1" and dtype != torch.bfloat16 and name != "gaussian_noise":
        assert float(verdict.distance.max()) > 0.9 * attack.radius[norm]  # nor is the radius only half used


@pytest.mark.parametrize(("name", "norm"), _named(WITHIN_REACH))
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_gradients_are_as_strong_in_other_types(digits, name, norm, dtype, attack):
    network, images, labels = digits[0], digits[1][:40], digits[2][:40]
    other, others = copy.deepcopy(network).to(dtype), images.to(dtype)
    here = _broken(attack, name, network, images, labels, norm=norm)
    there = _broken(attack, name, other, others, labels, norm=norm)
    assert int(here.sum()) >= 4
    assert int(there.sum()) >= int(here.sum()) - 2  # of 40: images and logits have 8 bits, and some margins are less


@every
def test_the_accuracy_of_a_sweep_at_zero_is_the_clean_accuracy(some, name, norm, attack):
    network, images, labels = some
    clean = network(images).argmax(dim=1)
    evidence = sweep(network, images, labels, ATTACKS[name], eps=[0.0, 0.01], norm=norm, **attack.cheap(name))
    assert evidence.prediction[0].tolist() == clean.tolist()
    assert evidence.accuracy[0] == (clean == labels).double().mean().item()
    assert not evidence.linf[0].any()


@budget
def test_eps_zero_returns_the_images(some, name, norm, attack):
    network, images, labels = some
    adversarial = attack(name, network, images, labels, norm=norm, eps=0.0)
    torch.testing.assert_close(adversarial, images, rtol=0, atol=0)


@every
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_mode_gradients_and_global_generators_are_left_as_they_were(some, name, norm, training, attack):
    network, images, labels = copy.deepcopy(some[0]).train(training), some[1][:6], some[2][:6]
    parameters = list(network.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.ones_like(parameters[1])
    weights = [parameter.detach().clone() for parameter in parameters]
    reached = []
    for parameter in parameters[1:]:
        parameter.register_hook(lambda gradient: reached.append(gradient.shape))
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    adversarial = attack(name, _noisy(network), images, labels, norm=norm)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
    assert all(module.training is training for module in network.modules())
    assert [parameter.requires_grad for parameter in parameters] == [False] + [True] * (len(parameters) - 1)
    assert torch.equal(parameters[1].grad, torch.ones_like(parameters[1]))
    assert all(parameter.grad is None for parameter in parameters[2:])
    assert all(torch.equal(now, then) for now, then in zip(parameters, weights, strict=True))
    assert reached == []  # nor is a gradient of the parameters computed and thrown away
    assert not adversarial.requires_grad
    assert not images.requires_grad


def _noisy(network):
    """Draws from every global generator at every call."""

    def classifier(images):
        scale = 1e-4 * (random.random() + np.random.random())  # noqa: NPY002
        return network(images + scale * torch.randn_like(images))

    return classifier


@every
def test_works_where_gradients_are_switched_off(some, name, norm, attack):
    network, images, labels = some
    expected = attack(name, network, images, labels, norm=norm)
    with torch.no_grad():
        torch.testing.assert_close(attack(name, network, images, labels, norm=norm), expected, rtol=0, atol=0)


@every
def test_the_seed_decides_all_that_is_random(some, name, norm, attack):
    network, images, labels = some
    first, again, other = (attack(name, network, images, labels, seed, norm=norm) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) is not _random(name)


@every
def test_the_seed_decides_what_a_random_classifier_draws(some, name, norm, attack):
    network, images, labels = some
    torch.manual_seed(1)
    first = attack(name, _noisy(network), images, labels, norm=norm)
    torch.manual_seed(2)
    assert torch.equal(attack(name, _noisy(network), images, labels, norm=norm), first)


@every
def test_the_result_does_not_depend_on_the_batch(some, name, norm, attack):
    """In float64, where a sum in another order never changes the sign of a gradient in practice.

    What looks for the smallest perturbation ends at a boundary, where rounding decides which side a point is on, and so
    which of two points next to each other is the last.
    """
    network, images, labels = copy.deepcopy(some[0]).double(), some[1][:4].double(), some[2][:4]
    whole = attack(name, network, images, labels, norm=norm)
    tolerance = 1e-9 if within_budget(ATTACKS[name]) else 2e-5
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    parts = {
        "one by one": torch.arange(4).split(1),
        "threes": torch.arange(4).split(3),
        "another order": (order,),
    }
    for how, slices in parts.items():
        again = torch.empty_like(whole)
        for rows in slices:
            again[rows] = attack(name, network, images[rows], labels[rows], norm=norm)
        torch.testing.assert_close(again, whole, rtol=0, atol=tolerance, msg=lambda text, how=how: f"{how}: {text}")


@pytest.mark.parametrize(("name", "norm"), _named(LEAVING))
def test_broken_images_leave_and_cost_nothing_more(digits, counter, name, norm, attack):
    """One pixel that may not change tells the images apart in every batch that the classifier is shown."""
    network, images, labels = digits
    right = (network(images).argmax(dim=1) == labels).nonzero().squeeze(1)[:40]
    images, labels = images[right].clone(), labels[right]
    images[:, 0, 0, 0] = torch.arange(40) / 1000
    mask = torch.ones(1, 1, 16, 16)
    mask[..., 0, 0] = 0
    watched = counter(network)
    eps = attack.radius[norm] * {"noise_search": 6, "square": 3}.get(name, 1.5)
    adversarial = attack(name, watched, images, labels, norm=norm, eps=eps, mask=mask)
    gone, passes = set(), 0
    for seen in watched.seen:
        which = (seen[:, 0, 0, 0] * 1000).round().long()
        assert gone.isdisjoint(which.tolist())
        # APGD in l1 also looks outside the ball, where nothing is broken yet.
        inside = torch.linalg.vector_norm((seen - images[which]).flatten(1), ord=ORDER[norm], dim=1) <= eps + 1e-6
        broken = (network(seen).argmax(dim=1) != labels[which]) & inside
        gone |= set(which[broken].tolist())
        passes += len(seen)
    assert 3 <= len(gone) < 40  # the test has seen both kinds
    assert watched.backwards <= watched.forwards == passes
    assert set((network(adversarial).argmax(dim=1) != labels).nonzero().squeeze(1).tolist()) == gone


@asking
def test_misclassified_images_cost_one_forward(digits, counter, name, norm, attack):
    network, images, _ = digits
    wrong = (network(images[:20]).argmax(dim=1) + 1) % 10
    watched = counter(network)
    adversarial = attack(name, watched, images[:20], wrong, norm=norm)
    assert watched.forwards == 20
    if name == "fgsm":  # the published form takes its step whatever the class is
        assert watched.backwards == 20
    else:
        assert watched.backwards == 0
        assert torch.equal(adversarial, images[:20])


@pytest.mark.parametrize(("name", "norm"), _named(p for p in EVERY if "mask" in _signature(p[0])))
def test_what_the_mask_forbids_does_not_change(some, name, norm, attack):
    network, images, labels = some
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    adversarial = attack(name, network, images, labels, norm=norm, mask=mask)
    outside = mask.expand_as(images) == 0
    assert torch.equal(adversarial[outside], images[outside])
    assert not torch.equal(adversarial, images)
    of_each = torch.ones_like(images)
    of_each[::2] = 0  # every second image may not change at all
    adversarial = attack(name, network, images, labels, norm=norm, mask=of_each)
    assert torch.equal(adversarial[::2], images[::2])
    assert not torch.equal(adversarial[1::2], images[1::2])


@pytest.mark.parametrize(("name", "norm"), _named(p for p in EVERY if "targets" in _signature(p[0])))
def test_targets_are_reached_or_the_image_is_not_broken(digits, counter, name, norm, attack):
    network, images, labels = digits
    prediction = network(images).argmax(dim=1)
    right = (prediction == labels).nonzero().squeeze(1)[:20]
    images, labels = images[right], labels[right]
    targets = (labels + 1) % 10
    eps = {"linf": 0.3, "l2": 3.0, "l1": 40.0}[norm]
    adversarial = attack(name, network, images, labels, norm=norm, eps=eps, targets=targets, **_patience(name))
    confined = eps if within_budget(ATTACKS[name]) else None
    verdict = judge(network, images, labels, adversarial, norm=norm, eps=confined, targets=targets)
    assert torch.equal(verdict.success, verdict.prediction == targets)
    if name not in WITHOUT_GRADIENTS and name != "fgsm":
        assert int(verdict.success.sum()) >= 15
    if not within_budget(ATTACKS[name]):
        assert torch.equal(adversarial[~verdict.success], images[~verdict.success])
    # An image that is taken for its target from the start is left as it is, whatever its label.
    watched = counter(network)
    adversarial = attack(name, watched, images, targets, norm=norm, eps=eps, targets=labels)
    assert watched.forwards == 20
    assert torch.equal(adversarial, images) is (name != "fgsm")


@asking
def test_two_and_three_classes_are_enough(two_classes, linear, name, norm, attack):
    two, images, labels = two_classes
    third = torch.cat([two.weight.detach(), torch.zeros(1, 12, dtype=torch.float64)])
    never = torch.cat([two.bias.detach(), torch.tensor([-1e3], dtype=torch.float64)])
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    margin = (two(images)[:, 0] - two(images)[:, 1]).detach().abs()
    exact = margin / (two.weight[0] - two.weight[1]).detach().norm(p=dual)
    eps = float(exact.median())
    for classifier in (two, linear(third, never)):
        adversarial = attack(name, classifier, images, labels, norm=norm, eps=eps)
        confined = eps if within_budget(ATTACKS[name]) else None
        success = judge(classifier, images, labels, adversarial, norm=norm, eps=confined).success
        assert not (success & (exact > eps * (1 + 1e-6))).any() or confined is None
        if name not in WITHOUT_GRADIENTS:
            assert success[exact < 0.9 * eps].all()


@climbing
def test_a_classifier_that_ignores_gradients_is_refused(some, name, norm, attack):
    """Rather than found to be robust."""
    network, images, labels = some

    @torch.no_grad()
    def detached(images):
        return network(images)

    keep = detached(images).argmax(dim=1) == labels
    with pytest.raises(SpecError, match=r"^classifier: expected logits that can be differentiated; got logits without"):
        attack(name, detached, images[keep], labels[keep], norm=norm)


@climbing
def test_one_unusable_gradient_does_not_stop_the_others(tent, name, norm, attack):
    """The square root has gradient infinity times zero at 0, which is NaN."""

    def classifier(images):
        return tent(images[:, :, :1]) + 0 * images[:, :, 1:].sqrt().sum(dim=(1, 2, 3)).unsqueeze(1)

    images = torch.tensor([0.5, 0.0]).view(1, 1, 2, 1)
    near = _patience(name, initial_eps=0.1)  # a first step as long as the box is wide would miss the band
    adversarial = attack(name, classifier, images, torch.tensor([0]), norm=norm, eps=0.15, **near)
    assert adversarial.isfinite().all()
    assert classifier(adversarial).argmax(dim=1) == 1


@every
def test_a_constant_network_is_never_broken(name, norm, attack):
    """The images are not in its graph at all; random starts and noise do not break it either."""
    bias = torch.tensor([1.0, 0.0], requires_grad=True)

    def constant(images):
        return bias.expand(len(images), 2)

    images, labels = torch.full((5, 1, 2, 2), 0.5), torch.zeros(5, dtype=torch.int64)
    adversarial = attack(name, constant, images, labels, norm=norm)
    assert not judge(constant, images, labels, adversarial, norm=norm, eps=attack.confined(name, norm)).success.any()
    assert bias.grad is None
    if not within_budget(ATTACKS[name]):
        assert torch.equal(adversarial, images)


@pytest.mark.parametrize("eps", [-0.1, torch.nan, torch.inf], ids=str)
@budget
def test_a_radius_that_is_none_is_refused(some, name, norm, eps, attack):
    with pytest.raises(SpecError, match=rf"^eps: expected a finite number, 0 or larger; got {eps:g}$"):
        attack(name, *some, norm=norm, eps=eps)


@pytest.mark.parametrize("eps", ["8/255", True, torch.tensor(0.1)], ids=str)
@budget
def test_a_radius_that_is_no_number_is_refused(some, name, norm, eps, attack):
    message = re.escape(f"eps: expected a number, for example 8 / 255; got {eps!r}")
    with pytest.raises(SpecError, match=rf"^{message}$"):
        attack(name, *some, norm=norm, eps=eps)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_unknown_norm_is_refused_with_those_that_there_are(some, name, attack):
    message = f"^{name}: norm must be one of {', '.join(_norms(name))}; got 'L2'$"
    with pytest.raises(SpecError, match=message):
        attack(name, *some, norm="L2", eps=0.1)


@pytest.mark.parametrize("name", [name for name in ATTACKS if "loss" in _signature(name)])
def test_an_unknown_loss_is_refused_with_those_that_there_are(some, name, attack):
    losses = get_args(get_type_hints(ATTACKS[name])["loss"])
    with pytest.raises(SpecError, match=f"^{name}: loss must be one of {', '.join(losses)}; got 'hinge'$"):
        attack(name, *some, norm=_norms(name)[0], loss="hinge")


@pytest.mark.parametrize("name", [name for name in ATTACKS if "targets" in _signature(name)])
def test_targets_that_are_none_are_refused(some, name, attack):
    network, images, labels = some
    norm = _norms(name)[0]
    same = torch.where(torch.arange(12) < 3, labels, (labels + 1) % 10)
    message = r"^targets: expected classes other than the true ones; got the true one for 3 of 12$"
    with pytest.raises(SpecError, match=message):
        attack(name, network, images, labels, norm=norm, targets=same)
    with pytest.raises(
        SpecError, match=r"^targets: expected one class number for each of 12 images; got torch.int64 of"
    ):
        attack(name, network, images, labels, norm=norm, targets=same[:3])
    with pytest.raises(SpecError, match=r"^targets: expected 0 to 9, as the classifier has 10 classes; got 10 to 19$"):
        attack(name, network, images, labels, norm=norm, targets=labels + 10)


@pytest.mark.parametrize("name", [name for name in ATTACKS if "mask" in _signature(name)])
def test_masks_that_are_none_are_refused(some, name, attack):
    network, images, labels = some
    norm = _norms(name)[0]
    shape = r"^mask: expected zeros and ones that broadcast to \(12, 1, 16, 16\); got a shape of "
    for mask, message in (
        (torch.ones(16, 16), shape + r"\(16, 16\)$"),
        (torch.ones(3, 1, 16, 16), shape + r"\(3, 1, 16, 16\)$"),
        (torch.full((1, 1, 16, 16), 0.5), r"^mask: expected zeros and ones only; got other values$"),
    ):
        with pytest.raises(SpecError, match=message):
            attack(name, network, images, labels, norm=norm, mask=mask)


def test_gaussian_noise_has_the_scale_that_is_stated(attack):
    grey, label = torch.full((200, 3, 8, 8), 0.5), torch.zeros(200, dtype=torch.int64)
    grey[:, 0, 0, 0] += torch.arange(200) / 1e4  # equal images would get equal noise
    offset = attack("gaussian_noise", _never_asked, grey, label, norm="linf", eps=0.05) - grey
    assert float(offset.std()) == pytest.approx(0.05, rel=0.02)  # 38,400 draws: standard error 0.4 %
    assert float((offset.abs() > 0.05).float().mean()) == pytest.approx(0.317, abs=0.01)
    lengths = (attack("gaussian_noise", _never_asked, grey, label, norm="l2", eps=0.5) - grey).flatten(1).norm(dim=1)
    assert float(lengths.mean()) == pytest.approx(0.5, rel=0.01)


def _never_asked(images):
    raise AssertionError("noise asks no classifier")
