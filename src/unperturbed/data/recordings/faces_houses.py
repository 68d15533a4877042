"""EEG of one person who looked at faces and houses, from the recorder's files to a decoder, through MNE-Python.

Source: the recordings of the muse-lsl project (Barachant, Banville and others, 13 September 2017): six runs of two
minutes with a headband of four electrodes (Muse 2016: TP9, AF7, AF8, TP10; 256 Hz, microvolt, frontal reference), a
picture for 0.2 s, then 0.3 to 0.5 s of nothing. Which picture it was is not recorded, only whether a face or a house:
so there is no response to an image here, and no noise ceiling.

Some time stamps jump, a few backwards: samples are counted at 256 Hz instead. The headband delays its markers by a time
that is not known, so latencies are relative.

MNE-Python (extra ``eeg``) is imported where it is needed.
"""

from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from unperturbed.data.files import Download, OfficialFile, OfficialSet, Places, read
from unperturbed.records import SpecError

ELECTRODES = ("TP9", "AF7", "AF8", "TP10")
RATE = 256.0  # Hz
CLASSES = ("house", "face")  # markers 1 and 2 of the files
ADDRESS = "https://raw.githubusercontent.com/alexandrebarachant/muse-lsl"
FOLDER = "data/visual/N170/subject1/session1"
RUNS = (  # time of day, size in bytes, md5, and a commit that has the file
    ("15.30.01", 1479283, "8004b5928f262b37710bcec1ac34b102", "8d73e029037d4a62bbfea6f488bd8dff3b9a8b33"),
    ("15.32.50", 1479036, "ee01ea2058d6f70f154ce4dd47bcfa10", "53c07a324ee43902beb373db8062fad532d520bb"),
    ("15.35.26", 1478811, "773136d62b202f850b6fda24dbac127f", "8d73e029037d4a62bbfea6f488bd8dff3b9a8b33"),
    ("15.40.17", 1480112, "0505e61a384fbf9b10ef07a151ae66b4", "205d1a3890aee5d74b79f3724692d4fcdc84daf8"),
    ("15.42.33", 1479403, "9852ddf76235d6887f1f1369b0894a06", "8d73e029037d4a62bbfea6f488bd8dff3b9a8b33"),
    ("15.45.08", 1479220, "bf1cf25e602615dbe7fa2c4f046d0bdf", "205d1a3890aee5d74b79f3724692d4fcdc84daf8"),
)
FILES = OfficialSet(
    name="eeg-faces-houses",
    folders=("eeg-faces-houses",),
    files=tuple(OfficialFile(f"data_2017-09-13-{time}.csv", size, "md5", md5) for time, size, md5, _ in RUNS),
    downloads=tuple(
        Download(f"data_2017-09-13-{time}.csv", f"{ADDRESS}/{commit}/{FOLDER}/data_2017-09-13-{time}.csv", f"md5:{md5}")
        for time, _, md5, commit in RUNS
    ),
)


class Run(NamedTuple):
    """Two minutes as recorded."""

    voltages: Float64[ndarray, "electrodes samples"]  # microvolt
    onsets: Int64[ndarray, " pictures"]  # samples
    labels: Int64[ndarray, " pictures"]  # places in CLASSES


class Trials(NamedTuple):
    """The stretches around the pictures, filtered, without those that were rejected."""

    responses: Float64[ndarray, "trials electrodes times"]  # microvolt
    labels: Int64[ndarray, " trials"]  # places in CLASSES
    runs: Int64[ndarray, " trials"]
    times: Float64[ndarray, " times"]  # seconds after the marker
    rejected: int


def faces_houses(places: Places) -> tuple[Run, ...]:
    """Return the six runs.

    Args:
        places: where the files are looked for.

    Raises:
        SpecError: a file is missing, damaged or not the official one.
    """
    contents, _ = read(FILES, places)
    return tuple(_run(contents[file.name]) for file in FILES.files)


def _run(content: bytes) -> Run:
    columns = np.loadtxt(BytesIO(content), delimiter=",", skiprows=1).T
    onsets = np.flatnonzero(columns[6]).astype(np.int64)
    return Run(columns[1:5], onsets, columns[6][onsets].astype(np.int64) - 1)


def trials(
    runs: tuple[Run, ...],
    *,
    low: float = 1.0,
    high: float = 30.0,
    start: float = -0.1,
    stop: float = 0.8,
    largest: float = 200.0,
) -> Trials:
    """Return the stretches around the pictures, band-passed, without those with artefacts.

    The filter is MNE-Python's Butterworth filter of order 4, forwards and backwards, so it delays nothing. A stretch
    that does not lie in its run as a whole is left out too.

    Args:
        runs: as recorded.
        low: Hz; slower waves are removed.
        high: Hz; faster ones are removed.
        start: seconds after the marker.
        stop: seconds after the marker.
        largest: microvolt from the lowest to the highest value of an electrode; beyond, it is an artefact.

    Raises:
        SpecError: MNE-Python is not installed.
    """
    mne = _mne()
    found: list[Any] = []
    for run in runs:
        info = mne.create_info(list(ELECTRODES), RATE, "eeg", verbose="error")
        raw = mne.io.RawArray(run.voltages * 1e-6, info, verbose="error")  # MNE-Python has volts
        raw.filter(low, high, method="iir", verbose="error")
        events = np.stack([run.onsets, np.zeros_like(run.onsets), run.labels + 1], axis=1)
        reject = {"eeg": largest * 1e-6}
        settings = {"baseline": None, "reject": reject, "preload": True, "verbose": "error"}
        found.append(mne.Epochs(raw, events, None, start, stop, **settings))
    kept = [epochs.get_data(copy=False) * 1e6 for epochs in found]
    return Trials(
        responses=np.concatenate(kept),
        labels=np.concatenate([epochs.events[:, 2] - 1 for epochs in found]).astype(np.int64),
        runs=np.repeat(np.arange(len(runs)), [len(part) for part in kept]),
        times=found[0].times,
        rejected=sum(len(run.onsets) for run in runs) - sum(len(part) for part in kept),
    )


def _mne() -> Any:
    try:
        import mne
    except ImportError as error:
        raise SpecError(
            "trials needs MNE-Python 1.6 or newer, which is not installed; run `pip install 'unperturbed[eeg]'`."
        ) from error
    return mne


def evoked(trials: Trials) -> Float64[ndarray, "classes electrodes times"]:
    """Return the event-related potential of houses and of faces: the mean of their trials, in microvolt."""
    return np.stack([trials.responses[trials.labels == label].mean(axis=0) for label in range(len(CLASSES))])


def decoding(trials: Trials, *, every: int = 4) -> Float64[ndarray, " runs"]:
    """Return how well faces are told from houses in each run by a linear discriminant that has learned the others.

    The area under the ROC curve of single trials: 1 is perfect, 0.5 is chance. The discriminant's covariance is shrunk
    as Ledoit and Wolf (2004) have it, since a trial has as many numbers as there are trials.

    Args:
        trials: of two runs or more.
        every: which samples are used; 4 leaves 64 Hz, enough for 30.
    """
    features = trials.responses[:, :, ::every].reshape(len(trials.labels), -1)
    areas: list[float] = []
    for run in np.unique(trials.runs):
        test = trials.runs == run
        discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        discriminant.fit(features[~test], trials.labels[~test])
        areas.append(float(roc_auc_score(trials.labels[test], discriminant.decision_function(features[test]))))
    return np.array(areas)
