"""A training that is told to end: by Ctrl-C, SIGTERM, or SIGUSR1, which batch systems send ahead of the time limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from regard.data.loader import ENDING


class Told(Exception):
    """A signal came in the midst of what may be left out."""


class Stopping:
    """The first signal that told this process to end, in place of what signals do; a second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self.told: signal.Signals | None = None
        self._may_leave = False

    def listen(self) -> None:
        """From here on; Lightning, whose own handlers this replaces, brings back those from before it when it ends."""
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        if self.told is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.told = self.told or signal.Signals(number)
        if self._may_leave:
            raise Told

    @contextmanager
    def leaving(self, *, allowed: bool) -> Iterator[None]:
        """Leave the ``with`` block as soon as a signal comes, or has come, if ``allowed``.

        Raises:
            Told: it was left.
        """
        if allowed and self.told is not None:
            raise Told
        self._may_leave = allowed
        try:
            yield
        finally:
            self._may_leave = False
