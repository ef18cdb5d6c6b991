"""Arrays as pictures: bands, labels and shares in colours, data addresses, and panels of several pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped, UInt8

from regard.card import RGB
from regard.classes import ClassMap
from regard.files import write_bytes

INK = "#737a82"  # on no paper: legible on white and on near black
NO_DATA_COLOUR = (0, 0, 0)
PERCENTILES = (2, 98)  # values outside are shown as the darkest and the brightest
Picture = tuple[str, UInt8[np.ndarray, "h w 3"]]


def shown_bands(bands: Sequence[str]) -> list[int]:
    """Places of red, green and blue among the bands; else of the first bands, the last one repeated."""
    return [bands.index(name) if set(RGB) <= set(bands) else min(i, len(bands) - 1) for i, name in enumerate(RGB)]


def stretch_of(values: Shaped[np.ndarray, "c n"]) -> Float[np.ndarray, "2 c"] | None:
    """The 2nd and 98th percentile of each band; None for 8-bit values, which need no stretch, and for no values."""
    return None if values.dtype == np.uint8 or not values.size else np.percentile(values, PERCENTILES, axis=1)


def to_8bit(
    values: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"], stretch: Float[np.ndarray, "2 c"] | None
) -> UInt8[np.ndarray, "h w c"]:
    """Bands between the two rows of ``stretch`` as 0 to 255; 0 where there is no data."""
    if stretch is not None:
        low, high = stretch[:, :, None, None]
        with np.errstate(invalid="ignore"):
            values = np.nan_to_num(255 * ((values - low) / np.maximum(high - low, 1e-9)).clip(0, 1))
    return np.ascontiguousarray(np.where(valid, values, 0).transpose(1, 2, 0), dtype=np.uint8)


def visible(
    values: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"], bands: Sequence[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Red, green, blue (else the first bands) in 8 bits; deeper values are stretched between their percentiles."""
    shown = values[shown_bands(bands)]
    return to_8bit(shown, valid, stretch_of(shown[:, valid]))


def colourise(labels: Integer[np.ndarray, "h w"], classes: ClassMap) -> UInt8[np.ndarray, "h w 3"]:
    """Labels as their classes' colours; black where there is no class."""
    table = np.array([*classes.palette, NO_DATA_COLOUR], dtype=np.uint8)
    return table[np.where((labels >= 0) & (labels < len(classes)), labels, len(classes))]


def heat(shares: Float[np.ndarray, "..."], colours: str = "viridis") -> UInt8[np.ndarray, "... 3"]:
    """Shares 0..1 in a colour map of Matplotlib, from dark to bright."""
    from matplotlib import colormaps  # not at the top, as maps need none: 25 MB

    return (255 * colormaps[colours](shares)[..., :3]).astype(np.uint8)


def data_uri(content: bytes, kind: str = "png") -> str:
    """An encoded picture as a ``data:`` address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def blend(image: UInt8[np.ndarray, "h w 3"], colours: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours over an image, half and half."""
    return ((image.astype(np.uint16) + colours) // 2).astype(np.uint8)


def panel(pictures: Sequence[Picture], classes: ClassMap | None, path: Path, *, columns: int | None = None) -> Path:
    """Pictures side by side under their titles, with the legend of any classes, as one PNG without background."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    height, width = pictures[0][1].shape[:2]
    cell = 4.2
    legend = 0.3 + 0.25 * -(-len(classes or ()) // (4 * columns))
    figure = Figure(figsize=(cell * columns, cell * height / width * rows + legend), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis, (title, image) in zip(axes, pictures, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title, fontsize=9, loc="left", color=INK)
    for axis in axes:
        axis.set_axis_off()
    if classes is not None:
        colours = [(red / 255, green / 255, blue / 255) for red, green, blue in classes.palette]
        patches = [Patch(color=colour, label=name) for name, colour in zip(classes.names, colours, strict=True)]
        figure.legend(
            handles=patches, loc="outside lower center", ncols=min(4 * columns, len(classes)), frameon=False,
            fontsize=8, labelcolor=INK,
        )  # fmt: skip
    picture = io.BytesIO()
    figure.savefig(picture, dpi=130, transparent=True, metadata={"Software": None})
    return write_bytes(path, picture.getbuffer())
