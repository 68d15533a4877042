import numpy as np
import pytest

from unperturbed.data.files import Places
from unperturbed.data.recordings import images92
from unperturbed.measures.similarity import noise_ceilings, similarity, similarity_test


@pytest.fixture(scope="module")
def objects(real):
    return images92(Places(real("images92")))


def test_the_images_and_what_they_show(objects):
    assert (objects.images.shape, objects.images.dtype) == ((92, 175, 175, 3), np.uint8)
    assert {name: int(flags.sum()) for name, flags in objects.labels.items()} == {
        "human": 24,
        "face": 24,
        "animal": 48,
        "natural": 71,
    }
    assert objects.categories[0] == "human bodypart"
    assert list(objects.models) == [
        *("animacy", "FaceBodyManmadeNatobj", "monkeyIT", "EVA", "HMAX", "V1", "Silhouette", "RADON"),
    ]


def test_the_order_of_images_is_the_same_in_all_files(objects):
    """The mean of the sessions is the published human matrix, and the model of animacy that of the labels."""
    np.testing.assert_allclose(np.corrcoef(objects.sessions.mean(axis=(0, 1)), objects.human)[0, 1], 1, atol=1e-6)
    above = np.triu_indices(92, 1)
    animals = objects.labels["animal"]
    np.testing.assert_array_equal(objects.models["animacy"], animals[above[0]] != animals[above[1]])
    np.testing.assert_allclose(np.corrcoef(objects.models["monkeyIT"], objects.monkey)[0, 1], 1, atol=1e-3)


def test_monkeys_and_people_agree_as_published(objects):
    """The published check: 0.44 (Pearson 0.49) between species, 0.39 between judgements and human IT."""
    assert round(float(similarity(objects.monkey, objects.human)), 2) == 0.44
    assert round(np.corrcoef(objects.monkey, objects.human)[0, 1], 2) == 0.49
    assert round(float(similarity(objects.judgements.mean(axis=0), objects.human)), 2) == 0.39
    sessions = [np.corrcoef(*person)[0, 1] for person in objects.sessions]
    assert [round(r, 2) for r in sessions] == [0.29, 0.10, 0.40, 0.12]


def test_what_is_alike_is_alike_beyond_chance(objects):
    found = similarity_test(np.stack([objects.monkey, objects.models["RADON"]]), objects.human)
    assert found.p[0] == 1 / 1001
    assert found.p_largest[1] >= found.p[1] > 0.001


def test_people_agree_less_with_each_other_than_the_ceilings(objects):
    lower, upper = noise_ceilings(objects.judgements)
    assert 0 < lower < upper < 1
    animacy = similarity(objects.judgements, objects.models["animacy"])
    assert animacy.mean() < upper
