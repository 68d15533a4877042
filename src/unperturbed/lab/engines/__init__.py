"""Engines run trials and differ only in where."""

from unperturbed.lab.engines import inline, processes
from unperturbed.lab.engines.job import Job

ENGINES = {"inline": inline.run, "processes": processes.run}

__all__ = ["ENGINES", "Job"]
