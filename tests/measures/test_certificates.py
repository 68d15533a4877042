import numpy as np
import pytest
import torch
from scipy.stats import binom, norm

from unperturbed.measures import certificates
from unperturbed.measures.certificates import (
    average_certified_radius,
    certified_accuracy,
    certified_radius,
    certify,
    fewest,
    largest_radius,
)
from unperturbed.records import SpecError
from unperturbed.tensors.streams import generator


def _linear(weight, bias):
    return lambda images: torch.stack([images.flatten(1) @ weight + bias, torch.zeros(len(images))], dim=1)


def test_the_certificate_of_a_linear_classifier_is_its_distance_and_never_more():
    """Smoothing changes no linear classifier: the radius tends to the distance from below."""
    weight = torch.ones(12)
    images = torch.full((3, 3, 2, 2), 0.5) + torch.tensor([0.02, 0.1, 0.3]).view(3, 1, 1, 1)
    distance = np.array([0.02, 0.1, 0.3]) * 12**0.5
    found = certify(_linear(weight, -6.0), images, sigma=0.5, n=20_000, alpha=0.001)
    assert (found.predicted == 0).all()
    assert (found.radius <= distance).all()
    assert (found.radius[:2] >= 0.75 * distance[:2]).all()


def test_the_largest_radius_is_that_of_the_formula():
    for n, alpha in ((100, 0.001), (100_000, 0.001), (50, 0.05)):
        found = certified_radius(np.array([n]), n, sigma=0.5, alpha=alpha)
        assert found[0] == pytest.approx(0.5 * norm.ppf(alpha ** (1 / n)), rel=1e-9)
    assert certified_radius(np.array([100_000]), 100_000, sigma=1.0, alpha=0.001)[0] == pytest.approx(3.8, abs=0.05)


@pytest.mark.parametrize("alpha", [0.5, 0.25, 0.05, 0.001, 1e-12])
def test_the_fewest_draws_are_those_that_the_formula_asks_for(alpha):
    enough = fewest(alpha)
    assert alpha ** (1 / enough) > 0.5
    assert enough == 1 or alpha ** (1 / (enough - 1)) <= 0.5
    assert largest_radius(enough, sigma=1.0, alpha=alpha) > 0
    images = torch.rand(2, 1, 2, 2)
    if enough > 1:
        with pytest.raises(
            SpecError, match=rf"{enough - 1} draws cannot certify .* {alpha:g}; expected n of at least {enough}$"
        ):
            certify(_linear(torch.ones(4), 5.0), images, sigma=0.5, n=enough - 1, alpha=alpha)
    assert (certify(_linear(torch.ones(4), 5.0), images, sigma=0.5, n=enough, alpha=alpha).predicted == 0).all()


@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.5])
def test_no_point_within_the_radius_gets_another_answer(sigma):
    """One intensity, class 1 in a band: what the smoothed classifier answers at any point is known."""
    low, high = 0.35, 0.75

    def band(images):
        x = images.flatten(1)[:, 0]
        return torch.stack([torch.zeros_like(x), ((x > low) & (x < high)).to(x) - 0.5], dim=1)

    centres = np.linspace(0, 1, 21)
    found = certify(band, torch.tensor(centres).view(-1, 1, 1, 1), sigma=sigma, n=2000, alpha=1e-6)
    assert (found.predicted >= 0).sum() > 10
    for centre, predicted, radius in zip(centres, found.predicted, found.radius, strict=True):
        if predicted >= 0:
            near = np.linspace(centre - radius, centre + radius, 201)
            inside = norm.cdf((high - near) / sigma) - norm.cdf((low - near) / sigma)
            assert ((inside > 0.5) == predicted).all()


