"""Kill one of the two processes of a training: does the other end with one line, and the resumed run in the same bits?

Prints one row a kill: which process, after how many steps, how many seconds later the other had ended and what it said,
and whether the weights and the record at the end are those of the run that nothing stopped.

python -m tests.faults.rank_kills [KILLS]
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from regard.checkpoints.file import save
from tests.faults.training_kills import are_same, steps_in
from tests.support import tiny, write_set

STEPS = 30
SETTINGS = f"--steps {STEPS} --batch 2 --crop 32 --workers 0 --evaluate-every 3 --seed 1 --warmup 2 --devices 2"
PATIENCE = 300.0  # seconds in which the process that is left has to end


def start(place: Path, name: str) -> subprocess.Popen[str]:
    """The command as a user gives it; it starts the second process itself."""
    words = [sys.executable, "-m", "regard", "train", "toy", "-o", name, "--init", "tiny.safetensors", "--no-progress"]
    settings = {"cwd": place, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*words, *SETTINGS.split()], stdout=subprocess.DEVNULL, **settings)  # type: ignore[call-overload]


def finish(place: Path, name: str) -> None:
    process = start(place, name)
    said = process.communicate()[1]
    assert process.returncode == 0, said


def kill_one(place: Path, name: str, rank: int, rng: random.Random) -> tuple[str, bool]:
    """Start, kill one, wait for the other, start again; a row of the table, and whether all went well."""
    process, last = start(place, name), rng.randrange(1, STEPS)
    first = psutil.Process(process.pid)
    while steps_in(place / name) < last and process.poll() is None:
        time.sleep(0.01)
    (second,) = [child for child in first.children() if "train" in child.cmdline()]
    victim, other = (first, second) if rank == 0 else (second, first)
    victim.kill()
    began = time.monotonic()
    psutil.wait_procs([other], timeout=PATIENCE)
    seconds, ended = time.monotonic() - began, not other.is_running()
    lines = process.communicate()[1].splitlines() if ended else ["still running"]
    said = [line for line in lines if line.strip() and "Warning: " not in line]
    steps = steps_in(place / name)
    if not ended:
        other.kill()
    finish(place, name)
    same = are_same(place / name, place / "whole")
    row = f"{rank} | {steps} of {STEPS} | {seconds:.0f} s | {' / '.join(said)} | {'yes' if same else 'NO'} |"
    return row, same and ended and len(said) == 1


def main(kills: int) -> int:
    well, rng = 0, random.Random(0)
    print("| kill | process | after steps | the other ended | and said | the same to the bit |", flush=True)
    print("| ---: | ---: | ---: | ---: | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_set(place / "toy")
        save(tiny(), place / "tiny.safetensors")
        finish(place, "whole")
        for number in range(1, kills + 1):
            row, good = kill_one(place, f"killed-{number}", number % 2, rng)
            well += good
            print(f"| {number} | {row}", flush=True)
    print(f"\n{well} of {kills} times the other process ended with one line, and the resumed run in the same bits.")
    return 0 if well == kills else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
