import numpy as np
import pytest
import torch
from torch import nn

from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.measures.intrinsic_dimension import levina_bickel, neighbour_distances, two_nn
from unperturbed.measures.label_sharpness import label_sharpness
from unperturbed.records import SpecError

dimension = EXAMINATIONS["dimension"]

POINTS = torch.rand(800, 3, generator=torch.Generator().manual_seed(0))  # on three dimensions
INTO = torch.linalg.qr(torch.randn(48, 3, generator=torch.Generator().manual_seed(1))).Q
LABELS = (POINTS[:, 0] > 0.5).long() + (POINTS[:, 1] > 0.5).long()


def _subject(images=800, **rest):
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 48, bias=False), nn.ReLU(), nn.Linear(48, 3))
    network[1].weight.data = 2 * torch.eye(48)
    shown = (POINTS @ INTO.T).view(-1, 3, 4, 4)[:images]
    return Subject(network.eval(), shown, LABELS[:images], seed=0)._replace(**rest)


def test_it_is_the_dimension_of_the_representation_and_its_sharpness(values):
    found = dimension(_subject())
    seen = 2 * _subject().images.flatten(1).numpy()
    distances, sharpness = neighbour_distances(seen), label_sharpness(seen, LABELS.numpy())
    assert values(found) == {
        "dimension_two_nn": pytest.approx(two_nn(distances), rel=1e-4),  # single precision
        **{f"dimension_mle_{k}": pytest.approx(levina_bickel(distances, k=k), rel=1e-4) for k in (3, 5, 10, 20)},
        "label_sharpness": pytest.approx(sharpness.value, rel=1e-4),
        "label_sharpness_quantile": pytest.approx(sharpness.quantile, rel=1e-4),
    }
    assert values(found)["dimension_two_nn"] == pytest.approx(3, rel=0.1)
    assert values(found)["dimension_mle_20"] == pytest.approx(3, rel=0.1)
    assert found.arrays["distances"].shape == (800, 20)
    low, high = found.arrays["label_sharpness_interval"]
    assert low <= high <= values(found)["label_sharpness"]
    assert found.forwards == 800
    # Distances in the images are half of those in the layer.
    entered = values(dimension(_subject(), layer="input"))
    assert entered["label_sharpness"] == pytest.approx(2 * values(found)["label_sharpness"], rel=1e-4)


def test_what_is_not_defined_is_left_out(values):
    few = values(dimension(_subject(images=8)))
    assert few.keys() == {
        "dimension_two_nn",
        "dimension_mle_3",
        "dimension_mle_5",
        "label_sharpness",
        "label_sharpness_quantile",
    }
    one = dimension(_subject(labels=torch.zeros(800, dtype=torch.long)))
    assert not {"label_sharpness", "label_sharpness_quantile"} & values(one).keys()
    assert "label_sharpness_interval" not in one.arrays
    subject = _subject(images=9)
    images = subject.images.clone()
    images[1] = images[0]
    same = values(dimension(subject._replace(images=images, labels=torch.arange(9))))
    assert "label_sharpness" not in same
    assert "label_sharpness_quantile" not in same or np.isfinite(same["label_sharpness_quantile"])


def test_representations_that_are_all_the_same_have_neither():
    subject = _subject()
    subject.network[1].weight.data.zero_()
    found = dimension(subject)
    assert (list(found.measures), found.forwards) == ([], 800)
    assert found.arrays.keys() == {"label_sharpness_interval"}


def test_a_layer_that_there_is_not_is_refused():
    subject = _subject()
    with pytest.raises(SpecError, match=r"no layer '7'\. There are: 0, 1, 2, 3\."):
        dimension(subject, layer="7")
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with pytest.raises(SpecError) as caught:
        dimension(subject._replace(network=network))
    assert str(caught.value) == (
        "dimension: expected a network with a layer before its readout; Sequential has none: name a layer"
    )