def test_no_attack_on_the_smoothed_classifier_succeeds_within_the_radius_and_farther_out_it_does():
    """A network with one hidden layer; ascent on the mean over draws, judged by votes of fresh ones."""
    sigma, random = 0.25, generator("certificates")
    first, second = 4 * torch.randn(12, 16, generator=random), torch.randn(16, generator=random)
    images = torch.rand(24, 3, 2, 2, generator=random)
    noise = sigma * torch.randn(2000, 3, 2, 2, generator=random)
    fresh = sigma * torch.randn(20_000, 3, 2, 2, generator=random)

    def margin(images):
        return torch.tanh((images.flatten(1) - 0.5) @ first) @ second

    found = certify(lambda images: torch.stack([margin(images), -margin(images)], dim=1), images, sigma=sigma, n=2000)
    assert (found.predicted >= 0).sum() > 15
    votes: dict[float, list[float]] = {1.0: [], 4.0: []}  # for what was certified, by multiples of the radius
    for image, predicted, radius in zip(images, found.predicted, found.radius, strict=True):
        if predicted < 0:
            continue
        sign = 1 - 2 * predicted
        for times, shares in votes.items():
            change = torch.zeros_like(image)
            for _ in range(40):
                moved = (image + change).requires_grad_()
                mean = torch.sigmoid(5 * sign * margin(moved + noise)).mean()
                (gradient,) = torch.autograd.grad(mean, moved)
                change = change - 0.2 * times * radius * gradient / gradient.norm()
                change = change * min(1.0, times * radius / change.norm().item())
            shares.append((sign * margin(image + change + fresh) > 0).double().mean().item())
    error = 4 * 0.5 / len(fresh) ** 0.5
    assert min(votes[1.0]) > 0.5 - error
    assert sum(share < 0.5 - error for share in votes[4.0]) > len(votes[4.0]) / 2


def test_the_radius_grows_with_the_count_and_is_zero_where_the_bound_is_no_majority():
    counts = np.arange(101)
    radius = certified_radius(counts, 100, sigma=1.0, alpha=0.01)
    assert (np.diff(radius) >= 0).all()
    first = int(np.argmax(radius > 0))
    # The bound exceeds one half exactly where so many successes would be rarer than alpha for a fair coin.
    assert binom.sf(first - 1, 100, 0.5) < 0.01 <= binom.sf(first - 2, 100, 0.5)


def test_a_class_without_a_majority_is_an_abstention():
    three = lambda images: torch.randn(len(images), 3, generator=random)  # noqa: E731
    random = torch.Generator().manual_seed(0)
    found = certify(three, torch.rand(4, 1, 2, 2), sigma=0.1, n=200)
    assert (found.predicted == -1).all()
    assert (found.radius == 0).all()


def test_accuracy_and_mean_radius_count_only_what_is_right():
    found = certify(_linear(torch.ones(4), -2.0), torch.full((2, 1, 2, 2), 0.7), sigma=0.25, n=1000)
    labels = np.array([0, 1])
    curve = certified_accuracy(found, labels, np.array([0.0, 0.1, 5.0]))
    np.testing.assert_allclose(curve, [0.5, 0.5, 0.0])
    assert average_certified_radius(found, labels) == pytest.approx(found.radius[0] / 2)


def test_the_same_seed_gives_the_same_certificate_and_disturbs_no_generator():
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    one, two = (certify(_linear(torch.ones(4), -2.0), images, sigma=0.25, n=500) for _ in range(2))
    np.testing.assert_array_equal(one.votes, two.votes)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"sigma": 0.0}, "sigma above 0; got 0"), ({"n": 0}, "alpha in .0, 1.; got 0, 100 and"), ({"n0": 0}, "n0 of at least 1"),
     ({"alpha": 1.0}, "alpha in .0, 1."), ({"n": 9}, "9 draws cannot certify anything")],
)  # fmt: skip
def test_bad_settings_are_one_line(wrong, message):
    with pytest.raises(SpecError, match=message):
        certify(_linear(torch.ones(4), 0.0), torch.rand(1, 1, 2, 2), **{"sigma": 0.5, **wrong})


