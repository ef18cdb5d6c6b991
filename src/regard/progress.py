"""Progress on standard error: a bar on a terminal, else a plain line every ten seconds."""

from __future__ import annotations

import sys
import time
from typing import ClassVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """A progress bar on standard error, from ``start`` to ``total`` units; nothing unless ``enabled``."""

    _running: ClassVar[RichProgress | None] = None

    def __init__(self, label: str, total: int, *, start: int = 0, unit: str = "", enabled: bool = True) -> None:
        self.label = label
        self.total = total
        self.start = self.done = start
        self.unit = unit
        self.enabled = enabled
        self._began = self._last_line = time.monotonic()
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
        )
        self._outer = Progress._running  # a terminal has one live display: a bar within another is a line of it
        shown = console.is_terminal and enabled
        self._bar = (self._outer or RichProgress(*columns, console=console)) if shown else None
        self._task = self._bar.add_task(label, total=total, completed=start, facts="") if self._bar else None

    def advance(self, count: int = 1, facts: str = "") -> None:
        """``count`` more units are done; ``facts`` is shown behind the bar."""
        self.done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, facts=facts)
            return
        now = time.monotonic()
        if self.enabled and (now - self._last_line >= SECONDS_BETWEEN_LINES or self.done >= self.total):
            self._last_line = now
            seconds = (self.total - self.done) / max(1e-9, self.rate())
            left = f"{seconds / 60:.1f} min left" if seconds >= 1 else ""
            text = f"{self.label} {self.done}/{self.total}{self.unit}  {facts}  {left}"
            print(text.rstrip(), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Print a line that stays above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self.enabled:
            print(text, file=sys.stderr, flush=True)

    def rate(self, fresh: int = 0) -> float:
        """Units per second in this run, with ``fresh`` more that are not counted yet."""
        return (self.done + fresh - self.start) / max(1e-9, time.monotonic() - self._began)

    def __enter__(self) -> Progress:
        if self._bar is not None and self._outer is None:
            self._bar.start()
            Progress._running = self._bar
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is None or self._task is None:
            return
        if self._outer is not None:
            self._bar.remove_task(self._task)
            return
        Progress._running = None
        self._bar.stop()
