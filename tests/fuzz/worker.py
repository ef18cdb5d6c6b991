"""Inputs read one after the other in a process of their own, which is watched for all that must not happen.

A hang or a crash ends that process alone: the system names the signal, and a new process takes the next input.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from regard.errors import LONGEST, RegardError

CPU_SECONDS, WALL_SECONDS = 10.0, 600.0  # for one input; the second is for one that sleeps, on a busy machine
MEMORY = 2 * 2**30  # bytes of the whole process, at its peak
ADDRESSES = 8 * 2**30  # bytes that may be asked for besides, so that one input cannot take the machine
SIGNALS = {signal.SIGPROF: "hang", signal.SIGALRM: "hang"}
RUNS = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "ctypes.dlopen")
WRITES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.symlink", "os.link")

Files = dict[str, bytes]  # by their names in the folder of one input


class Format(NamedTuple):
    """A kind of file: good ones, a way to spoil one, and how a user reads it.

    ``read`` gets the folder with the files in ``given``; what it makes goes to ``made``.
    """

    seeds: Callable[[], list[Files]]
    spoil: Callable[[Random, Files], Files]
    read: Callable[[Path], object]


class Verdict(NamedTuple):
    """What became of an input: ``accepted``, ``refused`` in words, or a violation, with its reason."""

    number: int
    kind: str
    reason: str = ""

    @property
    def place(self) -> str:
        """Where a violation comes from: one of each place is enough to read."""
        return f"{self.kind} {self.reason.split(' ')[-1]}"

    @property
    def is_violation(self) -> bool:
        return self.kind not in ("accepted", "refused")


@dataclass(frozen=True)
class Task:
    """One format with its good files, and the seed of all random choices."""

    name: str
    form: Format
    seeds: list[Files]
    seed: int

    def files(self, number: int) -> Files:
        """The files of one input: always the same for the same number; the first ones are good."""
        if number < len(self.seeds):
            return self.seeds[number]
        rng = Random(f"{self.name} {self.seed} {number}")
        return self.form.spoil(rng, dict(rng.choice(self.seeds)))


def verdicts(task: Task, numbers: range) -> Iterator[Verdict]:
    """What became of each input."""
    first = numbers.start
    while first < numbers.stop:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            for verdict in _of_one_process(task, range(first, numbers.stop), Path(folder)):
                first = verdict.number + 1
                yield verdict


def _of_one_process(task: Task, numbers: range, folder: Path) -> Iterator[Verdict]:
    """The verdicts until the process ends: after the last input, or after one that it did not survive."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        _work(task, numbers, folder, writes)
    os.close(writes)
    number = numbers.start
    with os.fdopen(reads) as lines:
        for line in lines:
            verdict = Verdict(*json.loads(line))
            number = verdict.number + 1
            yield verdict
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status and number < numbers.stop:
        reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        said = " ".join((folder / "stderr").read_text(errors="replace").split())[-300:]
        yield Verdict(number, SIGNALS.get(-status, "crash"), f"{reason} {said}")


def _work(task: Task, numbers: range, folder: Path, writes: int) -> None:
    """The process: read each input, write a line about it; a violation of memory ends it, so that the peak is new."""
    status = 1
    try:
        _prepare(folder)
        with os.fdopen(writes, "w") as lines:
            for number in numbers:
                verdict = judged(task, number, folder)
                lines.write(json.dumps(verdict) + "\n")
                lines.flush()
                if verdict.kind == "memory":
                    break
        status = 0
    finally:
        os._exit(status)


def _prepare(folder: Path) -> None:
    for name in ("given", "made", "scratch", "neighbour"):
        (folder / name).mkdir()
    (folder / "neighbour" / "kept.txt").write_text("as it was")
    os.chdir(folder / "made")
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "scratch")
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    errors = os.open(folder / "stderr", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(errors, 2)
    os.dup2(errors, 1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, used + ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_Watch(folder))


class _Watch:
    """Notes code that is run, and files that are written outside ``made`` and ``scratch``, as Python sees them."""

    seen: list[str] = []
    active = False

    def __init__(self, folder: Path) -> None:
        self.allowed = (str(folder / "made"), str(folder / "scratch"), os.devnull)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not _Watch.active:
            return
        if event.startswith(RUNS) and arguments != (None,):  # the process itself is no library that is loaded
            _Watch.seen.append(f"{event} {arguments!r:.200}")
        elif event in WRITES or (event == "open" and _is_written(arguments)):
            path = os.path.abspath(os.fsdecode(arguments[0])) if not isinstance(arguments[0], int) else ""
            if not path.startswith(self.allowed):
                _Watch.seen.append(f"{event} {path}")


def _is_written(arguments: tuple[object, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def judged(task: Task, number: int, folder: Path) -> Verdict:
    """Read one input and say what became of it."""
    files = task.files(number)
    put(files, folder)
    before = _listing(folder)
    _Watch.seen.clear()
    os.truncate(folder / "stderr", 0)
    for timer, seconds in ((signal.ITIMER_PROF, CPU_SECONDS), (signal.ITIMER_REAL, WALL_SECONDS)):
        signal.setitimer(timer, seconds)
    kind, reason = _read(task, folder)
    for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
        signal.setitimer(timer, 0)
    if _Watch.seen:
        kind, reason = "outside", _Watch.seen[0]
    elif changed := before ^ _listing(folder):
        kind, reason = "outside", f"{sorted(changed)[0]}"
    elif (peak := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) > MEMORY:
        kind, reason = "memory", f"{peak / 2**30:.1f} GiB"
    return Verdict(number, kind, reason)


def _read(task: Task, folder: Path) -> tuple[str, str]:
    _Watch.active = True
    try:
        task.form.read(folder)
    except RegardError as error:
        text = str(error)
        clear = text.isprintable() and 0 < len(text) <= LONGEST
        return ("refused", text) if clear else ("message", f"{type(error).__name__} {text!r:.300} ({len(text)})")
    except BaseException as error:
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        return "exception", f"{type(error).__name__}: {str(error)[:200]!r} {' '.join(where[-6:])}"
    finally:
        _Watch.active = False
    return "accepted", ""


def put(files: Files, folder: Path) -> None:
    """Write the files of one input, and nothing else, into ``given`` and ``made``."""
    for name in ("given", "made"):
        for path in (folder / name).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _listing(folder: Path) -> set[tuple[str, int, int]]:
    """All files that reading must leave as they are, with their sizes and times."""
    kept = [
        path for name in ("given", "neighbour", ".") for path in (folder / name).glob("*" if name == "." else "**/*")
    ]
    told = [(path, path.lstat()) for path in kept if path.name not in ("made", "scratch", "stderr")]
    return {(str(path), 0 if path.is_dir() else status.st_size, status.st_mtime_ns) for path, status in told}
