import numpy as np
import pytest
import torch

from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.records import SpecError

boundary = EXAMINATIONS["boundary"]

WEIGHT = torch.randn(27, generator=torch.Generator().manual_seed(2))
IMAGES = 0.3 + 0.4 * torch.rand(5, 3, 3, 3, generator=torch.Generator().manual_seed(3))


def _subject(linear, **rest):
    network = linear(WEIGHT, -0.5 * float(WEIGHT.sum())).eval()
    return Subject(network, IMAGES, torch.zeros(5, dtype=torch.long), seed=1)._replace(**rest)


def test_a_linear_boundary_stands_at_its_distance_in_front_of_every_image(linear, values):
    subject = _subject(linear)
    with torch.no_grad():
        distance = (IMAGES.flatten(1) @ WEIGHT + subject.network.bias).abs() / WEIGHT.norm()
        classes = subject.network(IMAGES).argmax(dim=1)
    assert set(classes.tolist()) == {0, 1}  # whatever the labels are
    found = boundary(subject, images=5, extent=0.5, cells=51)
    share = (0.5 + distance.clamp_max(0.5)).mean()
    assert values(found) == {"plane_share": pytest.approx(float(share), abs=1 / 50)}
    assert [row.n for row in found.measures] == [5]
    positions = found.arrays["positions"]
    np.testing.assert_allclose(positions, np.linspace(-0.5, 0.5, 51), atol=1e-7)
    expected = (distance[:, None].numpy() - positions) * float(WEIGHT.norm())
    np.testing.assert_allclose(found.arrays["margins"], np.repeat(expected[:, None], 51, axis=1), atol=1e-4)
    assert (found.arrays["classes"][:, 25, 25] == classes.numpy()).all()
    axes = found.arrays["axes"].reshape(5, 2, 27)
    np.testing.assert_allclose(axes @ axes.transpose(0, 2, 1), np.broadcast_to(np.eye(2), (5, 2, 2)), atol=1e-6)
    assert found.forwards == 5 * (1 + 1 + 51 * 51)
    assert found.backwards == 5 * 2


def test_no_more_images_are_taken_than_there_are(linear):
    found = boundary(_subject(linear), images=9, cells=3)
    assert found.arrays["classes"].shape == (5, 3, 3)
    assert boundary(_subject(linear), images=2, cells=3).arrays["classes"].shape == (2, 3, 3)


def test_settings_without_a_meaning_are_refused(linear):
    with pytest.raises(SpecError, match="boundary: expected images of at least 1; got 0"):
        boundary(_subject(linear), images=0)
    with pytest.raises(SpecError, match="an odd number of cells, 3 or more, and an extent above 0; got 40 and 1"):
        boundary(_subject(linear), cells=40)
