import time

import pytest
import torch

from unperturbed.examinations import EXAMINATIONS, Subject
from unperturbed.records import SpecError

timing = EXAMINATIONS["timing"]


def test_the_median_batch_decides_and_the_first_ones_do_not_count(answers, values, monkeypatch):
    clock, shown = [0.0], []
    takes = [70.0, 60.0, 3.0, 1.0, 2.0]  # seconds; two to warm up

    def network(images, asked):
        shown.append((images, torch.is_inference_mode_enabled()))
        clock[0] += takes[asked]
        return torch.zeros(len(images), 2)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    images = torch.rand(5, 1, 2, 2)
    subject = Subject(answers(network), images, torch.zeros(5, dtype=torch.long), seed=0)
    found = timing(subject, batch_size=8, repeats=3)
    assert values(found) == {"ms_per_image": 1000 * 2.0 / 8}
    assert found.arrays["seconds"].tolist() == [3.0, 1.0, 2.0]
    assert (found.measures[0].unit, found.measures[0].better, found.forwards) == ("ms", "lower", 40)
    for batch, inference in shown:
        assert torch.equal(batch, torch.cat([images, images[:3]]))
        assert inference
    assert not torch.is_inference_mode_enabled()


def test_twice_the_work_takes_longer(answers, values):
    def taking(repeats):
        def work(images, _asked):
            for _ in range(repeats):
                torch.randn(200, 200) @ torch.randn(200, 200)
            return torch.zeros(len(images), 2)

        return Subject(answers(work), torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.long), seed=0)

    short, long = (values(timing(taking(repeats), batch_size=2))["ms_per_image"] for repeats in (1, 10))
    assert 0 < 2 * short < long  # of ten; the machine may be busy


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_that_answers_before_it_is_done_is_waited_for(answers, values):
    busy = torch.randn(4000, 4000, device="cuda")

    def work(images, _asked):
        for _ in range(50):
            busy @ busy
        return torch.zeros(len(images), 2, device="cuda")

    images = torch.rand(2, 1, 2, 2, device="cuda")
    subject = Subject(answers(work), images, torch.zeros(2, dtype=torch.long, device="cuda"), seed=0)
    took = values(timing(subject, batch_size=1))["ms_per_image"] / 1000
    assert took > 50 * 2 * 4000**3 / 1e15  # no device does so many operations in a second


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"repeats": 0}])
def test_nothing_to_time_is_refused(answers, settings):
    subject = Subject(answers(lambda images, _asked: images), torch.rand(2, 1, 2, 2), torch.zeros(2), seed=0)
    given = {"batch_size": 128, "repeats": 5, **settings}
    said = f"got {given['batch_size']} and {given['repeats']}"
    with pytest.raises(SpecError, match=f"timing: expected batch_size and repeats of at least 1; {said}"):
        timing(subject, **settings)
