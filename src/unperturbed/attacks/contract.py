"""What every attack promises, kept in one place: inputs are checked, and nothing outside is touched."""

import functools
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, cast, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from unperturbed.attacks.classifier import IN_PLACE
from unperturbed.attacks.inputs import check_eps, check_images, check_labels, check_mask, check_targets
from unperturbed.records import SpecError
from unperturbed.tensors.streams import undisturbed

Settings = ParamSpec("Settings")


def pure(attack: Callable[Settings, Tensor]) -> Callable[Settings, Tensor]:
    """Return ``attack(classifier, images, labels, seed, *, ...)`` with its inputs checked and the world left alone.

    Images, labels, eps, targets, mask and every setting with a closed list of values are refused in one line where they
    are not as described. The global generators, from which a random classifier draws, are seeded with ``seed`` while
    the attack runs and put back afterwards.
    """
    name = attack.__name__
    choices = {
        setting: get_args(hint) for setting, hint in get_type_hints(attack).items() if get_origin(hint) is Literal
    }

    @functools.wraps(attack)
    def guarded(classifier: Any, images: Tensor, labels: Tensor, seed: int = 0, **settings: Any) -> Tensor:
        check_images(images)
        check_labels(labels, len(images))
        for setting, allowed in choices.items():
            if setting in settings and settings[setting] not in allowed:
                raise SpecError(f"{name}: {setting} must be one of {', '.join(allowed)}; got {settings[setting]!r}")
        if "eps" in settings:
            check_eps(settings["eps"])
        if settings.get("targets") is not None:
            check_targets(settings["targets"], labels)
        if settings.get("mask") is not None:
            check_mask(settings["mask"], images)
        before = images.clone()
        with undisturbed(name, seed, device=images.device):
            found = attack(classifier, images, labels, seed, **settings)  # pyright: ignore[reportCallIssue]
        if not torch.equal(images, before):  # NumPy and ``.data`` change a tensor without a trace in its version
            raise SpecError(IN_PLACE)
        return found

    return cast(Callable[Settings, Tensor], guarded)
