"""Arrays as PNG tiles with transparency."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image

from regard.classes import ClassMap
from regard.datasets.mask import matches
from regard.inference.pictures import heat, to_8bit
from regard.io.image import Pixels
from regard.io.raster import Box, Raster

NOTHING = -1  # where a tile of labels has no class
WRONG = (214, 40, 57)
SAMPLES, SAMPLE = 8, 64  # a scene's stretch comes from 8 x 8 samples of 64 x 64 pixels


def png(values: UInt8[np.ndarray, "h w 4"] | UInt8[np.ndarray, "h w"], table: np.ndarray | None = None) -> bytes:
    """Encode RGBA values, or indices into a ``table`` (256, 4) of them."""
    buffer, options = io.BytesIO(), {}
    image = Image.fromarray(values)
    if table is not None:
        image.putpalette(np.ascontiguousarray(table[:, :3]).tobytes())
        options = {"transparency": table[:, 3].tobytes()}
    image.save(buffer, "PNG", compress_level=1 if table is None else 6, **options)
    return buffer.getvalue()


def scene_png(pixels: Pixels, stretch: Float[np.ndarray, "2 3"] | None) -> bytes:
    """Three bands as colours, stretched; transparent where there is no data."""
    alpha = np.where(pixels.valid, 255, 0)[..., None].astype(np.uint8)
    return png(np.concatenate([to_8bit(*pixels, stretch), alpha], axis=2))


def classes_png(labels: Integer[np.ndarray, "h w"], classes: ClassMap, shown: Bool[np.ndarray, " k"]) -> bytes:
    """The shown classes in their colours, the others transparent."""
    colours = np.zeros((len(classes) + 1, 4), np.uint8)
    colours[:-1, :3], colours[:-1, 3] = classes.palette, np.where(shown, 255, 0)
    if len(colours) > 256:
        return png(colours[labels])
    table = np.concatenate([colours[:-1], np.zeros((256 - len(classes), 4), np.uint8)])
    return png(np.where(labels == NOTHING, 255, labels).astype(np.uint8), table)


def packed(labels: Integer[np.ndarray, "h w"], confidence: UInt8[np.ndarray, "h w"] | None, classes: int) -> bytes:
    """Labels for the page, deflated: a byte each, or two (little-endian) above 255 classes; then the confidence.

    The largest number stands for no class.
    """
    kind = np.dtype("u1" if classes <= 255 else "<u2")
    known = np.where(labels == NOTHING, np.iinfo(kind).max, labels).astype(kind)
    return zlib.compress(known.tobytes() + (b"" if confidence is None else confidence.tobytes()), 1)


def errors_png(labels: Integer[np.ndarray, "h w"], truth: Integer[np.ndarray, "h w"]) -> bytes:
    """Red where a labelled pixel is misclassified."""
    wrong = (labels != truth) & (labels != NOTHING) & (truth != NOTHING)
    table = np.zeros((256, 4), np.uint8)
    table[1] = (*WRONG, 255)
    return png(wrong.astype(np.uint8), table)


def heat_png(values: UInt8[np.ndarray, "h w"], colours: str, opacity: tuple[float, float]) -> bytes:
    """Strengths 1..255 in a colour map, more opaque where stronger; 0 is transparent."""
    alpha = np.linspace(*opacity, 256) * 255
    alpha[0] = 0
    return png(values, np.column_stack([heat(np.arange(256) / 255, colours), alpha.astype(np.uint8)]))


def labels_of(pixels: Pixels, classes: ClassMap) -> Integer[np.ndarray, "h w"]:
    """Labels from a band of them, or from the classes' colours."""
    values = pixels.values
    if len(values) == 3:
        return np.where(pixels.valid, matches(values.transpose(1, 2, 0), classes), NOTHING).astype(np.int16)
    known = pixels.valid & (values[0] >= 0) & (values[0] < len(classes)) & (values[0] != classes.ignore_index)
    return np.where(known, np.where(known, values[0], 0).astype(np.int16), np.int16(NOTHING))


def stretch_of_scene(
    raster: Raster, bands: Sequence[int], ends: tuple[float, float]
) -> Float[np.ndarray, "2 3"] | None:
    """Two percentiles of the whole scene's values in three of its file's bands, from samples of it."""
    height, width = raster.size
    raster.bands = tuple(dict.fromkeys(bands))
    samples = []
    for row in np.linspace(0, max(0, height - SAMPLE), SAMPLES).astype(int):
        for column in np.linspace(0, max(0, width - SAMPLE), SAMPLES).astype(int):
            box = Box(int(row), int(column), min(SAMPLE, height), min(SAMPLE, width))
            values, valid = raster.read(box)
            samples.append(values[:, valid])
    joined = np.concatenate(samples, axis=1)[[raster.bands.index(band) for band in bands]]
    return np.percentile(joined, ends, axis=1) if joined.size else None
