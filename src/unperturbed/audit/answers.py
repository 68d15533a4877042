"""The checks that need no attack: what a classifier's own answers and gradients give away.

Sources: Carlini et al. (2019), arXiv:1902.06705 (C11); Pintor et al. (2022), arXiv:2106.09947 (I1, I2); Athalye,
Carlini & Wagner (2018), arXiv:1802.00420 (E1: coherence of the gradients of a random classifier); Croce & Hein (2020),
arXiv:2003.01690, ``checks.py`` (P1, R1, O1). B1 is ours.
"""

from unperturbed.audit.behaviour import DIFFERENT, Behaviour
from unperturbed.audit.coherence import Coherence
from unperturbed.audit.record import Flag
from unperturbed.audit.softening import Seen

ZERO = 0.05  # images without a gradient
MISMATCH = 0.5
UNSTABLE = 0.1
STANDARD_ERRORS = 3


def doubts(behaviour: Behaviour, seen: Seen, coherence: Coherence | None) -> list[Flag]:
    """Return the checks of the answers, each with its value and threshold."""
    return [
        _probabilities(behaviour),
        _randomness(behaviour),
        _neighbours(behaviour),
        _optimises(seen),
        _no_gradient(behaviour),
        _unstable(behaviour),
        _mismatch(behaviour, seen),
        _coherence(coherence),
    ]


def _probabilities(behaviour: Behaviour) -> Flag:
    fired = behaviour.probabilities
    return Flag(
        id="P1",
        name="not logits but probabilities",
        says="The outputs are probabilities: their differences vanish where the model is certain."
        if fired
        else "The outputs are not probabilities.",
        value=float(fired),
        threshold=None,
        fired=fired,
        evidence=f"whether the outputs of {behaviour.images} images are between 0 and 1 with a sum of 1",
        remedy="attack the logarithm, and what goes into the last softmax",
    )


def _randomness(behaviour: Behaviour) -> Flag:
    fired = behaviour.random
    return Flag(
        id="R1",
        name="random answers",
        says="Equal images get unequal answers: one draw decides nothing."
        if fired
        else "Equal images get equal answers.",
        value=behaviour.deviation,
        threshold=DIFFERENT,
        fired=fired,
        evidence=f"largest distance of normalised logits over five runs of {behaviour.images} images",
        remedy="accuracy as an expectation over fresh draws, gradients averaged over draws (EOT), expected activations",
    )


def _neighbours(behaviour: Behaviour) -> Flag:
    fired = behaviour.looks_aside
    return Flag(
        id="B1",
        name="the answer depends on the batch",
        says="An image is answered otherwise alone than among others: gradients mix images, and the accuracy depends "
        "on the company."
        if fired
        else "An image is answered alone as among others.",
        value=behaviour.neighbours,
        threshold=DIFFERENT,
        fired=fired,
        evidence="normalised logits of each image alone, in its batch and in the reversed batch",
        remedy="show it one image at a time, for the attack and for the decision",
        applies=behaviour.neighbours is not None,
    )


def _optimises(seen: Seen) -> Flag:
    return Flag(
        id="O1",
        name="optimisation at inference",
        says="The forward pass takes gradients itself: it moves its input, or itself, before it answers."
        if seen.optimises
        else "The forward pass takes no gradients.",
        value=float(seen.optimises),
        threshold=None,
        fired=seen.optimises,
        evidence="calls of autograd inside one forward pass",
        remedy="attack the network without its inner optimisation, judge with it",
    )


def _no_gradient(behaviour: Behaviour) -> Flag:
    value = max(behaviour.zero_rounded, behaviour.zero_exact)
    if behaviour.no_gradient is not None:
        says = f"There is no gradient: {behaviour.no_gradient.rstrip('.')}."
    elif behaviour.zero_exact > ZERO:
        says = f"The gradient of the margin is exactly 0 for {behaviour.zero_exact:.0%} of the images."
    elif behaviour.zero_rounded > ZERO:
        says = (
            f"The cross-entropy is rounded so that its gradient is exactly 0 for {behaviour.zero_rounded:.0%} of the "
            "images; that of the margin is not."
        )
    else:
        says = "Images have a gradient."
    return Flag(
        id="I1",
        name="zero or unavailable gradients",
        says=says,
        value=value,
        threshold=ZERO,
        fired=behaviour.no_gradient is not None or value > ZERO,
        evidence=f"share of {behaviour.images} images whose gradient has no component other than 0",
        remedy="climb the margin; pass gradients through what stops them; estimate them from differences; black box",
    )


def _unstable(behaviour: Behaviour) -> Flag:
    fired = behaviour.unstable > UNSTABLE
    return Flag(
        id="I2",
        name="unstable predictions",
        says=f"Noise of 4/255 changes the margin by {behaviour.unstable:.0%} on average"
        + (": the surface is rugged." if fired else "."),
        value=behaviour.unstable,
        threshold=UNSTABLE,
        fired=fired,
        evidence=f"relative change of the margin in a box of +-4/255 around {behaviour.images} images, 20 draws each",
        remedy="average gradients over noise at the input, take soft versions of hard operations",
    )


def _mismatch(behaviour: Behaviour, seen: Seen) -> Flag:
    value = behaviour.mismatch
    fired = value is not None and value > MISMATCH
    told = f" Seen in the forward pass: {', '.join(seen.stops)}." if fired and seen.stops else ""
    return Flag(
        id="C11",
        name="the gradient is not that of the whole pipeline",
        says="No gradient to compare with differences."
        if value is None
        else f"The derivative differs from finite differences by {value:.0%} in the median.{told}",
        value=value,
        threshold=MISMATCH,
        fired=fired,
        evidence="derivative of the margin along three random directions against its central difference, 0.25/255 wide",
        remedy="find what cuts the gradient and pass through it; attack the whole pipeline",
        applies=value is not None,
    )


def _coherence(coherence: Coherence | None) -> Flag:
    if coherence is None or coherence.deterministic:
        return Flag(
            id="E1",
            name="incoherent gradients",
            says="The gradient is the same in every draw.",
            value=None,
            threshold=None,
            fired=False,
            evidence="only for random classifiers",
            remedy="",
            applies=False,
        )
    limit = coherence.chance + STANDARD_ERRORS * coherence.standard_error
    fired = coherence.sign_agreement <= limit
    return Flag(
        id="E1",
        name="incoherent gradients",
        says=f"Signs of the gradient agree over draws to {coherence.sign_agreement:.3f}, chance is "
        f"{coherence.chance:.4f}; mean cosine {coherence.cosine:.3f}."
        + (" A single draw tells nothing, and no average of feasible size does." if fired else ""),
        value=coherence.sign_agreement,
        threshold=limit,
        fired=fired,
        evidence="mean |mean sign| of single-draw gradients of the margin",
        remedy="attack through a smoother variant: higher temperature, expected activations",
    )
