"""A surrogate leads the way, the deployed classifier decides (BPDA, EOT on the decision)."""

import pytest
import torch

from unperturbed.attacks import Passes, fgsm, guided, judge, noise_search, pgd, sweep
from unperturbed.attacks.classifier import slope
from unperturbed.attacks.problem import Problem


@pytest.fixture
def rounding(two_classes):
    """The linear problem behind intensities rounded to 64 levels: gradient 0 wherever there is one."""
    classifier, images, labels = two_classes

    def deployed(images):
        return classifier((images * 63).round() / 63)

    keep = deployed(images).argmax(dim=1) == labels
    return deployed, classifier, images[keep], labels[keep]


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_a_rounding_classifier_falls_through_the_identity(rounding, attack):
    deployed, surrogate, images, labels = rounding
    alone = attack(deployed, images, labels, eps=0.1) if attack is fgsm else None
    if alone is not None:
        assert torch.equal(alone, images)  # its own gradient is 0 everywhere
    found = attack(guided(deployed, surrogate), images, labels, eps=0.1)
    verdict = judge(deployed, images, labels, found, norm="linf", eps=0.1)
    margin = (surrogate(images)[:, 0] - surrogate(images)[:, 1]).abs()
    weights = (surrogate.weight[0] - surrogate.weight[1]).abs().sum()
    assert verdict.success[margin < (0.1 - 1 / 126) * weights].all()  # rounding takes half a level back
    assert int(verdict.success.sum()) > 20


def test_a_sweep_goes_through_the_surrogate_and_judges_the_deployed(rounding):
    deployed, surrogate, images, labels = rounding
    both = guided(deployed, surrogate)
    led = sweep(both, images, labels, pgd, eps=[0.0, 0.1], steps=10)
    assert led.prediction[0].tolist() == deployed(images).argmax(dim=1).tolist()
    assert led.accuracy[0] == 1
    assert led.accuracy[1] < 0.4
    alone = sweep(deployed, images, labels, pgd, eps=[0.0, 0.1], steps=10, random_start=False)
    assert alone.accuracy[1] == 1


def test_a_sweep_against_another_network_goes_on_to_the_largest_loss(two_classes):
    """The deployed network has the same weights and a boundary that lies further away."""
    surrogate, images, labels = two_classes
    images, labels = images[labels == 0], labels[labels == 0]
    margins = surrogate(images).detach()
    lead = torch.tensor([1.0, 0.0]) * (margins[:, 0] - margins[:, 1]).median()

    def deployed(points):
        return surrogate(points) + lead

    def left(**settings):
        return sweep(deployed, images, labels, pgd, eps=[0.3], steps=10, **settings).accuracy[0]

    assert left(surrogate=surrogate) == left()
    assert left(surrogate=surrogate, persist=False) > left()


def test_the_deployed_classifier_decides(two_classes):
    """The surrogate can be broken everywhere; the deployed classifier, which never changes its mind, nowhere."""
    surrogate, images, labels = two_classes

    def stubborn(images):
        return torch.nn.functional.one_hot(labels[: len(images)], 2).double()

    found = pgd(guided(stubborn, surrogate), images, labels, eps=0.3, steps=5)
    assert not judge(stubborn, images, labels, found, norm="linf", eps=0.3).success.any()
    assert judge(surrogate, images, labels, found, norm="linf", eps=0.3).success.sum() == 0  # nothing beat the start


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8, 1e30])
def test_the_logits_are_exactly_those_of_the_deployed_classifier(digits, scale):
    """Added to a surrogate's logits of 1e8 and taken away again, they would be rounded to whole numbers."""
    network, images, _ = digits
    images = images[:20].clone().requires_grad_()
    led = guided(network, lambda images: scale * network(images))
    assert torch.equal(led(images), network(images))
    with torch.no_grad():
        assert torch.equal(led(images), network(images))


