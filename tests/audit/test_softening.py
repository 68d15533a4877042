"""Stand-ins for single operations: the values are exact, and the gradient is the one written in the docstrings."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import distributions, nn

from unperturbed.audit.inspection import inspect
from unperturbed.audit.softening import Seen, Softening, soften
from unperturbed.audit.twins import spread, twin_of

IMAGES = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WEIGHT = torch.randn(48, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PAIRS = (4, 5, 2)  # ten numbers as five pairs


def readout(hidden):
    return hidden.to(torch.float64).flatten(1) @ WEIGHT


def pairs(images):
    return readout(images).view(PAIRS)


def derivative(classifier, images=IMAGES):
    """Return the output, and the gradient of a fixed weighting of it."""
    leaves = images.clone().requires_grad_()
    output = classifier(leaves)
    weights = torch.arange(1, output.numel() + 1, dtype=torch.float64).view(output.shape).cos()
    (gradient,) = torch.autograd.grad((output.double() * weights).sum(), leaves)
    return output.detach(), gradient


def assert_straight_through(classifier, identity, **options):
    """The values are those of ``classifier`` to the last bit, the gradient that of ``identity``."""
    output, gradient = derivative(soften(classifier, gradients=True, **options))
    assert torch.equal(output.double(), classifier(IMAGES.clone()).double())
    torch.testing.assert_close(gradient, derivative(identity)[1], rtol=1e-12, atol=1e-12)  # float64 round-off


def in_place(images):
    images = images * 255
    images.round_()
    images /= 255
    return images


ROUNDINGS = {
    "round": lambda x: (x * 255).round() / 255,
    "torch.round": lambda x: torch.round(x * 255) / 255,
    "round with decimals": lambda x: torch.round(x, decimals=1),
    "floor": lambda x: (x * 8).floor() / 8,
    "ceil": lambda x: torch.ceil(x * 8) / 8,
    "trunc": lambda x: (x * 8).trunc() / 8,
    "in place": in_place,
    "floor division": lambda x: (x // 0.125) * 0.125,
    "divide with a mode": lambda x: torch.div(x, 0.125, rounding_mode="floor") * 0.125,
    "remainder": lambda x: x - x % 0.125,
    "byte": lambda x: (x * 255).byte().double() / 255,
    "int": lambda x: (x * 255).int().double() / 255,
    "to uint8": lambda x: (x * 255).to(torch.uint8).to(x.dtype) / 255,
    "type": lambda x: (x * 255).type(torch.int64).type_as(x) / 255,
    "whole numbers": lambda x: ((x * 255).long() // 32).double() * 32 / 255,
    "shifts": lambda x: (((x * 255).int() >> 4) << 4).double() / 255,
    "mask of bits": lambda x: ((x * 255).int() & 0xF0).double() / 255,
    "own straight-through": lambda x: x + ((x * 8).round() / 8 - x).detach(),
}


@pytest.mark.parametrize("name", ROUNDINGS)
def test_rounding_has_the_gradient_of_the_identity(name):
    assert_straight_through(lambda images: readout(ROUNDINGS[name](images)), readout)


def without_gradient(images):
    with torch.no_grad():
        return images * 1.0


def in_inference(images):
    with torch.inference_mode():
        return images * 1.0


def per_image_through_numpy(images):
    pictures = [image.permute(1, 2, 0).detach().cpu().numpy() for image in images]
    return torch.stack([torch.from_numpy(np.ascontiguousarray(each)).permute(2, 0, 1) for each in pictures])


DETACHED = {
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data,
    "no_grad": without_gradient,
    "inference mode": in_inference,
    "numpy": lambda x: torch.from_numpy(x.detach().numpy() * 1.0),
    "asarray": lambda x: torch.as_tensor(np.asarray(x.detach()) * 1.0),
    "numpy, one by one": per_image_through_numpy,
    "numpy, stacked": lambda x: torch.tensor(np.stack([each.detach().numpy() for each in x])),
    "lists": lambda x: torch.tensor(x.tolist(), dtype=x.dtype),
    "new tensor": lambda x: torch.nn.Parameter(x, requires_grad=False) * 0 + x.detach().clone(),
}


@pytest.mark.parametrize("name", DETACHED)
def test_what_was_detached_has_its_gradient_back(name):
    assert_straight_through(lambda images: readout(DETACHED[name](images)), readout)


def test_sign_has_the_gradient_of_hardtanh():
    def classifier(images):
        return readout((images - 0.5).sign())

    def closed_form(images):
        centred = images - 0.5
        return readout((centred / (2 * spread(centred))).clamp(-1, 1))

    assert_straight_through(classifier, closed_form)


def step(images, threshold=0.5):
    """The soft step: a sigmoid as wide as the spread within each image."""
    difference = images - threshold
    return torch.sigmoid(difference / difference.detach().flatten(1).std(dim=1).view(-1, 1, 1, 1))


def assigned(images):
    images = images.clone()
    images[images <= 0.5] = 0.0
    return images


def and_in_place(images):
    mask = images > 0.2
    mask &= images < 0.8
    return mask.double()


MASKS = {
    "float": (lambda x: (x > 0.5).double(), step),
    "to": (lambda x: (x > 0.5).to(x.dtype), step),
    "reversed": (lambda x: (0.5 < x).double(), step),  # noqa: SIM300 - the order is what is tested
    "below": (lambda x: (x < 0.5).double(), lambda x: 1 - step(x)),
    "not": (lambda x: (~(x > 0.5)).double(), lambda x: 1 - step(x)),
    "logical not": (lambda x: torch.logical_not(x > 0.5).double(), lambda x: 1 - step(x)),
    "one minus": (lambda x: 1 - (x > 0.5).double(), lambda x: 1 - step(x)),
    "where": (lambda x: torch.where(x > 0.5, torch.ones_like(x), 0.0), step),
    "heaviside": (lambda x: torch.heaviside(x - 0.5, torch.zeros(1, dtype=x.dtype)), step),
    "sum": (lambda x: torch.stack([x > 0.2, x > 0.8]).double().sum(dim=0), lambda x: step(x, 0.2) + step(x, 0.8)),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_comparison_has_the_gradient_of_a_sigmoid(name):
    hard, soft = MASKS[name]
    assert_straight_through(lambda x: readout(hard(x)), lambda x: readout(soft(x)))


PRODUCTS = {
    "and": lambda x: ((x > 0.2) & (x < 0.8)).double(),
    "and in place": and_in_place,
    "logical and": lambda x: torch.logical_and(x > 0.2, x < 0.8).double(),
    "multiplied": lambda x: (x > 0.2) * (x < 0.8).double(),
    "not or": lambda x: (~((x <= 0.2) | (x >= 0.8))).double(),
    "xor": lambda x: torch.logical_xor(x > 0.2, x >= 0.8).double(),  # the same, as no number is above 0.8 only
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_masks_that_are_combined_follow_the_product_rule(name):
    def derivative_of_the_product(images):  # each soft mask times the values of the other hard one
        low, high = step(images, 0.2), 1 - step(images, 0.8)
        if name == "xor":  # a + b - 2ab: one mask counts against the other
            return readout((1 - 2 * (images >= 0.8).double()) * low - (1 - 2 * (images > 0.2).double()) * high)
        return readout((images < 0.8) * low + (images > 0.2) * high)

    assert_straight_through(lambda x: readout(PRODUCTS[name](x)), derivative_of_the_product)


GATES = {
    "multiply": lambda x: x * (x > 0.5),
    "where": lambda x: torch.where(x > 0.5, x, torch.zeros_like(x)),
    "masked_fill": lambda x: x.masked_fill(x <= 0.5, 0.0),
    "masked_fill in place": lambda x: x.clone().masked_fill_(x <= 0.5, 0.0),
    "assignment": assigned,
}


@pytest.mark.parametrize("name", GATES)
def test_every_form_of_a_gate_has_the_same_gradient(name):
    def product(images):  # x * mask, by the product rule with the values of the hard mask
        mask = step(images)
        return readout(images * (images > 0.5) + images.detach() * (mask - mask.detach()))

    assert_straight_through(lambda images: readout(GATES[name](images)), product)


def soft_winner(images):
    scores = pairs(images)
    return torch.softmax(scores / spread(scores), dim=-1)


def by_place(images):
    scores = pairs(images).flatten(0, 1)
    winners = torch.zeros_like(scores)
    winners[torch.arange(len(scores)), scores.argmax(dim=1)] = 1.0
    return winners.view(PAIRS)


WINNERS = {
    "one_hot of argmax": lambda x: F.one_hot(pairs(x).argmax(dim=-1), 2).double(),
    "one_hot of max": lambda x: F.one_hot(pairs(x).max(dim=-1)[1], 2).double(),
    "one_hot of argmin": lambda x: F.one_hot((-pairs(x)).argmin(-1), 2).to(x.dtype),
    "scatter": lambda x: torch.zeros(PAIRS, dtype=x.dtype).scatter(2, pairs(x).argmax(2, keepdim=True), 1.0),
    "scatter in place": lambda x: torch.zeros(PAIRS, dtype=x.dtype).scatter_(-1, pairs(x).topk(1)[1], 1.0),
    "scatter of booleans": lambda x: (
        torch.zeros(PAIRS).bool().scatter_(-1, pairs(x).argmax(-1).unsqueeze(-1), True).double()
    ),
    "sorted": lambda x: torch.zeros(PAIRS, dtype=x.dtype).scatter_(
        -1, pairs(x).argsort(-1, descending=True)[..., :1], 1.0
    ),
}


@pytest.mark.parametrize("name", WINNERS)
def test_a_winner_has_the_gradient_of_a_softmax(name):
    assert_straight_through(WINNERS[name], soft_winner)


def test_a_winner_written_to_its_place_has_the_gradient_of_a_softmax():
    def closed_form(images):
        scores = pairs(images).flatten(0, 1)
        return torch.softmax(scores / spread(scores), dim=-1).view(PAIRS)

    assert_straight_through(by_place, closed_form)


def test_equal_to_the_largest_is_a_comparison_with_it():
    def closed_form(images):
        scores = pairs(images)
        difference = scores - scores.amax(dim=-1, keepdim=True)
        return torch.sigmoid(difference / spread(difference))

    assert_straight_through(lambda x: (pairs(x) == pairs(x).amax(dim=-1, keepdim=True)).double(), closed_form)
    assert_straight_through(lambda x: (pairs(x).amin(-1, keepdim=True) != pairs(x)).double(), lambda x: 1 - lowest(x))


def lowest(images):
    scores = pairs(images)
    difference = scores.amin(dim=-1, keepdim=True) - scores
    return torch.sigmoid(difference / spread(difference))


def by_threshold(images):
    scores = readout(images)
    return scores * (scores >= scores.topk(3, dim=1)[0][:, -1:]).double()


def by_index(images):
    scores = readout(images)
    return torch.zeros_like(scores).scatter_(1, scores.topk(3, dim=1)[1], 1.0) * scores


def by_value(images):
    scores = readout(images)
    values, index = scores.topk(3, dim=1)
    return torch.zeros_like(scores).scatter_(1, index, values)


def gated(soft):
    def classifier(images):
        scores = readout(images)
        mask = soft(scores)
        return scores * (scores >= scores.topk(3, dim=1)[0][:, -1:]) + scores.detach() * (mask - mask.detach())

    return classifier


def between_third_and_fourth(scores):
    ordered = scores.topk(4, dim=1)[0]
    distance = scores - ordered[:, 2:].mean(dim=1, keepdim=True)
    return torch.sigmoid(distance / spread(distance))


def above_third(scores):
    distance = scores - scores.topk(3, dim=1)[0][:, -1:]
    return torch.sigmoid(distance / spread(distance))


LARGEST = {
    "threshold": (by_threshold, above_third),
    "index": (by_index, between_third_and_fourth),
    "value": (by_value, between_third_and_fourth),
}


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_k_have_the_gradient_of_a_step_at_the_last(name):
    hard, soft = LARGEST[name]
    assert_straight_through(hard, gated(soft))


LEVELS = torch.linspace(0, 1, 5, dtype=torch.float64)


def test_a_table_has_its_slope():
    assert_straight_through(lambda x: readout(LEVELS[(1 + 2 * x).long()]), lambda x: readout(LEVELS[1] * 2 * x))


def test_a_code_book_has_the_gradient_of_its_soft_mean():
    def closed_form(images):
        scores = -(images.unsqueeze(-1) - LEVELS).abs()
        return readout(torch.softmax(scores / spread(scores), dim=-1) @ LEVELS)

    def classifier(images):
        return readout(LEVELS[(images.unsqueeze(-1) - LEVELS).abs().argmin(dim=-1)])

    assert_straight_through(classifier, closed_form)


def test_a_vote_can_be_differentiated():
    def vote(images):
        return sum(F.one_hot((readout(images) * sign).argmax(1), 10) for sign in (1, -1, 1))

    output, gradient = derivative(soften(vote, gradients=True))
    assert torch.equal(output.long(), vote(IMAGES))
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())


def test_masks_branch_index_and_print_as_before():
    def classifier(images):
        mask = images > 0.5
        assert mask.dtype == torch.bool
        chosen = images[mask]
        if mask.any() and not mask.all() and int(mask.sum()) == len(chosen):
            return readout(images * (chosen.min() > 0.5))
        return readout(images) * 0

    assert torch.equal(soften(classifier, gradients=True)(IMAGES), classifier(IMAGES))
    assert bool(classifier(IMAGES).any())


def test_a_width_is_in_spreads():
    def narrow(images):
        difference = images - 0.5
        return readout(torch.sigmoid(difference / (0.3 * spread(difference))))

    assert_straight_through(lambda x: readout(x > 0.5), narrow, width=0.3)

    def sure(images):
        return torch.softmax(pairs(images) / (0.3 * spread(pairs(images))), dim=-1)

    assert_straight_through(WINNERS["one_hot of argmax"], sure, width=0.3)


def test_a_detached_number_may_stay_so():
    def gate(images):
        return readout(images * (images > images.mean(dim=(1, 2, 3), keepdim=True).detach()))

    def closed_form(images):
        mask = step(images, images.mean(dim=(1, 2, 3), keepdim=True).detach())
        return readout(images * (mask.detach() > 0.5) + images.detach() * (mask - mask.detach()))

    assert_straight_through(gate, closed_form, attached=False)
    with pytest.raises(AssertionError, match="not close"):
        assert_straight_through(gate, closed_form)


def test_relaxed_masks_are_soft_in_the_forward_pass_too_with_and_without_gradients():
    classifier = soften(lambda x: readout(x > 0.5), gradients=True, relaxed=True)
    with torch.no_grad():
        torch.testing.assert_close(classifier(IMAGES), readout(step(IMAGES)))
    output, gradient = derivative(classifier)
    torch.testing.assert_close(output, readout(step(IMAGES)))
    torch.testing.assert_close(gradient, derivative(lambda x: readout(step(x)))[1])


def test_the_width_of_a_step_does_not_depend_on_the_other_images():
    classifier = soften(lambda x: readout(x > 0.5), gradients=True)
    one = IMAGES[:1].clone().requires_grad_()
    all_of_them = (torch.cat([IMAGES[:1], 100 * IMAGES[1:]])).requires_grad_()
    alone = torch.autograd.grad(classifier(one).sum(), one)[0]
    together = torch.autograd.grad(classifier(all_of_them).sum(), all_of_them)[0]
    torch.testing.assert_close(together[:1], alone)


# Sampling


def hidden_noise(images):
    return readout(images + 0.3 * torch.randn_like(images)) + torch.empty(4, 10).normal_(mean=0.0, std=2.0)


def gumbel(scores):
    return -torch.log(-torch.log(torch.rand_like(scores) + 1e-20) + 1e-20)


EXPECTED = {
    "noise": (hidden_noise, readout),
    "uniform noise": (lambda x: readout(x + torch.empty_like(x).uniform_(-0.2, 0.2)), readout),
    "rand": (lambda x: readout(x * torch.rand(x.shape, dtype=x.dtype)), lambda x: readout(0.5 * x)),
    "normal with a mean": (lambda x: readout(torch.normal(x, 0.2)), readout),
    "sampled normal": (lambda x: readout(distributions.Normal(x, 0.2).rsample()), readout),
    "bernoulli": (lambda x: readout(x * torch.bernoulli(torch.full_like(x, 0.7))), lambda x: readout(0.7 * x)),
    "bernoulli of the image": (lambda x: readout(torch.bernoulli(x)), readout),
    "bernoulli in place": (lambda x: readout(x * torch.empty_like(x).bernoulli_(0.7)), lambda x: readout(0.7 * x)),
    "boolean bernoulli": (
        lambda x: readout(x * torch.zeros(x.shape, dtype=torch.bool).bernoulli_(0.75)),
        lambda x: readout(0.75 * x),
    ),
    "rand below": (lambda x: readout((torch.rand_like(x) < x).double()), readout),
    "rand above": (lambda x: readout(x * (torch.rand_like(x) >= 0.25)), lambda x: readout(0.75 * x)),
    "dropout": (lambda x: readout(F.dropout(x, 0.5, training=True)), readout),
    "exponential": (lambda x: readout(x * torch.empty_like(x).exponential_(2.0)), lambda x: readout(x / 2)),
    "gumbel": (lambda x: ((pairs(x) + gumbel(pairs(x))) / 0.67).softmax(-1), lambda x: (pairs(x) / 0.67).softmax(-1)),
    "gumbel from exponential": (
        lambda x: ((pairs(x) - torch.empty_like(pairs(x)).exponential_().log()) / 0.67).softmax(-1),
        lambda x: (pairs(x) / 0.67).softmax(-1),
    ),
    "relaxed one-hot": (
        lambda x: distributions.RelaxedOneHotCategorical(torch.tensor(0.5).double(), logits=pairs(x)).rsample(),
        lambda x: (pairs(x) / 0.5).softmax(-1),
    ),
    "hard gumbel": (lambda x: F.gumbel_softmax(pairs(x), hard=True), lambda x: pairs(x).softmax(-1)),
    "categorical": (
        lambda x: F.one_hot(distributions.Categorical(logits=pairs(x)).sample(), 2).double(),
        lambda x: pairs(x).softmax(-1),
    ),
    "one-hot categorical": (
        lambda x: distributions.OneHotCategorical(logits=pairs(x)).sample(),
        lambda x: pairs(x).softmax(-1),
    ),
    "multinomial": (
        lambda x: torch.zeros(20, 2).double().scatter_(1, torch.multinomial(pairs(x).softmax(-1).flatten(0, 1), 1), 1.0),
        lambda x: pairs(x).softmax(-1).flatten(0, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_sampling_is_replaced_by_its_expectation(name):
    random_one, expected = EXPECTED[name]
    torch.manual_seed(0)
    assert not torch.equal(random_one(IMAGES), random_one(IMAGES))
    output, gradient = derivative(soften(random_one, expectation=True, gradients=True))
    value, slope = derivative(expected)
    torch.testing.assert_close(output, value, rtol=1e-12, atol=1e-12)  # float64 round-off
    torch.testing.assert_close(gradient, slope, rtol=1e-10, atol=1e-10)  # the same, through a logarithm


def test_without_noise_the_values_are_exactly_those_of_the_net_without_noise():
    assert torch.equal(soften(hidden_noise, expectation=True)(IMAGES), readout(IMAGES))


@pytest.mark.parametrize("tau", [0.01, 0.67, 1.0])
def test_the_expectation_of_gumbel_softmax_is_that_of_its_samples(tau):
    scores = torch.tensor([[-3.0, 0.0], [-1.0, 0.0], [0.3, 0.0], [2.0, 0.0]], dtype=torch.float64)
    torch.manual_seed(0)
    draws = F.gumbel_softmax(scores.expand(40_000, 4, 2), tau=tau)
    expected = soften(lambda _: F.gumbel_softmax(scores, tau=tau), expectation=True)(IMAGES)
    error = 4 * draws.std(dim=0) / 40_000**0.5
    # The sum of two logistic variables is only nearly logistic: by numerical integration off by 0.0103 at most.
    assert bool(((draws.mean(dim=0) - expected).abs() < error + (0.012 if tau > 0.1 else 0)).all())


# Optimisation, underflow, saturation


def attacks_itself(images):
    leaves = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss = readout(leaves).square().sum()
    (gradient,) = torch.autograd.grad(loss, leaves)
    return readout(images.detach() + 0.1 * gradient.sign())


def descends(images):
    leaves = images.detach().requires_grad_()
    readout(leaves).square().sum().backward()
    return readout(images.detach() + 0.1 * leaves.grad.sign())


def uses_torch_func(images):
    gradient = torch.func.grad(lambda x: readout(x).square().sum())(images)
    return readout(images + 0.1 * gradient.sign())


def steps_with_an_optimiser(images):
    change = torch.zeros_like(images, requires_grad=True)
    optimiser = torch.optim.SGD([change], lr=0.1)
    with torch.enable_grad():
        for _ in range(2):
            optimiser.zero_grad()
            readout(images.detach() + change).square().sum().backward()
            optimiser.step()
    return readout(images.detach() + change.detach())


@pytest.mark.parametrize("inner", [attacks_itself, descends, uses_torch_func, steps_with_an_optimiser])
def test_what_optimises_at_inference_is_left_out(inner):
    assert not torch.equal(inner(IMAGES.clone()), readout(IMAGES))
    output, gradient = derivative(soften(inner, gradients=True, optimisation=False))
    assert torch.equal(output, readout(IMAGES))
    torch.testing.assert_close(gradient, derivative(readout)[1], rtol=1e-12, atol=1e-12)


def test_an_inner_backward_pass_leaves_no_gradient_on_the_weights():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 10)).double()

    def inner(images):
        network(images.detach()).sum().backward()
        return network(images)

    soften(inner, optimisation=False)(IMAGES)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    "squash",
    [
        lambda logits: logits.softmax(dim=1),
        lambda logits: F.softmax(logits, dim=1),
        lambda logits: torch.log(F.softmax(logits, dim=1) + 1e-9),
        lambda logits: F.log_softmax(logits, dim=1),
        lambda logits: logits - logits.logsumexp(dim=1, keepdim=True),
        lambda logits: logits.exp() / logits.exp().sum(dim=1, keepdim=True),
    ],
)
def test_the_logits_are_taken_before_the_last_softmax(squash):
    assert torch.equal(soften(lambda x: squash(readout(x)), logits="last")(IMAGES), readout(IMAGES))


def test_the_mean_of_several_softmaxes_has_the_mean_of_their_inputs():
    def committee(images):
        return (readout(images).softmax(1) + readout(2 * images).softmax(1)) / 2

    torch.testing.assert_close(soften(committee, logits="mean")(IMAGES), 1.5 * readout(IMAGES))


def test_a_softmax_that_is_a_step_is_made_wide_and_a_wide_one_is_left():
    def steep(images):
        return torch.softmax(1e4 * pairs(images), dim=-1)

    assert float(derivative(steep)[1].abs().max()) < 1e-12
    output, gradient = derivative(soften(steep, unsaturated=True))
    assert torch.equal(output.argmax(-1), steep(IMAGES).argmax(-1))
    assert bool((gradient.flatten(1).norm(dim=1) > 1e-3).all())

    def wide(images):
        return torch.softmax(pairs(images) / 10, dim=-1)

    assert torch.equal(soften(wide, unsaturated=True)(IMAGES), wide(IMAGES))


class Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images):
        ctx.save_for_backward(images)
        return (images * 8).round() / 8

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class BlockedInTwoParts(torch.autograd.Function):
    @staticmethod
    def forward(images):
        return images * 1.0

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


@pytest.mark.parametrize("blocked", [Blocked, BlockedInTwoParts])
def test_an_own_backward_pass_is_not_used(blocked):
    assert float(derivative(lambda x: readout(blocked.apply(x)))[1].abs().max()) == 0
    assert_straight_through(lambda x: readout(blocked.apply(x)), readout, own_backward=False)


# The mode leaves nothing behind


def test_nothing_outlives_a_forward_pass_even_one_that_fails():
    before = torch.from_numpy, torch._C._InferenceMode, torch.autograd.Function.__dict__["apply"]

    def fails(images):
        torch.set_grad_enabled(False)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        soften(fails, gradients=True, own_backward=False)(IMAGES)
    assert before == (torch.from_numpy, torch._C._InferenceMode, torch.autograd.Function.__dict__["apply"])
    assert torch.is_grad_enabled()
    assert float(derivative(lambda x: readout(x).round() + 0 * readout(x))[1].abs().max()) == 0


def test_images_are_not_changed_by_a_classifier_that_writes_into_them():
    images = IMAGES.clone()
    soften(lambda x: readout(x.mul_(2)), gradients=True)(images)
    assert torch.equal(images, IMAGES)


def test_a_buffer_that_is_updated_under_no_grad_holds_no_graph():
    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

        def forward(self, images):
            with torch.no_grad():
                self.mean.mul_(0.9).add_(images.mean())
            return readout(images - self.mean)

    network = Running()
    classifier = soften(network, gradients=True)
    for _ in range(2):  # a graph in the buffer would be walked twice
        derivative(classifier)
    assert not network.mean.requires_grad


def test_the_output_has_a_graph_only_if_gradients_are_on():
    classifier = soften(lambda x: readout(x.round()), gradients=True)
    with torch.no_grad():
        assert not classifier(IMAGES).requires_grad
    assert classifier(IMAGES.clone().requires_grad_()).requires_grad


# Inspection


def honest():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers, nn.Linear(32, 10)).double().eval()


def test_nothing_is_seen_in_an_honest_network():
    assert inspect(honest(), IMAGES) == Seen()


def test_what_a_forward_pass_does_is_seen():
    def classifier(images):
        images = (images.detach() * 255).round() / 255 + torch.randn_like(images)
        images = images * (images > 0) + np.random.rand() + random.random()  # noqa: NPY002
        return readout(Blocked.apply(images)).softmax(dim=1)

    seen = inspect(classifier, IMAGES)
    assert set(seen.stops) == {"round", "gt"}
    assert seen.samples == ("randn_like",)
    assert seen.detached == ("detach",)
    assert seen.python_random
    assert seen.random
    assert seen.probabilities
    assert seen.normalised == 1
    assert not seen.differentiable
    assert not seen.optimises
    assert seen.counts["gt"] == 1


def test_a_comparison_that_only_checks_is_not_seen():
    def classifier(images):
        assert (images >= 0).all()
        assert ((images >= 0) & (images <= 1)).all()
        return readout(images)

    assert inspect(classifier, IMAGES).stops == ()


def test_an_own_backward_pass_is_seen():
    assert inspect(lambda x: readout(Blocked.apply(x)), IMAGES).own_backward == ("Blocked",)


@pytest.mark.parametrize("inner", [attacks_itself, descends, uses_torch_func, steps_with_an_optimiser])
def test_gradient_calls_are_seen(inner):
    assert inspect(inner, IMAGES).optimises


def test_what_follows_an_inner_optimisation_is_seen():
    def classifier(images):
        images = images * images
        for _ in range(2):  # through what detach let pass, the second walk would find the graph of the square gone
            with torch.enable_grad():
                readout(images.detach().requires_grad_()).square().sum().backward()
        return readout(images.round())

    seen = inspect(classifier, IMAGES)
    assert seen.failure == ""
    assert seen.stops == ("round",)
    assert seen.optimises


def test_a_dropout_that_is_off_is_no_sampling_and_one_that_is_on_is():
    network = honest()
    assert inspect(network, IMAGES).samples == ()
    network[4].train()
    assert inspect(network, IMAGES).samples == ("dropout",)


def test_a_classifier_that_changes_its_images_is_seen_and_the_images_are_kept():
    images = IMAGES.clone()
    assert inspect(lambda x: readout(x.mul_(0.5)), images).in_place
    assert torch.equal(images, IMAGES)


def test_a_classifier_that_fails_is_reported():
    assert inspect(lambda x: readout(x[:, :2]), IMAGES).failure.startswith("RuntimeError: mat1 and mat2")


def test_looking_disturbs_no_random_state():
    states = copy.deepcopy((torch.get_rng_state(), random.getstate(), np.random.get_state()[1]))  # noqa: NPY002
    inspect(lambda x: readout(x + torch.rand_like(x) + random.random() + np.random.rand()), IMAGES)  # noqa: NPY002
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002


def test_a_twin_rides_on_the_real_mask():
    with Softening(gradients=True):
        mask = IMAGES.clone().requires_grad_() > 0.5
    assert mask.dtype == torch.bool
    assert torch.equal(twin_of(mask).value.bool(), mask)
