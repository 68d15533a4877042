"""Three audits as their plain dictionaries: a stochastic network that is an illusion, a sound one, and a noisy one.

Numbers are made up, but fit each other: accuracies fall along eps, counts add up, and the shape is that of
``unperturbed.audit.audit(...).plain()``.
"""

import copy
import math
from typing import Any

import numpy as np

EPS = 8 / 255
GRID = (0.0, 0.0019608, 0.0039216, 0.0078431, 0.0156863, 0.0235294, EPS, 0.0470588, 0.0627451, 0.0941176, 0.125)

# id: name, what is said when it does not fire, threshold, how it is measured, what to do
CHECKS: dict[str, tuple[str, str, float | None, str, str]] = {
    "C1": ("more steps still help", "Doubling the steps changes nothing.", 0.01, "PGD with 40 and 80 steps", "Use more steps."),
    "C2": ("accuracy not falling with eps", "Accuracy never rises with eps.", 0.0, "accuracy at 11 radii", "Use a larger step."),
    "C3": ("large eps fails", "At eps = 0.5 accuracy is at chance.", 0.14, "PGD at eps = 0.5", "Look at the gradients."),
    "C4": ("unbounded attack fails", "The unbounded attack breaks every image.", 0.99, "PGD at eps = 1", "Look at the gradients."),
    "C5": ("one step beats many", "PGD leaves no more than FGSM.", 0.01, "FGSM against PGD", "Attack with smaller steps."),
    "C6": ("black box beats white box", "Square breaks nothing more.", 0.01, "Square, 1,000 queries", "Use the black-box result."),
    "C7": ("transfer beats white box", "No twin was given.", 0.01, "", "Name the undefended twin with --twin."),
    "C8": ("restarts help", "Ten restarts change nothing.", 0.01, "ten restarts on 100 images", "Use more restarts."),
    "C10": ("random answers", "The logits are the same each time.", 1e-4, "five runs on the same images", "Attack the expectation."),
    "C11": ("output depends on the batch", "An image alone has the same logits.", 1e-4, "alone and in a batch", "Judge one by one."),
    "C12": ("probabilities, not logits", "The outputs are logits.", 1e-3, "sums of the outputs", "Return the logits."),
    "E1": ("gradients without direction", "Gradients agree between draws.", 0.1762, "mean |mean sign| of 20 gradients", "Attack through a variant."),
    "E2": ("a variant breaks more", "No variant breaks more.", 0.01, "PGD through each variant", "Report the smallest accuracy."),
    "I1": ("no gradient", "Every image has a gradient.", 0.0, "share of images with a zero gradient", "Use a surrogate."),
    "I2": ("shattered loss", "The loss is smooth around the images.", 0.1, "100 draws within 4/255", "Smooth the gradients."),
    "I3": ("silent success", "The best iterate is kept.", 0.0, "iterates against the returned image", "Keep the best."),
    "I4": ("optimisation not finished", "The loss has come to rest.", 0.05, "last ten iterations", "Use more steps."),
    "I5": ("transfer fails", "No surrogate was used.", 0.0, "", "Name a surrogate."),
    "I6": ("unconstrained attack fails", "Every image falls without a budget.", 0.0, "PGD without a ball", "Look at the loss."),
}  # fmt: skip


def flags(fired: dict[str, tuple[str, float, bool]], *, not_applying: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "id": key, "name": name, "says": fired[key][0] if key in fired else says,
            "value": fired[key][1] if key in fired else None if threshold is None else round(threshold / 3, 6),
            "threshold": threshold, "fired": key in fired, "resolved": key in fired and fired[key][2],
            "applies": key not in not_applying, "evidence": evidence, "remedy": remedy,
        }
        for key, (name, says, threshold, evidence, remedy) in CHECKS.items()
    ]  # fmt: skip


def attack(name, stage, through, before, after, *, n, broke, alone=0, remark="", passes=20, **settings):
    attacked = round(before * n)
    return {
        "name": name, "stage": stage, "through": through, "settings": settings, "before": before, "after": after,
        "broke": broke, "alone": alone, "attacked": attacked, "forwards": attacked * (passes + 1),
        "backwards": attacked * passes, "seconds": round(attacked * passes / 3000, 3), "remark": remark,
    }  # fmt: skip


def critical(clean: float, half: float, n: int, never: float) -> list[float | None]:
    """Return quantiles of a distribution with median ``half``, 0 for what is misclassified from the start."""
    values: list[float | None] = []
    for index in range(n):
        share = (index + 0.5) / n
        if share < 1 - clean:
            values.append(0.0)
        elif share > 1 - never:
            values.append(None)
        else:
            values.append(round(half * math.sqrt(-math.log(1 - (share - 1 + clean) / clean)), 6))
    return values


