"""One command with a fault in one of its writes: what then lies on the disk, and what the same command makes of it."""

from __future__ import annotations

import ctypes
import errno
import gc
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from regard.cli import main
from tests.faults.write_jobs import JOBS, stated

OPEN, WRITE, SYNC, CLOSE, RENAME, UNLINK, MKDIR, SIZE, MODE = (1 << place for place in range(9))
ALL = 511
ONCE, FROM_THEN_ON, SHORT, SHORT_THEN_FULL, LOST, KILL, VANISH, WAIT, PAUSE = range(1, 10)


class Fault(NamedTuple):
    """What happens at the k-th of some calls."""

    kind: int
    error: int
    calls: int
    words: str


FAULTS = {
    "killed": Fault(KILL, 0, ALL, "SIGKILL, as the OOM killer sends it, before the call"),
    "full": Fault(SHORT_THEN_FULL, errno.ENOSPC, OPEN | WRITE | MKDIR | SIZE, "half is written, then ENOSPC for good"),
    "full once": Fault(ONCE, errno.ENOSPC, OPEN | WRITE | MKDIR | SIZE | RENAME, "ENOSPC, then room again"),
    "quota": Fault(LOST, errno.EDQUOT, SYNC | CLOSE, "EDQUOT at fsync or close, and what was written is cut in half"),
    "EIO": Fault(ONCE, errno.EIO, ALL, "EIO, once"),
    "read-only": Fault(FROM_THEN_ON, errno.EROFS, ALL, "EROFS for good"),
    "short": Fault(SHORT, 0, WRITE, "only half is written, which is no error"),
    "two runs": Fault(WAIT, 0, ALL, "another run of the same at the same time, each call after a random while"),
    "unmounted": Fault(VANISH, 0, ALL, "the disk is gone; its mount point stays, and it is mounted again later"),
}
PAIRS = 10  # of runs at the same time
OF_LIBRARIES = re.compile(r"ERROR \d+: |_?tiff|TIFF", re.IGNORECASE)  # what GDAL and libtiff say by themselves
RANDOM = re.compile(r"[0-9a-f]{8}(?=\.)")  # what makes the name of an unfinished file its run's own
NO_FAULT = Fault(ONCE, 0, ALL, "")


@dataclass
class Tally:
    """What was seen of one job and one fault."""

    points: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)  # complete files: old, new, none, mixed
    torn: list[str] = field(default_factory=list)  # files that are neither the old nor the new
    lost: list[str] = field(default_factory=list)  # runs after which the same command did not finish alike
    unclear: list[str] = field(default_factory=list)  # errors that are not one line of ours, false successes
    left: list[str] = field(default_factory=list)  # unfinished files that stay

    @property
    def faults(self) -> list[str]:
        return [*self.torn, *self.lost, *self.unclear, *self.left]

    def row(self) -> dict[str, Any]:
        """As JSON."""
        named = {name: len(getattr(self, name)) for name in ("torn", "lost", "unclear", "left")}
        return {"points": self.points, **self.outcomes, **named}


class Ended(NamedTuple):
    """A run that ended: its exit code (below 0: the signal), what it said, and the calls that it made."""

    code: int
    said: str
    calls: list[list[str]]


