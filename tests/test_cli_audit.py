"""The audit from outside: its words, what it prints and writes, how it exits, what a user's mistake looks like."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from unperturbed import cli
from unperturbed.cli import terminal
from unperturbed.cli.card import card

SAMPLES = runpy.run_path(str(Path(__file__).with_name("report") / "audit_samples.py"))["SAMPLES"]
DEFENCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 3)
    def forward(self, images):
        return self.head(images.flatten(1))

def make_model():
    return Net().eval()

def training():
    return Net()

def elsewhere():
    return Net().to("meta").eval()

def classify(images):
    return images.flatten(1)[:, :3]

def late(images):
    if not torch.is_grad_enabled():
        return classify(images)
    raise ValueError("only\\nwithout gradients")

def in_place(images):
    return classify(images.mul_(0.5))

def classes(images):
    return classify(images).argmax(dim=1)

def infinite(images):
    return classify(images) / 0.0

def wrong(images):
    return classify(images)[:, 0]

def broken():
    raise KeyError("weights")
"""


def line_of(words):
    return next(number for number, line in enumerate(DEFENCE.splitlines(), start=1) if words in line)


@pytest.fixture
def unperturbed(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*words, width=80):
        monkeypatch.setattr(sys, "argv", ["unperturbed", *map(str, words)])
        monkeypatch.setattr(terminal, "out", Console(highlight=False, width=width))
        monkeypatch.setattr(terminal, "err", Console(stderr=True, highlight=False, width=width))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def work(tmp_path):
    """A folder with a defence, six images and their labels."""
    (tmp_path / "defence.py").write_text(DEFENCE, encoding="utf-8")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((6, 3, 4, 4), dtype=np.float32))
    np.save(tmp_path / "y.npy", np.array([0, 1, 2, 0, 1, 2]))
    return tmp_path


@pytest.fixture
def audited(monkeypatch):
    """Put an audit in place that notes what it was given and returns a sample, or does what it is told to."""
    asked = SimpleNamespace(sample=SAMPLES["illusory"](), then=lambda *_: None)

    def audit(classifier, images, labels, **settings):
        asked.classifier, asked.images, asked.labels, asked.settings = classifier, images, labels, settings
        settings["on_update"]("the suite", 0.5, 12.0)
        asked.then(classifier, images)
        return SimpleNamespace(plain=lambda: asked.sample)

    monkeypatch.setattr("unperturbed.audit.audit", audit)
    return asked


WORDS = ("audit", "defence.py:make_model", "--images", "x.npy", "--labels", "y.npy")


def test_the_words_become_the_call(unperturbed, work, audited):
    more = ("--norm", "l2", "--eps", "128/255", "--budget", "quick", "--count", 4, "--twin", "defence.py:classify")
    rest = ("--surrogate", "defence.py:make_model", "--traits", "random, shattered", "--seed", 3, "--batch-size", 2)
    assert unperturbed(*WORDS, *more, *rest, "--json")[0] == 5
    settings = audited.settings
    assert type(audited.classifier).__name__ == "Net"
    assert torch.equal(audited.images, torch.from_numpy(np.load("x.npy")[:4]))
    assert audited.labels.tolist() == [0, 1, 2, 0]
    assert callable(settings.pop("on_update"))
    assert settings.pop("twin").__name__ == "classify"
    assert type(settings.pop("surrogate")).__name__ == "Net"
    assert settings == {
        "norm": "l2", "eps": 128 / 255, "budget": "quick", "traits": ("random", "shattered"), "seed": 3, "batch_size": 2,
        "name": "defence.py:make_model", "data": "x.npy, the first 4 of 6 images",
    }  # fmt: skip


def test_what_is_not_said_has_a_default(unperturbed, work, audited):
    assert unperturbed(*WORDS)[0] == 5
    settings = audited.settings
    assert (settings["norm"], settings["eps"], settings["budget"]) == ("linf", 8 / 255, "standard")
    assert (settings["twin"], settings["surrogate"], settings["traits"]) == (None, None, ())
    assert settings["data"] == "x.npy, all 6 images"
    assert unperturbed(*WORDS, "--norm", "l2")[0] == 5
    assert audited.settings["eps"] == 0.5


