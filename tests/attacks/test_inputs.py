"""Bad input: each one clear line with the values that came, from every entrance."""

import pytest
import torch

from unperturbed.attacks import ATTACKS, check_spec, complete, fgsm, judge, pgd, sweep
from unperturbed.records import Spec, SpecError

GOOD = torch.full((4, 1, 2, 2), 0.5)
LABELS = torch.tensor([0, 1, 2, 0])


def _changed(index, value):
    images = GOOD.clone()
    images[index, 0, 0, 0] = value
    return images


def three_classes(images):
    x = images.flatten(1)
    return torch.stack([x[:, 0], x[:, 1], x[:, 2]], dim=1)


BAD = [
    (GOOD * 255, LABELS, r"^images: expected intensities in \[0, 1\]; got 127.5 to 127.5: divide them by 255$"),
    (
        _changed(1, -2.25),
        LABELS,
        r"^images: expected intensities in \[0, 1\]; got -2.25 to 0.5: were they normalised\? Give raw intensities",
    ),
    (_changed(1, 1.25), LABELS, r"^images: expected intensities in \[0, 1\]; got 0.5 to 1.25: were they normalised\?"),
    (_changed(2, torch.inf), LABELS, r"^images: expected intensities in \[0, 1\]; got 0.5 to inf"),
    (_changed(3, torch.nan), LABELS, r"^images: expected numbers; got NaN in 1 of 4 images$"),
    (GOOD[:0], LABELS[:0], r"^images: expected at least one image; got a shape of \(0, 1, 2, 2\)$"),
    (
        GOOD.to(torch.uint8),
        LABELS,
        r"^images: expected floating-point intensities in \[0, 1\]; got torch.uint8: divide by",
    ),
    (GOOD, LABELS[:3], r"^labels: expected 4, one for each image; got 3$"),
    (GOOD, LABELS.float(), r"^labels: expected whole class numbers; got torch.float32$"),
    (
        GOOD,
        torch.eye(4, 3, dtype=torch.int64),
        r"^labels: expected one class number for each image; got a shape of \(4, 3\)$",
    ),
    (GOOD, LABELS + 1, r"^labels: expected 0 to 2, as the classifier has 3 classes; got 1 to 3$"),
    (GOOD, LABELS - 1, r"^labels: expected 0 to 2, as the classifier has 3 classes; got -1 to 1$"),
]


@pytest.mark.parametrize(("images", "labels", "message"), BAD)
def test_images_and_labels_are_refused_at_every_entrance(images, labels, message):
    with pytest.raises(SpecError, match=message):
        fgsm(three_classes, images, labels, eps=0.1)
    with pytest.raises(SpecError, match=message):
        pgd(three_classes, images, labels, eps=0.1)
    with pytest.raises(SpecError, match=message):
        sweep(three_classes, images, labels, pgd, eps=[0.0, 0.1])
    with pytest.raises(SpecError, match=message):
        judge(three_classes, images, labels, images, norm="linf", eps=0.1)


@pytest.mark.parametrize("attack", [ATTACKS["uniform_noise"], ATTACKS["gaussian_noise"]])
@pytest.mark.parametrize(("images", "labels", "message"), BAD[:-2])
def test_noise_refuses_them_too(attack, images, labels, message):
    with pytest.raises(SpecError, match=message):
        attack(three_classes, images, labels, torch.Generator(), eps=0.1)


def test_round_off_is_not_refused():
    images = _changed(0, 1 + 5e-7)
    adversarial = pgd(three_classes, images, LABELS, torch.Generator(), eps=0.01)
    assert float(adversarial.max()) <= 1
    assert judge(three_classes, images, LABELS, images, norm="linf", eps=0.0).in_box.all()


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(4), r"^classifier: expected logits of shape \(4, classes\), 2 classes or more; got \(4,\)$"),
        (torch.zeros(4, 1), r"^classifier: expected logits of shape \(4, classes\), 2 classes or more; got \(4, 1\)$"),
        (torch.zeros(2, 3), r"^classifier: expected logits of shape \(4, classes\), 2 classes or more; got \(2, 3\)$"),
        (torch.tensor([[0.0, torch.nan, 0.0]] * 4), r"^classifier: expected finite logits; got nan for 4 of 4 images$"),
        (
            torch.cat([torch.zeros(3, 3), torch.tensor([[0.0, torch.inf, 0.0]])]),
            r"^classifier: expected finite logits; got inf for 1 of 4 images$",
        ),
    ],
)
def test_logits_are_refused(logits, message):
    def classifier(images):
        return logits + 0 * images.sum()

    for attack in (fgsm, pgd):
        with pytest.raises(SpecError, match=message):
            attack(classifier, GOOD, LABELS, eps=0.1)
        with pytest.raises(SpecError, match=message):
            sweep(classifier, GOOD, LABELS, attack, eps=[0.0])
    with pytest.raises(SpecError, match=message):
        judge(classifier, GOOD, LABELS, GOOD, norm="linf", eps=0.1)


