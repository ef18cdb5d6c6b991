"""Small pictures of what a model sees and says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from regard.card import RGB
from regard.classes import ClassMap
from regard.inference.segmentation import paint
from regard.io.image import read_image
from regard.io.raster import read_small

INK = "#737a82"  # on no paper: legible on white and on near black
Picture = tuple[str, UInt8[np.ndarray, "h w 3"]]


def visible(
    values: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"], bands: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Red, green, blue (else the first bands) in 8 bits; other values between their 2nd and 98th percentile."""
    chosen = [bands.index(name) if set(RGB) <= set(bands) else min(i, len(bands) - 1) for i, name in enumerate(RGB)]
    shown = np.where(valid, values[chosen], 0)
    if shown.dtype != np.uint8 and valid.any():
        low, high = np.percentile(shown[:, valid], (2, 98), axis=1)[..., None, None]
        shown = 255 * ((shown - low) / np.maximum(high - low, 1e-9)).clip(0, 1)
    return np.ascontiguousarray(shown.transpose(1, 2, 0), dtype=np.uint8)


def photograph(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An 8-bit image as it is."""
    return read_image(path).values[:3].transpose(1, 2, 0)


def scene_and_map(scene: Path, labels: Path, classes: ClassMap, *, width: int = 900) -> tuple[Picture, Picture]:
    """A raster and its class map, both at ``width`` pixels."""
    image = read_small(scene, width)[:3].transpose(1, 2, 0)
    return ("scene", image), ("map", paint(read_small(labels, width, nearest=True)[0], classes))


def blend(image: UInt8[np.ndarray, "h w 3"], colours: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours over an image, half and half."""
    return ((image.astype(np.uint16) + colours) // 2).astype(np.uint8)


def panel(pictures: Sequence[Picture], classes: ClassMap, path: Path, *, columns: int | None = None) -> Path:
    """Pictures side by side under their titles, with the legend of the classes, as one PNG without background."""
    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    height, width = pictures[0][1].shape[:2]
    cell = 4.2
    legend = 0.3 + 0.25 * -(-len(classes) // (4 * columns))
    figure = Figure(figsize=(cell * columns, cell * height / width * rows + legend), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis, (title, image) in zip(axes, pictures, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title, fontsize=9, loc="left", color=INK)
    for axis in axes:
        axis.set_axis_off()
    colours = [(red / 255, green / 255, blue / 255) for red, green, blue in classes.palette]
    patches = [Patch(color=colour, label=name) for name, colour in zip(classes.names, colours, strict=True)]
    figure.legend(
        handles=patches, loc="outside lower center", ncols=min(4 * columns, len(classes)), frameon=False, fontsize=8,
        labelcolor=INK,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, transparent=True, metadata={"Software": None})
    return path
