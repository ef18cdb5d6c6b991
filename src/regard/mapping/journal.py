"""The finished parts of a map, kept in a hidden folder next to it, so that a killed run resumes where it stopped."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped

from regard.errors import OutputError
from regard.files import hidden_name, json_of, replacing
from regard.locks import lock_alone, taken_lock

READ_AT_ONCE = 2**20  # bytes
DTYPES = ("uint8", "uint16")
CONTEXT = "context.safetensors"  # what a map knows of its whole scene, see scene_context


def key_of(facts: Mapping[str, Any]) -> str:
    """SHA-256 of facts that JSON can write."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def journal_folder(target: Path) -> Path:
    """The hidden folder of a map's finished parts, next to the map."""
    return target.with_name(f".{hidden_name(target)}.parts")


class Journal:
    """Parts by number, each with one array per layer. A part counts once its line, with the sums of its files, is
    written and synced; what another job left in the folder is thrown away, and parts without one of ``layers``.

    Leaving the ``with`` block keeps the parts if the run was interrupted or the disk was full, else deletes them.
    """

    def __init__(self, target: Path, job: Mapping[str, Any], layers: Iterable[str] = ()) -> None:
        self.target, self.layers = target, set(layers)
        self.folder = journal_folder(target)
        self.key = key_of(job)
        self._lines: list[dict[str, Any]] = []
        self._lock: IO[str] | None = None

    def __enter__(self) -> Journal:
        with self._reporting():
            self._lock = taken_lock(self.folder / "lock", self._take)
            self._lines = self._intact() if self.is_begun() else []
            self._clear()
        return self

    @property
    def done(self) -> int:
        """How many parts, from the first on, are finished."""
        return len(self._lines)

    def keep(self, pieces: Iterable[Mapping[str, Shaped[np.ndarray, "h w"]]]) -> None:
        """Store the next part, piece by piece from top to bottom; for good when this returns.

        Raises:
            OutputError: the disk is full.
        """
        line: dict[str, Any] = {"part": self.done}
        with self._reporting():
            with ExitStack() as stack:
                files: dict[str, gzip.GzipFile] = {}
                for piece in pieces:
                    for name, values in piece.items():
                        if name not in files:
                            files[name] = stack.enter_context(gzip.open(self._file(self.done, name), "wb", 1))
                            line[name] = {"rows": 0, "width": values.shape[1], "dtype": str(values.dtype)}
                        line[name]["rows"] += len(values)
                        files[name].write(np.ascontiguousarray(values).data)
            for name in files:
                line[name]["sha256"] = _sum_synced(self._file(self.done, name))
            with (self.folder / "journal.jsonl").open("a") as journal:
                journal.write(json.dumps(line) + "\n")
                journal.flush()
                os.fsync(journal.fileno())
        self._lines.append(line)

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise an OutputError unless the parts together have so many rows and columns."""
        for name in self.layers:
            if size != (sum(line[name]["rows"] for line in self._lines), self._lines[0][name]["width"]):
                raise OutputError(f"the parts in {self.folder} are not of {self.target}. Delete them, then try again.")

    def rows(self, name: str, at_once: int) -> Iterator[Shaped[np.ndarray, "h w"]]:
        """One layer of all parts from top to bottom, ``at_once`` rows at a time, each over the one before in memory."""
        width, dtype = self._lines[0][name]["width"], np.dtype(self._lines[0][name]["dtype"])
        rows, filled = np.empty((at_once, width), dtype), 0
        memory = rows.data.cast("B")
        for number in range(self.done):
            with gzip.open(self._file(number, name)) as file:
                while fresh := file.read(min(READ_AT_ONCE, len(memory) - filled)):
                    memory[filled : filled + len(fresh)] = fresh
                    filled += len(fresh)
                    if filled == len(memory):
                        yield rows
                        filled = 0
        if filled:
            yield rows[: filled // (width * dtype.itemsize)]

    def _file(self, number: int, name: str) -> Path:
        return self.folder / f"{number:06d}.{name}.gz"

    def _take(self, lock: IO[str]) -> None:
        lock_alone(lock, f"another run is making {self.target}. Wait until it is done, or choose another name.")

    def is_begun(self) -> bool:
        """Whether a run of this very job has been here, and has not ended."""
        try:
            return (self.folder / "key").read_bytes() == self.key.encode()
        except OSError:
            return False

    def _intact(self) -> list[dict[str, Any]]:
        """The lines of the finished parts, up to the first that is torn or whose files are not what was written."""
        lines: list[dict[str, Any]] = []
        journal = self.folder / "journal.jsonl"
        for text in journal.read_bytes().splitlines() if journal.is_file() else ():
            try:
                line = json_of(text)
                names = line.keys() - {"part"}
                intact = [self._is_intact(len(lines), name, line[name], [*lines, line][0][name]) for name in names]
            except (ValueError, OSError, TypeError, AttributeError, LookupError, EOFError, zlib.error):
                break
            if not (all(intact) and self.layers <= names):
                break
            lines.append(line)
        return lines

    def _is_intact(self, number: int, name: str, about: dict[str, Any], first: dict[str, Any]) -> bool:
        """Whether a part's file of a layer is what its line says, in columns and numbers as the first part's."""
        path, length = self._file(number, name), 0
        if not (name.isidentifier() and about["dtype"] in DTYPES and about["sha256"] == _sum_synced(path)):
            return False
        with gzip.open(path) as file:
            while fresh := len(file.read(READ_AT_ONCE)):
                length += fresh
        alike = about["width"] == first["width"] and about["dtype"] == first["dtype"]
        alike &= isinstance(about["rows"], int) and isinstance(about["width"], int)  # a text, times a number, is long
        return alike and length == about["rows"] * about["width"] * np.dtype(about["dtype"]).itemsize > 0

    def _clear(self) -> None:
        """Leave nothing in the folder but the lock, the key and the finished parts."""
        known = {"lock", "key", "journal.jsonl", *([CONTEXT] if self.is_begun() else [])} | {
            self._file(number, name).name for number, line in enumerate(self._lines) for name in line
        }
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in known:
                path.unlink()
        for name, text in (
            ("journal.jsonl", "".join(json.dumps(line) + "\n" for line in self._lines)),
            ("key", self.key),
        ):
            with replacing(self.folder / name, sync=True) as part:
                part.write_bytes(text.encode())

    def _remove(self) -> None:
        """Delete the folder, the lock at last: a run that waits for it must not begin among what is being deleted."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.name != "lock":
                    path.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn the system's errors into one line of ours."""
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot write {self.target} ({error.strerror}). Make room and run the same again: "
                f"{self.done} finished parts are kept."
            ) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupted = kind is not None and (issubclass(kind, OutputError) or not issubclass(kind, Exception))
        if not (interrupted and (self.done or (self.folder / CONTEXT).exists())):
            self._remove()
        if self._lock is not None:
            with suppress(OSError):
                self._lock.close()


def _sum_synced(path: Path) -> str:
    """SHA-256 of a file that is on the disk for good when this returns."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
