"""Files that stand under their final name only when they are complete."""

from __future__ import annotations

import errno
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from regard.errors import OutputError

Writer = TypeVar("Writer", bound="FileWriter")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_writable(path: Path) -> None:
    """Make the folder of ``path`` and try to write there, before any work is done.

    Raises:
        OutputError: it cannot be made or written to, or ``path`` is a folder.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder. Give the name of a file.")
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's refusal to write into one line of ours."""
    try:
        yield
    except OSError as error:
        reason = "it is a file, not a folder" if folder.is_file() else error.strerror
        advice = "Make room, then go on" if error.errno in FULL else "Choose a folder that you can write to"
        raise OutputError(f"cannot write to {folder} ({reason}). {advice}.") from None


def write_text(path: Path, text: str) -> Path:
    """:func:`write_bytes` of a text in UTF-8."""
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview) -> Path:
    """Write a file whole, or leave what is there, and return ``path``.

    Raises:
        OutputError: the disk is full or gone.
    """
    part = path.with_name(f".{path.name}.part")
    with writing(path.parent):
        try:
            part.write_bytes(content)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return path


class FileWriter:
    """Leaving the ``with`` block without an error publishes ``path``; what is unfinished is deleted in any case.

    Unfinished files begin with the name ``_unfinished``, which is hidden and of this writer alone. They lie in
    ``scratch``, a folder on the same disk, or beside ``path``.
    """

    def __init__(self, path: Path, scratch: Path | None = None) -> None:
        check_writable(path)
        self.path = path
        self._unfinished = (scratch or path.parent) / f".{path.name}.{secrets.token_hex(4)}"

    def _publish(self) -> None:
        """Finish the file and move it to its name."""
        raise NotImplementedError

    def _close(self) -> None:
        """Let go of what is open."""

    def _failed(self, reason: object) -> OutputError:
        text = " ".join(str(reason).split())[:120]
        return OutputError(f"cannot write {self.path} ({text}). Is the disk full? Nothing was left behind.")

    def __enter__(self: Writer) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self._close()
            for left in self._unfinished.parent.glob(f"{glob.escape(self._unfinished.name)}.*"):
                left.unlink(missing_ok=True)