@pytest.mark.parametrize(("budget", "count"), [("quick", 500), ("headline", 700)])
def test_the_budget_says_how_many_images(unperturbed, work, audited, budget, count):
    np.save("x.npy", np.zeros((700, 3, 4, 4), dtype=np.float32))
    np.save("y.npy", np.arange(700) % 3)
    unperturbed(*WORDS, "--budget", budget)
    assert len(audited.images) == count


def test_data_sets_folders_and_weights_are_taken_too(unperturbed, work, audited):
    from PIL import Image
    from safetensors.torch import save_file

    from unperturbed import models
    from unperturbed.records import Spec
    from unperturbed.tensors.streams import generator

    network = models.build(Spec(name="lenet"), generator("weights", 0))
    save_file(network.state_dict(), "lenet.safetensors")
    assert unperturbed("audit", "lenet.safetensors", "--model", "lenet", "--data", "digits", "--count", 5)[0] == 5
    assert audited.settings["data"] == "digits, the first 5 of 500 test images"
    assert audited.settings["name"] == "lenet.safetensors"
    for name in ("cat", "dog"):
        (work / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(work / "pets" / name / "a.png")
    assert unperturbed("audit", "defence.py:classify", "--images", "pets")[0] == 5
    assert audited.settings["data"] == "pets, all 2 pictures"
    assert audited.sample["remarks"][0] == "Classes are numbered by the order of the names of their folders."


@pytest.mark.parametrize(("verdict", "code"), [("trustworthy", 0), ("suspect", 4), ("illusory", 5)])
def test_the_exit_code_is_the_verdict(unperturbed, work, audited, verdict, code):
    audited.sample = SAMPLES[verdict]()
    found, out, err = unperturbed(*WORDS)
    assert found == code
    assert verdict.upper() in out
    assert err.splitlines()[0] == " 50%, about 12 s left: the suite"


def test_json_is_one_object_on_stdout_and_in_the_folder(unperturbed, work, audited):
    code, out, err = unperturbed(*WORDS, "--json")
    assert (code, err) == (5, "")
    folder = work / "audits" / "defence-make_model-linf-8-255"
    assert json.loads(out) == json.loads((folder / "audit.json").read_text(encoding="utf-8")) == audited.sample
    assert sorted(path.name for path in folder.iterdir()) == ["audit.html", "audit.json"]
    assert out.count("\n") == 1


def test_the_report_lies_where_it_is_wanted(unperturbed, work, audited):
    _, out, _ = unperturbed(*WORDS, "--out", work / "here")
    assert f"Report: {work / 'here' / 'audit.html'}" in out
    assert (work / "here" / "audit.html").is_file()
    (work / "file").write_text("")
    code, _, err = unperturbed(*WORDS, "--out", work / "file")
    assert (code, err) == (2, f"unperturbed: --out: {work / 'file'} cannot be made: File exists\n")


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("width", [80, 120])
def test_the_card_fits_and_says_what_counts(name, width):
    audit = SAMPLES[name]()
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(card(audit, width=min(width, 100)))
    text = captured.get()
    assert max(map(len, text.splitlines())) == min(width, 100)
    words = " ".join(text.replace("│", " ").split())
    assert audit["name"] in words
    assert audit["verdict"].upper() in words
    for key in ("clean_accuracy", "plain_accuracy", "suite_accuracy", "robust_accuracy"):
        assert f"{100 * audit[key]:.1f} %" in words
    assert "{:.1f} % to {:.1f} %".format(*(100 * limit for limit in audit["interval"])) in words
    for reason in audit["reasons"]:
        assert reason in words
    for flag in audit["flags"]:
        assert (f"{flag['id']} {flag['name']} (" in words) == flag["fired"]
    assert ("random classifier, 20 draws" in words) == (audit["random"] is not None)


def test_the_card_names_the_attacks_that_broke_something_the_strongest_first():
    audit = SAMPLES["illusory"]()
    audit["attacks"] = [row | {"name": f"attack-{place}"} for place, row in enumerate(2 * audit["attacks"])]
    console = Console(width=80, highlight=False)
    with console.capture() as captured:
        console.print(card(audit, width=80))
    lines = [line.strip("│ ") for line in captured.get().splitlines()]
    first = next(place for place, line in enumerate(lines) if line.startswith("attack  "))
    assert lines[first + 1].split()[0] == "attack-5"
    assert lines[first + 1].endswith("76.4 % -> 0.4 %    380    371")
    assert lines[first + 9] == "and 6 more"


def test_what_an_attack_alone_broke_is_shown_where_it_is_known():
    audit = SAMPLES["suspect"]()
    console = Console(width=80, highlight=False)
    for known in (True, False):
        with console.capture() as captured:
            console.print(card(audit, width=80))
        assert ("alone" in captured.get()) == known
        for row in audit["attacks"]:
            row.pop("alone", None)


def test_foreign_words_are_no_markup():
    audit = SAMPLES["illusory"]() | {"name": "[red]x[/red]", "reasons": ["[/]"], "remarks": ["[bold]"]}
    console = Console(width=80, highlight=False)
    with console.capture() as captured:
        console.print(card(audit, width=80))
    assert all(words in captured.get() for words in ("[red]x[/red]", "[/]", "[bold]"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("no.py:make_model",), "no.py: there is no such file"),
        (("defence.py:make",), "There is no 'make' in defence.py. It has: Net, make_model, training, "),
        (("defence.py:broken",), f"defence.py:broken raised an error: defence.py, line {line_of('KeyError')}: KeyError: 'weights'"),
        (("defence.py:training",), "classifier: expected evaluation mode; got a module in training mode: call .eval() on it"),
        (("defence.py:elsewhere",), "classifier: it cannot be moved to cpu: NotImplementedError: Cannot copy out of meta"),
        (("defence.py:in_place",), "classifier: expected it to leave its images as they are; it changed them in place"),
        (("defence.py:classes",), "classifier: expected floating-point logits; got torch.int64 of shape (6,)"),
        (("defence.py:infinite",), "classifier: expected finite logits; got inf for 6 of 6 images"),
        (("defence.py:wrong",), "classifier: expected logits of shape (6, classes), 2 classes or more; got (6,)"),
        (("defence.py:make_model", "--eps", "-0.1"), "eps: expected a finite number, 0 or larger; got -0.1"),
        (("defence.py:make_model", "--eps", "eight"), "eps: expected a number such as 0.1 or a fraction such as 8/255"),
        (("defence.py:make_model", "--eps", "8/0"), "eps: expected a number; got '8/0', which divides by 0"),
        (("defence.py:make_model", "--norm", "l1"), "There is no norm 'l1'. There are: linf, l2. Did you mean 'l2'?"),
        (("defence.py:make_model", "--budget", "fast"), "There is no budget 'fast'. There are: quick, standard, headline."),
        (("defence.py:make_model", "--count", "0"), "--count: expected at least 1; got 0"),
        (("defence.py:make_model", "--device", "tpu"), "--device must be auto, cpu or cuda, got 'tpu'."),
        (("defence.py:make_model", "--data", "digits"), "expected either --data (digits, photographs, mnist, cifar10, fusion, simulated-eeg, things-eeg2, faces-houses-eeg) or --images; got both"),
        (("defence.py:make_model", "--twin", "defence.py:training"), "--twin: classifier: expected evaluation mode"),
        (("defence.py:make_model", "--surrogate", "no.py:a"), "--surrogate: no.py: there is no such file"),
    ],
)  # fmt: skip
def test_bad_words_are_one_line_and_exit_code_2(unperturbed, work, audited, words, message):
    code, out, err = unperturbed("audit", *words, *WORDS[2:])
    assert (code, out) == (2, "")
    assert err.startswith(f"unperturbed: {message}")
    assert err.count("\n") == 1
    assert not (work / "audits").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: ((255 * x).astype(np.uint8), y), "images: expected floating-point intensities in [0, 1]; got torch.uint8: divide by 255"),
        (lambda x, y: (x * 255, y), "images: expected intensities in [0, 1]; got "),
        (lambda x, y: (x.transpose(0, 2, 3, 1), y), "images: expected a shape (n, channels, height, width); got (6, 4, 4, 3), which looks like"),
        (lambda x, y: (x[:, :2], y), "classifier: images of shape (6, 2, 4, 4) on cpu raised an error in it: defence.py, line 10: RuntimeError: "),
        (lambda x, y: (x, np.eye(3)[y]), "labels: expected one class number for each image; got a shape of (6, 3), which looks one-hot"),
        (lambda x, y: (x, y + 1), "labels: expected 0 to 2, as the classifier has 3 classes; got 1 to 3"),
        (lambda x, y: (x, y[1:]), "labels: expected 6, one for each image; got 5"),
    ],
)  # fmt: skip
def test_bad_images_and_labels_are_one_line(unperturbed, work, audited, spoil, message):
    x, y = spoil(np.load(work / "x.npy"), np.load(work / "y.npy"))
    np.save(work / "x.npy", x)
    np.save(work / "y.npy", y)
    code, out, err = unperturbed(*WORDS)
    assert (code, out) == (2, "")
    assert err.startswith(f"unperturbed: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (),
            "expected either --data (digits, photographs, mnist, cifar10, fusion, simulated-eeg, things-eeg2, faces-houses-eeg) or --images; got neither",
        ),
        (("--images", "x.npy"), "--labels: expected y.npy with the class numbers of x.npy; got nothing"),
        (
            ("--images", ".", "--labels", "y.npy"),
            "--labels: expected with an array only; the folders of . are the classes",
        ),
        (("--data", "digits", "--labels", "y.npy"), "--labels: expected with --images only; digits has its own"),
        (("--images", "no.npy", "--labels", "y.npy"), "no.npy: there is no such file"),
        (("--data", "cifar"), "There is no data set 'cifar'."),
    ],
)
def test_images_come_from_one_place(unperturbed, work, audited, words, message):
    code, _, err = unperturbed("audit", "defence.py:make_model", *words)
    assert code == 2
    assert err.startswith(f"unperturbed: {message}")
    assert err.count("\n") == 1