class Disk:
    """A folder ``disk`` next to ``inputs``, and the processes that write there."""

    def __init__(self, root: Path) -> None:
        self.root, self.disk = root, root / "disk"
        self.library = ctypes.CDLL(None)
        self.library.faults_plan.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]

    def run(self, arguments: list[str], fault: Fault = NO_FAULT, at: int = 0, *, names: bool = False) -> Ended:
        """Run a command in a child of this process; with ``at``, the fault happens at its call of that number.

        With ``names`` it says at its end what modules it has imported.
        """
        return self.end(*self.start(arguments, fault, at, names=names))

    def start(self, arguments: list[str], fault: Fault, at: int, *, names: bool = False) -> tuple[int, Path, Path]:
        """Begin such a run."""
        said, log = (Path(tempfile.mkstemp(dir=self.root, suffix=suffix)[1]) for suffix in (".said", ".log"))
        child = os.fork()
        if child == 0:
            try:
                code = self._command(arguments, fault, at, said, log)
                if names:
                    said.write_text("\n".join(sys.modules))
                os._exit(code)
            finally:
                os._exit(99)
        return child, said, log

    def paused(self, arguments: list[str]) -> Iterator[str]:
        """An undisturbed run that waits before each of its calls: the name that the call before it gave, or none."""
        child, said, log = self.start(arguments, Fault(PAUSE, 0, ALL, ""), 1)
        while os.WIFSTOPPED(status := os.waitpid(child, os.WUNTRACED)[1]):
            calls = [line.split("\t") for line in log.read_text().splitlines()]
            *_, before, _ = [("", "")] + [(call, path) for number, call, path, _ in calls if int(number)]
            yield before[1].lstrip("/") if before[0] == "rename" else ""
            os.kill(child, signal.SIGCONT)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{' '.join(arguments)}: {said.read_text()}")
        said.unlink()
        log.unlink()

    def end(self, child: int, said: Path, log: Path) -> Ended:
        """Wait for it."""
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        calls = [line.split("\t") for line in log.read_text().splitlines()]
        ended = Ended(code, said.read_text(), calls)
        said.unlink()
        log.unlink()
        return ended

    def _command(self, arguments: list[str], fault: Fault, at: int, said: Path, log: Path) -> int:
        os.dup2(os.open(said, os.O_WRONLY), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.chdir(self.root)
        self.library.faults_plan(fault.kind, fault.error, fault.calls, at)
        self.library.faults_watch(os.fsencode(self.disk), os.open(log, os.O_WRONLY))
        code = 98
        try:
            main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        gc.collect()
        sys.stderr.flush()
        return code

    def clear(self, content: Path | None = None) -> None:
        """An empty disk, or one that holds what ``content`` does."""
        for name in ("disk", "disk.gone"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        shutil.copytree(content, self.disk) if content else self.disk.mkdir()

    def mount(self) -> None:
        """Where the disk was gone: have it again."""
        if (gone := self.root / "disk.gone").exists():
            shutil.rmtree(self.disk)
            gone.rename(self.disk)


class Trial:
    """One job with a disk that is empty, or holds ``old`` files of the same names."""

    def __init__(self, disk: Disk, name: str, *, old: bool) -> None:
        self.disk, self.job = disk, JOBS[name]
        self.arguments = self.job.arguments(replacing=old)
        self.before = disk.root / f"{name}.old" if old else None
        self.old: dict[str, bytes] = {}
        if self.before is not None:
            disk.clear()
            self._succeed(self.job.arguments(old=True))
            self.old = self.seen()[0]
            shutil.copytree(disk.disk, self.before)
        disk.clear(self.before)
        self.calls = self._succeed(self.arguments).calls
        self.new = self.seen()[0]
        self._account()
        self.kept = Path(tempfile.mkdtemp(dir=disk.root))
        self.states, self.versions = self._paused()
        self._as_killed(len(self.states) // 2)
        self.finishes: dict[bytes, str] = {}  # what becomes of the states in which runs left the disk

    def _succeed(self, arguments: list[str]) -> Ended:
        ended = self.disk.run(arguments)
        if ended.code:
            raise SystemExit(f"{' '.join(arguments)}: {ended.said}")
        return ended

    def _account(self) -> None:
        """Is every byte of every file among the calls? Else a library writes where faults do not reach."""
        written, moved = Counter[str](), ""
        for _, call, path, size in self.calls:
            written[path] += int(size)
            if call == "from":
                moved = path
            elif call.startswith("rename"):
                written[path] = written.pop(moved, 0)
        for name in self.new:
            if written[f"/{name}"] < (size := (self.disk.disk / name).stat().st_size):
                raise SystemExit(f"{name} has {size} bytes, of which {written[f'/{name}']} were seen to be written")

    def _paused(self) -> tuple[list[Path], dict[str, set[bytes]]]:
        """A run that is stopped before each of its calls: how the disk is then, and all that it puts under each name.

        Files are renamed when they are complete: of a training, the models of all its steps.
        """
        known = {name: {content} for name, content in self.new.items()}
        for name, content in self.old.items():
            known.setdefault(name, set()).add(content)
        states: dict[bytes, Path] = {}
        found: list[Path] = []
        self.disk.clear(self.before)
        for name in self.disk.paused(self.arguments):
            key = self._state()
            if key not in states:
                states[key] = Path(shutil.copytree(self.disk.disk, self.kept / str(len(found))))
            found.append(states[key])
            if name in known:
                known[name].add(self.seen()[0][name])
        return found, known

    def _as_killed(self, at: int) -> None:
        """Is what SIGKILL leaves what the paused run had there? ``killed`` takes it from that."""
        self.disk.clear(self.states[at])
        paused = self._state()
        self.disk.clear(self.before)
        self.disk.run(self.arguments, FAULTS["killed"], at + 1)
        if self._state() != paused:
            raise SystemExit(f"{self.job.words}: a run that is killed at its call {at + 1} leaves the disk otherwise")

    def seen(self) -> tuple[dict[str, bytes], list[str]]:
        """What lies under final names, and the names of what is unfinished."""
        folder = self.disk.disk
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        hidden = [name for name in files if any(part.startswith(".") for part in Path(name).parts)]
        return {name: stated(path) for name, path in files.items() if name not in hidden}, hidden

    def _state(self) -> bytes:
        """A digest of all that the next run can see: names, contents, and which files are older than which raster.

        Of what is unfinished that is its name: no run reads it.
        """
        paths = sorted(self.disk.disk.rglob("*"), key=lambda path: RANDOM.sub("", str(path)))
        rasters = [path.stat().st_mtime_ns for path in paths if path.suffix == ".tif"]
        about = [
            (
                RANDOM.sub("", str(path)),
                hashlib.sha256(stated(path)).digest() if path.is_file() and ".part" not in path.name else b"",
                [path.stat().st_mtime_ns < made for made in rasters],
            )
            for path in paths
        ]
        return hashlib.sha256(repr(about).encode()).digest()

    def points(self, fault: Fault) -> int:
        """How many calls of an undisturbed run the fault can happen at; of two runs, how many pairs there are."""
        if fault.kind == WAIT:
            return PAIRS
        if fault.kind == KILL:
            return len(self.states)
        return sum(1 for number, *_ in self.calls if int(number)) if fault.calls == ALL else self._counted(fault)

    def _counted(self, fault: Fault) -> int:
        self.disk.clear(self.before)
        calls = self.disk.run(self.arguments, fault, 0).calls
        return max((int(number) for number, *_ in calls), default=0)

    def race(self, fault: Fault, number: int, tally: Tally) -> None:
        """Run twice at once, on a disk that is slow at random: one run finishes, the other too, or it gives way."""
        self.disk.clear(self.before)
        started = [self.disk.start(self.arguments, fault, 2 * number + one) for one in (0, 1)]
        ended = [self.disk.end(*one) for one in started]
        found, hidden = self.seen()
        tally.points += 1
        tally.outcomes[self._outcome(found)] += 1
        self._judge_files(tally, str(number), found)
        busy = [one for one in ended if one.code == 1 and "another run is" in one.said]
        if sum(one.code == 0 for one in ended) + len(busy) < 2 or len(busy) == 2:
            tally.unclear.append(f"{number}: {[(one.code, one.said) for one in ended]}")
        if hidden:
            tally.left.append(f"{number}: {hidden}")

    def disturb(self, fault: Fault, at: int, tally: Tally) -> None:
        """Run with the fault at one call, then run again, and judge both."""
        if fault.kind == WAIT:
            return self.race(fault, at, tally)
        if fault.kind == KILL:  # what it leaves is what there is before the call
            self.disk.clear(self.states[at - 1])
            ended = Ended(-signal.SIGKILL, "", self.calls)
        else:
            self.disk.clear(self.before)
            ended = self.disk.run(self.arguments, fault, at)
        call = next((f"{call} {path}" for number, call, path, _ in ended.calls if number == str(at)), "?")
        where = f"{at} ({call.strip()})"
        if fault.kind == VANISH:
            self._judge_files(tally, f"{where}, at the mount point", self.seen()[0])
            self.disk.mount()
        found, hidden = self.seen()
        tally.points += 1
        tally.outcomes[self._outcome(found)] += 1
        self._judge_files(tally, where, found)
        self._judge_end(tally, where, fault, ended, found, hidden)
        if found == self.new and not hidden:
            return  # nothing is left to do
        if (state := self._state()) not in self.finishes:
            self.finishes[state] = self._again(is_complete=found == self.new)
        if said := self.finishes[state]:
            tally.lost.append(f"{where}: {said}")

    def _again(self, *, is_complete: bool) -> str:
        """Give the same command once more; what is wrong then. Files that are complete it may refuse to replace."""
        again = self.disk.run(self.arguments)
        failed = again.code and not (is_complete and "already exists" in again.said)
        found, hidden = self.seen()
        differing = [name for name in self.new.keys() | found.keys() if self.new.get(name) != found.get(name)]
        return f"{again.code} {again.said.strip()} {differing} {hidden}" if failed or differing or hidden else ""

    def _outcome(self, found: dict[str, bytes]) -> str:
        kinds = {
            "new" if found.get(name) == content else "old" if found.get(name) == self.old.get(name) else "other"
            for name, content in self.new.items()
            if content != self.old.get(name)
        }
        kind = kinds.pop() if len(kinds) == 1 else "mixed"
        return "none" if kind == "old" and not self.old else kind

    def _judge_files(self, tally: Tally, where: str, found: dict[str, bytes]) -> None:
        for name, content in found.items():
            growing = Path(name).name in self.job.growing and self.new[name].startswith(content)
            if content not in self.versions.get(name, ()) and not growing and not self._tells(name, content):
                tally.torn.append(f"{where}: {name}, {len(content)} bytes")

    def _tells(self, name: str, content: bytes) -> bool:
        """Whether a file says of every source either what an undisturbed run says, or why there is no map of it."""
        if name != self.job.results:
            return False
        lines, whole = content.splitlines(), self.new[name].splitlines()
        pairs = [(json.loads(line), json.loads(right)) for line, right in zip(lines, whole, strict=False)]
        told = [one == right or (one["failed"] and one["source"] == right["source"]) for one, right in pairs]
        return len(lines) == len(whole) and all(told) and content.endswith(b"\n")

    def _judge_end(
        self, tally: Tally, where: str, fault: Fault, ended: Ended, found: dict[str, bytes], hidden: list[str]
    ) -> None:
        lines = [line for line in ended.said.splitlines() if line.strip() and not OF_LIBRARIES.match(line)]
        if fault.kind == KILL:
            if ended.code != -signal.SIGKILL:
                tally.unclear.append(f"{where}: not killed, but {ended.code}: {ended.said}")
            return
        plain = len(lines) == 1 and "This is a bug" not in lines[0]
        if ended.code not in (0, 1) or (ended.code == 1 and not plain):
            tally.unclear.append(f"{where}: {ended.code}: {ended.said.strip()}")
        if ended.code == 0 and (lines or (fault.kind != VANISH and found != self.new)):
            tally.unclear.append(f"{where}: said to have succeeded: {ended.said.strip()}")
        kept = [name for name in hidden if ".parts/" not in name]
        for_good = fault.kind == FROM_THEN_ON or "unlink" in where or "rmdir" in where or fault.kind == VANISH
        if (kept or (hidden and ended.code == 0)) and not for_good:
            tally.left.append(f"{where}: {kept or hidden}")
