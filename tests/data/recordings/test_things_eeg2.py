import os
import re
import shutil

import numpy as np
import pytest

from unperturbed.data.recordings import CHANNELS, ORIGINAL, TIMES, Recordings, examine, read_subject, things_eeg2
from unperturbed.records import SpecError

TRAINING, TEST = "preprocessed_eeg_training.npy", "preprocessed_eeg_test.npy"


def change(path, **changes):
    """Save the dictionary again, with each named value changed by a function; ``None`` leaves it out."""
    stored = np.load(path, allow_pickle=True).item()
    for key, act in changes.items():
        value = stored.pop(key)
        if act is not None:
            stored[key] = act(value)
    np.save(path, stored)


def refused(folder, layout, *says, subject=1):
    with pytest.raises(SpecError) as error:
        read_subject(folder, subject, layout=layout)
    assert "\n" not in str(error.value)
    for words in says:
        assert words in str(error.value), str(error.value)


def test_the_original_has_its_published_numbers():
    assert (ORIGINAL.images("training"), ORIGINAL.images("test")) == (16540, 200)
    assert (ORIGINAL.repetitions("training"), ORIGINAL.repetitions("test")) == (4, 80)
    assert (len(CHANNELS), len(set(CHANNELS)), len(TIMES)) == (17, 17, 100)
    # sample 20 is the onset and index 30 is 100 ms after it
    assert (TIMES[0], TIMES[20], TIMES[30], TIMES[-1]) == (-0.2, 0.0, 0.1, 0.79)


def test_every_repetition_comes_back_as_it_was_written(written):
    folder, simulated = written
    for subject in (1, 2):
        found = read_subject(folder, subject, layout=simulated.layout)
        for part, name, shape in ((found.training, TRAINING, (12, 4, 17, 100)), (found.test, TEST, (6, 8, 17, 100))):
            stored = np.load(folder / f"sub-0{subject}" / name, allow_pickle=True).item()
            assert part.responses.shape == shape
            np.testing.assert_array_equal(part.responses, stored["preprocessed_eeg_data"])
            assert (part.subject, part.channels, len(part)) == (f"sub-0{subject}", tuple(stored["ch_names"]), shape[0])
            np.testing.assert_array_equal(part.times, stored["times"])


def test_responses_are_mapped_and_cannot_be_written(written):
    found = read_subject(written[0], 1, layout=written[1].layout)
    for part in (found.training, found.test):
        assert isinstance(part.responses, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            part.responses[0] = 0


def test_images_stand_concept_by_concept_and_the_last_of_each_is_for_validation(written):
    folder, simulated = written
    found = read_subject(folder, 1, layout=simulated.layout)
    metadata = np.load(folder / "image_metadata.npy", allow_pickle=True).item()
    listed = zip(metadata["train_img_concepts"], metadata["train_img_files"], strict=True)
    assert found.training.images == tuple("/".join(image) for image in listed)
    assert all((folder / "training_images" / image).is_file() for image in found.training.images)
    assert all((folder / "test_images" / image).is_file() for image in found.test.images)
    assert found.training.concepts.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert found.training.names == ("class0", "class1", "class2", "class3")
    assert found.test.concepts.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.training_rows.tolist() == [0, 1, 3, 4, 6, 7, 9, 10]
    assert found.validation_rows.tolist() == [2, 5, 8, 11]


def test_a_sound_set_has_no_problem(written):
    rows = list(examine(written[0], layout=written[1].layout))
    names = [f"sub-0{subject}/{name}" for subject in (1, 2) for name in (TRAINING, TEST)]
    assert [(row.name, row.there, row.problem) for row in rows] == [
        (name, True, "") for name in ["training_images", "test_images", *names]
    ]


def exchanged(names):
    return [*names[:3], names[4], names[3], *names[5:]]


def test_a_wrong_order_of_channels_is_named(things):
    folder, layout = things
    change(folder / "sub-01" / TEST, ch_names=exchanged)
    refused(folder, layout, f"sub-01/{TEST}: channel 3 should be O1, got Oz; the channels must be Pz, P3, P7, O1, Oz,")
    assert read_subject(folder, 2, layout=layout)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda names: ["Fp1", *names], "channel 0 should be Pz, got Fp1"),
        (lambda names: names[:-1], "should have 17 channels, got 16"),
        (lambda names: [*names, "stim"], "should have 17 channels, got 18"),
    ],
)
def test_other_channels_are_named(things, act, says):
    change(things[0] / "sub-01" / TRAINING, ch_names=act)
    refused(*things, f"sub-01/{TRAINING}", says)


