"""What every command speaks through: the consoles, and what an exit code means."""

from __future__ import annotations

from rich.console import Console

# Without emoji, or a user's "net.py:fire:" would burn.
out = Console(highlight=False, soft_wrap=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)

BAD_INPUT, TRIALS_FAILED, INTERRUPTED = 2, 3, 130


def say_error(what: str) -> None:
    """Print what is wrong, in one line."""
    err.print(f"unperturbed: {what}", markup=False, soft_wrap=True)
