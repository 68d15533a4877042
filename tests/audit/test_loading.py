"""From words to a classifier; what a user's mistake looks like; the checks before an audit."""

import sys
import textwrap
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unperturbed import models
from unperturbed.audit.loading import check_classifier, load_classifier, parse_eps, parse_spec, place
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator

SHAPE = (3, 4, 4)


@pytest.fixture
def refused():
    """Return what a call is refused with, which must be one line."""

    def call(function, *args, **kwargs):
        with pytest.raises(SpecError) as caught:
            function(*args, **kwargs)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return call


# Words


@pytest.mark.parametrize(
    ("text", "eps"), [("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("0.1", 0.1), ("1e-3", 1e-3), ("0", 0.0), ("1", 1.0)]
)
def test_a_radius_is_a_number_or_a_fraction(text, eps):
    assert parse_eps(text) == eps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8/0", "eps: expected a number; got '8/0', which divides by 0"),
        ("small", "eps: expected a number such as 0.1 or a fraction such as 8/255; got 'small'"),
        ("", "eps: expected a number such as 0.1 or a fraction such as 8/255; got ''"),
        ("8/255/2", "eps: expected a number such as 0.1 or a fraction such as 8/255; got '8/255/2'"),
        ("inf", "eps: expected a number such as 0.1 or a fraction such as 8/255; got 'inf'"),
        ("1e999", "eps: expected a number such as 0.1 or a fraction such as 8/255; got '1e999'"),
        ("-0.1", "eps: expected a finite number, 0 or larger; got -0.1"),
        ("-8/255", "eps: expected a finite number, 0 or larger; got -0.0313725"),
        ("8", "eps: expected at most 1 in linf, since images are in [0, 1]; got 8: is 8/255 meant?"),
        ("1.5", "eps: expected at most 1 in linf, since images are in [0, 1]; got 1.5"),
    ],
)
def test_other_radii_are_refused(refused, text, message):
    assert refused(parse_eps, text) == message


def test_a_radius_in_l2_may_be_large():
    assert parse_eps("3", norm="l2") == 3.0


def test_a_name_may_have_settings():
    assert parse_spec("lenet") == Spec(name="lenet")
    spec = parse_spec(" fully-connected ( hidden = 20, rate=0.5, start=he-out , flag=True) ")
    assert spec == Spec(name="fully-connected", settings={"hidden": 20, "rate": 0.5, "start": "he-out", "flag": True})


@pytest.mark.parametrize("text", ["", "resnet(18)", "resnet(depth=)", "resnet(depth=18", "a b", "resnet(1=2)"])
def test_other_words_are_refused(refused, text):
    expected = "expected a name with settings, such as lenet or resnet(depth=18, width=16)"
    assert refused(parse_spec, text) == f"{text!r}: {expected}"


# A user's file


@pytest.fixture
def file(tmp_path):
    def write(text, name="defence.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


DEFENCE = """
    import torch
    from torch import nn
    from neighbour import SCALE

    class Net(nn.Module):
        def __init__(self, scale=SCALE):
            super().__init__()
            self.scale = scale
        def forward(self, images):
            return self.scale * images.flatten(1)[:, :3]

    def make_model(scale=2.0):
        from neighbour import late
        return Net(late(scale)).eval()

    def classify(images):
        return images.flatten(1)[:, :3]

    net = Net(5.0).eval()
    number = 3
    pair = make_model, classify
    def two(first, second): ...
    def nothing(): ...
    def a_class(): return Net
    class Needy(nn.Module):
        def __init__(self, classes): super().__init__()
    """


@pytest.fixture
def defence(file):
    file("SCALE = 7.0\ndef late(scale): return scale\n", "neighbour.py")
    yield file(DEFENCE)
    sys.modules.pop("neighbour", None)


@pytest.mark.parametrize(("name", "scale"), [("make_model", 2.0), ("Net", 7.0), ("net", 5.0)])
def test_a_function_a_class_or_a_module_gives_a_classifier(defence, name, scale):
    before = list(sys.path)
    classifier = load_classifier(f"{defence}:{name}")
    assert isinstance(classifier, nn.Module)
    assert classifier.scale == scale
    assert sys.path == before


def test_a_function_of_images_is_the_classifier_itself(defence):
    assert load_classifier(f"{defence}:classify")(torch.ones(2, *SHAPE)).tolist() == [[1.0] * 3] * 2


def test_the_module_has_a_private_name(defence):
    classifier = load_classifier(f"{defence}:make_model")
    assert type(classifier).__module__.startswith("_unperturbed_")
    assert "defence" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "make_modle",
            "There is no 'make_modle' in defence.py. It has: Net, make_model, classify, net, two, nothing, a_class, Needy. "
            "Did you mean 'make_model'?",
        ),
        ("number", "defence.py:number: expected a function or a torch.nn.Module; got int"),
        ("pair", "defence.py:pair: expected a function or a torch.nn.Module; got tuple"),
        ("two", "defence.py:two: expected a function without required arguments; it needs first, second"),
        ("Needy", "defence.py:Needy: expected a function without required arguments; it needs classes"),
        (
            "nothing",
            "defence.py:nothing returned NoneType; expected a torch.nn.Module or another callable: images to logits",
        ),
        (
            "a_class",
            "defence.py:a_class returned the class Net; expected a torch.nn.Module or another callable: images to logits",
        ),
    ],
)
def test_other_names_are_refused(refused, defence, name, message):
    assert refused(load_classifier, f"{defence}:{name}") == message


