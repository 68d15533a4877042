import pytest
import torch

from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.records import SpecError

transfer = EXAMINATIONS["transfer"]

EPS = 0.015


@pytest.fixture
def pair(linear):
    """Two linear networks whose weights agree in part, images in the middle of the box, and the margins of the first."""
    random = torch.Generator().manual_seed(2)
    weight = torch.randn(27, generator=random)
    other = weight + torch.randn(27, generator=random)
    images = 0.4 + 0.2 * torch.rand(80, 3, 3, 3, generator=random)
    network = linear(weight, -0.5 * float(weight.sum()))
    with torch.no_grad():
        margin = images.flatten(1) @ weight + network.bias
    return network, other, images, margin


@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_images_move_along_the_other_weights_and_are_judged_by_this_network(pair, linear, values, shift):
    """To the edge of the ball, also where the other network was wrong from the start, as one that is shifted is."""
    network, other, images, margin = pair
    labels = (margin > 0).long()
    beside = linear(other, -0.5 * float(other.sum()) + shift)
    found = transfer(Subject(network, images, labels, seed=0, beside=lambda: beside), eps=EPS, steps=20)
    left = margin.abs() > EPS * float(network.weight.detach() @ other.sign())
    assert 0.2 < float(left.double().mean()) < 0.8
    assert values(found) == {"f0": 1.0, "A_eps": float(left.double().mean())}
    assert found.curves == [(0.0, 1.0, 80), (EPS, float(left.double().mean()), 80)]
    assert found.arrays["correct"][1].tolist() == left.tolist()
    assert found.backwards == 80 * 20


def test_a_random_network_is_judged_by_nine_votes(pair, answers, values):
    network, _, images, margin = pair
    # Wrong when asked first and every third time from then on.
    fickle = lambda images, asked: network(images) * (-1 if asked % 3 == 0 else 1)  # noqa: E731
    subject = Subject(answers(fickle), images, (margin > 0).long(), seed=0, beside=lambda: network)
    assert values(transfer(subject, eps=EPS, steps=3))["f0"] == 0.0
    subject = subject._replace(network=answers(fickle), random=True)
    assert values(transfer(subject, eps=EPS, steps=3))["f0"] == 1.0


def test_without_a_network_beside_it_is_refused(pair):
    network, _, images, margin = pair
    with pytest.raises(SpecError, match="transfer: expected a network beside the one that is examined"):
        transfer(Subject(network, images, (margin > 0).long(), seed=0))
