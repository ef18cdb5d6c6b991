"""Kill a training with SIGKILL at random moments, give the command again each time, and compare the final weights.

Prints one row a kill: when it fell, the step of the checkpoint that the run then went on from, and whether the weights
and the record at the end are those of the run that nothing stopped.

python -m tests.faults.training_kills 20
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from safetensors.torch import load_file

from regard.datasets.folder import folder
from regard.training.train import train
from tests.support import tiny, write_set

STEPS, EVERY = 30, 3


def train_here(data: Path, out: Path) -> None:
    """The run that is killed: a tiny network of real structure, a checkpoint every few steps, one loading process."""
    settings = {"steps": STEPS, "batch": 2, "crop": 32, "workers": 1, "evaluate_every": EVERY, "seed": 1, "warmup": 2}
    train(tiny(), folder(data), out, progress=False, **settings)


def start(data: Path, out: Path) -> BaseProcess:
    """A process of its own, forked from this one, which only reads: nothing is imported 41 times."""
    process = multiprocessing.get_context("fork").Process(target=train_here, args=(data, out))
    process.start()
    return process


def finish(data: Path, out: Path) -> None:
    process = start(data, out)
    process.join()
    assert process.exitcode == 0


def steps_in(out: Path) -> int:
    path = out / "metrics.jsonl"
    return sum('"loss"' in line for line in path.read_text().splitlines()) if path.is_file() else 0


def checkpoint_in(out: Path) -> int:
    path = out / "last.ckpt"
    return int(torch.load(path, weights_only=True)["global_step"]) if path.is_file() else 0


def are_same(out: Path, expected: Path) -> bool:
    """Whether two runs have the same weights and the same record."""
    one, other = (load_file(folder / "last.safetensors") for folder in (out, expected))
    same = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    return same and (out / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()


def kill_one(data: Path, out: Path, expected: Path, rng: random.Random) -> tuple[str, bool]:
    """Start, kill, start again; the row of the table without its number, and whether the end is the same."""
    process, last = start(data, out), rng.randrange(1, STEPS)
    while steps_in(out) < last and process.is_alive():
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.1))
    process.kill()
    process.join()
    killed = process.exitcode == -signal.SIGKILL
    steps, saved = steps_in(out), checkpoint_in(out)
    finish(data, out)
    same = are_same(out, expected)
    when = f"{steps} of {STEPS}" if killed else "it had finished"
    return f"{when} | {saved} | {'yes' if same else 'NO'} |", same


def main(kills: int) -> int:
    same, rng = 0, random.Random(0)
    print("| kill | after steps | went on from | the same to the bit |\n| ---: | ---: | ---: | --- |", flush=True)
    with tempfile.TemporaryDirectory() as place:
        data, whole = write_set(Path(place) / "toy"), Path(place) / "whole"
        finish(data, whole)
        for number in range(1, kills + 1):
            row, equal = kill_one(data, Path(place) / f"killed-{number}", whole, rng)
            same += equal
            print(f"| {number} | {row}", flush=True)
    print(f"\n{same} of {kills} runs ended with the weights and the record of the run that nothing stopped.")
    return 0 if same == kills else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(int(sys.argv[1])))
