"""docs/map.png: a part of the Dubai scene that dubai-s never saw, next to its map.

regard predict dubai-s DATA/dubai_scene/image.tif -o map.tif --aoi 320000,2772042,322149,2773521
python -m experiments.bundled.map_picture DATA/dubai_scene/image.tif map.tif docs/map.png
"""

from __future__ import annotations

import io
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import rasterio
from matplotlib.patches import Patch
from PIL import Image
from rasterio.windows import Window

import regard

HELD_OUT = Window(0, 1479, 2149, 1479)  # part 4 of tile 8: the middle of the left column
STEP = 3  # every third pixel is drawn


def main(scene: str, class_map: str, target: str) -> None:
    """Draw both and write the picture with 256 colours."""
    classes = regard.load("dubai-s").classes
    with rasterio.open(scene) as pixels, rasterio.open(class_map) as labels:
        picture = pixels.read(window=HELD_OUT)[:3].transpose(1, 2, 0)
        colours = np.array([labels.colormap(1)[value][:3] for value in range(256)], dtype=np.uint8)
        drawn = colours[labels.read(1, window=HELD_OUT)]
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), dpi=100)
    for axis, title, values in zip(axes, ("scene", "map by dubai-s"), (picture, drawn), strict=True):
        axis.imshow(values[::STEP, ::STEP])
        axis.set_axis_off()
        axis.set_title(title, loc="left", fontsize=10, color="#57606a")
    legend = [Patch(color=colours[index] / 255, label=name) for index, name in enumerate(classes.names)]
    figure.legend(handles=legend, loc="lower center", ncol=5, frameon=False, fontsize=9, labelcolor="#57606a")
    figure.subplots_adjust(0.005, 0.08, 0.995, 0.94, 0.02)
    buffer = io.BytesIO()
    figure.savefig(buffer, facecolor="white")
    Image.open(buffer).convert("RGB").quantize(256).save(target, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