@pytest.mark.parametrize(
    ("eps", "message"),
    [
        ([], r"^eps: expected at least one value; got none$"),
        ([-0.1, 0.2], r"^eps: expected a finite number, 0 or larger; got -0.1$"),
        ([0.0, 0.2, 0.1], r"^eps: expected increasing values; got 0.1 after 0.2$"),
        ([0.0, 0.2, 0.2], r"^eps: expected increasing values; got 0.2 after 0.2$"),
        ([0.0, torch.nan], r"^eps: expected a finite number, 0 or larger; got nan$"),
    ],
)
def test_radii_are_refused(eps, message):
    with pytest.raises(SpecError, match=message):
        sweep(three_classes, GOOD, LABELS, fgsm, eps=eps)
    if eps:
        with pytest.raises(SpecError, match=message):
            check_spec(Spec(name="fgsm"), eps)


@pytest.mark.parametrize("attack", list(ATTACKS.values()))
def test_a_negative_radius_is_refused_by_every_attack(attack):
    with pytest.raises(SpecError, match=r"^eps: expected a finite number, 0 or larger; got -0.1$"):
        attack(three_classes, GOOD, LABELS, torch.Generator(), eps=-0.1)


def test_an_unknown_attack_is_refused_with_the_names_and_the_nearest():
    message = r"^There is no attack 'pdg'. There are: fgsm, pgd, uniform_noise, gaussian_noise. Did you mean 'pgd'\?$"
    with pytest.raises(SpecError, match=message):
        check_spec(Spec(name="pdg"))
    with pytest.raises(SpecError, match=message):
        complete(Spec(name="pdg"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"stepz": 3},
            r"has no setting 'stepz'. It has: norm, steps, step_size, random_start, published. Did you mean 'steps'\?$",
        ),
        ({"eps": 0.1}, r"^pgd has no setting 'eps'. It has: norm, steps, step_size, random_start, published."),
        ({"steps": "40"}, r"^pgd: steps must be int, got '40'.$"),
        ({"steps": 4.0}, r"^pgd: steps must be int, got 4.0.$"),
        ({"steps": True}, r"^pgd: steps must be int, got True.$"),
        ({"step_size": "big"}, r"^pgd: step_size must be float or none, got 'big'.$"),
        ({"random_start": 1}, r"^pgd: random_start must be bool, got 1.$"),
        ({"norm": "L1"}, r"^norm: expected one of linf, l2; got 'L1'$"),
        ({"steps": 0}, r"^pgd: expected steps of at least 1; got 0$"),
        ({"steps": 3, "step_size": 0.01}, r"^pgd: 3 steps of 0.01 move at most 0.03, less than eps=0.3;"),
    ],
)
def test_settings_are_refused_before_anything_runs(settings, message):
    with pytest.raises(SpecError, match=message):
        check_spec(Spec(name="pgd", settings=settings), [0.0, 0.01, 0.3])


def test_the_sweep_refuses_a_setting_before_it_asks_the_classifier():
    def classifier(images):
        raise AssertionError("asked")

    with pytest.raises(SpecError, match=r"^fgsm has no setting 'steps'. It has: norm, clip, exact.$"):
        sweep(classifier, GOOD, LABELS, fgsm, eps=[0.1], steps=3)
    with pytest.raises(SpecError, match=r"^sweep: expected batch_size of at least 1; got 0$"):
        sweep(classifier, GOOD, LABELS, fgsm, eps=[0.1], batch_size=0)


def test_good_settings_are_accepted_and_written_out():
    spec = Spec(name="pgd", settings={"steps": 3, "step_size": 1})
    check_spec(spec, [0.0, 0.3])
    assert complete(spec).settings == {
        "norm": "linf",
        "steps": 3,
        "step_size": 1,
        "random_start": True,
        "published": False,
    }
    assert complete(complete(spec)) == complete(spec)
    for name in ATTACKS:
        check_spec(complete(Spec(name=name)), [0.0, 0.3])
