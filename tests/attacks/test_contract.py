"""What every attack promises, by being listed."""

import copy
from pathlib import Path

import pytest
import torch

import unperturbed.attacks
from unperturbed.attacks import ATTACKS, judge
from unperturbed.attacks.sweep import UNCONFINED
from unperturbed.records import SpecError

RADIUS = {"linf": 0.05, "l2": 0.5}
RANDOM = ("pgd", "uniform_noise", "gaussian_noise")


@pytest.fixture(params=list(ATTACKS))
def name(request):
    return request.param


@pytest.fixture(params=list(RADIUS))
def norm(request):
    return request.param


def _attack(name, classifier, images, labels, seed=0, *, norm="linf", eps=None, **settings):
    eps = RADIUS[norm] if eps is None else eps
    return ATTACKS[name](
        classifier, images, labels, torch.Generator().manual_seed(seed), norm=norm, eps=eps, **settings
    )


def test_every_attack_of_the_folder_is_listed():
    machinery = {"__init__", "classifier", "evidence", "inputs", "judge", "sweep"}
    files = {file.stem for file in Path(unperturbed.attacks.__file__).parent.glob("*.py")} - machinery
    assert files == {attack.__module__.rsplit(".", 1)[1] for attack in ATTACKS.values()}
    assert list(ATTACKS) == [attack.__name__ for attack in ATTACKS.values()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_images_keep_type_shape_box_and_ball(digits, name, norm, dtype):
    network, images, labels = digits
    network = copy.deepcopy(network).to(dtype)
    images, labels = images[:64].to(dtype), labels[:64]
    before = images.clone()
    adversarial = _attack(name, network, images, labels, norm=norm)
    assert adversarial.dtype == dtype
    assert adversarial.shape == images.shape
    assert torch.equal(images, before)
    assert not torch.equal(adversarial, images)
    eps = None if ATTACKS[name] in UNCONFINED else RADIUS[norm]
    verdict = judge(network, images, labels, adversarial, norm=norm, eps=eps)
    assert verdict.in_box.all()
    assert verdict.in_ball.all()
    if dtype != torch.bfloat16 and name != "gaussian_noise":  # nor is the radius only half used
        assert float({"linf": verdict.linf, "l2": verdict.l2}[norm].max()) > 0.9 * RADIUS[norm]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradient_attacks_are_as_strong_in_other_types(digits, norm, dtype):
    network, images, labels = digits
    other = copy.deepcopy(network).to(dtype)
    for name, settings in (("fgsm", {}), ("pgd", {"steps": 10})):
        reached = _attack(name, network, images, labels, norm=norm, **settings)
        there = _attack(name, other, images.to(dtype), labels, norm=norm, **settings)
        broken = judge(network, images, labels, reached, norm=norm, eps=RADIUS[norm]).success.float().mean()
        broken_there = judge(other, images.to(dtype), labels, there, norm=norm, eps=RADIUS[norm]).success.float().mean()
        assert broken > 0.2
        assert broken_there > broken - 0.05  # images and logits of 8 bits


def test_eps_zero_returns_the_images(digits, name, norm):
    network, images, labels = digits
    adversarial = _attack(name, network, images, labels, norm=norm, eps=0.0)
    torch.testing.assert_close(adversarial, images, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_mode_gradients_and_global_generator_are_left_as_they_were(digits, name, norm, training):
    network, images, labels = digits
    network = copy.deepcopy(network).train(training)
    parameters = list(network.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.ones_like(parameters[1])
    weights = [parameter.detach().clone() for parameter in parameters]
    state = torch.get_rng_state()
    adversarial = _attack(name, network, images[:8], labels[:8], norm=norm)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training is training for module in network.modules())
    assert [parameter.requires_grad for parameter in parameters] == [False] + [True] * (len(parameters) - 1)
    assert torch.equal(parameters[1].grad, torch.ones_like(parameters[1]))
    assert all(parameter.grad is None for parameter in parameters[2:])
    assert all(torch.equal(now, then) for now, then in zip(parameters, weights, strict=True))
    assert not adversarial.requires_grad
    assert not images.requires_grad


def test_no_gradient_of_the_parameters_is_computed(digits, norm):
    network, images, labels = digits
    network = copy.deepcopy(network)
    reached = []
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: reached.append(gradient.shape))
    _attack("fgsm", network, images[:8], labels[:8], norm=norm)
    _attack("pgd", network, images[:8], labels[:8], norm=norm)
    assert reached == []


def test_works_where_gradients_are_switched_off(digits, name, norm):
    network, images, labels = digits
    images, labels = images[:32], labels[:32]
    expected = _attack(name, network, images, labels, norm=norm)
    with torch.no_grad():
        torch.testing.assert_close(_attack(name, network, images, labels, norm=norm), expected, rtol=0, atol=0)


def test_the_generator_decides_all_that_is_random(digits, name, norm):
    network, images, labels = digits
    images, labels = images[:32], labels[:32]
    first, again, other = (_attack(name, network, images, labels, seed, norm=norm) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) is (name not in RANDOM)


@pytest.mark.parametrize("name", ["uniform_noise", "gaussian_noise"])
def test_noise_without_a_generator_is_refused(digits, name):
    network, images, labels = digits
    with pytest.raises(SpecError, match=rf"^{name}: expected a torch.Generator to draw the noise from; got None$"):
        ATTACKS[name](network, images, labels, None, eps=0.1)


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_a_classifier_that_ignores_gradients_is_refused(digits, name):
    """Rather than found to be robust."""
    network, images, labels = digits

    @torch.no_grad()
    def detached(images):
        return network(images)

    keep = detached(images).argmax(dim=1) == labels
    with pytest.raises(SpecError, match=r"^classifier: expected logits that can be differentiated; got logits without"):
        _attack(name, detached, images[keep], labels[keep])


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_one_unusable_gradient_does_not_stop_the_others(tent, name, norm):
    """The square root has gradient infinity times zero at 0, which is NaN."""

    def classifier(images):
        return tent(images[:, :, :1]) + 0 * images[:, :, 1:].sqrt().sum(dim=(1, 2, 3)).unsqueeze(1)

    images = torch.tensor([0.5, 0.0]).view(1, 1, 2, 1)
    adversarial = _attack(name, classifier, images, torch.tensor([0]), norm=norm, eps=0.15)
    assert adversarial.isfinite().all()
    assert classifier(adversarial).argmax(dim=1) == 1


def test_a_constant_network_is_never_broken(name, norm):
    """The images are not in its graph at all; random starts and noise do not break it either."""
    bias = torch.tensor([1.0, 0.0], requires_grad=True)

    def constant(images):
        return bias.expand(len(images), 2)

    images, labels = torch.full((5, 1, 2, 2), 0.5), torch.zeros(5, dtype=torch.int64)
    adversarial = _attack(name, constant, images, labels, norm=norm)
    eps = None if ATTACKS[name] in UNCONFINED else RADIUS[norm]
    assert not judge(constant, images, labels, adversarial, norm=norm, eps=eps).success.any()
    assert bias.grad is None


def test_gaussian_noise_has_the_scale_that_is_stated():
    grey, label = torch.full((200, 3, 8, 8), 0.5), torch.zeros(200, dtype=torch.int64)
    offset = _attack("gaussian_noise", _never_asked, grey, label, eps=0.05) - grey
    assert float(offset.std()) == pytest.approx(0.05, rel=0.02)  # 38,400 draws: standard error 0.4 %
    assert float((offset.abs() > 0.05).float().mean()) == pytest.approx(0.317, abs=0.01)
    lengths = (_attack("gaussian_noise", _never_asked, grey, label, norm="l2", eps=0.5) - grey).flatten(1).norm(dim=1)
    assert float(lengths.mean()) == pytest.approx(0.5, rel=0.01)


def _never_asked(images):
    raise AssertionError("noise asks no classifier")
