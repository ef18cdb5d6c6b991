"""What `regard sample` takes for a large map: processor seconds, and the peak of memory, of a process of its own.

    python -m experiments.accuracy.large_map FOLDER            1,000 points of a map of 40,000 x 40,000 pixels

The map repeats the classes of the bundled Blue Marble image in blocks of 512 pixels, each turned at random, in UTM.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from regard.checkpoints.file import bundled

SIDE, BLOCK, POINTS = 40_000, 512, 1_000
# The command, and the peak of its own memory: getrusage of a child includes that of the process it came from.
OWN = """
import atexit, sys
from pathlib import Path
atexit.register(lambda: print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split("\\n")[0]))
from regard.cli import main
main(sys.argv[1:])
"""


def make(path: Path) -> Path:
    """The map, block by block."""
    with rasterio.open(bundled()["globe-s"].parent / "globe" / "americas_atlantic_mask.tif") as raster:
        labels = raster.read(1)
    names = [f"class {label}" for label in range(int(labels[labels != 255].max()) + 1)]
    size = {"count": 1, "height": SIDE, "width": SIDE, "dtype": "uint8", "nodata": 255, "compress": "deflate"}
    tiles = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "BIGTIFF": "IF_SAFER"}
    place = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)}
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", driver="GTiff", **size, **tiles, **place) as raster:
        for top in range(0, SIDE, BLOCK):
            for left in range(0, SIDE, BLOCK):
                row, column = (int(rng.integers(0, length - BLOCK)) for length in labels.shape)
                part = np.rot90(labels[row : row + BLOCK, column : column + BLOCK], rng.integers(4))
                window = Window(left, top, min(BLOCK, SIDE - left), min(BLOCK, SIDE - top))
                raster.write(part[: window.height, : window.width], 1, window=window)
        raster.update_tags(regard_classes=json.dumps(names))
    return path


def main() -> None:
    """Make the map where it is not, draw the points, and print what that took."""
    path = Path(sys.argv[1]) / "large_map.tif"
    if not path.exists():
        make(path)
    words = ["sample", str(path), "-o", str(path.with_name("points.gpkg")), "--points", str(POINTS), "--overwrite"]
    began = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", OWN, *words], check=True, stdout=subprocess.PIPE, text=True)
    used, peak = resource.getrusage(resource.RUSAGE_CHILDREN), int(ran.stdout.split()[-2]) / 1024
    print(
        f"{POINTS} points of {SIDE} x {SIDE} pixels: {used.ru_utime + used.ru_stime:.0f} processor seconds, "
        f"{time.perf_counter() - began:.0f} s, peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