def curve(values: list[float | None]) -> list[dict[str, float]]:
    left = [math.inf if value is None else value for value in values]
    return [{"eps": eps, "accuracy": round(sum(value > eps for value in left) / len(left), 4)} for eps in GRID]


def pictures(count: int, size: int = 32, channels: int = 3) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    shown = []
    for number in range(count):
        waves = [0.5 + 0.4 * np.sin((3 + number) * across + (2 + c) * down + c) for c in range(channels)]
        original = np.stack(waves)
        change = EPS * np.sign(rng.standard_normal(original.shape))
        shown.append(
            {
                "label": number, "prediction": (number + 3) % 10, "attack": "pgd",
                "original": original.round(4).tolist(),
                "adversarial": np.clip(original + change, 0, 1).round(4).tolist(),
            }
        )  # fmt: skip
    return shown


def illusory() -> dict[str, Any]:
    """Stochastic winner-take-all: its own gradient is noise, that of a warmer variant leaves nothing."""
    n, warm = 500, "temperature x67 (0.01 to 0.67)"
    values = critical(0.842, 0.0078, n, 0.0)
    return {
        "name": "lwta.py:make_model", "data": "cifar10, the first 500 of 10,000 test images", "n": n, "classes": 10,
        "norm": "linf", "eps": EPS, "budget": "quick",
        "clean_accuracy": 0.842, "robust_accuracy": 0.002, "interval": [0.0001, 0.0112],
        "plain_accuracy": 0.784, "suite_accuracy": 0.768,
        "random": {
            "draws": 20, "clean_mean": 0.8417, "clean_sd": 0.0061, "clean_vote": 0.852, "robust_mean": 0.0024,
            "robust_sd": 0.0019, "robust_vote": 0.0, "interval": [0.0004, 0.0098], "single_interval": [0.0, 0.006],
        },
        "curve": curve(values), "R": 0.0562, "R_upto": 0.125,
        "critical_eps": {"quartiles": [0.00215, 0.006321, 0.009184], "values": values},
        "attacks": [
            attack("pgd", "plain", "the model itself", 0.842, 0.784, n=n, broke=29, steps=20, step_size=0.0078),
            attack("apgd", "suite", "the model itself", 0.784, 0.772, n=n, broke=6, alone=2, loss="margin", steps=50),
            attack("square", "suite", "the model itself", 0.772, 0.768, n=n, broke=2, alone=1, queries=1000, passes=0),
            attack("fgsm", "check", "the model itself", 0.842, 0.79, n=n, broke=26, passes=1),
            attack("pgd", "adaptive", "the model itself", 0.768, 0.764, n=n, broke=2, eot=20, steps=20,
                   remark="gradients averaged over 20 draws"),
            attack("pgd", "adaptive", warm, 0.764, 0.004, n=n, broke=380, alone=371, steps=40, step_size=0.0059),
            attack("pgd", "adaptive", "sampling replaced by its expectation", 0.004, 0.002, n=n, broke=1, steps=40,
                   remark="stopped: nothing left to gain"),
        ],
        "flags": flags(
            {
                "C10": ("The same image gets other logits each time: the classifier is random.", 0.83, True),
                "E1": ("Gradients of two draws have nothing in common: the sign agreement is at chance.", 0.177, True),
                "E2": (f"Through the variant {warm!r} the attack breaks 76 points more.", 0.766, True),
                "I2": ("The loss jumps between neighbouring images.", 0.62, True),
            },
            not_applying=("C7", "I5"),
        ),
        "verdict": "illusory",
        "reasons": [
            f"Attacks through {warm} broke 76.2 of the 78.4 points that a plain attack leaves.",
            "The gradient of the classifier as deployed is noise (E1), so that no attack along it can work.",
        ],
        "broken_by": f"pgd through {warm}",
        "variants": [
            {"name": "as deployed", "says": "nothing changed", "clean_accuracy": 0.842, "cosine": 0.0001,
             "sign_agreement": 0.177, "chance": 0.1762, "attacked": True, "after": 0.764},
            {"name": "temperature x10 (0.01 to 0.1)", "says": "the attribute temperature of 41 layers is 10 times as large",
             "clean_accuracy": 0.86, "cosine": 0.05, "sign_agreement": 0.204, "chance": 0.1762, "attacked": False,
             "after": None},
            {"name": warm, "says": "the attribute temperature of 41 layers is 67 times as large", "clean_accuracy": 0.874,
             "cosine": 0.593, "sign_agreement": 0.576, "chance": 0.1762, "attacked": True, "after": 0.004},
            {"name": "sampling replaced by its expectation", "says": "gumbel_softmax gives the softmax", "clean_accuracy": 0.85,
             "cosine": 1.0, "sign_agreement": 1.0, "chance": 0.1762, "attacked": True, "after": 0.002},
        ],
        "pictures": pictures(6),
        "remarks": ["23 test images are not the official ones."],
        "forwards": 812_345, "backwards": 401_221, "seconds": 48.7,
        "versions": {"unperturbed": "0.1.0", "torch": "2.13.0", "python": "3.11.2", "device": "cpu, 2 threads"},
        "digest": "3f" * 32,
    }  # fmt: skip


