"""Trials of mutants: each one in a forked process that has the libraries loaded and sees a changed copy of the source.

A trial never touches the working tree. It is limited in CPU time, so a mutant that runs for ever is noticed whatever
else the machine does.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.lists import ROOT, Mutant

FAST, SLOW = "not slow and not gpu", "slow and not gpu"
CPU_SECONDS = 180
NOTHING_RAN, CANNOT_RUN = 5, (2, 3, 4)  # exit codes of pytest


@dataclass(frozen=True)
class Outcome:
    """What pytest said of a mutant, or of the unchanged source where there is no mutant."""

    mutant: Mutant | None
    code: int  # the exit code of pytest; negative: the signal that ended it
    output: str
    seconds: float

    @property
    def is_killed(self) -> bool:
        return self.code not in (0, NOTHING_RAN, *CANNOT_RUN)

    @property
    def is_broken(self) -> bool:
        """The tests could not begin: a mutant that cannot be imported says nothing about them."""
        return self.code in CANNOT_RUN

    @property
    def noticed_by(self) -> str:
        """The first test that failed."""
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", self.output, re.MULTILINE)
        return found[1] if found else "" if self.code >= 0 else f"signal {-self.code}"


@dataclass(frozen=True)
class Trial:
    """Tests to be run on a mutant, or on the unchanged source."""

    mutant: Mutant | None
    tests: tuple[str, ...]
    marker: str = FAST


def load_libraries() -> None:
    """What every trial needs, loaded before the first fork; nothing of regard."""
    import torchvision  # noqa: F401


def try_all(trials: Sequence[Trial], folder: Path, *, jobs: int = 1) -> Iterator[Outcome]:
    """The outcomes, each when its trial has ended; ``folder`` takes a copy of the source for each job."""
    copies = [folder / f"source{job}" for job in range(jobs)]
    for copy in copies:
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    waiting, running = list(reversed(trials)), dict[int, tuple[Trial, Path, float]]()
    age = int(time.time()) - 10**8
    while waiting or running:
        while waiting and copies:
            trial, copy, age = waiting.pop(), copies.pop(), age + 1
            _change(copy, trial.mutant, age)
            running[_fork(copy, trial)] = trial, copy, time.monotonic()
        pid, status = os.wait()
        trial, copy, begun = running.pop(pid)
        output = _log(copy).read_text(encoding="utf-8", errors="replace")
        yield Outcome(trial.mutant, os.waitstatus_to_exitcode(status), output, time.monotonic() - begun)
        _restore(copy, trial.mutant)
        copies.append(copy)


def _change(copy: Path, mutant: Mutant | None, age: int) -> None:
    """Write the mutant into the copy. Its time of change is new, so that Python compiles it again."""
    if mutant is not None:
        path = copy / "regard" / mutant.file
        path.write_text(mutant.text(copy / "regard"), encoding="utf-8")
        os.utime(path, (age, age))


def _restore(copy: Path, mutant: Mutant | None) -> None:
    if mutant is not None:
        shutil.copy2(ROOT / "src" / "regard" / mutant.file, copy / "regard" / mutant.file)


def _log(copy: Path) -> Path:
    return copy.with_suffix(".log")


def _fork(copy: Path, trial: Trial) -> int:
    """The process that runs the trial."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = CANNOT_RUN[0]
        try:
            code = _run(copy, trial)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return pid


def _run(copy: Path, trial: Trial) -> int:
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with _log(copy).open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ["PYTHONPATH"] = f"{copy}{os.pathsep}{ROOT}"  # of the commands that tests start
    sys.path.insert(0, str(copy))
    os.chdir(ROOT)
    loaded = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
    return int(pytest.main(["-x", "-p", "no:cacheprovider", "-W", loaded, "-m", trial.marker, *trial.tests]))
