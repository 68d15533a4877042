"""Bad input: each one clear line with the values that came, from every entrance."""

import inspect

import pytest
import torch

from unperturbed.attacks import ATTACKS, Passes, check_spec, complete, fgsm, guided, judge, pgd, sweep
from unperturbed.attacks.expectation import expectation
from unperturbed.attacks.inputs import check_images, check_labels, check_radii
from unperturbed.attacks.sweep import PLUGS
from unperturbed.records import Spec, SpecError

SETTINGS = ", ".join(
    name
    for name, kind in inspect.signature(pgd).parameters.items()
    if kind.kind is kind.KEYWORD_ONLY and name not in PLUGS
)
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
        expectation(three_classes, images, labels)
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
        attack(three_classes, images, labels, eps=0.1)


def test_round_off_is_not_refused():
    images = _changed(0, 1 + 5e-7)
    adversarial = pgd(three_classes, images, LABELS, eps=0.01)
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
    with pytest.raises(SpecError, match=message):
        expectation(classifier, GOOD, LABELS)


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        (lambda logits: (logits,), "tuple"),
        (lambda logits: logits.detach().numpy(), "ndarray"),
        (lambda _: None, "NoneType"),
    ],
    ids=["tuple", "ndarray", "None"],
)
def test_what_is_no_tensor_is_refused(returned, kind):
    def classifier(images):
        return returned(three_classes(images))

    message = rf"^classifier: expected logits as a torch.Tensor; got {kind}$"
    for attack in (fgsm, pgd):
        with pytest.raises(SpecError, match=message):
            attack(classifier, GOOD, LABELS, eps=0.1)
        with pytest.raises(SpecError, match=message):
            attack(Passes(classifier), GOOD, LABELS, eps=0.1)
    with pytest.raises(SpecError, match=message):
        sweep(classifier, GOOD, LABELS, pgd, eps=[0.0])


def test_radii_as_words_are_refused():
    with pytest.raises(SpecError, match=r"^eps: expected a number, for example 8 / 255; got '8/255'$"):
        check_radii(["8/255"])


def test_images_and_labels_as_arrays_or_lists_are_refused():
    with pytest.raises(SpecError, match=r"^images: expected a torch.Tensor; got ndarray$"):
        check_images(GOOD.numpy())
    with pytest.raises(SpecError, match=r"^labels: expected a torch.Tensor; got list$"):
        check_labels([0, 1, 2, 0], 4)


def test_images_without_four_dimensions_are_refused():
    with pytest.raises(
        SpecError, match=r"^images: expected a shape \(batch, channels, height, width\); got \(4, 2, 2\)$"
    ):
        pgd(three_classes, GOOD[:, 0], LABELS, eps=0.1)
    with pytest.raises(SpecError, match=r"^images: expected a shape \(batch, channels, height, width\); got \(2, 2\)$"):
        check_images(GOOD[0, 0])


def _subtracts(images):
    return three_classes(images.sub_(0.1))


def _subtracts_without_gradient(images):
    with torch.no_grad():
        images.sub_(0.1)
    return three_classes(images)


def _subtracts_from_the_data(images):
    images.data.sub_(0.1)
    return three_classes(images)


def _subtracts_in_numpy(images):
    images.detach().numpy()[...] -= 0.1
    return three_classes(images)


IN_PLACE = r"^classifier: expected images to be left as they are; it changes them in place: let it work on a copy$"


@pytest.mark.parametrize(
    "classifier", [_subtracts, _subtracts_without_gradient, _subtracts_from_the_data, _subtracts_in_numpy]
)
@pytest.mark.parametrize("settings", [{}, {"random_start": False}], ids=["looks first", "climbs first"])
def test_a_classifier_that_changes_its_input_is_refused(classifier, settings):
    """By NumPy or ``.data`` not even PyTorch sees it; unseen, the attack would go on from other images.

    An attack that starts with a gradient shows a copy, where only what PyTorch sees is found; the sweep finds it all.
    """
    if settings == {} or classifier in (_subtracts, _subtracts_without_gradient):
        with pytest.raises(SpecError, match=IN_PLACE):
            pgd(classifier, GOOD.clone(), torch.zeros(4, dtype=torch.int64), eps=0.1, **settings)
    with pytest.raises(SpecError, match=IN_PLACE):
        sweep(classifier, GOOD.clone(), torch.zeros(4, dtype=torch.int64), pgd, eps=[0.0, 0.1], **settings)
    with pytest.raises(SpecError, match=IN_PLACE):
        sweep(classifier, GOOD.clone(), torch.zeros(4, dtype=torch.int64), fgsm, eps=[0.1])


def test_the_judge_measures_before_a_classifier_can_change_anything():
    adversarial = GOOD + 0.05
    verdict = judge(_subtracts_in_numpy, GOOD, LABELS, adversarial, norm="linf", eps=0.1)
    torch.testing.assert_close(verdict.linf, torch.full((4,), 0.05, dtype=torch.float64), rtol=0, atol=1e-7)


def test_what_goes_wrong_inside_the_classifier_is_shown_as_it_is():
    def broken(images):
        raise KeyError("conv1.weight")

    for attack in (fgsm, pgd):
        with pytest.raises(KeyError, match=r"^'conv1.weight'$"):
            attack(broken, GOOD, LABELS, eps=0.1)
        with pytest.raises(KeyError, match=r"^'conv1.weight'$"):
            sweep(broken, GOOD, LABELS, attack, eps=[0.0, 0.1])


