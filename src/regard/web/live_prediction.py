"""The gate before the model: one request at a time. PyTorch is not imported: who labels points needs none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_WAITING = 32
BURST, PER_SECOND = 200, 20.0
POLL = 0.2  # seconds between checks that the client is still connected
Connected = Callable[[], bool]


class Busy(Exception):
    """Too many requests wait, or came in a short time."""


class Disconnected(Exception):
    """The client has disconnected."""


class Gate:
    """One request at a time for the model: a limit of waiting requests, and a token bucket against floods."""

    def __init__(self, *, waiting: int = MOST_WAITING, burst: int = BURST, per_second: float = PER_SECOND) -> None:
        self.most_waiting, self.burst, self.per_second = waiting, burst, per_second
        self._waiting, self._left, self._seen = 0, float(burst), time.monotonic()
        self._counting, self._worker = threading.Lock(), threading.Lock()

    @contextmanager
    def turn(self, connected: Connected) -> Iterator[None]:
        """Wait for the model.

        Raises:
            Busy, Disconnected: too many requests, or ``connected`` says that the client has gone.
        """
        self._enter()
        try:
            while not self._worker.acquire(timeout=POLL):
                if not connected():
                    raise Disconnected
            try:
                yield
            finally:
                self._worker.release()
        finally:
            with self._counting:
                self._waiting -= 1

    def _enter(self) -> None:
        with self._counting:
            now = time.monotonic()
            self._left = min(self.burst, self._left + (now - self._seen) * self.per_second)
            self._seen = now
            if self._waiting >= self.most_waiting or self._left < 1:
                raise Busy
            self._left -= 1
            self._waiting += 1
