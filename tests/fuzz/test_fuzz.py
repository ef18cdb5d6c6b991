"""Odd and hostile files of each format, read as a user reads them; many more with `python -m tests.fuzz`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.formats import FORMATS
from tests.fuzz.worker import Files, Format, Task, Verdict, verdicts

ROOT = Path(__file__).parents[2]
GROUPS = 4  # of formats, tried at the same time


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="inputs are watched by Linux's limits and timers")
@pytest.mark.parametrize("number", range(GROUPS))
def test_odd_files_are_accepted_or_refused_in_words(number: int, tmp_path: Path) -> None:
    """In a process of its own: without the checks of shapes that tests add, so that users' errors are seen."""
    formats = [*FORMATS][number::GROUPS]
    command = [sys.executable, "-m", "tests.fuzz", *formats, "--count", "200", "--save", tmp_path / "table.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    rows = [row.split(" | ") for row in (tmp_path / "table.md").read_text().splitlines()[2:]]
    assert [row[0].removeprefix("| ") for row in rows] == formats
    assert all(int(row[2]) > 0 for row in rows), rows
    assert all(int(row[3]) > 0 for row in rows if "journal" not in row[0]), rows  # damaged parts are made again


def _hang(folder: Path) -> None:
    while True:
        pass


def _take_memory(folder: Path) -> None:
    bytearray(3 * 2**30)[:: 2**12] = bytes(3 * 2**18)


def _write_elsewhere(folder: Path) -> None:
    (folder / "neighbour" / "new.txt").write_text("x")


def _fail(folder: Path) -> None:
    raise KeyError("x")


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("read", "kind"), [(_hang, "hang"), (_take_memory, "memory"), (_write_elsewhere, "outside"), (_fail, "exception")]
)
def test_the_watch_sees_what_must_not_happen(read, kind: str) -> None:
    program = (
        "from tests.fuzz import test_fuzz, worker; worker.CPU_SECONDS = 1.0\n"
        f"print(*[verdict.kind for verdict in test_fuzz.seen(test_fuzz.{read.__name__})])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [kind, kind], done.stderr[-500:]


def seen(read) -> list[Verdict]:
    """The verdicts on two inputs: after each, the next one is read too."""
    return list(verdicts(Task("x", Format(_one, _same, read), _one(), 0), range(2)))


def _one() -> list[Files]:
    return [{"given/a": b""}]


def _same(_: Random, files: Files) -> Files:
    return files
