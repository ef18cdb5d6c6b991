"""Kill Dask's workers while they map scenes: is any map missing, made twice or different?

python -m tests.faults.cluster_kills [KILLS] [SCENES]
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from regard.checkpoints.file import save
from regard.io.source import Source
from regard.mapping.batch import Scene, predict_scene, run_on_cluster
from tests.support import map_options, tiny, write_tif


def keep_killing(out: Path, stop: threading.Event, wanted: int, killed: list[int]) -> None:
    """Kill a random worker process, at work or starting, a random while after each map that appears in ``out``."""
    rng, seen = np.random.default_rng(0), 0
    while not stop.wait(float(rng.uniform(0, 2))) and len(killed) < wanted:
        done = len(list(out.glob("*.tif")))
        busy = [worker for worker in psutil.Process().children() if worker.cpu_times().user > 1]
        if done > seen and busy:
            seen, chosen = done, busy[int(rng.integers(len(busy)))]
            os.kill(chosen.pid, signal.SIGKILL)
            killed.append(chosen.pid)


def scene_of(model: str, source: Path, out: Path) -> Scene:
    """One source to be mapped."""
    return Scene(model, Source.of(source), map_options(out, tile=64, overlap=32))


def main(wanted: int, count: int) -> None:
    """Print what was seen."""
    killed: list[int] = []
    rounds = missing = twice = different = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model = str(save(tiny(), root / "model.safetensors"))
        for number in range(count):
            values = np.random.default_rng(number).integers(0, 256, size=(3, 300, 200), dtype=np.uint8)
            write_tif(root / "tiles" / f"tile{number}.tif", values)
        sources = sorted((root / "tiles").iterdir())
        torch.set_num_threads(1)  # as in the workers: the number of threads decides the order of sums
        for source in sources:
            predict_scene(scene_of(model, source, root / "serial" / source.name))
        while len(killed) < wanted:
            out, stop = root / f"maps{rounds}", threading.Event()
            killer = threading.Thread(target=keep_killing, args=(out, stop, wanted, killed))
            killer.start()
            scenes = [scene_of(model, source, out / source.name) for source in sources]
            results = list(run_on_cluster(scenes, "local", 2))
            stop.set()
            killer.join()
            names = [Path(result.source).name for result in results if not result.failed]
            for result in results:
                if result.failed:
                    print(f"{result.source}: {result.failed}", flush=True)
            missing += count - len(set(names))
            twice += len(names) - len(set(names))
            hidden = [path.name for path in out.iterdir() if path.name.startswith(".")]
            changed = [
                source.name
                for source in sources
                if (out / source.name).read_bytes() != (root / "serial" / source.name).read_bytes()
            ]
            if hidden or changed:
                print(f"left unfinished: {hidden}; different: {changed}", flush=True)
            different += len(hidden) + len(changed)
            rounds += 1
            print(f"round {rounds}: {len(killed)} kills so far at {time.strftime('%X')}", file=sys.stderr, flush=True)
    print(
        f"{len(killed)} workers killed over {rounds} rounds of {count} scenes: {missing} maps missing, {twice} twice,"
    )
    print(f"{different} different from a serial run's or left unfinished.")


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    main(*(numbers + [100, 40][len(numbers) :]))
