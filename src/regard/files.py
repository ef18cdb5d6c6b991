"""Files that stand under their final name only when they are complete: the one place of atomic writing; and digests."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from regard.errors import OutputError
from regard.locks import locked

Writer = TypeVar("Writer", bound="FileWriter")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PLAIN = re.compile(r"[\w .()\[\]+=,@~-]+")  # names that every library opens as files
OF_ANOTHER_JOB = " and was made from another source or model, or with other settings or other output files"
LONGEST = 180  # bytes of such a name: a file system takes 255, and hidden names are longer
_IN_USE: set[Path] = set()  # folders of runs


def can_exist(path: Path) -> bool:
    """Whether the system can have a file of such a name: without null characters or half characters (surrogates)."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def checked_name(path: Path) -> Path:
    """The path itself; an OutputError where the system cannot have a file of such a name."""
    if not can_exist(path):
        raise OutputError(f"no file can be named {str(path)!a}: a null or half character. Choose another name.")
    return path


def check_writable(path: Path) -> None:
    """Make the folder of ``path`` and try to write there, before any work is done; an OutputError if it fails.

    What killed runs left unfinished of ``path`` is deleted, if nothing is being written in its folder.
    """
    probe = _hidden(path)
    with writing(path.parent):
        if path.parent.absolute() not in _IN_USE:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():  # fails where the name is too long
            raise OutputError(f"{path} is a folder. Give the name of a file.")
        probe.touch()
        probe.unlink(missing_ok=True)  # another run that begins here sweeps what it finds
        with suppress(OSError), locked(path.parent, alone=True):
            sweep(path)


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Meanwhile this folder is not made again: where it is gone, its disk is, and what is at its place is another's."""
    _IN_USE.add(folder.absolute())
    try:
        yield
    finally:
        _IN_USE.discard(folder.absolute())


def check_targets(files: Sequence[Path], sources: Sequence[Path]) -> None:
    """Check before any work is done that ``files`` can be made of ``sources``.

    Raises:
        OutputError: one is a source or stands twice, or its folder cannot be written to.
    """
    resolved = [checked_name(path).resolve() for path in files]
    taken = [source for source in sources if can_exist(source) and source.resolve() in resolved]
    if taken:
        raise OutputError(f"{taken[0]} is the input itself. Choose another name for the map.")
    if len(set(resolved)) < len(resolved):
        raise OutputError("two outputs have the same name. Choose another name for one of them.")
    for path in files:
        check_writable(path)


def refuse_to_replace(files: Sequence[Path], reason: str = OF_ANOTHER_JOB) -> None:
    """Refuse to replace files that exist.

    Raises:
        OutputError: one of them does.
    """
    existing = [path for path in files if path.exists()]
    if existing:
        raise OutputError(f"{existing[0]} already exists{reason}. Choose another name, or use `--overwrite`.")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's refusal to write into an OutputError of one line."""
    try:
        yield
    except OSError as error:
        reason = "it is a file, not a folder" if folder.is_file() else error.strerror
        advice = "Make room, then run it again" if error.errno in FULL else "Choose a folder that you can write to"
        advice = "Choose a shorter name" if error.errno == errno.ENAMETOOLONG else advice
        raise OutputError(f"cannot write to {folder} ({reason}). {advice}.") from None


@contextmanager
def replacing(path: Path, *, sync: bool = False, side: str | None = None) -> Iterator[Path]:
    """A hidden name next to ``path`` to write to, with its suffix; leaving without an error renames it to ``path``.

    With ``sync`` the content is on the disk before it is renamed. ``side`` is the suffix of a second file that the
    writer may leave next to the first: an old ``path`` never stands next to a new one. What is unfinished is deleted.
    """
    part = _hidden(path)
    with ExitStack() as after:
        with suppress(OSError):  # a file system without locks
            after.enter_context(locked(path.parent))
        for left in (part, *([] if side is None else [part.with_suffix(side)])):
            after.callback(unlink, left)
        yield part
        if sync:
            with part.open("r+b") as file:
                os.fsync(file.fileno())
        if side is not None and part.with_suffix(side).exists():
            path.unlink(missing_ok=True)
            os.replace(part.with_suffix(side), path.with_suffix(side))
        os.replace(part, path)


def unlink(path: Path) -> None:
    """Delete a file, if that can be done: a disk that fails must not hide why."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """:func:`write_bytes` of a text in UTF-8."""
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview) -> Path:
    """Write a file whole and return ``path``, in a folder that is made; or leave what is there, with an OutputError."""
    check_writable(path)
    with writing(path.parent), replacing(path) as part:
        part.write_bytes(content)
    return path


def sweep(path: Path) -> None:
    """Delete what killed runs left unfinished of ``path``; no other run may be writing it."""
    for left in path.parent.glob(f".{glob.escape(hidden_name(path))}.*part*"):
        if left.is_file():
            unlink(left)


def hidden_name(path: Path) -> str:
    """What hidden files of ``path`` are named by: its name, or its SHA-256 where that is long or has other characters
    than libraries expect in names of files.
    """
    name = os.fsencode(path.name)
    return path.name if PLAIN.fullmatch(path.name) and len(name) <= LONGEST else hashlib.sha256(name).hexdigest()[:32]


def _hidden(path: Path) -> Path:
    return checked_name(path).with_name(f".{hidden_name(path)}.{secrets.token_hex(4)}.part{path.suffix}")


def json_of(text: str | bytes) -> Any:
    """The value that a text in JSON says; a ValueError where it says none, or is nested deeper than Python reads."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(tensors: Mapping[str, Any]) -> str:
    """SHA-256 over names, types, shapes and bytes of a model's tensors, in the order of the names."""
    import torch

    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


class FileWriter:
    """Leaving the ``with`` block without an error publishes ``path``; what is unfinished is deleted in any case.

    Unfinished files begin with the name ``_unfinished``, which is hidden and of this writer alone. They lie in
    ``scratch``, a folder on the same disk, or next to ``path``.
    """

    def __init__(self, path: Path, scratch: Path | None = None) -> None:
        check_writable(path)
        self.path = path
        self._lock = ExitStack()
        self._unfinished = (scratch or path.parent) / f".{hidden_name(path)}.{secrets.token_hex(4)}"

    def _open(self) -> None:
        """Begin the unfinished file."""

    def _publish(self) -> None:
        """Finish the file and rename it."""
        raise NotImplementedError

    def _close(self) -> None:
        """Close what is open."""

    def _failed(self, reason: object) -> OutputError:
        text = " ".join(str(reason).split())[:120]
        return OutputError(f"cannot write {self.path} ({text}). Is the disk full? Nothing was left behind.")

    def __enter__(self: Writer) -> Writer:
        with suppress(OSError):  # a file system without locks
            self._lock.enter_context(locked(self.path.parent))
        try:
            self._open()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
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
                unlink(left)
            self._lock.close()
