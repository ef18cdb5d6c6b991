"""Kill predictions at random moments and resume: is every map the same to the byte, and none ever incomplete?

    python -m tests.faults.kills [KILLS]

Each child is forked from a process that has torch and the model loaded, maps a scene, and gets SIGKILL after a random
part of the time that an undisturbed run takes; it is started again until it gets through.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from regard.mapping.predict import predict
from tests.support import tiny, write_tif

SIZES = ((300, 200), (517, 389), (260, 700))
NAMES = ("map.tif", "confidence.tif", "map.qml", "map.tif.aux.xml", "areas.csv", "map.gpkg")


def run(model: torch.nn.Module, scene: Path, folder: Path) -> None:
    """Map one scene, with all other outputs; of every second one without a raster of the confidence."""
    sides = {"areas": folder / "areas.csv", "polygons": folder / "map.gpkg"}
    sides |= {"confidence": folder / "confidence.tif"} if int(scene.stem[5:]) % 2 else {}
    predict(model, scene, folder / "map.tif", tile=64, overlap=32, overwrite=False, **sides)  # type: ignore[arg-type]


def forked(model: torch.nn.Module, scene: Path, folder: Path) -> int:
    """The process number of a child that maps the scene."""
    child = os.fork()
    if child == 0:
        try:
            run(model, scene, folder)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def contents(folder: Path) -> dict[str, bytes]:
    """What is published."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in NAMES}


def main(kills: int) -> None:
    """Print what was seen."""
    torch.set_num_threads(1)
    rng, model = np.random.default_rng(0), tiny()
    killed = half = differing = maps = resumed = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        while killed < kills:
            size = SIZES[maps % len(SIZES)]
            coarse = rng.integers(0, 256, size=(3, size[0] // 9 + 1, size[1] // 9 + 1), dtype=np.uint8)
            values = coarse.repeat(9, 1).repeat(9, 2)[:, : size[0], : size[1]]
            scene = write_tif(root / f"scene{maps}.tif", values)
            began = time.perf_counter()
            run(model, scene, root / f"whole{maps}")
            duration, expected = time.perf_counter() - began, contents(root / f"whole{maps}")
            target = root / f"killed{maps}"
            while True:
                resumed += (target / ".map.tif.parts" / "journal.jsonl").is_file()
                child = forked(model, scene, target)
                if killed < kills and rng.random() < 0.9:
                    time.sleep(float(rng.uniform(0, 1.2)) * duration)
                    os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                seen = contents(target) if target.is_dir() else {}
                half += any(seen[name] != expected[name] for name in seen)
                if os.WIFSIGNALED(status):
                    killed += 1
                    continue
                assert os.waitstatus_to_exitcode(status) == 0
                break
            hidden = [path for path in target.iterdir() if path.name.startswith(".")]
            differing += contents(target) != expected or bool(hidden)
            maps += 1
    print(f"{killed} kills over {maps} maps, {resumed} of the runs went on from a journal:")
    print(f"{half} times a published file differed from an undisturbed run's, {differing} maps ended otherwise.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
