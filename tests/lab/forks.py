"""Runs the tiny study in forked children, so that a child starts in milliseconds and can be killed at any moment.

Reads lines ``LEDGER`` from standard input; for each, forks a child that runs the study on that ledger, and prints the
child's process number at once and its exit status when it ends.
"""

import os
import sys
from pathlib import Path

import torch

from unperturbed import lab
from unperturbed.lab import courses, runner, weights
from unperturbed.ledger import Ledger

STUDY = Path(__file__).with_name("tiny.toml")


def load_once() -> None:
    """Load the data before the forks, so that a child's life is the study and not the preparation."""
    _, datasets = runner.load_datasets(lab.load(str(STUDY)))
    courses.load_data = lambda spec, **_: datasets[spec.canonical()]


def child(folder: str) -> None:
    weights.CHECKPOINT_EVERY = 0.1  # so that kills fall between, and into, checkpoints
    with Ledger.open(Path(folder)) as ledger:
        lab.run(lab.load(str(STUDY)), ledger, device=torch.device("cpu"), command="test")


def main() -> None:
    torch.set_num_threads(1)
    load_once()
    print("ready", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            try:
                child(line.strip())
            except BaseException as error:
                print(f"child: {type(error).__name__}: {error}", file=sys.stderr)
                os._exit(1)
            os._exit(0)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