def test_what_fails_under_autograd_is_shown_as_it_is():
    def fails(images):
        return three_classes(torch.from_numpy(images.numpy().copy()))  # NumPy refuses what needs a gradient

    with pytest.raises(RuntimeError, match=r"^Can't call numpy\(\) on Tensor that requires grad"):
        fgsm(fails, GOOD, LABELS, eps=0.1)
    assert judge(fails, GOOD, LABELS, GOOD, norm="linf", eps=0.1).in_ball.all()


def test_a_surrogate_with_other_classes_is_refused():
    def two_classes(images):
        return three_classes(images)[:, :2]

    message = r"^surrogate: expected logits of shape \(4, 3\), as those of the deployed classifier; got \(4, 2\)$"
    with pytest.raises(SpecError, match=message):
        fgsm(guided(three_classes, two_classes), GOOD, LABELS, eps=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"votes": 0}, r"^judge: expected votes of at least 1; got 0$"),
        ({"levels": 1}, r"^judge: expected levels of at least 2, 256 for 8 bits; got 1$"),
        ({"bounds": (1.0, 1.0)}, r"^sweep: expected bounds of a lowest and a larger highest intensity; got 1 and 1$"),
        (
            {"bounds": (0.0, 0.4)},
            r"^images: expected intensities in \[0, 1\]; got 1.25 to 1.25: were they normalised\?",
        ),
        ({"norm": "L2"}, r"^norm: expected one of linf, l2, l1; got 'L2'$"),
        ({"norm": "l1"}, r"^pgd: norm must be 'linf' or 'l2', got 'l1'.$"),
        ({"targets": LABELS}, r"^targets: expected classes other than the true ones; got the true one for 4 of 4$"),
        ({"targets": LABELS + 1}, r"^targets: expected 0 to 2, as the classifier has 3 classes; got 1 to 3$"),
        (
            {"mask": torch.ones(2, 2)},
            r"^mask: expected zeros and ones that broadcast to \(4, 1, 2, 2\); got a shape of",
        ),
    ],
)
def test_settings_of_the_sweep_are_refused(settings, message):
    with pytest.raises(SpecError, match=message):
        sweep(three_classes, GOOD, LABELS, pgd, eps=[0.1], **settings)


@pytest.mark.parametrize(
    ("plug", "value"), [("targets", (LABELS + 1) % 3), ("mask", torch.ones(1, 1, 2, 2))], ids=["targets", "mask"]
)
def test_the_sweep_refuses_what_the_attack_does_not_take(plug, value):
    def simple(classifier, images, labels, seed, *, norm: str = "linf", eps):
        raise AssertionError("run")

    with pytest.raises(SpecError, match=rf"^sweep: simple takes no {plug}; leave them out$"):
        sweep(three_classes, GOOD, LABELS, simple, eps=[0.1], **{plug: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 1}, r"^expectation: expected draws of at least 2; got 1$"),
        ({"confidence": 95.0}, r"^expectation: expected a confidence above 0 and below 1, for example 0.95; got 95$"),
    ],
)
def test_settings_of_the_expectation_are_refused(settings, message):
    with pytest.raises(SpecError, match=message):
        expectation(three_classes, GOOD, LABELS, **settings)


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


def test_an_unknown_attack_is_refused_with_the_names_and_the_nearest():
    message = rf"^There is no attack 'pdg'. There are: {', '.join(ATTACKS)}. Did you mean '\w*pgd'\?$"
    with pytest.raises(SpecError, match=message):
        check_spec(Spec(name="pdg"))
    with pytest.raises(SpecError, match=message):
        complete(Spec(name="pdg"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"stepz": 3},
            rf"^pgd has no setting 'stepz'. It has: {SETTINGS}. Did you mean 'steps'\?$",
        ),
        ({"eps": 0.1}, rf"^pgd has no setting 'eps'. It has: {SETTINGS}."),
        ({"targets": 1}, rf"^pgd has no setting 'targets'. It has: {SETTINGS}."),
        ({"steps": "40"}, r"^pgd: steps must be int, got '40'.$"),
        ({"steps": 4.0}, r"^pgd: steps must be int, got 4.0.$"),
        ({"steps": True}, r"^pgd: steps must be int, got True.$"),
        ({"step_size": "big"}, r"^pgd: step_size must be float or none, got 'big'.$"),
        ({"random_start": 1}, r"^pgd: random_start must be bool, got 1.$"),
        ({"norm": "L1"}, r"^pgd: norm must be 'linf' or 'l2', got 'L1'.$"),
        ({"loss": "hinge"}, r"^pgd: loss must be 'ce' or 'rounded_ce' or 'margin' or 'dlr' or 'mse', got 'hinge'.$"),
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
    written = complete(spec).settings
    assert list(written) == SETTINGS.split(", ")
    assert {name: written[name] for name in ("norm", "steps", "step_size", "random_start", "loss", "published")} == {
        "norm": "linf",
        "steps": 3,
        "step_size": 1,
        "random_start": True,
        "loss": "ce",
        "published": False,
    }
    assert complete(complete(spec)) == complete(spec)
    for name in ATTACKS:
        check_spec(complete(Spec(name=name)), [0.0, 0.3])
