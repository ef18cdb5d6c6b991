"""Kill a training with SIGKILL at random moments, give the command again each time, and compare the final weights.

python tests/bench/training_kills.py 20
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import tiny, write_set

STEPS = 60


def train_here(data: str, out: str) -> None:
    """The run that is killed: a tiny network of real structure, a checkpoint every 5 steps, one loading process."""
    from regard.data.image_folder import folder
    from regard.engine.train import train

    torch.set_num_threads(1)
    settings = {"steps": STEPS, "batch": 2, "crop": 32, "workers": 1, "evaluate_every": 5, "seed": 1, "warmup": 2}
    train(tiny(), folder(data), out, silent=True, **settings)


def start(data: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "run", str(data), str(out)], env={**os.environ})


def steps_in(out: Path) -> int:
    path = out / "metrics.jsonl"
    return sum('"loss"' in line for line in path.read_text().splitlines()) if path.is_file() else 0


def main(kills: int) -> int:
    same = 0
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        data = write_set(Path(place) / "toy")
        whole = Path(place) / "whole"
        assert start(data, whole).wait() == 0
        expected = load_file(whole / "last.safetensors")
        for number in range(kills):
            out = Path(place) / f"killed-{number}"
            process, last = start(data, out), rng.randrange(1, STEPS)
            while steps_in(out) < last and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            ended = process.wait()
            steps = steps_in(out)
            assert start(data, out).wait() == 0
            found = load_file(out / "last.safetensors")
            equal = found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
            same += equal
            what = "killed" if ended == -signal.SIGKILL else "finished before the kill"
            print(f"{number + 1}: {what} after {steps} of {STEPS} steps; {'same' if equal else 'OTHER'}", flush=True)
    print(f"{same} of {kills} final weights are bit-identical to those of the run that was not stopped")
    return 0 if same == kills else 1


if __name__ == "__main__":
    if sys.argv[1] == "run":
        train_here(*sys.argv[2:])
    else:
        sys.exit(main(int(sys.argv[1])))
