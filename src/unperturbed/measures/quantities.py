"""What is measured: unit, range and better-direction of every quantity, so that no table or plot has to guess."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Quantity:
    """One measured quantity of one network under one attack."""

    unit: str
    lowest: float
    highest: float
    better: Literal["higher", "lower", ""]
    says: str


class Measured(NamedTuple):
    """The value of a quantity, with what is needed to draw it."""

    measure: str
    value: float
    unit: str
    better: str
    n: int  # images


OF_CURVES: dict[str, Quantity] = {
    "f0": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at the smallest eps; the clean accuracy where that is 0"),
    "A_8_255": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at eps = 8/255"),
    "A_last": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at the largest eps"),
    "R": Quantity("", 0.0, math.inf, "higher", "mean accuracy over eps as a fraction of f0; above 1 only if it rises"),
    "R_minimum": Quantity("", 0.0, 1.0, "higher", "R of the running minimum of the accuracy"),
    "R_chance": Quantity("", 0.0, math.inf, "higher", "R of the accuracy above chance"),
    "R_8_255": Quantity("", 0.0, math.inf, "higher", "R on the interval up to eps = 8/255"),
    "R_16_255": Quantity("", 0.0, math.inf, "higher", "R on the interval up to eps = 16/255"),
    "C_last": Quantity(
        "", -1.0, math.inf, "higher", "relative change of accuracy from the smallest to the largest eps"
    ),
    "critical_eps_median": Quantity("full scale", 0.0, 1.0, "higher", "eps at which half of the images are broken"),
}
"""What an attack at several radii says of a network."""

QUANTITIES: dict[str, Quantity] = {
    **OF_CURVES,
    "A_eps": Quantity("fraction", 0.0, 1.0, "higher", "accuracy at the radius of the examination"),
    "A_eps_drawn": Quantity("fraction", 0.0, 1.0, "higher", "as AutoAttack counts a random network: by one lucky draw"),
    "A_eps_plain": Quantity("fraction", 0.0, 1.0, "higher", "what the plain attack of an audit left there"),
    "audit_flags": Quantity("", 0.0, math.inf, "lower", "checks of the audit that fired"),
    "audit_verdict": Quantity("", 0.0, 2.0, "lower", "of the audit: 0 trustworthy, 1 suspect, 2 illusory"),
    "ece": Quantity("fraction", 0.0, 1.0, "lower", "expected calibration error, 15 bins"),
    "mean_confidence": Quantity("fraction", 0.0, 1.0, "", "mean probability of the predicted class"),
    "mean_confidence_right": Quantity("fraction", 0.0, 1.0, "", "the same of the images that are classified correctly"),
    "ms_per_image": Quantity("ms", 0.0, math.inf, "lower", "time at inference for one image and one pass"),
    "average_certified_radius": Quantity("L2", 0.0, math.inf, "higher", "certified radius, 0 where wrong, mean"),
    "certified_0_25": Quantity("fraction", 0.0, 1.0, "higher", "right and certified at an L2 radius of 0.25"),
    "gradient_cosine": Quantity("", -1.0, 1.0, "", "cosine of input gradients of two draws; 1 without randomness"),
    "gradient_agreement": Quantity("", 0.0, 1.0, "", "size of the mean sign of such gradients; 0.176 by chance"),
    "gradient_cosine_T_0_01": Quantity("", -1.0, 1.0, "", "gradient_cosine at a temperature of 0.01"),
    "gradient_cosine_T_0_1": Quantity("", -1.0, 1.0, "", "gradient_cosine at a temperature of 0.1"),
    "gradient_cosine_T_0_67": Quantity("", -1.0, 1.0, "", "gradient_cosine at a temperature of 0.67"),
    "gradient_cosine_T_1": Quantity("", -1.0, 1.0, "", "gradient_cosine at a temperature of 1"),
    "branch_clean": Quantity("fraction", 0.0, 1.0, "", "training images that were left as they are"),
    "branch_pgd": Quantity("fraction", 0.0, 1.0, "", "training images that PGD changed"),
    "branch_fgsm": Quantity("fraction", 0.0, 1.0, "", "training images that FGSM changed"),
    "branch_carlini_wagner": Quantity("fraction", 0.0, 1.0, "", "training images that C&W changed"),
    "branch_noise": Quantity("fraction", 0.0, 1.0, "", "training images that noise changed"),
    "overfitting_looks": Quantity("fraction", 0.0, 1.0, "lower", "looks that found 20 points more under one step"),
    "overfitting_gap": Quantity("fraction", -1.0, 1.0, "lower", "FGSM less PGD accuracy of a batch at the last look"),
    "noise_alpha": Quantity("", 0.0, math.inf, "", "learned noise as a fraction of what it disturbs, mean over layers"),
    "spectrum_alpha": Quantity("", -math.inf, math.inf, "", "exponent of the eigenspectrum of a layer, by ranks alike"),
    "spectrum_alpha_weighted": Quantity("", -math.inf, math.inf, "", "the same, rank n with the weight 1/n"),
    "spectrum_r2": Quantity("", 0.0, 1.0, "", "variance of log eigenvalues that the exponent explains"),
    "spectrum_alpha_least": Quantity("", -math.inf, math.inf, "", "smallest exponent over other ranges of ranks"),
    "spectrum_alpha_greatest": Quantity("", -math.inf, math.inf, "", "greatest exponent over other ranges of ranks"),
    "spectrum_alpha_alive": Quantity("", -math.inf, math.inf, "", "exponent without the units that are never active"),
    "spectrum_alpha_draws": Quantity("", -math.inf, math.inf, "", "exponent of what two draws of the network share"),
    "spectrum_alpha_halves": Quantity("", -math.inf, math.inf, "", "exponent of other images along the components"),
    "fit_error": Quantity("", 0.0, math.inf, "lower", "error of the fitted exponent of an exact power law"),
    "recovery_gap": Quantity("", -math.inf, math.inf, "", "exponent found under noise less that without, by repeats"),
    "recovery_gap_plain": Quantity("", -math.inf, math.inf, "", "the same by plain PCA of one repeat"),
    "white_share": Quantity("", -1.0, 1.0, "", "what two repeats of white noise are found to share"),
    "white_rank_gap": Quantity("fraction", 0.0, 1.0, "lower", "ranks that white data lie off their law at most"),
    "participation_ratio": Quantity("", 1.0, math.inf, "", "directions that carry the variance of a layer"),
    "effective_rank": Quantity("", 1.0, math.inf, "", "exponential of the entropy of the eigenvalues"),
    "dead_units": Quantity("fraction", 0.0, 1.0, "lower", "units of a layer that no image brings above 0"),
    "jacobian_frobenius": Quantity("logits per L2", 0.0, math.inf, "lower", "Frobenius norm of the Jacobian, mean"),
    "jacobian_spectral": Quantity("logits per L2", 0.0, math.inf, "lower", "largest singular value of it, mean"),
    "margin_gradient": Quantity("logits per L2", 0.0, math.inf, "lower", "length of the margin's gradient, mean"),
    "zero_gradients": Quantity("fraction", 0.0, 1.0, "lower", "images where the margin's gradient is exactly 0"),
    "first_order_distance": Quantity("L2", 0.0, math.inf, "higher", "margin over its gradient, median where right"),
    "lipschitz": Quantity("logits per L2", 0.0, math.inf, "lower", "steepest change found near an image, median"),
    "local_complexity": Quantity("units", 0.0, math.inf, "", "units of a layer that switch near an image, mean"),
    "dimension_two_nn": Quantity("", 0.0, math.inf, "", "dimension of a representation by two neighbours"),
    "dimension_mle_3": Quantity("", 0.0, math.inf, "", "dimension of largest likelihood by 3 neighbours"),
    "dimension_mle_5": Quantity("", 0.0, math.inf, "", "the same by 5 neighbours"),
    "dimension_mle_10": Quantity("", 0.0, math.inf, "", "the same by 10 neighbours"),
    "dimension_mle_20": Quantity("", 0.0, math.inf, "", "the same by 20 neighbours"),
    "label_sharpness": Quantity("1/L2", 0.0, math.inf, "", "inverse distance of the nearest two of different classes"),
    "label_sharpness_quantile": Quantity("1/L2", 0.0, math.inf, "", "the same that 1 % of such pairs exceed"),
    "plane_share": Quantity("fraction", 0.0, 1.0, "higher", "part of a plane around an image that has its class, mean"),
    "cotraining_cross_entropy": Quantity(
        "nats", 0.0, math.inf, "lower", "cross-entropy of a training image, last epoch"
    ),
    "cotraining_squared_error": Quantity("", 0.0, math.inf, "lower", "error of the responses; 1 is their mean"),
    "cotraining_gradient_classifier": Quantity(
        "", 0.0, math.inf, "", "length of its gradient by the last shared layer"
    ),
    "cotraining_gradient_eeg": Quantity("", 0.0, math.inf, "", "the same of the EEG's loss, as weighted in the sum"),
    "cotraining_cosine": Quantity("", -1.0, 1.0, "", "cosine between these two gradients"),
    "eeg_r": Quantity("", -1.0, 1.0, "higher", "r of predicted and recorded EEG at the peak of its ceiling, channels"),
    "eeg_r_occipital": Quantity("", -1.0, 1.0, "higher", "the same of the channels O1, Oz and O2"),
    "eeg_r_parieto_occipital": Quantity("", -1.0, 1.0, "higher", "the same of PO7, PO3, POz, PO4 and PO8"),
    "eeg_r_lead": Quantity("", -2.0, 2.0, "", "the occipital r less the parieto-occipital one"),
    "eeg_r_100_ms": Quantity("", -1.0, 1.0, "higher", "r of predicted and recorded EEG 100 ms after onset, channels"),
    "eeg_peak_ms": Quantity("ms", 0.0, math.inf, "", "when the mean of that r over channels is largest"),
    "eeg_peak_occipital_ms": Quantity("ms", 0.0, math.inf, "", "the same of O1, Oz and O2"),
    "eeg_ceiling_lower": Quantity("", -1.0, 1.0, "", "r of one half of the repetitions with the other, there"),
    "eeg_ceiling_upper": Quantity("", -1.0, 1.0, "", "r of one half of the repetitions with all, there"),
    "similarity_it_human": Quantity("", -1.0, 1.0, "higher", "rank r of dissimilarities to it and to human IT, people"),
    "similarity_it_human_p": Quantity("", 0.0, 1.0, "", "p of that, by permutation of the images"),
    "similarity_it_monkey": Quantity("", -1.0, 1.0, "higher", "the same of the IT of monkeys"),
    "similarity_it_monkey_p": Quantity("", 0.0, 1.0, "", "p of that"),
    "similarity_it_ceiling_lower": Quantity("", -1.0, 1.0, "", "rank r of each person with the mean of the others"),
    "similarity_it_ceiling_upper": Quantity("", -1.0, 1.0, "", "most that any dissimilarities can reach"),
    "similarity_eeg": Quantity(
        "", -1.0, 1.0, "higher", "rank r of dissimilarities to it and to EEG, at the ceiling's peak"
    ),
    "similarity_eeg_p": Quantity("", 0.0, 1.0, "", "p of the largest of all times, corrected"),
    "similarity_eeg_peak_ms": Quantity("ms", 0.0, math.inf, "", "when that r is largest"),
    "similarity_eeg_ceiling_lower": Quantity("", -1.0, 1.0, "", "rank r of a part of the repetitions with the others"),
    "similarity_eeg_ceiling_upper": Quantity("", -1.0, 1.0, "", "most that any dissimilarities can reach then"),
    "robustness_gain": Quantity("", -1.0, math.inf, "higher", "mean smallest perturbation over that beside, less 1"),
    "robustness_gain_median": Quantity("", -1.0, math.inf, "higher", "the same of medians"),
    "robustness_excluded": Quantity("fraction", 0.0, 1.0, "", "images that one of both networks gets wrong, left out"),
    "robustness_censored": Quantity("fraction", 0.0, 1.0, "", "of the others, those never broken of one of both"),
    "converged_units": Quantity("fraction", 0.0, 1.0, "higher", "hidden units with a p-norm within 0.01 of the radius"),
    "negative_units": Quantity("fraction", 0.0, 1.0, "lower", "hidden units whose mean synapse is below -radius / 2"),
    "critical_l2": Quantity(
        "L2", 0.0, math.inf, "higher", "distance to the nearest adversarial image, median where right"
    ),
    "critical_l2_published": Quantity(
        "L2 of unit vectors", 0.0, math.inf, "higher", "the same as published, behind the normalisation"
    ),
}
