"""The viewer's address as a layer in QGIS.

    python -m benchmarks qgis_tiles [PICTURE]

Starts the viewer with globe-s on the scene that comes with regard, adds its XYZ address to QGIS, renders the layer, and
checks that the classes are where the model puts them. Run it with regard's Python; QGIS is driven through the system's
(Debian: apt-get install python3-qgis). Without QGIS it says so and ends with 0.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import regard
from benchmarks import parser
from regard.checkpoints.file import bundled

SYSTEM_PYTHON = "/usr/bin/python3"
WIDTH, HEIGHT = 1000, 620
BOX = (-100.0, 12.0, -60.0, 48.0)  # west, south, east, north in degrees

DRAW = """
import sys
from qgis.core import (QgsApplication, QgsCoordinateReferenceSystem, QgsCoordinateTransform, QgsMapRendererParallelJob,
                       QgsMapSettings, QgsProject, QgsRasterLayer, QgsRectangle)
from qgis.PyQt.QtCore import QEventLoop, QSize
from qgis.PyQt.QtGui import QColor

address, picture, width, height, *box = sys.argv[1:]
app = QgsApplication([], False)
app.initQgis()
layer = QgsRasterLayer(f"type=xyz&zmin=0&zmax=5&url={address}", "tiles", "wms")
assert layer.isValid(), layer.error().message()
earth, web = (QgsCoordinateReferenceSystem(name) for name in ("EPSG:4326", "EPSG:3857"))
settings = QgsMapSettings()
settings.setLayers([layer])
settings.setDestinationCrs(web)
settings.setBackgroundColor(QColor("white"))
settings.setOutputSize(QSize(int(width), int(height)))
place = QgsCoordinateTransform(earth, web, QgsProject.instance())
settings.setExtent(place.transformBoundingBox(QgsRectangle(*map(float, box))))
job, loop = QgsMapRendererParallelJob(settings), QEventLoop()
job.finished.connect(loop.quit)
job.start()
loop.exec_()
assert job.renderedImage().save(picture)
print(*(getattr(settings.visibleExtent(), name)() for name in ("xMinimum", "yMinimum", "xMaximum", "yMaximum")))
"""


def draw(address: str, picture: Path) -> list[float]:
    """Render the viewer's tiles by QGIS; the extent of the picture in metres of web mercator."""
    settings = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": ""}
    settings = {name: value for name, value in settings.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")}
    command = [SYSTEM_PYTHON, "-c", DRAW, f"{address}prediction/{{z}}/{{x}}/{{y}}.png", str(picture)]
    command += [str(value) for value in (WIDTH, HEIGHT, *BOX)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        raise SystemExit(f"QGIS failed: {done.stderr[-2000:]}")
    return [float(value) for value in done.stdout.split()[-4:]]


def agreement(picture: Path, extent: list[float], expected: regard.inference.segmentation.Segmentation) -> float:
    """The share of the picture's pixels on the scene that have the colour of the class that ``predict`` gives there."""
    shown = np.asarray(Image.open(picture).convert("RGB"))
    west, south, east, north = extent
    x = np.degrees((west + (np.arange(WIDTH) + 0.5) / WIDTH * (east - west)) / 6378137)
    y = (north - (np.arange(HEIGHT) + 0.5) / HEIGHT * (north - south)) / 6378137
    columns, rows = ~expected.transform * (x[None], np.degrees(np.arctan(np.sinh(y)))[:, None])
    columns, rows = np.broadcast_arrays(np.floor(columns).astype(int), np.floor(rows).astype(int))
    height, width = expected.labels.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    colours = expected.colours()[rows[inside], columns[inside]]
    return float((np.abs(shown[inside].astype(int) - colours).max(axis=1) < 24).mean())


def main(arguments: list[str]) -> None:
    options = parser("qgis_tiles", __doc__)
    options.add_argument("picture", type=Path, nargs="?", default=Path("qgis-tiles.png"))
    compare(options.parse_args(arguments).picture)


def compare(picture: Path) -> None:
    """Print how many of the pixels that QGIS draws, in per cent, have the class that ``regard.predict`` gives there."""
    found = subprocess.run([SYSTEM_PYTHON, "-c", "import qgis.core"], capture_output=True, check=False)
    if found.returncode:
        print("skipped: QGIS's Python is not installed here (Debian: apt-get install python3-qgis)")
        return
    scene = next(iter(bundled().values())).parent / "globe" / "americas_atlantic.tif"
    command = [sys.executable, "-m", "regard", "view", "globe-s", str(scene), "--no-browser"]
    viewer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert viewer.stderr is not None
        address = re.search(r"http://\S+/", viewer.stderr.readline())
        assert address, "the viewer did not start"
        extent = draw(address[0], picture)
    finally:
        viewer.send_signal(signal.SIGINT)
        viewer.wait(60)
    expected = regard.predict(regard.load("globe-s"), scene, tile=512, overlap=128)
    same = agreement(picture, extent, expected)
    print(f"{picture.name}: {100 * same:.1f} % of the pixels that QGIS drew have the class of regard.predict there")
    assert same > 0.9
