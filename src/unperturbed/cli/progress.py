"""Long work at a terminal: how far it is, how much time is left, and how to stop it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from unperturbed.cli import terminal

Show = Callable[[str, float, float | None], None]
"""What is being done, the fraction of the work that is done, and the seconds left if they are known."""

SILENCE = 15.0  # seconds between two lines where there is no terminal


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> duration(12.3), duration(754), duration(8000)
    ('12 s', '12 min 34 s', '2 h 13 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def stoppable() -> Generator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed; a second Ctrl-C stops at once."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked:
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt
        asked.append(number)
        terminal.err.print("Finishing the step under way; Ctrl-C again stops at once.")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress(*, quiet: bool) -> Generator[Show]:
    """Yield a function that shows how far the work is: a bar in a terminal, a line now and then elsewhere."""
    err = terminal.err
    if quiet and not err.is_terminal:
        yield lambda *_: None
    elif err.is_terminal:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(bar_width=24), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn())
        words = (TextColumn("{task.fields[left]}"), TextColumn("{task.description}", markup=False))
        with Progress(*columns, *words, console=err, transient=True) as bar:
            task = bar.add_task("starting", total=1.0, left="")

            def show(doing: str, done: float, seconds_left: float | None) -> None:
                left = "" if seconds_left is None else f"about {duration(seconds_left)} left"
                bar.update(task, completed=done, description=doing, left=left)

            yield show
    else:
        last = [-SILENCE]

        def say(doing: str, done: float, seconds_left: float | None) -> None:
            if time.monotonic() - last[0] >= SILENCE:
                last[0] = time.monotonic()
                left = "" if seconds_left is None else f", about {duration(seconds_left)} left"
                err.print(f"{done:4.0%}{left}: {doing}", markup=False, soft_wrap=True)

        yield say
