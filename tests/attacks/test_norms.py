import pytest
import torch
from scipy.stats import kstest

from unperturbed.records import SpecError
from unperturbed.tensors.norms import NORMS, length, project, steepest, towards, uniform_in_ball
from unperturbed.tensors.streams import Streams

ORDER = {"linf": torch.inf, "l2": 2, "l1": 1}
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


def _drawn(*shape, seed=0):
    """Images that differ, and so have streams of their own."""
    images = torch.zeros(shape) + torch.linspace(0, 1, shape[0]).view(-1, 1, 1, 1)
    return images, Streams.of(images, seed)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 5, 1), (1, 1, 1)], ids=str)
def test_lengths_are_those_of_float64_whatever_the_scale(norm, dtype, scale, shape):
    offset = (scale * _random(0, 7, *shape)).to(dtype)
    offset[3] = 0
    offset[4, 1:] = 0
    expected = torch.linalg.vector_norm(offset.double().flatten(1), ord=ORDER[norm], dim=1)
    torch.testing.assert_close(length(offset, norm=norm), expected, rtol=3e-7, atol=0)  # float32 has 6e-8
    assert length(offset, norm=norm)[3] == 0


def _random(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_feasible_and_no_nearer_point_is(norm):
    offset = _random(0, 20, 3, 2, 2)
    projected = project(offset, norm=norm, eps=0.7)
    assert (length(projected, norm=norm) <= 0.7 + 1e-12).all()
    # Optimal on a convex set exactly when no feasible direction makes an acute angle with the residual.
    for seed in range(50):
        other = project(_random(seed + 1, 20, 3, 2, 2), norm=norm, eps=0.7)
        angle = ((offset - projected) * (other - projected)).flatten(1).sum(dim=1)
        assert (angle <= 1e-12).all()


@pytest.mark.parametrize("norm", NORMS)
def test_projection_leaves_what_is_inside_alone(norm):
    offset = 0.01 * _random(0, 5, 1, 2, 2)
    torch.testing.assert_close(project(offset, norm=norm, eps=5.0), offset, rtol=0, atol=0)


@pytest.mark.parametrize("eps", [1e-3, 0.7, 3.0])
def test_the_l1_projection_shortens_all_that_is_left_by_the_same_amount(eps):
    """The conditions of Karush, Kuhn and Tucker: one threshold, found here by bisection."""
    offset = _random(0, 30, 3, 2, 2)
    projected = project(offset, norm="l1", eps=eps)
    for one, reached in zip(offset, projected, strict=True):
        low, high = 0.0, float(one.abs().max())
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if float((one.abs() - middle).clamp_min(0).sum()) > eps else (low, middle)
        inside = float(one.abs().sum()) <= eps
        expected = one if inside else (one.abs() - high).clamp_min(0) * one.sign()
        torch.testing.assert_close(reached, expected, rtol=0, atol=1e-12)
    outside = offset.flatten(1).abs().sum(dim=1) > eps
    assert outside.any()
    assert length(projected, norm="l1")[outside].allclose(torch.tensor(eps, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_l1_projection_is_that_of_known_points():
    """The radial one would end at (2.195, 0.732, 0.073), 2.41 away instead of 1.55."""
    offset = torch.tensor([[3.0, 1.0, 0.1], [0.0, 0.0, 0.0], [-5.0, 5.0, 5.0]], dtype=torch.float64)
    projected = project(offset.view(3, 3, 1, 1), norm="l1", eps=3.0).view(3, 3)
    expected = torch.tensor([[2.5, 0.5, 0.0], [0.0, 0.0, 0.0], [-1.0, 1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(projected, expected, rtol=0, atol=1e-12)
    assert not project(offset.view(3, 3, 1, 1), norm="l1", eps=0.0).any()


@pytest.mark.parametrize("norm", NORMS)
def test_the_steepest_direction_rises_by_the_dual_norm(norm):
    gradient = _random(0, 50, 3, 4, 4)
    rise = (gradient * steepest(gradient, norm=norm)).flatten(1).sum(dim=1)
    torch.testing.assert_close(rise, length(gradient, norm=DUAL[norm]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e200])
@pytest.mark.parametrize("norm", NORMS)
def test_steepest_direction_does_not_depend_on_the_scale_of_the_gradient(norm, scale):
    gradient = _random(0, 4, 1, 3, 3)
    direction = steepest(gradient * scale, norm=norm)
    torch.testing.assert_close(direction, steepest(gradient, norm=norm), rtol=1e-12, atol=0)
    torch.testing.assert_close(length(direction, norm=norm), torch.ones(4, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_direction_of_no_gradient_is_none(norm):
    assert steepest(torch.zeros(1, 1, 2, 2), norm=norm).count_nonzero() == 0


def test_linf_points_are_uniform_between_minus_and_plus_eps():
    offset = uniform_in_ball(*_drawn(300, 3, 4, 4), norm="linf", eps=0.2)
    assert kstest((offset.flatten() / 0.4 + 0.5).numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_points_are_uniform_in_volume(norm):
    # The radius of a uniform point has the distribution function (r / eps)^d; with r = eps U it would be r / eps.
    offset = uniform_in_ball(*_drawn(3000, 3, 2, 1), norm=norm, eps=0.2)
    radius = length(offset, norm=norm) / 0.2
    assert kstest((radius**6).numpy(), "uniform").pvalue > 0.01


def test_l2_points_are_uniform_in_direction():
    # A coordinate of a uniform direction in 3 dimensions is uniform on [-1, 1] (Archimedes).
    offset = uniform_in_ball(*_drawn(3000, 3, 1, 1, seed=1), norm="l2", eps=0.2)
    for coordinate in range(3):
        cosine = offset[:, coordinate, 0, 0] / length(offset, norm="l2")
        assert kstest((cosine / 2 + 0.5).numpy(), "uniform").pvalue > 0.01


def test_l1_points_are_uniform_in_direction():
    # On the edge of the ball in 3 dimensions, one coordinate is beyond t with probability (1 - t)^2, either sign alike.
    offset = uniform_in_ball(*_drawn(3000, 3, 1, 1, seed=1), norm="l1", eps=0.2)
    for coordinate in range(3):
        share = offset[:, coordinate, 0, 0] / length(offset, norm="l1")
        assert kstest(share.abs().numpy(), lambda t: 1 - (1 - t) ** 2).pvalue > 0.01
        assert abs(int((share > 0).sum()) - 1500) < 3 * (3000 / 4) ** 0.5


def test_rounding_to_bfloat16_never_moves_away_from_the_image():
    images = torch.rand(1, 1, 50, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    moved = images.float() + 0.013 * _random(1, 1, 1, 50, 50, dtype=torch.float32)
    rounded = towards(images, moved)
    assert rounded.dtype == torch.bfloat16
    assert ((rounded.float() - images.float()).abs() <= (moved - images.float()).abs()).all()
    assert (rounded != images).float().mean() > 0.5


def test_an_unknown_norm_is_refused():
    with pytest.raises(SpecError, match=r"^norm: expected one of linf, l2, l1; got 'L2'$"):
        length(torch.zeros(1, 1, 1, 1), norm="L2")