def test_an_error_in_the_middle_is_one_line_and_a_traceback_only_when_asked_for(unperturbed, work, audited):
    audited.then = lambda classifier, images: classifier(images)
    words = ("audit", "defence.py:late", *WORDS[2:], "--json")
    code, out, err = unperturbed(*words)
    message = f"the audit failed: defence.py, line {line_of('ValueError')}: ValueError: only without gradients"
    assert (code, out, err) == (1, "", f"unperturbed: {message}; --debug shows the traceback\n")
    code, _, err = unperturbed(*words, "--debug")
    assert code == 1
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1] == f"unperturbed: {message}"
    code, _, err = unperturbed("audit", "defence.py:broken", *WORDS[2:], "--debug")
    assert code == 2
    assert "KeyError: 'weights'" in err
    assert "unperturbed.records.SpecError: defence.py:broken raised" in err


def test_an_interrupted_audit_says_so_and_writes_nothing(unperturbed, work, audited):
    def interrupt(*_):
        raise KeyboardInterrupt

    audited.then = interrupt
    code, out, err = unperturbed(*WORDS, "--json")
    assert (code, out, err) == (130, "", "Stopped; the audit was not finished.\n")
    assert not list(work.glob("audits/*/*"))


def test_names_of_foreign_things_are_no_emoji():
    for console in (terminal.out, terminal.err):
        with console.capture() as captured:
            console.print("net.py:fire: expected", markup=False)
        assert captured.get() == "net.py:fire: expected\n"


def test_the_help_tells_the_exit_codes(unperturbed):
    code, out, _ = unperturbed("audit", "--help", width=100)
    assert code == 0
    words = " ".join(out.replace("│", " ").split())
    assert (
        "Exit codes: 0 trustworthy, 4 suspect, 5 illusory; 2 bad input, 1 the audit itself failed, 130 interrupted"
        in words
    )
    for option in (
        "--data",
        "--norm",
        "--eps",
        "--budget",
        "--twin",
        "--surrogate",
        "--traits",
        "--json",
        "--out",
        "--debug",
    ):
        assert option in words


def test_a_file_that_cannot_be_imported_is_one_line_from_a_shell(work):
    (work / "bad.py").write_text("import no_such_package_at_all\n", encoding="utf-8")
    command = [sys.executable, "-c", "from unperturbed.cli import main; main()", "audit", "bad.py:make", *WORDS[2:]]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "unperturbed: bad.py raised an error while it was imported: bad.py, line 1: ModuleNotFoundError: No module named "
        "'no_such_package_at_all'\n"
    )
