"""Scenes beside the model alone, and their memory.

    python tests/bench/scenes.py throughput [MODEL] [SIDE]    one process, the two in turn, outputs the same windows
    python tests/bench/scenes.py memory [SIDE or HEIGHTxWIDTH ...]    each in a fresh process, a very small model

Throughput is processor time, so that other programs disturb little. Memory is peak resident memory less that of the
same process mapping a scene of one window.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

sys.path.insert(0, str(Path(__file__).parents[1]))
from regard.checkpoints.file import load
from regard.data.augment import prepare
from regard.data.raster import open_raster
from regard.data.strips import read_strips
from regard.engine.infer import scaling_of
from regard.engine.memory import keep_freed_memory, peak_memory_mb
from regard.engine.predict import predict
from regard.engine.scene import Tiling, grid_scores, plan_axis
from regard.models import Segmenter
from support import tiny

SIZES = ("4096", "8192", "16384", "32768", "3000x100000")
ROUNDS = 3


def write_scene(path: Path, height: int, width: int) -> Path:
    """Three bands of coarse random blocks with fine noise, in tiles, compressed, as providers deliver them."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    profile |= {"transform": rasterio.transform.from_origin(500_000, 5_000_000, 1, 1), "bigtiff": "if_safer"}
    with rasterio.open(path, "w", **profile) as raster:
        for top in range(0, height, 512):
            rows = min(512, height - top)
            coarse = rng.integers(20, 236, size=(3, -(-rows // 64), -(-width // 64)), dtype=np.uint8)
            values = coarse.repeat(64, 1).repeat(64, 2)[:, :rows, :width]
            values = values + rng.integers(0, 8, size=(1, rows, width), dtype=np.uint8)
            raster.write(values, window=Window(0, top, width, rows))
    return path


def model_alone(model: Segmenter, scene: Path, tiling: Tiling) -> float:
    """Processor time of the network over every window of the scene; reading and preparing are not counted."""
    spent = 0.0
    with open_raster(scene) as raster:
        rows, columns = (plan_axis(length, tiling, model.stride) for length in raster.size)
        height, width = rows.window * model.stride, columns.cells * model.stride
        for strip in read_strips(raster, [begin * model.stride for begin in rows.begins], height, width):
            for left in columns.begins:
                pixels, valid = strip.cut(left * model.stride, columns.window * model.stride)
                image = prepare(pixels, valid, scaling_of(model))[None]
                began = time.process_time()
                grid_scores(model, image, tiling.scales, tiling.flip)
                spent += time.process_time() - began
    return spent


def throughput(name: str, side: int) -> None:
    """Print the model's time as a share of the whole prediction's, from file to published map."""
    torch.set_num_threads(1)
    keep_freed_memory()
    model, shares = load(name), []
    with tempfile.TemporaryDirectory() as folder:
        scene = write_scene(Path(folder) / "scene.tif", side, side)
        for _ in range(ROUNDS):
            alone = model_alone(model, scene, Tiling())
            began = time.process_time()
            predict(model, scene, Path(folder) / "map.tif")
            shares.append(alone / (time.process_time() - began))
    listed = ", ".join(f"{100 * share:.1f}" for share in shares)
    print(f"| {name} | {side} x {side} | {100 * statistics.median(shares):.1f} % | {listed} |")


def peak(height: int, width: int) -> float:
    """Peak resident memory in MB of a process that maps a scene of this size with a very small model."""
    command = [sys.executable, __file__, "peak", str(height), str(width)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def peak_here(height: int, width: int) -> None:
    """Map such a scene in this process and print its peak memory."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        subprocess.run([sys.executable, __file__, "write", str(scene), str(height), str(width)], check=True)
        keep_freed_memory()
        predict(tiny(), scene, Path(folder) / "map.tif", confidence=Path(folder) / "sure.tif")
    print(peak_memory_mb())


def memory(sizes: list[str]) -> None:
    """Print peak memory by size, beside that of a single window."""
    least = peak(1024, 1024)
    for size in sizes:
        height, width = (int(part) for part in (size.split("x") * 2)[:2])
        print(f"| {width} x {height} | {peak(height, width) - least:,.0f} MB |", flush=True)


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["throughput"]
    if what == "write":
        write_scene(Path(rest[0]), int(rest[1]), int(rest[2]))
    elif what == "peak":
        peak_here(int(rest[0]), int(rest[1]))
    elif what == "memory":
        memory(rest or list(SIZES))
    else:
        throughput(rest[0] if rest else "dubai-s", int(rest[1]) if len(rest) > 1 else 2560)
