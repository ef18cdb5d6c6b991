"""Let every single write of a command fail, in turn: is a file ever torn, or an answer lost?

    python -m tests.faults.writes [JOB ...] [--faults NAME,...] [--every K] [--save FILE]

A small C library, preloaded, counts the calls of a command that change its output folder: opening, writing, syncing,
closing, renaming, deleting, folders, lengths, modes. The command is run once for each of them and each fault, from a
process that has everything loaded; then it is given once more, undisturbed. JOB is predict, train, export, report,
labels or another of tests/faults/write_jobs.py; all of them by default.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.write_trials import Disk

Row = dict[str, Any]
SOURCE = Path(__file__).with_name("write_faults.c")


def with_library(arguments: list[str]) -> None:
    """Begin this program again, with the library in all that it loads."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise SystemExit("needs Linux and a C compiler (cc), for the library that lets writes fail")
    library = Path(tempfile.gettempdir()) / f"write_faults.{os.getpid()}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, "-m", "tests.faults.writes", *arguments], environment)


@contextlib.contextmanager
def prepared() -> Iterator[Disk]:
    """A disk, and the files that the jobs start from."""
    import gzip

    import torch

    from tests.faults.write_jobs import prepare, remember_programs
    from tests.faults.write_trials import Disk

    torch.set_num_threads(1)
    gzip.time = SimpleNamespace(time=lambda: 0)  # type: ignore[attr-defined]  # journals are alike at any time
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        (inputs := Path("inputs").absolute()).mkdir()
        prepare(inputs)
        remember_programs()
        yield Disk(inputs.parent)


def load_what_it_loads(disk: Disk, name: str) -> None:
    """Import in this process what a command imports, and export what it exports, so that its children need not."""
    from tests.faults.write_jobs import JOBS, quietly

    names = disk.run(JOBS[name].arguments(), names=True).said.splitlines()
    for module in names:
        if module not in sys.modules and module != "__mp_main__":
            with contextlib.suppress(Exception):
                importlib.import_module(module)
    for old in (False, True) if name in ("onnx", "openvino") else ():
        disk.clear()
        quietly(JOBS[name].arguments(old=old))
    gc.collect()
    gc.freeze()  # what is here already is not looked at again in every child


def measure(jobs: list[str], faults: list[str], every: int, known: set[tuple[str, str]]) -> Iterator[Row]:
    """All faults at every ``every``-th call of all jobs, on an empty disk and on one with old files."""
    from tests.faults.write_jobs import JOBS
    from tests.faults.write_trials import FAULTS, Tally, Trial

    with prepared() as disk:
        for name in jobs:
            for old in (False, True)[: 1 + bool(JOBS[name].old)]:
                title = f"{name}, replacing" if old else name
                wanted = [fault for fault in faults if (title, fault) not in known]
                if not wanted:
                    continue
                disk.clear()
                load_what_it_loads(disk, name)
                trial = Trial(disk, name, old=old)
                for fault in wanted:
                    tally, began = Tally(), time.monotonic()
                    for at in range(1, trial.points(FAULTS[fault]) + 1, every):
                        trial.disturb(FAULTS[fault], at, tally)
                    print("".join(f"    {said}\n" for said in tally.faults), end="", flush=True)
                    seconds = round(time.monotonic() - began)
                    yield {"job": title, "fault": fault, "every": every, **tally.row(), "seconds": seconds}
                shutil.rmtree(trial.kept)


def main(arguments: list[str]) -> int:
    """Print what was seen; the exit code is 1 where a file was torn, an answer lost, or an error unclear."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="by default all")
    parser.add_argument("--faults", type=lambda text: text.split(","), help="by default all")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="only every K-th call")
    parser.add_argument("--save", type=Path, metavar="FILE", help="lines of JSON; what it has already is not run again")
    chosen = parser.parse_args(arguments)
    preloaded = Path(os.environ.get("LD_PRELOAD", ""))
    if not preloaded.name.startswith("write_faults"):
        with_library(arguments)
    preloaded.unlink()
    os.environ.pop("LD_PRELOAD")
    from tests.faults.write_jobs import GROUPS, JOBS
    from tests.faults.write_trials import FAULTS

    jobs = [job for name in chosen.jobs or JOBS for job in GROUPS.get(name, (name,))]
    has_some = chosen.save is not None and chosen.save.exists()
    rows = [json.loads(line) for line in chosen.save.read_text().splitlines()] if has_some else []
    known = {(row["job"], row["fault"]) for row in rows}
    for row in measure(jobs, chosen.faults or list(FAULTS), chosen.every, known):
        rows.append(row)
        print(json.dumps(row), flush=True)
        if chosen.save is not None:
            with chosen.save.open("a") as file:
                file.write(json.dumps(row) + "\n")
    sums = {name: sum(row[name] for row in rows) for name in ("points", "torn", "lost", "unclear", "left")}
    print(json.dumps(sums))
    return 1 if any(sums[name] for name in sums if name != "points") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
