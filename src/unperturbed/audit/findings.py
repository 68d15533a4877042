"""What goes into the record of an audit beside the attacks: definitions of accuracy, traits, pictures, versions."""

import platform
from collections.abc import Sequence
from importlib.metadata import version

import torch
from torch import nn

from unperturbed.attacks import Classifier
from unperturbed.audit.behaviour import Behaviour
from unperturbed.audit.case import Case
from unperturbed.audit.knobs import modules_in
from unperturbed.audit.record import Flag, Picture, Randomness
from unperturbed.audit.softening import Seen

PICTURES = 8


def definitions(case: Case, random: Randomness) -> list[Flag]:
    """Return E3 and E5: what accuracy means for a random classifier, and that fresh draws decide it."""
    return [
        Flag(
            "E3",
            "one definition of accuracy",
            f"Of {random.draws} draws the mean is {random.robust_mean:.1%} (SD of single ones {random.robust_sd:.1%}), "
            f"the majority gets {random.robust_vote:.1%}; clean {random.clean_mean:.1%} and {random.clean_vote:.1%}.",
            abs(random.robust_mean - random.robust_vote),
            None,
            False,
            f"the same {random.draws} draws for clean and attacked images",
            "report the mean over fresh draws, and the majority with its number of draws",
        ),
        Flag(
            "E5",
            "fresh draws decide",
            f"The draws that chose the worst images said {case.accuracy:.1%}, fresh ones say {random.robust_mean:.1%}.",
            random.robust_mean - case.accuracy,
            None,
            False,
            f"{case.votes} draws chose, {random.draws} others decided",
            "never report the draw that chose an image",
        ),
    ]


def traits_found(said: Sequence[str], behaviour: Behaviour, seen: Seen) -> list[str]:
    """Return what was said of the classifier and is not so, or is so and was not said, if anything was said."""
    found = {
        "random": behaviour.random,
        "vanishing": behaviour.zero_rounded > behaviour.zero_exact,
        "shattered": behaviour.zero_exact > 0 or behaviour.no_gradient is not None,
        "optimises": seen.optimises,
    }
    remarks = [f"Said to be {trait}, but no sign of it was measured." for trait in said if not found[trait]]
    if said:
        remarks += [
            f"Measured to be {trait}, but not said to be." for trait, so in found.items() if so and trait not in said
        ]
    return remarks


def modes(classifier: Classifier) -> list[str]:
    """Return a remark if parts of a classifier that act otherwise in training are in training mode."""
    kinds = nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd  # pyright: ignore[reportPrivateUsage]
    left = [each for each in modules_in(classifier) if each.training and isinstance(each, kinds)]
    if not left:
        return []
    names = ", ".join(sorted({type(each).__name__ for each in left}))
    return [f"In training mode inside the classifier: {names}. If that is not how it is deployed, call .eval()."]


def company(case: Case, usual: Case) -> list[str]:
    """Return a remark if the images are judged alone, and not among others as usual."""
    if usual is case:
        return []
    return [
        f"The answers depend on the batch: every image is judged alone, which leaves {case.clean_accuracy:.1%} clean "
        f"accuracy; among others it is {usual.clean_accuracy:.1%}. The plain attack was made among others."
    ]


def failures(case: Case) -> list[str]:
    """Return a remark if attacks could not run on this classifier."""
    failed = [attempt.remark for attempt in case.attempts if attempt.remark]
    if not failed:
        return []
    return [f"{len(failed)} of {len(case.attempts)} attacks could not run. The first: {failed[0].rstrip('.')}."]


def pictures(case: Case) -> tuple[Picture, ...]:
    """Return the first images that were broken, with what broke them."""
    rows = [row for row, by in enumerate(case.broken_by) if by is not None][:PICTURES]
    return tuple(
        Picture(
            int(case.labels[row]),
            int(case.prediction[row]),
            case.broken_by[row] or "",
            case.images[row].float().cpu().mul(1e4).round().div(1e4).tolist(),
            case.worst[row].float().cpu().mul(1e4).round().div(1e4).tolist(),
        )
        for row in rows
    )


def versions(device: torch.device) -> dict[str, str]:
    """Return what a reader needs to know about the software and the machine."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "unperturbed": version("unperturbed"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": hardware,
    }
