"""The decision boundary on planes through a few images; see :mod:`unperturbed.measures.decision_plane`."""

import numpy as np

from unperturbed.attacks import Passes
from unperturbed.attacks.classifier import predict
from unperturbed.examinations.contract import Found, Subject, measured
from unperturbed.measures.decision_plane import Plane, axes, decision_plane
from unperturbed.measures.jacobians import jacobian, margin_gradient
from unperturbed.records import SpecError
from unperturbed.tensors.streams import undisturbed


def boundary(subject: Subject, *, images: int = 4, extent: float = 1.0, cells: int = 41) -> Found:
    """Return what the network says on a plane through each of the first images.

    The first axis leads against the gradient of the margin of the predicted class, straight to the boundary as far as
    the network is linear; the second is random and at right angles to it.

    Args:
        subject: what is examined; a random network answers every point by draws of its own.
        images: how many.
        extent: how far a plane reaches on each side of its image, Euclidean; full scale of one intensity is 1.
        cells: along each axis, odd.

    Returns:
        ``plane_share``, the mean part of a plane that has the class of its image, and for the picture the arrays
        ``classes`` and ``margins`` (images, cells, cells), ``axes`` (images, 2, channel, height, width) and
        ``positions``.

    Raises:
        SpecError: no images, or a setting that is not as ``decision_plane`` describes.
    """
    if images < 1:
        raise SpecError(f"boundary: expected images of at least 1; got {images}")
    passes = Passes(subject.network)
    planes: list[Plane] = []
    spanned: list[np.ndarray] = []
    for number in range(min(images, len(subject.labels))):
        centre = subject.images[number : number + 1]
        with undisturbed("boundary", subject.seed, number, device=centre.device):
            predict(subject.watched(passes), centre, subject.labels[number : number + 1])  # refuses what are no logits
            logits, slopes = jacobian(subject.watched(passes), centre)
            _, gradient = margin_gradient(logits, slopes, logits.argmax(dim=1))
            first, second = axes(-gradient, seed=subject.seed)
            plane = decision_plane(subject.watched(passes), centre[0], first, second, extent=extent, cells=cells)
        planes.append(plane)
        spanned.append(np.stack([first.cpu().numpy(), second.cpu().numpy()]))
    return Found(
        measured({"plane_share": float(np.mean([plane.share for plane in planes]))}, len(planes)),
        arrays={
            "classes": np.stack([plane.classes.cpu().numpy() for plane in planes]),
            "margins": np.stack([plane.margins.cpu().numpy() for plane in planes]),
            "axes": np.stack(spanned),
            "positions": planes[0].positions.cpu().numpy(),
        },
        forwards=passes.forwards,
        backwards=passes.backwards,
    )
