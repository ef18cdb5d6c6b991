"""Arrays as PNG tiles with transparency."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image

from regard.classes import ClassMap
from regard.inference.pictures import heat, to_8bit
from regard.io.image import Pixels

NOTHING = -1  # where a tile of labels has no class
WRONG = (214, 40, 57)


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


def classes_png(labels: Integer[np.ndarray, "h w"], classes: ClassMap, shown: Bool[np.ndarray, "k"]) -> bytes:
    """The shown classes in their colours, the others transparent."""
    colours = np.zeros((len(classes) + 1, 4), np.uint8)
    colours[:-1, :3], colours[:-1, 3] = classes.palette, np.where(shown, 255, 0)
    if len(colours) > 256:
        return png(colours[labels])
    table = np.concatenate([colours[:-1], np.zeros((256 - len(classes), 4), np.uint8)])
    return png(np.where(labels == NOTHING, 255, labels).astype(np.uint8), table)


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
