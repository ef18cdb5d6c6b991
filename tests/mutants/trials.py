"""Trials of mutants: each in a forked process that sees a changed copy of the source and has everything else loaded.

A trial never touches the working tree. It is limited in CPU time, so a mutant that runs for ever is noticed whatever
else the machine does. Mutants of one file are tried by one server, a process that has loaded the libraries and the
modules of regard that do not depend on this file; each trial is a fork of it.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tests.mutants.lists import ROOT, Mutant

FAST, SLOW = "not slow and not gpu and not nightly", "slow and not gpu and not nightly"
CPU_SECONDS = 180
NOTHING_RAN, CANNOT_RUN = 5, (2, 3, 4)  # exit codes of pytest
SHARED = (
    "regard.datasets.folder",
    "regard.checkpoints.file",
)  # with all that they import: what the tests' fixtures need


@dataclass(frozen=True)
class Outcome:
    """What pytest said of a mutant, or of the unchanged source where there is no mutant."""

    mutant: Mutant | None
    code: int  # the exit code of pytest; negative: the signal that ended it
    output: str
    seconds: float  # of CPU time

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
    for name in ("hypothesis", "lightning.pytorch", "pyogrio", "rasterio", "scipy.stats", "timm", "torchmetrics"):
        importlib.import_module(name)
    gc.freeze()


def try_all(trials: Sequence[Trial], folder: Path, *, jobs: int = 1) -> Iterator[Outcome]:
    """The outcomes, each when its trial has ended; ``folder`` takes a copy of the source for each file that changes."""
    groups = [list(group) for _, group in groupby(sorted(trials, key=file_of), file_of)]
    for first in range(0, len(groups), jobs):
        begun = enumerate(groups[first : first + jobs], start=first)
        for outcomes in [_server(group, folder / str(number)) for number, group in begun]:
            yield from outcomes


def file_of(trial: Trial) -> str:
    """The file that the mutant changes, if there is one."""
    return trial.mutant.file if trial.mutant else ""


def _server(trials: Sequence[Trial], folder: Path) -> Iterator[Outcome]:
    """The outcomes of one file's mutants, from a process of their own, which begins at once."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    reading, writing = os.pipe()
    pid = _fork(lambda: _serve(trials, source, writing))
    os.close(writing)
    return _received(reading, pid, len(trials))


def _received(reading: int, pid: int, count: int) -> Iterator[Outcome]:
    with os.fdopen(reading, "rb") as pipe:
        for _ in range(count):
            yield pickle.load(pipe)  # made by our own fork
    os.waitpid(pid, 0)


def _serve(trials: Sequence[Trial], source: Path, writing: int) -> int:
    os.environ["PYTHONPATH"] = f"{source}{os.pathsep}{ROOT}"  # of the commands that tests start
    sys.path.insert(0, str(source))
    os.chdir(ROOT)
    _load_unchanged(file_of(trials[0]))
    age = int(time.time()) - 10**8
    with os.fdopen(writing, "wb") as pipe:
        for trial in trials:
            age += 1
            pipe.write(pickle.dumps(_try(trial, source, age)))
            pipe.flush()
    return 0


def _load_unchanged(file: str) -> None:
    """The modules of regard that do not import ``file``, not even through others or by the package they lie in."""
    import grimp
    import jaxtyping

    changed = f"regard/{file}".removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    graph = grimp.build_graph("regard", cache_dir=None)
    for name in graph.modules - {"regard"}:
        package = name.rpartition(".")[0]
        if package != "regard":  # whose own file imports nothing
            graph.add_import(importer=name, imported=package)
    wanted = set(SHARED).union(*(graph.find_upstream_modules(name) for name in SHARED))
    if changed in graph.modules:
        left_out = {changed, *(graph.find_downstream_modules(changed) - {"regard"})}  # which imports by need
        wanted = {name for name in wanted if not {name, name.rpartition(".")[0]} & left_out}
    jaxtyping.install_import_hook("regard", "beartype.beartype")  # as the tests do
    for name in sorted(wanted):
        importlib.import_module(name)
    assert changed not in sys.modules, f"{changed} was loaded before it was changed"
    gc.freeze()


def _try(trial: Trial, source: Path, age: int) -> Outcome:
    mutant, log = trial.mutant, source.with_suffix(".log")
    if mutant is not None:  # its time of change is new, so that Python compiles it again
        path = source / "regard" / mutant.file
        path.write_text(mutant.text(), encoding="utf-8")
        os.utime(path, (age, age))
    _, status, used = os.wait4(_fork(lambda: _run(trial, log)), 0)
    output = log.read_text(encoding="utf-8", errors="replace")
    return Outcome(mutant, os.waitstatus_to_exitcode(status), output, used.ru_utime + used.ru_stime)


def _fork(function) -> int:
    """The process that runs a function, whose result is its exit code."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = CANNOT_RUN[0]
        try:
            code = function()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return pid


def _run(trial: Trial, log: Path) -> int:
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    loaded = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
    arguments = ["-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", loaded, "-m", trial.marker, *trial.tests]
    return int(pytest.main(arguments, plugins=[FirstFailure()]))


class FirstFailure:
    """A plugin of pytest: hypothesis stops at the first example that fails, and looks for no smaller one."""

    def pytest_collection(self) -> None:
        from hypothesis import Phase, settings

        profile, phases = settings.get_profile("regard"), (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", profile, phases=phases, report_multiple_bugs=False)
        settings.load_profile("mutants")
