"""What outlives a run: one SQLite file and artefacts under their digests; opaque to what the records mean.

A stage (any :class:`~unperturbed.records.Record`) is kept under its digest with the bytes it produced, its points of a
curve, its measures and its cost. A run says which stages it used, and where in its study. The tables can be read with
any SQLite tool; the views ``curves``, ``results`` and ``costs`` are the rows that a report starts from.
"""

from unperturbed.ledger.errors import LedgerError
from unperturbed.ledger.ledger import TRAINING, Ledger
from unperturbed.ledger.rows import Damage, Placement, Run, Status, Stored, Suffix

__all__ = ["TRAINING", "Damage", "Ledger", "LedgerError", "Placement", "Run", "Status", "Stored", "Suffix"]
