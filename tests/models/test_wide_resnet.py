import pytest
import torch

from unperturbed.models import build, count_parameters
from unperturbed.records import Spec, SpecError
from unperturbed.tensors.streams import generator


@pytest.mark.parametrize(("widen", "count"), [(1, 466_714), (5, 11_550_000)])
def test_it_has_the_published_number_of_parameters(widen, count):
    network = build(Spec(name="wide-resnet", settings={"widen": widen}), generator("weights", 0))
    assert count_parameters(network) == pytest.approx(count, abs=5000 if widen == 5 else 0)  # 11.55 M as printed
    if widen == 1:
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        assert network.eval()(images).shape == (2, 10)


@pytest.mark.parametrize("settings", [{"depth": 33}, {"depth": 4}, {"widen": 0}])
def test_other_shapes_are_refused(settings):
    with pytest.raises(SpecError, match=r"wide-resnet: (depth|widen) must be"):
        build(Spec(name="wide-resnet", settings=settings), generator("weights", 0))
