"""The judge: what an adversarial image really is, found from the image alone.

Source: the separation of attack and criterion follows Rauber et al. (2017), arXiv:1707.04131. Nothing an attack says
about its own success is used: the prediction comes from a fresh forward pass, the distances from the images returned.
A random classifier is judged by draws that no attack has seen, so that a lucky draw is not taken for a success.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, predict, succeeded
from unperturbed.attacks.inputs import ROUND_OFF, check_eps, check_images, check_labels
from unperturbed.records import SpecError
from unperturbed.tensors.norms import check_norm, length, wide
from unperturbed.tensors.streams import undisturbed


class Judgement(NamedTuple):
    """What the judge found, for every image."""

    prediction: Int[Tensor, " batch"]  # int64; of a random classifier the majority of its draws
    linf: Float[Tensor, " batch"]  # largest change of any intensity, as a fraction of full scale
    l2: Float[Tensor, " batch"]  # Euclidean length of the change
    distance: Float[Tensor, " batch"]  # length of the change in the norm asked for
    in_box: Bool[Tensor, " batch"]  # every intensity in [0, 1], to 1e-6
    in_ball: Bool[Tensor, " batch"]  # within eps in the norm asked for, to 1e-6
    success: Bool[Tensor, " batch"]  # misclassified (or taken for its target), in the box and in the ball


def judge(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    adversarial: Tensor,
    *,
    norm: str,
    eps: float | int | None,
    box: bool = True,
    targets: Tensor | None = None,
    votes: int = 1,
    seed: int = 0,
    levels: int | None = None,
) -> Judgement:
    """Return distance, box, ball, prediction and success, recomputed from ``adversarial``.

    ``votes`` forwards per image, in the type of the images (float32 as a rule) and outside any autocast. Changes are
    taken in float32 or wider and summed in float64.

    Args:
        classifier: images in [0, 1] to logits, the one that is deployed.
        images: the originals, in [0, 1].
        labels: the true classes.
        adversarial: what the attack returned for them.
        norm: in which the ball is measured.
        eps: radius of the ball; ``None``: no ball, as for Gaussian noise.
        box: whether an image outside [0, 1] is refused.
        targets: classes that count as a success; ``None``: any but the true one.
        votes: forwards of a random classifier, of which the majority is its prediction.
        seed: decides those draws.
        levels: intensities that a file can hold, 256 for 8 bits: what is judged is ``quantise(...)`` of the image.

    Raises:
        SpecError: an argument is not as described; ``adversarial`` may break box and ball, which is what is judged.
    """
    check_images(images)
    check_labels(labels, len(images))
    check_norm(norm)
    if adversarial.shape != images.shape:
        raise SpecError(
            f"judge: expected adversarial images of shape {tuple(images.shape)}; got {tuple(adversarial.shape)}"
        )
    if levels is not None:
        adversarial = quantise(adversarial, images, levels=levels)
    precise = wide(images.dtype)
    change = adversarial.to(precise) - images.to(precise)
    linf, l2 = length(change, norm="linf"), length(change, norm="l2")
    distance = {"linf": linf, "l2": l2}[norm] if norm != "l1" else length(change, norm="l1")
    in_box = _in_box(adversarial.to(precise))
    if eps is None:
        in_ball = distance.isfinite()
    else:
        check_eps(eps)
        in_ball = distance <= eps + ROUND_OFF
    # Last, so that a classifier that changes its input changes no distance.
    prediction = majority(predictions(classifier, adversarial, labels, votes=votes, seed=seed))
    success = succeeded(prediction, labels, targets) & in_ball & (in_box if box else True)
    return Judgement(prediction, linf, l2, distance, in_box, in_ball, success)


def _in_box(images: Tensor) -> Tensor:
    lowest, highest = torch.aminmax(images)
    if lowest >= -ROUND_OFF and highest <= 1 + ROUND_OFF:
        return torch.ones(len(images), dtype=torch.bool, device=images.device)
    flat = images.flatten(1)
    return (flat.amin(dim=1) >= -ROUND_OFF) & (flat.amax(dim=1) <= 1 + ROUND_OFF)


def predictions(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    *,
    votes: int = 1,
    seed: int = 0,
) -> Int[Tensor, "votes batch"]:
    """Return the class of every image in each of ``votes`` fresh forwards; the global generators are left alone.

    Args:
        classifier: images in [0, 1] to logits.
        images: in [0, 1], or what claims to be.
        labels: the true classes, against which the number of classes is checked.
        votes: forwards.
        seed: of what a random classifier draws.

    Raises:
        SpecError: the logits are not as described, or ``votes`` is below 1.
    """
    if votes < 1:
        raise SpecError(f"judge: expected votes of at least 1; got {votes}")
    with undisturbed("judge", seed, device=images.device):
        return torch.stack([predict(classifier, images, labels).argmax(dim=1) for _ in range(votes)])


def majority(classes: Int[Tensor, "votes batch"]) -> Int[Tensor, " batch"]:
    """Return the most frequent class of every image, the smallest of several.

    >>> majority(torch.tensor([[3, 0], [3, 2], [1, 2]]))
    tensor([3, 2])
    """
    return classes[0] if len(classes) == 1 else classes.mode(dim=0).values


def quantise(
    adversarial: Shaped[Tensor, "batch channel height width"],
    images: Shaped[Tensor, "batch channel height width"],
    *,
    levels: int,
) -> Float[Tensor, "batch channel height width"]:
    """Return the adversarial images as a file with so many intensities would hold them, none further from its image.

    Rounded to the nearest level, except where that would be further away than before: then to the next one inside. An
    image that is no file itself may have no level inside: its own intensity stays there.

    >>> quantise(torch.tensor([[[[0.58]]]]), torch.tensor([[[[0.2]]]]), levels=6)
    tensor([[[[0.4000]]]])
    """
    if levels < 2:
        raise SpecError(f"judge: expected levels of at least 2, 256 for 8 bits; got {levels}")
    precise = wide(images.dtype)
    centres, moved = images.to(precise), adversarial.to(precise)
    rounded = (moved * (levels - 1)).round()
    nearest = rounded / (levels - 1)
    inside = (rounded - (moved - centres).sign()) / (levels - 1)
    reach = (moved - centres).abs() + ROUND_OFF
    held = torch.where((nearest - centres).abs() <= reach, nearest, inside)
    return torch.where((held - centres).abs() <= reach, held, centres).to(images.dtype)
