"""What brains answered to images: recordings as distributed, and a simulator whose answers are known."""

from unperturbed.data.recordings.images92 import Images92, images92
from unperturbed.data.recordings.recording import Recordings
from unperturbed.data.recordings.simulator import Answers, Simulated, simulate
from unperturbed.data.recordings.things_eeg2 import CHANNELS, ORIGINAL, TIMES, Layout, Subject, examine, read_subject

__all__ = [
    "CHANNELS",
    "ORIGINAL",
    "TIMES",
    "Answers",
    "Images92",
    "Layout",
    "Recordings",
    "Simulated",
    "Subject",
    "examine",
    "images92",
    "read_subject",
    "simulate",
]
