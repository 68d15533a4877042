"""Engines run trials and differ only in where."""

from unperturbed.lab.engines import inline

ENGINES = {"inline": inline.run}