def _seen(images, **settings):
    """Every noisy copy that a classifier is shown, batch by batch."""
    batches = []

    def classifier(copies):
        batches.append(copies.clone())
        return torch.zeros(len(copies), 2)

    certify(classifier, images, sigma=1.0, **settings)
    return batches


def test_copies_of_several_images_share_full_batches(monkeypatch):
    images = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(certificates, "AT_ONCE", 100)
    assert [len(batch) for batch in _seen(images, n=37, n0=20)] == [100, 100, 85]
    noise = torch.cat(_seen(images, n=300, n0=20)).view(5, 320, 4) - images.view(5, 1, 4)
    # Standard normal numbers, others for every image, draw and intensity.
    assert abs(float(noise.mean())) < 4 / noise.numel() ** 0.5
    assert float(noise.std()) == pytest.approx(1, abs=4 / (2 * noise.numel()) ** 0.5)
    assert len(noise.unique()) == noise.numel()


@pytest.mark.parametrize("at_once", [1, 7, 512, 10_000])
def test_an_image_has_the_same_noise_in_any_batch_and_at_any_place(monkeypatch, at_once):
    images = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    settings = {"n": 300, "n0": 25, "seed": 3}
    whole = torch.cat(_seen(images, **settings)).view(6, 325, 3, 2, 2)
    votes = certify(_linear(torch.ones(12), -6.0), images, sigma=0.5, **settings).votes
    monkeypatch.setattr(certificates, "AT_ONCE", at_once)
    for rows in ([3], [5, 1, 2]):
        part = torch.cat(_seen(images[rows], **settings)).view(len(rows), 325, 3, 2, 2)
        assert torch.equal(part, whole[rows])
        found = certify(_linear(torch.ones(12), -6.0), images[rows], sigma=0.5, **settings)
        np.testing.assert_array_equal(found.votes, votes[rows])


def test_the_class_is_chosen_by_draws_of_its_own():
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    choice = torch.cat(_seen(images, n=40, n0=40)).view(3, 80, 4)
    assert not torch.isin(choice[:, :40], choice[:, 40:]).any()
    other = torch.cat(_seen(images, n=40, n0=40, seed=1)).view(3, 80, 4)
    assert not torch.isin(choice, other).any()


def test_votes_are_counted_for_the_right_image_and_class():
    """Each image shows its class; a share of the draws, known from the noise itself, says another."""
    images = torch.arange(4.0).view(4, 1, 1, 1) * 100

    def classifier(copies):
        x = copies.flatten()
        chosen = ((x / 100).round().long() + (x - (x / 100).round() * 100 > 1).long()) % 4
        return torch.nn.functional.one_hot(chosen, 4).float()

    found = certify(classifier, images, sigma=1.0, n=700, alpha=0.01)
    assert found.predicted.tolist() == [0, 1, 2, 3]
    noise = torch.cat(_seen(images, n=700)).view(4, 800) - images.view(4, 1)
    np.testing.assert_array_equal(found.votes, (noise[:, 100:] <= 1).sum(dim=1).numpy())


def test_the_first_draws_alone_choose_the_class_and_the_others_alone_bound_it():
    """Where the first draw is of the rarer class, the answer is to abstain, however many others disagree."""
    images = torch.full((40, 1, 1, 1), 0.3)
    images += 1e-6 * torch.arange(40.0).view(-1, 1, 1, 1)  # each has noise of its own
    found = certify(_linear(torch.ones(1), 0.0), images, sigma=0.5, n=200, n0=1, alpha=0.01)
    noise = torch.cat(_seen(images, n=200, n0=1)).view(40, 201) - images.view(40, 1)
    won = images.view(40, 1) + 0.5 * noise > 0
    first = won[:, 0]
    assert 3 < (~first).sum() < 37
    others = won[:, 1:].sum(dim=1)
    np.testing.assert_array_equal(found.votes, torch.where(first, others, 200 - others).numpy())
    np.testing.assert_array_equal(found.predicted == -1, (~first).numpy())
