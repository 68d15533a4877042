import itertools

import pytest
import torch

from unperturbed.measures.local_complexity import local_complexity, vertices
from unperturbed.records import SpecError

torch.manual_seed(0)
PLANES = torch.randn(300, 2, dtype=torch.float64)
OFFSETS = torch.randn(300, dtype=torch.float64)
POINTS = torch.rand(9, 1, 1, 2, dtype=torch.float64) - 0.5


def _currents(images):
    return images.flatten(1) @ PLANES.T + OFFSETS


@pytest.mark.parametrize("radius", [0.05, 0.3, 2.0])
def test_in_two_dimensions_it_is_the_count_over_all_corners(radius):
    """The corners are those of a square: a quarter turn leads from each to the next."""
    first = (next(vertices(POINTS, radius=radius, directions=2, seed=3)) - POINTS).flatten(1)
    assert torch.allclose(first.norm(dim=1), torch.tensor(radius, dtype=torch.float64))
    turned = torch.stack([-first[:, 1], first[:, 0]], dim=1)
    corners = torch.stack([POINTS + offset.view_as(POINTS) for offset in (first, turned, -first, -turned)])
    expected = []
    for point in range(9):
        changed = 0
        for plane, offset in zip(PLANES, OFFSETS, strict=True):
            signs = {bool(corners[corner, point].flatten() @ plane + offset > 0) for corner in range(4)}
            changed += len(signs) == 2
        expected.append(changed)
    found = local_complexity(_currents, POINTS, radius=radius, directions=2, seed=3)
    assert found.tolist() == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("seed", range(5))
def test_it_lies_between_the_lines_that_cut_the_inner_circle_of_the_square_and_the_outer_one(seed):
    """However the square is turned: its corners are at r, its sides at r / sqrt 2 from the centre."""
    distance = _currents(POINTS).abs() / PLANES.norm(dim=1)
    found = local_complexity(_currents, POINTS, radius=0.3, directions=2, seed=seed)
    assert (found >= (distance < 0.3 / 2**0.5).sum(dim=1)).all()
    assert (found <= (distance < 0.3).sum(dim=1)).all()


def test_of_the_directions_of_the_axes_it_is_a_count_of_half_spaces_in_one_dimension():
    """One direction: the two ends of a segment, in a space of one dimension the interval itself."""
    cuts = torch.linspace(-1, 1, 41, dtype=torch.float64)
    point = torch.tensor([[[[0.012]]]], dtype=torch.float64)
    found = local_complexity(lambda images: images.flatten(1) - cuts, point, radius=0.2, directions=1)
    assert int(found) == int((cuts - 0.012).abs().lt(0.2).sum()) == 8


def test_it_is_nothing_at_no_distance_and_everything_far_away():
    for radius in (0.0, 1e-9):
        assert local_complexity(_currents, POINTS, radius=radius, directions=2).tolist() == [0] * 9
    assert local_complexity(_currents, POINTS, radius=1e9, directions=2).tolist() == [300] * 9
    rising = [local_complexity(_currents, POINTS, radius=r, directions=2).sum() for r in (0.01, 0.1, 0.5, 2.0)]
    assert all(a < b for a, b in itertools.pairwise(rising))


def test_the_vertices_are_orthonormal_directions_forwards_and_backwards():
    images = torch.rand(3, 2, 3, 3, dtype=torch.float64)
    moved = torch.stack([*vertices(images, radius=0.7, directions=6, seed=1)]) - images
    offsets = moved[:, 0].flatten(1)
    torch.testing.assert_close(
        moved, moved[:, :1].expand_as(moved), rtol=0, atol=1e-12
    )  # the same ones for every image
    torch.testing.assert_close(offsets[::2], -offsets[1::2], rtol=0, atol=1e-12)
    products = offsets[::2] @ offsets[::2].T
    torch.testing.assert_close(products, 0.49 * torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-12)
    other = next(vertices(images, radius=0.7, directions=6, seed=2))
    assert not torch.allclose(other, images + moved[0])


@pytest.mark.parametrize("directions", [0, 3])
def test_more_directions_than_dimensions_are_refused(directions):
    with pytest.raises(SpecError, match=rf"directions: expected 1 to 2, the numbers of an image; got {directions}"):
        local_complexity(_currents, POINTS, radius=1, directions=directions)