def test_a_file_without_a_name_lists_what_it_has(refused, file):
    path = file("def make_model(): ...\ndef _private(): ...\nfrom math import sin\n")
    message = "defence.py: expected defence.py:NAME. It has: make_model."
    assert refused(load_classifier, str(path)) == message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_package_at_all", "line 1: ModuleNotFoundError: No module named 'no_such_package_at_all'"),
        ("x = 1\n\nraise ValueError('two\\nlines')", "line 3: ValueError: two lines"),
        ("def make_model(:\n    pass", "line 1: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(2)", "line 2: SystemExit: 2"),
        ("assert False", "line 1: AssertionError"),
        ("import json\njson.loads('{')", "line 2: JSONDecodeError: Expecting property name enclosed in double quotes:"),
    ],
)
def test_an_error_in_the_file_is_shown_as_its_own(refused, file, text, said):
    path, before = file(text), list(sys.path)
    message = refused(load_classifier, f"{path}:make_model")
    assert message.startswith(f"defence.py raised an error while it was imported: defence.py, {said}")
    assert sys.path == before


def test_an_error_in_a_neighbour_names_the_neighbour(refused, file):
    file("x = 1\ny = x / 0\n", "broken_neighbour.py")
    message = refused(load_classifier, f"{file('import broken_neighbour')}:make_model")
    assert message.endswith("broken_neighbour.py, line 2: ZeroDivisionError: division by zero")


def test_an_error_in_make_model_is_shown_as_its_own(refused, file):
    path = file("""
        import torch
        def make_model():
            torch.nn.Linear(3, 2).load_state_dict({})
        """)
    message = refused(load_classifier, f"{path}:make_model")
    assert message.startswith(
        "defence.py:make_model raised an error: defence.py, line 4: RuntimeError: Error(s) in loading"
    )
    long = refused(load_classifier, f"{file('def f(): raise ValueError(1000 * chr(97))')}:f")
    assert long.endswith("aaa ...")
    assert len(long) < 400


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no.py:make_model", "no.py: there is no such file"),
        ("make_model", "'make_model': expected FILE.py:NAME or a .safetensors file, such as defence.py:make_model"),
        ("defence:make", "'defence:make': expected FILE.py:NAME or a .safetensors file, such as defence.py:make_model"),
        ("no.safetensors", "no.safetensors: there is no such file"),
        (
            "net.pth",
            "net.pth: expected FILE.py:NAME or weights as .safetensors; got a file that may run code when it is",
        ),
    ],
)
def test_other_targets_are_refused(refused, target, message):
    assert refused(load_classifier, target).startswith(message)


# Weights


NETWORKS = {
    "lenet": "lenet(classes=7)",
    "fully-connected": "fully-connected(hidden=11, classes=4)",
    "resnet": "resnet(depth=8, width=4, classes=5)",
    "bottleneck": "resnet(depth=50, width=2, classes=3)",
}


