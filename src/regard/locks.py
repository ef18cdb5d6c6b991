"""Locks that tell runs of each other: of a folder that is written to, and of a file that one run alone holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from regard.errors import OutputBusy

try:
    import fcntl
except ImportError:  # no such locks on Windows: two runs of one job are not kept apart there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold a lock of a folder with all others that write there, or ``alone``; an OSError where it cannot be had."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        if fcntl is None:
            raise OSError
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def lock_alone(lock: IO[str], busy: str, *, of_process: bool = False) -> None:
    """Lock an open file for this run alone; child processes have the lock too, unless it is ``of_process``.

    Raises:
        OutputBusy: another run has it, with ``busy`` as the message.
    """
    if fcntl is None:
        return
    try:
        (fcntl.lockf if of_process else fcntl.flock)(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputBusy(busy) from None


def taken_lock(path: Path, take: Callable[[IO[str]], object]) -> IO[str]:
    """A lock file that ``take`` locked, ours alone; it is made again where a run that just ended deleted it."""
    while True:
        path.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError), ExitStack() as stack:
            lock = stack.enter_context(path.open("w"))
            take(lock)
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
                stack.pop_all()
                return lock
