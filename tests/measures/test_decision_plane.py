import pytest
import torch

from unperturbed.measures.decision_plane import axes, decision_plane
from unperturbed.records import SpecError

torch.manual_seed(0)
WEIGHT = torch.randn(12, dtype=torch.float64)
IMAGE = torch.rand(3, 2, 2, dtype=torch.float64)


def _at(distance):
    """A linear classifier of two classes whose boundary is this far from the image, which has class 1."""
    bias = distance * WEIGHT.norm() - WEIGHT @ IMAGE.flatten()

    def classifier(images):
        margin = images.flatten(1) @ WEIGHT + bias
        return torch.stack([torch.zeros_like(margin), margin], dim=1)

    return classifier


def test_the_axes_are_the_gradient_and_a_right_angle_to_it():
    gradient = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    first, second = axes(gradient, seed=0)
    torch.testing.assert_close(first, gradient[0] / gradient.norm(), rtol=0, atol=1e-12)
    assert float(second.norm()) == pytest.approx(1, abs=1e-12)
    assert float((first * second).sum()) == pytest.approx(0, abs=1e-12)
    assert not torch.allclose(axes(gradient, seed=1)[1], second)
    nowhere = axes(torch.zeros(1, 3, 2, 2, dtype=torch.float64), seed=0)
    for axis in nowhere:
        assert float(axis.norm()) == pytest.approx(1, abs=1e-12)
    assert float((nowhere[0] * nowhere[1]).sum()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("distance", [0.133, 0.503, 3.0])
def test_a_linear_boundary_cuts_the_plane_where_it_is(distance):
    first, second = axes(-WEIGHT.view(1, 3, 2, 2), seed=0)
    plane = decision_plane(_at(distance), IMAGE, first, second, extent=1.0, cells=201)
    assert plane.positions[100] == 0
    torch.testing.assert_close(plane.positions[[0, -1]], torch.tensor([-1.0, 1.0], dtype=torch.float64))
    margins = (distance - plane.positions) * WEIGHT.norm()  # falls from column to column, the same in every row
    torch.testing.assert_close(plane.margins, margins.expand(201, 201), rtol=0, atol=1e-10)
    assert torch.equal(plane.classes, (margins > 0).long().expand(201, 201))
    assert plane.share == pytest.approx(min(1, (1 + distance) / 2), abs=1 / 200)


def test_rows_follow_the_second_axis_and_the_class_in_the_middle_is_what_counts():
    """Class by quadrant: the numbers along both axes are the first two of the image."""
    classifier = lambda images: torch.stack(  # noqa: E731
        [-images[:, 0, 0, 0], images[:, 0, 0, 0] + 2 * images[:, 0, 0, 1]], dim=1
    )
    first, second = torch.zeros(2, 1, 1, 2, dtype=torch.float64)
    first[..., 0], second[..., 1] = 1.0, 1.0
    image = torch.tensor([[[0.1, 0.1]]], dtype=torch.float64)
    plane = decision_plane(classifier, image, first, second, extent=2, cells=5)
    x, y = torch.meshgrid(0.1 + plane.positions, 0.1 + plane.positions, indexing="xy")
    torch.testing.assert_close(plane.margins, 2 * x + 2 * y, rtol=0, atol=1e-12)
    assert plane.share == float((x + y > 0).double().mean())


@pytest.mark.parametrize(("cells", "extent"), [(40, 1.0), (1, 1.0), (41, 0.0), (41, float("nan"))])
def test_a_grid_without_a_middle_is_refused(cells, extent):
    first, second = axes(WEIGHT.view(1, 3, 2, 2), seed=0)
    with pytest.raises(
        SpecError, match=f"an odd number of cells, 3 or more, and an extent above 0; got {cells} and {extent:g}"
    ):
        decision_plane(_at(1.0), IMAGE, first, second, extent=extent, cells=cells)