@pytest.fixture
def weights(tmp_path):
    def write(name):
        network = models.build(parse_spec(NETWORKS[name]), generator("weights", 1))
        path = tmp_path / "weights.safetensors"
        save_file(network.state_dict(), path)
        return path, network.eval()

    return write


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("given", [False, True])
def test_weights_become_the_network_they_are_of(weights, name, given):
    path, network = weights(name)
    loaded = load_classifier(str(path), model=NETWORKS[name] if given else None)
    images = torch.rand(2, 3, 32, 32, generator=generator("images", 0))
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), network(images), rtol=0, atol=0)
    assert not loaded.training


def test_settings_that_are_not_given_are_told_by_the_tensors(weights):
    path, _ = weights("resnet")
    assert load_classifier(str(path), model="resnet(depth=8)").fc.weight.shape == (5, 16)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "resnet(depth=10)",
            "expected the weights of resnet(depth=10, width=4, classes=5, start=default); missing: layer4.0.conv1.weight, ",
        ),
        ("resnet(width=8)", "of another shape: conv1.weight is (8, 3, 3, 3) there and (4, 3, 3, 3) here, "),
        ("lenet", "; of another shape: conv1.weight is (6, 3, 5, 5) there and (4, 3, 3, 3) here."),
        (
            "resnet(depht=8)",
            "resnet has no setting 'depht'. It has: depth, width, classes, start. Did you mean 'depth'?",
        ),
        (
            "resnest",
            "There is no model 'resnest'. There are: lenet, fully-connected, hidden-layer, resnet, imagenet-resnet, wide-resnet. Did you mean 'resnet'?",
        ),
        ("resnet(depth=9)", "resnet: depth must be one of 8, 10, 18, 34, 50, 101, got 9."),
    ],
)
def test_weights_that_do_not_fit_are_refused(refused, weights, model, message):
    path, _ = weights("resnet")
    assert message in refused(load_classifier, str(path), model=model)


def test_tensors_too_many_or_unknown_are_refused(refused, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"fc1.weight": torch.zeros(2, 3072), "fc2.weight": torch.zeros(2, 2), "extra": torch.zeros(1)}, path)
    assert refused(load_classifier, str(path)).endswith("; missing: fc1.bias, fc2.bias; besides: extra.")
    tensors = models.build(parse_spec(NETWORKS["lenet"]), generator("weights", 1)).state_dict()
    save_file(tensors | {"extra": torch.zeros(1)}, path)
    assert refused(load_classifier, str(path)).endswith("; besides: extra.")
    save_file({"a": torch.zeros(1)}, path)
    message = f"{path}: these tensors are not those of lenet, fully-connected, hidden-layer, resnet, imagenet-resnet, wide-resnet: name the model with --model"
    assert refused(load_classifier, str(path)).startswith(message)


def test_a_file_that_is_not_safetensors_is_refused_and_never_unpickled(refused, tmp_path):
    path = tmp_path / "w.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    assert refused(load_classifier, str(path)).startswith(
        f"{path}: expected weights as safetensors; got SafetensorError: "
    )


def test_a_model_is_for_weights_only(refused, defence):
    message = refused(load_classifier, f"{defence}:make_model", model="lenet")
    assert message.startswith("--model: expected weights as .safetensors beside it; got ")


# Before any attack


def batch(n=5, *, classes=3):
    images = torch.rand(n, *SHAPE, generator=generator("images", 0))
    return images, torch.arange(n) % classes


def linear(images):
    return images.flatten(1)[:, :3]


def random(images):
    return linear(images) + torch.randn(3)


def in_place(images):
    return linear(images.sub_(0.5))


def in_place_unseen(images):
    images.numpy()[:] *= 0.5  # PyTorch does not see it
    return linear(images)


def in_place_without_a_change(images):
    return linear(images.clamp_(0, 1))


