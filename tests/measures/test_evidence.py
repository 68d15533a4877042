from typing import NamedTuple

import numpy as np
import pytest
import torch

from unperturbed.attacks import fgsm, sweep
from unperturbed.measures import chance_corrected_robustness, measure_evidence, robustness
from unperturbed.measures.quantities import OF_CURVES

PUBLISHED = (0.0, 0.0125, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
FINE = tuple(sorted({*PUBLISHED, *(k / 255 for k in range(1, 17))}))


class Curve(NamedTuple):
    eps: np.ndarray
    correct: np.ndarray
    critical_eps: np.ndarray


def _curve(eps, accuracy, images=1000):
    """Evidence of which a given fraction is classified correctly at each eps; the first images break last."""
    correct = np.arange(images)[None] < np.round(np.asarray(accuracy) * images)[:, None]
    broken = ~correct
    critical = np.where(broken.any(axis=0), np.asarray(eps)[broken.argmax(axis=0)], np.inf)
    return Curve(np.asarray(eps), correct, critical)


def _values(evidence, **settings):
    return {row.measure: row.value for row in measure_evidence(evidence, **settings)}


def test_every_quantity_of_a_fine_curve_is_its_definition():
    fine = np.array(FINE)
    accuracy = np.round(0.9 * np.exp(-fine / 0.08) + 0.05 * (fine > 0.2), 3)  # rises again at the end
    values = _values(_curve(FINE, accuracy), chance=0.1, grid=PUBLISHED)
    on_grid = accuracy[np.isin(fine, PUBLISHED)]
    assert values["f0"] == 0.9
    assert values["R"] == pytest.approx(float(robustness(PUBLISHED, on_grid)), rel=1e-12)
    assert values["R_chance"] == pytest.approx(
        float(chance_corrected_robustness(PUBLISHED, on_grid, chance=0.1)), rel=1e-12
    )
    minimum = float(robustness(PUBLISHED, np.minimum.accumulate(on_grid)))
    assert values["R_minimum"] == pytest.approx(minimum, rel=1e-12)
    assert minimum < values["R"]
    inside = fine <= 8 / 255
    assert values["R_8_255"] == pytest.approx(float(robustness(fine[inside], accuracy[inside])), rel=1e-12)
    inside = fine <= 16 / 255
    assert values["R_16_255"] == pytest.approx(float(robustness(fine[inside], accuracy[inside])), rel=1e-12)
    assert values["C_last"] == pytest.approx((accuracy[-1] - 0.9) / 0.9, rel=1e-12)
    assert values["critical_eps_median"] == fine[accuracy <= 0.5][0]
    assert set(values) == set(OF_CURVES)


def test_without_a_grid_all_radii_count():
    fine = np.array(FINE)
    accuracy = np.round(0.9 * np.exp(-fine / 0.02), 3)
    values = _values(_curve(FINE, accuracy), chance=0.1)
    assert values["R"] == pytest.approx(float(robustness(fine, accuracy)), rel=1e-12)
    assert values["R"] != pytest.approx(_values(_curve(FINE, accuracy), chance=0.1, grid=PUBLISHED)["R"], rel=1e-3)


@pytest.mark.parametrize(
    ("eps", "accuracy", "absent"),
    [
        (FINE, [0.0] * len(FINE), {"R", "R_minimum", "R_chance", "R_8_255", "R_16_255", "C_last"}),
        (FINE, [0.1] * len(FINE), {"R_chance"}),
        (FINE, [0.9] * len(FINE), {"critical_eps_median"}),
        ((0.0, 0.03, 0.3), [0.9, 0.4, 0.1], {"A_8_255", "R_8_255", "R_16_255"}),
        ((0.0, 0.0125, 0.025), [0.9, 0.4, 0.1], {"A_8_255", "R_8_255", "R_16_255"}),
        ((0.0, 0.0125, 0.025, 0.05), [0.9, 0.4, 0.1, 0.1], {"A_8_255", "R_16_255"}),
        ((0.01, 0.02, 0.03, 0.1), [0.9, 0.4, 0.1, 0.1], {"A_8_255", "R_8_255", "R_16_255"}),
    ],
)
def test_what_is_not_defined_is_left_out(eps, accuracy, absent):
    values = _values(_curve(eps, accuracy), chance=0.1)
    assert set(OF_CURVES) - set(values) == absent
    assert all(np.isfinite(value) for value in values.values())


def test_units_ranges_and_directions_travel_with_the_values():
    rows = measure_evidence(_curve(FINE, np.linspace(0.9, 0.1, len(FINE))), chance=0.1)
    for row in rows:
        quantity = OF_CURVES[row.measure]
        assert (row.unit, row.better, row.n) == (quantity.unit, quantity.better, 1000)
        assert quantity.lowest <= row.value <= quantity.highest
        assert quantity.says


def test_takes_the_evidence_of_a_sweep():
    weight = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    images = torch.linspace(0.05, 0.95, 100).view(100, 1, 1, 1).expand(100, 1, 2, 1).contiguous()
    labels = (images[:, 0, 0, 0] < 0.5).long()

    def classifier(images):
        return images.flatten(1) @ weight.T - torch.tensor([1.0, -1.0])

    values = _values(sweep(classifier, images, labels, fgsm, eps=FINE), chance=0.5)
    # Distances to the boundary are uniform on 0.0045 ... 0.45: accuracy is about 1 - eps / 0.45.
    assert values["f0"] == 1.0
    assert values["R"] == pytest.approx(1 - 0.15 / 0.45, abs=0.02)
    assert values["R_8_255"] == pytest.approx(1 - 4 / 255 / 0.45, abs=0.02)
    assert values["critical_eps_median"] == pytest.approx(0.25)
