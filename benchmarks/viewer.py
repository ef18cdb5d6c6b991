"""How fast the viewer's tiles are.

    python -m benchmarks viewer

A scene of 20,000 x 20,000 pixels (noise over a gradient, deflate) is written to a temporary folder, with overviews
and without; the viewer runs in a process of its own with globe-s, which is loaded when the clock starts. Each figure is
the time from asking for a tile to having its last byte, over HTTP. Memory is what the server's process holds.
"""

from __future__ import annotations

import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.windows import Window

from benchmarks import parser
from regard.web.grid import HALF_EARTH

SIDE, BLOCK, TILES, PREDICTED = 20_000, 512, 50, 20


def write_scene(path: Path) -> None:
    """The scene, 10 m per pixel in UTM zone 33 north."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, size=(3, BLOCK, SIDE), dtype=np.uint8)
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8", "tiled": True}
    profile |= {"blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "interleave": "pixel"}
    with rasterio.open(
        path, "w", **profile, crs="EPSG:32633", transform=Affine(10, 0, 4e5, 0, -10, 5.4e6), num_threads=2
    ) as raster:
        for top in range(0, SIDE, BLOCK):
            rows = min(BLOCK, SIDE - top)
            values = np.roll(noise, top, axis=2)[:, :rows] + np.uint8(200 * top // SIDE)
            raster.write(values, window=Window(0, top, SIDE, rows))


@contextmanager
def viewing(scene: Path) -> Iterator[tuple[str, int]]:
    """The address of a viewer and the number of its process."""
    command = [sys.executable, "-m", "regard", "view", "globe-s", str(scene), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://\S+/", line)
    assert found, line + process.stderr.read()
    yield found[0], process.pid
    process.send_signal(signal.SIGINT)
    process.wait(30)


def took(url: str) -> float:
    """Seconds until the whole answer is there."""
    began = time.perf_counter()
    with urllib.request.urlopen(url) as answer:
        answer.read()
    return time.perf_counter() - began


def held_mb(process: int) -> float:
    """Memory of a process, in MB."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[0]) / 1024


def tile_at(about: dict, z: int, across: float, down: float) -> tuple[int, int]:
    """The tile at a fraction of the scene's width and height."""
    left, top, right, bottom = about["xyz"]["extent"]
    x, y = left + across * (right - left), top + down * (bottom - top)
    return int((x / HALF_EARTH + 1) / 2 * 2**z), int((1 - y / HALF_EARTH) / 2 * 2**z)


def measure(scene: Path, name: str) -> Iterator[str]:
    """Lines of the table."""
    with viewing(scene) as (url, process):
        with urllib.request.urlopen(f"{url}about.json") as answer:
            about = json.load(answer)
        finest, far, began = about["xyz"]["finest"], about["xyz"]["coarsest"] + 1, time.perf_counter()
        x, y = tile_at(about, far, 0.5, 0.5)
        first = took(f"{url}scene/{far}/{x}/{y}.png")
        with urllib.request.urlopen(f"{url}about.json") as answer:
            read = json.load(answer)["progress"]
        yield f"| {name}: first tile, the whole scene at zoom {far} | {1000 * first:.0f} ms, {read:.0%} read |"
        x, y = tile_at(about, finest, 0.5, 0.5)
        near = took(f"{url}scene/{finest}/{x}/{y}.png")
        yield f"| {name}: first tile at full resolution, zoom {finest} | {1000 * near:.0f} ms |"
        while read < 1:
            time.sleep(0.5)
            with urllib.request.urlopen(f"{url}about.json") as answer:
                read = json.load(answer)["progress"]
        yield f"| {name}: the whole scene read | {time.perf_counter() - began:.0f} s |"
        x, y = tile_at(about, finest, 0.4, 0.4)
        held = [held_mb(process)]
        for layer, count, shift in (
            ("scene", TILES, 0),
            ("prediction", PREDICTED, 0),
            ("scene", 4 * TILES, 0),
            ("prediction", PREDICTED, 20),
        ):
            places = [(x + n % 10, y + shift + n // 10) for n in range(count)]
            for how in ("new", "panned over again")[: 1 + (count <= TILES and not shift)]:
                times = [took(f"{url}{layer}/{finest}/{column}/{row}.png") for column, row in places]
                median, worst = (1000 * pick(times) for pick in (statistics.median, max))
                yield f"| {name}: {layer}, {count} tiles, {how}: median (worst) | {median:.0f} ms ({worst:.0f} ms) |"
            held.append(held_mb(process))
        yield f"| {name}: memory at the start and after each of these | {', '.join(f'{mb:.0f} MB' for mb in held)} |"


def main(arguments: list[str]) -> None:
    parser("viewer", __doc__).parse_args(arguments)
    print("| what | time |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.tif"
        write_scene(scene)
        for line in measure(scene, "without overviews"):
            print(line, flush=True)
        with rasterio.open(scene, "r+") as raster:
            raster.build_overviews([2, 4, 8, 16, 32], Resampling.average)
        for line in measure(scene, "with overviews"):
            print(line, flush=True)