def test_a_sound_classifier_passes_and_leaves_no_trace():
    images, labels = batch()
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
    before, state = images.clone(), torch.get_rng_state()
    for classifier in (linear, random, module):
        check_classifier(classifier, images, labels)
    check_classifier(linear, images[:1], labels[:1])
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def returned(value):
    return lambda images: value(linear(images))


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (returned(lambda z: z[:, :1]), "classifier: expected logits of shape (5, classes), 2 classes or more; got (5, 1)"),
        (returned(lambda z: z[:2]), "classifier: expected logits of shape (5, classes), 2 classes or more; got (2, 3)"),
        (
            returned(lambda z: z.squeeze(0)),
            "classifier: expected logits of shape (1, classes), 2 classes or more; got (3,)",
        ),
        (returned(lambda z: z / 0 * torch.inf), "classifier: expected finite logits; got "),
        (returned(lambda z: z.index_fill(1, torch.tensor([1]), torch.nan)), "classifier: expected finite logits; got nan for 5 of 5"),
        (returned(lambda z: z + torch.tensor([0, torch.inf, 0])), "classifier: expected finite logits; got inf for 5 of 5 images"),
        (
            returned(lambda z: z.argmax(dim=1)),
            "classifier: expected floating-point logits; got torch.int64 of shape (5,): return the scores of the classes, "
            "not the predicted class",
        ),
        (returned(lambda z: z.tolist()), "classifier: expected a tensor of logits; got list"),
        (returned(lambda z: None), "classifier: expected a tensor of logits; got NoneType"),
        (
            returned(lambda z: nn.Linear(3, 2)),
            "classifier: expected a tensor of logits; got Linear: a function that makes the model must not require an argument",
        ),
        (returned(lambda z: z.to("meta")), "classifier: expected logits on cpu, where the images are; got meta"),
        (
            in_place,
            "classifier: expected it to leave its images as they are; it changed them in place: work on images.clone()",
        ),
        (in_place_unseen, "classifier: expected it to leave its images as they are; it changed them in place"),
        (in_place_without_a_change, "classifier: expected it to leave its images as they are; it changed them in place"),
        (
            returned(lambda z: z @ torch.ones(4, 2)),
            "classifier: images of shape (5, 3, 4, 4) on cpu raised an error in it: test_loading.py, line ",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(49, 3)).eval(),
            "classifier: images of shape (5, 3, 4, 4) on cpu raised an error in it: RuntimeError: mat1 and mat2 shapes",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(48, 3)),
            "classifier: expected evaluation mode; got a module in training mode: call .eval() on it in make_model",
        ),
        (
            nn.Sequential(OrderedDict(head=nn.Linear(48, 3, device="meta"))).eval(),
            "classifier: expected its weights on cpu, where the images are; got head.weight on meta: move one of them",
        ),
    ],
)  # fmt: skip
def test_a_classifier_that_cannot_be_audited_is_refused(refused, classifier, message):
    assert refused(check_classifier, classifier, *batch()).startswith(message)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 2, 0, 3]), "labels: expected 0 to 2, as the classifier has 3 classes; got 0 to 3"),
        (torch.tensor([0, 1, 2, 0, -1]), "labels: expected 0 to 2, as the classifier has 3 classes; got -1 to 2"),
        (torch.eye(3), "labels: expected one class number for each image; got a shape of (3, 3)"),
        (torch.zeros(4, dtype=torch.int64), "labels: expected 5, one for each image; got 4"),
    ],
)
def test_labels_that_are_not_the_classifiers_are_refused(refused, labels, message):
    assert refused(check_classifier, linear, batch()[0], labels) == message


def test_every_label_counts_though_few_images_are_shown(refused):
    images, labels = batch(40)
    labels[39] = 9
    message = "labels: expected 0 to 2, as the classifier has 3 classes; got 0 to 9"
    assert refused(check_classifier, linear, images, labels) == message
    shown = []
    check_classifier(lambda images: (shown.append(len(images)), linear(images))[1], *batch(40))
    assert shown == [8, 1]


def test_images_that_are_no_such_are_refused_before_the_classifier_sees_them(refused):
    def untouched(images):
        raise AssertionError

    message = refused(check_classifier, untouched, torch.full((1, *SHAPE), 255.0), torch.tensor([0]))
    assert message == "images: expected intensities in [0, 1]; got 255 to 255: divide them by 255"


def test_a_module_is_moved_and_a_function_is_not(refused):
    module = nn.Linear(2, 2)
    assert place(linear, torch.device("meta")) is linear
    assert place(module, torch.device("meta")).weight.device.type == "meta"
    message = "classifier: it cannot be moved to cpu: NotImplementedError: Cannot copy out of meta tensor"
    assert refused(place, module, torch.device("cpu")).startswith(message)
