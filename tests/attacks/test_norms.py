import pytest
import torch
from scipy.stats import kstest

from unperturbed.records import SpecError
from unperturbed.tensors.norms import length, project, steepest, towards, uniform_in_ball


def _random(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_is_feasible_and_no_nearer_point_is(norm):
    offset = _random(0, 20, 3, 2, 2)
    projected = project(offset, norm=norm, eps=0.7)
    assert (length(projected, norm=norm) <= 0.7 + 1e-12).all()
    # Optimal on a convex set exactly when no feasible direction makes an acute angle with the residual.
    for seed in range(50):
        other = project(_random(seed + 1, 20, 3, 2, 2), norm=norm, eps=0.7)
        angle = ((offset - projected) * (other - projected)).flatten(1).sum(dim=1)
        assert (angle <= 1e-12).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_leaves_what_is_inside_alone(norm):
    offset = 0.01 * _random(0, 5, 1, 2, 2)
    torch.testing.assert_close(project(offset, norm=norm, eps=5.0), offset, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e200])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steepest_direction_does_not_depend_on_the_scale_of_the_gradient(norm, scale):
    gradient = _random(0, 4, 1, 3, 3)
    direction = steepest(gradient * scale, norm=norm)
    torch.testing.assert_close(direction, steepest(gradient, norm=norm), rtol=1e-12, atol=0)
    torch.testing.assert_close(length(direction, norm=norm), torch.ones(4, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steepest_direction_of_no_gradient_is_none(norm):
    assert steepest(torch.zeros(1, 1, 2, 2), norm=norm).count_nonzero() == 0


def test_linf_start_is_uniform_between_minus_and_plus_eps():
    offset = uniform_in_ball(torch.zeros(300, 3, 4, 4), torch.Generator().manual_seed(0), norm="linf", eps=0.2)
    assert kstest((offset.flatten() / 0.4 + 0.5).numpy(), "uniform").pvalue > 0.01


def test_l2_start_is_uniform_in_volume_and_in_direction():
    # The radius of a uniform point has the distribution function (r / eps)^d; with r = eps U it would be r / eps.
    offset = uniform_in_ball(torch.zeros(3000, 3, 2, 1), torch.Generator().manual_seed(0), norm="l2", eps=0.2)
    radius = length(offset, norm="l2") / 0.2
    assert kstest((radius**6).numpy(), "uniform").pvalue > 0.01
    # A coordinate of a uniform direction in 3 dimensions is uniform on [-1, 1] (Archimedes).
    offset = uniform_in_ball(torch.zeros(3000, 3, 1, 1), torch.Generator().manual_seed(1), norm="l2", eps=0.2)
    cosine = offset[:, 0, 0, 0] / length(offset, norm="l2")
    assert kstest((cosine / 2 + 0.5).numpy(), "uniform").pvalue > 0.01


def test_rounding_to_bfloat16_never_moves_away_from_the_image():
    images = torch.rand(1, 1, 50, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    moved = images.float() + 0.013 * _random(1, 1, 1, 50, 50, dtype=torch.float32)
    rounded = towards(images, moved)
    assert rounded.dtype == torch.bfloat16
    assert ((rounded.float() - images.float()).abs() <= (moved - images.float()).abs()).all()
    assert (rounded != images).float().mean() > 0.5


def test_an_unknown_norm_is_refused():
    with pytest.raises(SpecError, match=r"norm: expected one of linf, l2; got 'L2'"):
        length(torch.zeros(1, 1, 1, 1), norm="L2")