def test_other_times_are_named(things):
    folder, layout = things
    change(folder / "sub-01" / TRAINING, times=lambda times: times + 0.01)
    refused(folder, layout, "should have 100 times from -0.2 to 0.79 s, got 100 from -0.19 to 0.8 s; take the 100 Hz")
    change(folder / "sub-01" / TRAINING, times=lambda times: np.arange(250) / 250 - 0.2)
    refused(folder, layout, "got 250 from -0.2 to 0.796 s")
    change(folder / "sub-01" / TRAINING, times=lambda times: [])
    refused(folder, layout, "got none; take the 100 Hz files.")


def test_a_missing_subject_is_named(things):
    shutil.rmtree(things[0] / "sub-02")
    refused(*things, f"sub-02/{TRAINING} is missing, there is sub-01; `unperturbed data fetch", subject=2)
    assert read_subject(things[0], 1, layout=things[1])


def test_a_missing_file_is_named(things):
    (things[0] / "sub-01" / TEST).unlink()
    refused(*things, f"sub-01/{TEST} is missing, there is sub-02;")


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.001])
def test_a_truncated_file_is_named(things, kept):
    path = things[0] / "sub-01" / TRAINING
    os.truncate(path, int(path.stat().st_size * kept))
    refused(*things, f"{path} cannot be read, it is truncated or damaged", "download it again")


@pytest.mark.parametrize("block", [1, 3 * 4 * 17 * 100, 2**22])
def test_a_segment_of_nan_is_named_with_its_place(things, monkeypatch, block):
    monkeypatch.setattr(things_eeg2, "BLOCK", block)
    folder, layout = things

    def spoil(responses):
        responses[4, 1, CHANNELS.index("Oz"), 30:45] = np.nan
        responses[9, 0, 0, 3] = np.nan
        return responses

    change(folder / "sub-01" / TRAINING, preprocessed_eeg_data=spoil)
    place = "00002_class1/class1_00002s.png, repetition 1, channel Oz is not finite from 0.10 to 0.24 s;"
    refused(folder, layout, f"sub-01/{TRAINING}: {place}")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_segment_at_the_end_is_named(things, value):
    def spoil(responses):
        responses[5, 7, 16, 98:] = value
        return responses

    change(things[0] / "sub-02" / TEST, preprocessed_eeg_data=spoil)
    refused(*things, "repetition 7, channel P2 is not finite from 0.78 to 0.79 s", subject=2)


@pytest.mark.parametrize("value", [np.nan, 0])
def test_a_repetition_that_is_empty_is_named(things, monkeypatch, value):
    monkeypatch.setattr(things_eeg2, "BLOCK", 5 * 4 * 17 * 100)

    def spoil(responses):
        responses[11, 2] = value
        return responses

    change(things[0] / "sub-01" / TRAINING, preprocessed_eeg_data=spoil)
    refused(
        *things, f"sub-01/{TRAINING}: repetition 2 of 00004_class3/class3_00003s.png is missing, all of it is 0 or NaN"
    )


def test_a_repetition_too_few_for_all_images_is_named(things):
    change(things[0] / "sub-01" / TEST, preprocessed_eeg_data=lambda responses: responses[:, 1:])
    refused(*things, "should hold 8 repetitions of each image and a shape of (6, 8, 17, 100), got (6, 7, 17, 100)")


def test_an_image_without_eeg_is_named(things):
    change(things[0] / "sub-01" / TRAINING, preprocessed_eeg_data=lambda responses: responses[:-1])
    refused(*things, "00004_class3/class3_00003s.png has no EEG: expected 12 images", "got 11")


def test_eeg_without_an_image_is_named(things):
    change(things[0] / "sub-01" / TRAINING, preprocessed_eeg_data=lambda x: np.concatenate([x, x[:1]]))
    refused(*things, f"sub-01/{TRAINING}: row 12 has no image: expected 12 images", "got 13")


def test_an_image_that_is_not_listed_is_named(things):
    shutil.copy(next(things[0].glob("training_images/00001*/*")), things[0] / "training_images/00001_class0/other.jpg")
    (things[0] / "training_images/00001_class0/.DS_Store").touch()  # what a file manager leaves is no image
    refused(*things, "training_images: 00001_class0/other.jpg has no EEG, since image_metadata.npy does not list it")


