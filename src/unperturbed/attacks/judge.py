"""The judge: what an adversarial image really is, found from the image alone.

Source: the separation of attack and criterion follows Rauber et al. (2017), arXiv:1707.04131. Nothing an attack says
about its own success is used: the prediction comes from a fresh forward pass, the distances from the images returned.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from unperturbed.attacks.classifier import Classifier, predict
from unperturbed.attacks.inputs import ROUND_OFF, check_eps, check_images, check_labels
from unperturbed.records import SpecError
from unperturbed.tensors.norms import check_norm, length, wide


class Judgement(NamedTuple):
    """What the judge found, for every image."""

    prediction: Int[Tensor, " batch"]  # int64
    linf: Float[Tensor, " batch"]  # largest change of any intensity, as a fraction of full scale
    l2: Float[Tensor, " batch"]  # Euclidean length of the change
    in_box: Bool[Tensor, " batch"]  # every intensity in [0, 1], to 1e-6
    in_ball: Bool[Tensor, " batch"]  # within eps in the norm asked for, to 1e-6
    success: Bool[Tensor, " batch"]  # misclassified, in the box and in the ball


def judge(
    classifier: Classifier,
    images: Shaped[Tensor, "batch channel height width"],
    labels: Tensor,
    adversarial: Tensor,
    *,
    norm: str,
    eps: float | int | None,
    box: bool = True,
) -> Judgement:
    """Return distance, box, ball, prediction and success, recomputed from ``adversarial``.

    One forward per image, in the type of the images (float32 as a rule) and outside any autocast. Changes are taken in
    float32 or wider and summed in float64.

    Args:
        classifier: images in [0, 1] to logits, the one that is deployed.
        images: the originals, in [0, 1].
        labels: the true classes.
        adversarial: what the attack returned for them.
        norm: ``linf`` or ``l2``, in which the ball is measured.
        eps: radius of the ball; ``None``: no ball, as for Gaussian noise.
        box: whether an image outside [0, 1] is refused.

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
    prediction = predict(classifier, adversarial, labels).argmax(dim=1)
    precise = wide(images.dtype)
    change = adversarial.to(precise) - images.to(precise)
    distances = {each: length(change, norm=each) for each in ("linf", "l2")}
    flat = adversarial.to(precise).flatten(1)
    in_box = (flat.amin(dim=1) >= -ROUND_OFF) & (flat.amax(dim=1) <= 1 + ROUND_OFF)
    if eps is None:
        in_ball = distances[norm].isfinite()
    else:
        check_eps(eps)
        in_ball = distances[norm] <= eps + ROUND_OFF
    success = (prediction != labels) & in_ball & (in_box if box else True)
    return Judgement(prediction, distances["linf"], distances["l2"], in_box, in_ball, success)
