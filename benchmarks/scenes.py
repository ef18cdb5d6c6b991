"""Mapping a scene: its time next to that of the network alone, and its memory.

    python -m benchmarks scenes throughput [MODEL] [SIDE]            dubai-s, or danet-r50 of random weights
    python -m benchmarks scenes memory [SIDE or HEIGHTxWIDTH ...]    fresh processes, a network that costs nothing

Throughput is processor time of one thread, so that other programs disturb little: while a scene is mapped, the bare
network scores each window a second time, alternately just before and just after the map's own forward pass, and that
second pass is taken off the map's time. Memory is the peak of the process above its peak after one forward pass.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from rasterio.windows import Window
from torch import Tensor

from benchmarks import parser
from benchmarks.measure import in_fresh_process, spent, steady
from regard.checkpoints.create import create
from regard.checkpoints.file import load
from regard.io.raster import Box, open_raster
from regard.io.window_reader import padded
from regard.mapping.predict import predict
from regard.memory import keep_freed_memory, peak_memory_mb
from regard.models import Segmenter
from tests.support import tiny

SHARED = Path(os.environ.get("REGARD_SHARED", Path(__file__).parents[1].parent / "shared"))
SIZES = ("4096", "8192", "16384", "32768", "2048x100000")


def write_scene(path: Path, height: int, width: int) -> Path:
    """Three bands of random blocks with fine noise, the same every 512 rows, in tiles, compressed as by providers."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    profile |= {"transform": rasterio.transform.from_origin(500_000, 5_000_000, 1, 1), "bigtiff": "if_safer"}
    coarse = rng.integers(20, 236, size=(3, 8, -(-width // 64)), dtype=np.uint8)
    values = coarse.repeat(64, 1).repeat(64, 2)[..., :width] + rng.integers(0, 8, size=(512, width), dtype=np.uint8)
    with rasterio.open(path, "w", **profile) as raster:
        for top in range(0, height, 512):
            rows = min(512, height - top)
            raster.write(values[:, :rows], window=Window(0, top, width, rows))
    return path


def real_scene(path: Path, side: int, **profile: object) -> Path:
    """The scene of the Dubai set, mirrored at its edge where it is smaller; random blocks where it is missing."""
    source = SHARED / "data" / "dubai_scene" / "image.tif"
    if not source.is_file():
        return write_scene(path, side, side)
    with open_raster(source) as raster:
        with rasterio.open(source) as plain:
            profile = {**plain.profile, "height": side, "width": side, **profile}
        with rasterio.open(path, "w", **profile) as scene:
            for top in range(0, side, 512):
                rows = min(512, side - top)
                scene.write(padded(raster, Box(top, 0, rows, side))[0], window=Window(0, top, side, rows))
    return path


def model_named(name: str) -> Segmenter:
    """A trained model, a DANet as published (ResNet-50, stride 8), or one whose classes are the bands, blurred."""
    if name == "blur":
        model = tiny(output_stride=8)
        model.logits = lambda images: {"main": F.avg_pool2d(images, model.stride)}  # type: ignore[method-assign]
        return model
    if name != "danet-r50":
        return load(name)
    torch.manual_seed(0)
    names = ("building", "land", "road", "vegetation", "water")
    return create("danet", backbone="resnet50", classes=names, output_stride=8, pretrained=False).eval()


class Twice:
    """A network's logits of some windows, with a second forward pass whose time is counted."""

    def __init__(self, logits: Callable[[Tensor], dict[str, Tensor]]) -> None:
        self.logits = logits
        self.windows = 0
        self.alone = self.within = 0.0  # seconds of the second passes, and of the map's own

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self.windows += 1
        if self.windows % 2:
            self.alone += self._timed(images)[0]
        seconds, scores = self._timed(images)
        self.within += seconds
        if not self.windows % 2:
            self.alone += self._timed(images)[0]
        return scores

    def _timed(self, images: Tensor) -> tuple[float, dict[str, Tensor]]:
        began = time.thread_time()
        scores = self.logits(images)
        return time.thread_time() - began, scores


def throughput(name: str, side: int) -> None:
    """Print the model's time as a share of the whole prediction's, from file to published map."""
    keep_freed_memory()
    model = model_named(name)
    with tempfile.TemporaryDirectory() as folder, steady(threads=1):
        scene = real_scene(Path(folder) / "scene.tif", side)
        predict(model, real_scene(Path(folder) / "first.tif", 512), Path(folder) / "first_map.tif")
        twice = model.logits = Twice(model.logits)  # type: ignore[assignment]
        seconds = (
            spent(lambda: predict(model, scene, Path(folder) / "map.tif", overwrite=True, progress=False)) - twice.alone
        )
    outside = (seconds - twice.within) / (side * side / 1e6)
    print(
        f"| {name} | {side} x {side} | {twice.windows} | {twice.alone:.1f} s | {seconds:.1f} s "
        f"| {100 * twice.alone / seconds:.1f} % | {1e3 * outside:.0f} ms |"
    )


def memory(sizes: list[str]) -> None:
    """Print peak memory by size, each in a process of its own."""
    for size in sizes:
        print(in_fresh_process("scenes", "peak", size), flush=True)


def peak_here(height: int, width: int) -> None:
    """Map such a scene in this process and print its peak memory: above that of one forward pass, and in all."""
    keep_freed_memory()
    model = model_named("blur")
    with tempfile.TemporaryDirectory() as folder, steady(threads=1), torch.inference_mode():
        scene = Path(folder) / "scene.tif"
        in_fresh_process("scenes", "write", f"{height}x{width}", scene)
        model.logits(torch.zeros(1, 3, 1024, 1024))
        before = peak_memory_mb()
        predict(model, scene, Path(folder) / "map.tif", overwrite=True, progress=False)
    print(f"| {width} x {height} | {peak_memory_mb() - before:,.0f} MB | {peak_memory_mb():,.0f} MB |", flush=True)


def sides(size: str) -> tuple[int, int]:
    """Height and width of ``SIDE`` or ``HEIGHTxWIDTH``."""
    height, width = (size.split("x") * 2)[:2]
    return int(height), int(width)


def main(arguments: list[str]) -> None:
    options = parser("scenes", __doc__)
    options.add_argument("what", choices=("throughput", "memory", "peak", "write"), metavar="throughput|memory")
    options.add_argument("rest", nargs="*")
    given = options.parse_args(arguments)
    rest = given.rest
    if given.what == "write":
        write_scene(Path(rest[1]), *sides(rest[0]))
    elif given.what == "peak":
        peak_here(*sides(rest[0]))
    elif given.what == "memory":
        memory(rest or list(SIZES))
    else:
        throughput(rest[0] if rest else "dubai-s", int(rest[1]) if len(rest) > 1 else 4096)
