"""What one forward pass of a deployed classifier does that a gradient cannot follow.

Source: the causes of obfuscated gradients in Athalye, Carlini & Wagner (2018), arXiv:1802.00420, section 3; gradient
calls inside the forward pass and probabilities for logits after the checks of AutoAttack (Croce & Hein (2020),
arXiv:2003.01690).
What is listed is a reason to look, not a verdict: a comparison may decide nothing. Only a stand-in whose gradient
differs shows that it mattered (:mod:`unperturbed.audit.variants`).
"""

import random
from collections import Counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unperturbed.attacks.classifier import Classifier
from unperturbed.audit.knobs import modules_in
from unperturbed.audit.softening import Seen, Softening, run
from unperturbed.tensors.streams import undisturbed


def inspect(classifier: Classifier, images: Float[Tensor, "batch channel height width"], *, seed: int = 0) -> Seen:
    """Return what forward passes on ``images`` show.

    Three passes; global random numbers and the images are left as they are. What the classifier does to itself with
    gradients of its own is left out in the pass that is watched.

    Args:
        classifier: images in [0, 1] to logits.
        images: a few are enough.
        seed: of the global random numbers during the passes.
    """
    with undisturbed("inspect", seed, device=images.device):
        plain = _plain(classifier, images)
        mode = Softening(gradients=True, optimisation=False)
        failure = str(plain.pop("failure", ""))
        try:
            output = run(classifier, images, mode)
        except Exception as error:  # the user's code may raise anything under other operations
            failure, output = failure or f"{type(error).__name__}: {error}".splitlines()[0], None
    stops = mode.stops + Counter(twin.maker for twin in mode.twins if twin.used)
    groups = {"stops": stops, "samples": mode.samples, "saturated": mode.saturated, "detached": mode.detached}
    groups["own_backward"] = plain.pop("own_backward", Counter[str]())
    named: dict[str, Any] = {group: tuple(+counted) for group, counted in groups.items()}
    return Seen(
        **named,
        **plain,
        counts=dict(+sum(groups.values(), Counter[str]())),
        optimises=mode.gradient_calls > 0,
        normalised=sum(output is not None and scores.shape == output.shape for scores in mode.normalised),
        compiled=any(isinstance(module, torch.jit.ScriptModule) for module in modules_in(classifier)),
        failure=failure,
    )


def _plain(classifier: Classifier, images: Tensor) -> dict[str, Any]:
    """Return what two passes without any stand-in show."""
    entrance = images.detach().clone()
    before = repr(random.getstate()), repr(np.random.get_state())  # noqa: NPY002 (the global state is what is watched)
    try:
        with torch.no_grad():
            first = classifier(entrance).detach().clone()
            drawn = before != (repr(random.getstate()), repr(np.random.get_state()))  # noqa: NPY002
            second = classifier(images.detach().clone())
    except Exception as error:  # the user's code may raise anything
        return {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
    try:
        with torch.enable_grad():
            # A copy, so that a classifier that writes into its images can be differentiated as far as it goes.
            graph = classifier(images.detach().clone().requires_grad_().clone()).grad_fn
    except Exception:
        graph = None
    rows = torch.stack([first.double(), first.double().exp()])
    sums = ((rows.sum(dim=-1) - 1).abs() < 1e-3).flatten(1).all(dim=1) & (rows >= 0).flatten(1).all(dim=1)
    return {
        "python_random": drawn,
        "random": not torch.allclose(first.double(), second.double(), rtol=1e-4, atol=1e-6, equal_nan=True),
        "in_place": not torch.equal(entrance, images),
        "differentiable": graph is not None,
        "probabilities": bool(sums.any()),
        "own_backward": _own_functions(graph),
    }


def _own_functions(graph: Any) -> Counter[str]:
    """Return the names of the ``autograd.Function`` classes in the graph that PyTorch did not bring along."""
    found: Counter[str] = Counter()
    front, met = [graph], set[Any]()
    while front:
        node = front.pop()
        if node is None or node in met:
            continue
        met.add(node)
        own = getattr(type(node), "_forward_cls", None)
        if own is not None and own.__module__.split(".")[0] != "torch":
            found[own.__name__] += 1
        front += [following for following, _ in node.next_functions]
    return found
