"""Studies in, trials run, results in the ledger."""

from unperturbed.lab.courses import Stopped
from unperturbed.lab.runner import Outcome, Plan, Update, choose_device, explain, run, versions
from unperturbed.lab.study import Changes, load
from unperturbed.lab.study_file import names

__all__ = [
    "Changes",
    "Outcome",
    "Plan",
    "Stopped",
    "Update",
    "choose_device",
    "explain",
    "load",
    "names",
    "run",
    "versions",
]