def test_the_gradient_is_that_of_the_surrogate_at_the_logits_of_the_deployed(linear):
    """Of the cross-entropy: softmax less one-hot of the deployed logits, times the weights of the surrogate."""
    random = torch.Generator().manual_seed(0)
    deployed, surrogate = (linear(torch.randn(4, 12, generator=random, dtype=torch.float64)) for _ in range(2))
    images = torch.rand(7, 3, 2, 2, generator=random, dtype=torch.float64)
    labels = torch.arange(7) % 4
    seen = slope(guided(deployed, surrogate), images, labels, loss="rounded_ce")
    error = deployed(images).softmax(dim=1) - torch.nn.functional.one_hot(labels, 4)
    expected = (error @ surrogate.weight).view_as(images)
    torch.testing.assert_close(seen.gradient(), expected.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(seen.logits, deployed(images).detach(), rtol=0, atol=0)


def test_the_passes_of_both_can_be_counted(two_classes, counter):
    classifier, images, labels = two_classes
    deployed, surrogate = Passes(classifier), Passes(classifier)
    watched = [counter(each) for each in (deployed, surrogate)]
    together = Passes(guided(*watched))
    pgd(together, images, labels, eps=1e-9, steps=4, random_start=False)
    # Every step: the surrogate forwards and backwards, the deployed one forwards; at the end it is asked alone.
    assert (deployed.forwards, deployed.backwards) == (5 * 40, 0)
    assert (surrogate.forwards, surrogate.backwards) == (4 * 40, 4 * 40)
    assert [(each.forwards, each.backwards) for each in watched] == [(200, 0), (160, 160)]
    assert (together.forwards, together.backwards) == (5 * 40, 4 * 40)


def test_without_a_gradient_only_the_deployed_classifier_is_asked(two_classes):
    classifier, images, labels = two_classes

    def unasked(images):
        raise AssertionError("asked")

    found = noise_search(guided(classifier, unasked), images, labels, eps=0.1, draws=3)
    assert torch.equal(found, noise_search(classifier, images, labels, eps=0.1, draws=3))


def test_a_deployed_classifier_without_a_gradient_needs_a_surrogate(two_classes):
    """Such as one in NumPy."""
    classifier, images, labels = two_classes
    weight, bias = classifier.weight.detach().numpy(), classifier.bias.detach().numpy()

    def in_numpy(images):
        return torch.from_numpy(images.flatten(1).numpy() @ weight.T + bias)

    found = pgd(guided(in_numpy, classifier), images, labels, eps=0.1, steps=5)
    torch.testing.assert_close(found, pgd(classifier, images, labels, eps=0.1, steps=5), rtol=0, atol=1e-9)


def test_itself_with_one_vote_is_itself(two_classes, counter):
    classifier, images, labels = two_classes
    watched = counter(classifier)
    found = pgd(guided(watched), images, labels, eps=0.05, steps=5)
    plain = counter(classifier)
    assert torch.equal(found, pgd(plain, images, labels, eps=0.05, steps=5))
    assert (watched.forwards, watched.backwards) == (plain.forwards, plain.backwards)


def test_a_vote_averages_the_logits_of_the_deployed_classifier(two_classes, counter):
    classifier, images, labels = two_classes

    def noisy(images):
        logits = classifier(images)
        return logits + 5 * torch.randn_like(logits)

    watched = counter(noisy)
    voting = guided(watched, classifier, votes=64)
    torch.manual_seed(0)
    with torch.no_grad():
        logits = voting(images)
    assert watched.forwards == 64 * len(images)
    spread = (logits - classifier(images)).detach().std()
    assert float(spread) == pytest.approx(5 / 8, rel=0.25)  # 80 numbers: 8 %
    # With a gradient too: the decision is that of the votes, and the gradient that of the surrogate.
    seen = slope(voting, images, labels)
    assert float((seen.logits - classifier(images).detach()).std()) == pytest.approx(5 / 8, rel=0.25)
    torch.testing.assert_close(seen.gradient(), slope(classifier, images, labels).gradient(), rtol=0, atol=1e-12)
    before = watched.forwards
    pgd(voting, images, labels, eps=0.0, steps=1, random_start=False)
    assert watched.forwards - before >= 64 * len(images)


def test_a_random_classifier_may_vote_with_its_own_gradient(digits):
    network, images, labels = digits[0], digits[1][:60], digits[2][:60]

    def noisy(images):
        return network(images + 0.3 * torch.randn_like(images))

    found = {votes: pgd(guided(noisy, votes=votes), images, labels, eps=0.0, steps=5) for votes in (1, 25)}
    assert all(torch.equal(each, images) for each in found.values())
    watched = Passes(guided(noisy, votes=25))
    pgd(watched, images, labels, eps=0.0, steps=5)
    single = Passes(guided(noisy))
    pgd(single, images, labels, eps=0.0, steps=5)
    assert watched.backwards > single.backwards  # lucky draws end the search for single draws earlier


def test_forwards_and_gradients_see_the_mean_of_as_many_draws(two_classes, counter):
    """Also the decision: whether an image is broken is that of the mean logits."""
    classifier, images, labels = two_classes

    def noisy(images):
        logits = classifier(images)
        return logits + 5 * torch.randn_like(logits)

    exact = torch.where(labels == 0, 1, -1) * (classifier(images)[:, 1] - classifier(images)[:, 0]).detach()
    watched = counter(noisy)
    problem = Problem(watched, images, labels, seed=0, loss="margin", eot=64)
    torch.manual_seed(0)
    looked = problem.look(images)
    assert (watched.forwards, watched.backwards) == (64 * 40, 0)
    climbed = problem.slope(images)
    gradient = climbed.gradient()
    assert (watched.forwards, watched.backwards) == (2 * 64 * 40, 64 * 40)
    for seen in (looked, climbed.losses):
        assert float((seen.value - exact).std()) == pytest.approx(5 * 2**0.5 / 8, rel=0.4)  # 40 numbers: 11 %
        assert torch.equal(seen.broken, seen.value > 0)
    expected = slope(classifier, images, labels, loss="margin").gradient()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