def trustworthy() -> dict[str, Any]:
    """An adversarially trained network: no flag, and the attacks agree."""
    n = 1000
    values = critical(0.812, 0.052, n, 0.02)
    return {
        "name": "weights.safetensors", "data": "cifar10, the first 1,000 of 10,000 test images", "n": n, "classes": 10,
        "norm": "linf", "eps": EPS, "budget": "standard",
        "clean_accuracy": 0.812, "robust_accuracy": 0.561, "interval": [0.5301, 0.5915],
        "plain_accuracy": 0.572, "suite_accuracy": 0.561, "random": None,
        "curve": curve(values), "R": 0.4437, "R_upto": 0.125,
        "critical_eps": {"quartiles": [0.0204, 0.0368, 0.0613], "values": values},
        "attacks": [
            attack("pgd", "plain", "the model itself", 0.812, 0.572, n=n, broke=240, steps=20),
            attack("apgd", "suite", "the model itself", 0.572, 0.563, n=n, broke=9, alone=4, loss="margin", steps=100),
            attack("fab", "suite", "the model itself", 0.563, 0.561, n=n, broke=2, alone=2, targets=9),
            attack("square", "suite", "the model itself", 0.561, 0.561, n=n, broke=0, passes=0, queries=5000),
        ],
        "flags": flags({}, not_applying=("C7", "C10", "E1", "I5")),
        "verdict": "trustworthy",
        "reasons": ["No flag is left, and the last 5,561 passes broke no further image."],
        "broken_by": None,
        "variants": [],
        "pictures": pictures(2, size=28, channels=1),
        "remarks": [],
        "forwards": 3_400_000, "backwards": 1_650_000, "seconds": 734.0,
        "versions": {"unperturbed": "0.1.0", "torch": "2.13.0", "python": "3.11.2", "device": "cpu, 2 threads"},
        "digest": "a0" * 32,
    }  # fmt: skip


def suspect() -> dict[str, Any]:
    """A classifier with Gaussian noise on its input, in L2, of which a doubt is left."""
    n = 200
    values = critical(0.735, 0.61, n, 0.1)
    plain = copy.deepcopy(trustworthy())
    plain |= {
        "name": "noisy.py:net", "data": "pictures, all 200 pictures", "n": n, "norm": "l2", "eps": 0.5, "budget": "quick",
        "clean_accuracy": 0.735, "robust_accuracy": 0.38, "interval": [0.3156, 0.4489],
        "plain_accuracy": 0.47, "suite_accuracy": 0.41,
        "random": {
            "draws": 20, "clean_mean": 0.7311, "clean_sd": 0.0144, "clean_vote": 0.74, "robust_mean": 0.3822,
            "robust_sd": 0.0212, "robust_vote": 0.39, "interval": [0.3181, 0.4508], "single_interval": [0.3156, 0.4489],
        },
        "curve": [{"eps": eps, "accuracy": round(0.735 * math.exp(-((eps / 0.61) ** 2)), 4)} for eps in (0.0, 0.25, 0.5, 1.0, 2.0)],
        "R": 0.27, "R_upto": 2.0, "critical_eps": {"quartiles": [0.05, 0.4, None], "values": values},
        "attacks": [
            attack("pgd", "plain", "the model itself", 0.735, 0.47, n=n, broke=53, steps=20),
            attack("apgd", "suite", "the model itself", 0.47, 0.41, n=n, broke=12, alone=7, eot=20),
            attack("pgd", "adaptive", "sigma off", 0.41, 0.38, n=n, broke=6, alone=6, steps=40),
        ],
        "flags": flags(
            {
                "C10": ("The same image gets other logits each time: the classifier is random.", 0.31, True),
                "C1": ("Doubling the steps still lowers the accuracy by 2.5 points.", 0.025, False),
            },
            not_applying=("C7", "I5"),
        ),
        "verdict": "suspect",
        "reasons": ["C1 is left: the accuracy is an upper bound only."],
        "broken_by": "pgd through sigma off",
        "variants": [{"name": "sigma off", "says": "the attribute sigma is 0", "clean_accuracy": 0.76, "cosine": 1.0,
                      "sign_agreement": 1.0, "chance": 0.1762, "attacked": True, "after": 0.38}],
        "seconds": 31.2,
    }  # fmt: skip
    return plain


SAMPLES = {"illusory": illusory, "trustworthy": trustworthy, "suspect": suspect}
