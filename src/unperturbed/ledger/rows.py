"""The values that the ledger hands out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

Suffix = Literal[".npz", ".safetensors"]
Status = Literal["running", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class Stored:
    """A recorded stage: where its artefact is and what it cost."""

    stage: str  # digest of the stage's record
    kind: str
    artefact: str  # SHA-256 of the artefact's content, 64 hexadecimal digits
    suffix: str
    size: int  # of the artefact, in bytes
    seconds: float
    forwards: int
    backwards: int
    device: str
    versions: dict[str, Any]
    finished: str  # UTC, ISO 8601


class Placement(NamedTuple):
    """Where a run used a stage."""

    run: int
    stage: str
    architecture: str
    condition: str
    seed: int
    epoch: int
    label: str  # "training" or the attack's label


@dataclass(frozen=True)
class Run:
    """One run of a study; ``running`` becomes ``interrupted`` when a writer finds it after its process died."""

    id: int
    study: str  # the study's name
    command: str
    versions: dict[str, Any]
    started: str  # UTC, ISO 8601
    status: Status
    seconds: float | None
    error: str | None


@dataclass(frozen=True)
class Damage:
    """A recorded stage whose artefact is gone or is not what was recorded."""

    stage: str
    kind: str
    reason: Literal["artefact missing", "artefact damaged"]
    path: Path

    def __str__(self) -> str:
        return f"{self.reason}: {self.path} ({self.kind} stage {self.stage[:12]})"
