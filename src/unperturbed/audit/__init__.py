"""A foreign classifier becomes flags, a verdict and the evidence for both: is its robustness real?"""

from unperturbed.audit.auditing import TRAITS, audit
from unperturbed.audit.budgets import BUDGETS
from unperturbed.audit.record import Attempt, Audit, Flag

__all__ = ["BUDGETS", "TRAITS", "Attempt", "Audit", "Flag", "audit"]