def test_a_listed_image_that_is_not_there_is_named(things):
    (things[0] / "test_images/00002_class1/class1_00004s.png").unlink()
    refused(
        *things, "test_images: 00002_class1/class1_00004s.png is missing, though image_metadata.npy lists it with EEG"
    )


def swapped(texts):
    return [texts[1], texts[0], *texts[2:]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"train_img_files": swapped},
            "got 00001_class0/class0_00002s.png at place 0, where 00001_class0/class0_00001s",
        ),
        ({"test_img_concepts": swapped, "test_img_files": swapped}, "should list the test images sorted by concept"),
        ({"train_img_files": lambda files: files[:-1]}, "should list 12 training images, got 11 with 12 concepts"),
        (
            {"test_img_files": None},
            "should hold a list test_img_files, got train_img_concepts, train_img_files, test_",
        ),
        (
            {"train_img_concepts": lambda names: [*names[:2], *names[3:4], *names[3:]]},
            "should list 3 training images of each concept, got 2 of 00001_class0",
        ),
    ],
)
def test_a_wrong_list_of_images_is_named(things, changes, says):
    change(things[0] / "image_metadata.npy", **changes)
    refused(*things, "image_metadata.npy should", says)


@pytest.mark.parametrize("name", ["image_metadata.npy", "training_images", "test_images"])
def test_a_missing_part_of_the_images_is_named(things, name):
    path = things[0] / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused(*things, f"{path} is missing; `unperturbed data fetch things-eeg2` says where it comes from.")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"preprocessed_eeg_data": None}, "should hold a list preprocessed_eeg_data, got ch_names, times"),
        ({"preprocessed_eeg_data": lambda x: x[0]}, "images, repetitions, channels and times, got (4, 17, 100)"),
        ({"preprocessed_eeg_data": lambda x: x.astype(int)}, "should hold numbers of images, repetitions, channels"),
        ({"preprocessed_eeg_data": lambda x: [1]}, "channels and times, got (1,)"),
        ({"times": lambda x: 0.01}, "should hold a list times, got preprocessed_eeg_data, ch_names, times"),
        ({"ch_names": lambda x: "Oz"}, "should hold a list ch_names, got"),
    ],
)
def test_other_contents_are_named(things, changes, says):
    change(things[0] / "sub-01" / TRAINING, **changes)
    refused(*things, f"sub-01/{TRAINING}", says)


def test_float32_responses_are_taken_as_they_are(things):
    folder, layout = things
    change(folder / "sub-01" / TEST, preprocessed_eeg_data=lambda responses: responses.astype(np.float32))
    responses = read_subject(folder, 1, layout=layout).test.responses
    assert (responses.dtype, type(responses)) == (np.float32, np.memmap)


def test_every_file_with_a_problem_is_examined(things):
    folder, layout = things
    change(folder / "sub-01" / TEST, ch_names=exchanged)
    (folder / "sub-02" / TRAINING).unlink()
    (folder / "image_metadata.npy").unlink()
    rows = {row.name: row for row in examine(folder, layout=layout)}
    assert {name: row.there for name, row in rows.items() if row.problem} == {
        "training_images": True,
        "test_images": True,
        f"sub-01/{TEST}": True,
        f"sub-02/{TRAINING}": False,
    }
    assert "channel 3" in rows[f"sub-01/{TEST}"].problem


@pytest.mark.usefixtures("unchecked")
def test_parts_that_do_not_fit_are_no_recordings(written):
    good = read_subject(written[0], 1, layout=written[1].layout).test
    parts = {name: getattr(good, name) for name in ("subject", "channels", "times", "images", "concepts", "names")}
    assert len(Recordings(responses=np.zeros((6, 8, 17, 100)), **parts)) == 6
    for shape, concepts in (((6, 8, 16, 100), 6), ((6, 8, 17, 99), 6), ((5, 8, 17, 100), 5), ((6, 8, 17, 100), 5)):
        with pytest.raises(SpecError, match=re.escape("6 images, 17 channels and 100 times")) as error:
            Recordings(responses=np.zeros(shape), **{**parts, "concepts": np.zeros(concepts, np.int64)})
        assert f"got {shape} and ({concepts},) concepts." in str(error.value)
