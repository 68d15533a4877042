from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from unperturbed.audit.coherence import chance_agreement
from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.records import SpecError

gradients = EXAMINATIONS["gradients"]

ALTERNATING = -1 / 19  # mean cosine of all pairs of ten g and ten -g: (0 - 20) / (20 * 19)


class Fickle(nn.Module):
    """Below a temperature of 0.5 the gradient turns round at every other call; of a dark image it is 0."""

    seen: ClassVar[list[float]] = []  # temperatures, of all copies

    def __init__(self, temperature):
        super().__init__()
        self.temperature = temperature
        self.calls = 0

    def forward(self, images):
        torch.rand(1)  # chance, so that no shortcut is taken
        self.calls += 1
        self.seen.append(self.temperature)
        turned = self.temperature < 0.5 and self.calls % 2 == 0
        return images * (images.detach() > 0.2) * (-1 if turned else 1)


class Linear(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.register_buffer("weight", torch.linspace(-1, 2, 12))

    def forward(self, images):
        margin = self.layer(images).flatten(1) @ self.weight
        return torch.stack([-margin, margin], dim=1)


def _images(*levels):
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()


def _subject(layer, images):
    return Subject(Linear(layer).eval(), images, torch.zeros(len(images), dtype=torch.long), seed=0, random=True)


def test_every_temperature_has_its_own_cosine_and_the_deployed_network_keeps_its(values):
    layer = Fickle(0.5)
    Fickle.seen.clear()
    found = gradients(_subject(layer, _images(0.3, 0.5, 0.9)))
    assert list(dict.fromkeys(Fickle.seen)) == [0.5, 0.01, 0.1, 0.67, 1.0]
    assert values(found) == {
        "gradient_cosine": pytest.approx(1, abs=1e-6),
        "gradient_agreement": 1.0,
        "gradient_cosine_T_0_01": pytest.approx(ALTERNATING, abs=1e-6),
        "gradient_cosine_T_0_1": pytest.approx(ALTERNATING, abs=1e-6),
        "gradient_cosine_T_0_67": pytest.approx(1, abs=1e-6),
        "gradient_cosine_T_1": pytest.approx(1, abs=1e-6),
    }
    assert layer.temperature == 0.5
    assert found.arrays["rows"].tolist() == ["deployed", "T_0_01", "T_0_1", "T_0_67", "T_1"]
    np.testing.assert_array_equal(found.arrays["agreement"], [1, 0, 0, 1, 1])
    np.testing.assert_allclose(found.arrays["chance"], chance_agreement(20), rtol=1e-12)
    assert (found.forwards, found.backwards) == (5 * 20 * 3, 5 * 20 * 3)


def test_batches_count_as_many_as_have_a_gradient(values):
    """150 images: in the first batch of 100 half are dark, in the second all but ten turn round."""

    class Mixed(Fickle):
        def forward(self, images):
            return torch.where(images > 0.7, images * (images.detach() > 0.2), super().forward(images))

    layer = Mixed(0.01)
    images = _images(*[0.1] * 50, *[0.9] * 50, *[0.5] * 40, *[0.9] * 10)
    del layer.temperature  # without one, only the deployed network is looked at
    Mixed.temperature = 0.01
    subject = _subject(layer, images)
    found = gradients(subject)
    assert values(found)["gradient_cosine"] == pytest.approx((60 + 40 * ALTERNATING) / 100, abs=1e-6)
    assert values(found)["gradient_agreement"] == pytest.approx(60 / 100, abs=1e-6)


def test_a_network_without_chance_or_temperature_takes_two_draws(linear, values):
    images = _images(0.3, 0.5)
    found = gradients(Subject(linear(torch.ones(12)), images, torch.tensor([0, 1]), seed=0))
    assert values(found) == {"gradient_cosine": 1.0, "gradient_agreement": 1.0}
    assert (found.forwards, found.backwards) == (4, 4)


def test_no_gradient_anywhere_is_no_coherence(values):
    found = values(gradients(_subject(Fickle(0.67), _images(0.1, 0.15))))
    assert found["gradient_cosine"] == found["gradient_agreement"] == 0


@pytest.mark.usefixtures("unchecked")
def test_competition_has_a_gradient_at_a_high_temperature_only(deployed, values):
    found = values(gradients(deployed("winner-take-all", images=30)))
    cosines = [found[f"gradient_cosine_{name}"] for name in ("T_0_01", "T_0_1", "T_0_67", "T_1")]
    assert cosines == sorted(cosines)
    assert cosines[2] > cosines[0] + 0.1
    assert found["gradient_cosine"] == cosines[0]  # deployed at 0.01


def test_one_draw_is_refused(linear):
    with pytest.raises(SpecError, match="gradients: expected draws of at least 2; got 1"):
        gradients(Subject(linear(torch.ones(12)), _images(0.3), torch.tensor([0]), seed=0), draws=1)
