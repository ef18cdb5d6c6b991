"""The result of a prediction that fits in memory."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from regard.classes import ClassMap
from regard.errors import ConfigError
from regard.files import check_writable, write_bytes
from regard.inference.pictures import NO_DATA_COLOUR, colourise, data_uri
from regard.io.cog_writer import RasterWriter, label_layer
from regard.io.image import read_photograph
from regard.io.polygons import PolygonList, features
from regard.io.source import Source

NO_TAGS: Mapping[str, str] = MappingProxyType({})
SHOWN = 640  # pixels a side of the picture in a notebook


@dataclass(frozen=True, repr=False)
class Segmentation:
    """``labels`` (h, w), the classes' ignore index where there is no data, and ``confidence`` (h, w) in 0..1."""

    labels: Integer[np.ndarray, "h w"]
    confidence: Float[np.ndarray, "h w"]
    classes: ClassMap
    source: Source | None = None
    crs: Any = None
    transform: Any = None

    def share(self, name: str) -> float:
        """The class frequency of ``name``, 0..1: its share among the pixels with data.

        Raises:
            UnknownName: the model has no such class.
        """
        counted = self.labels != self.classes.ignore_index
        return float((self.labels == self.classes.label_of(name)).sum() / max(1, counted.sum()))

    def colours(self) -> UInt8[np.ndarray, "h w 3"]:
        """The labels in the classes' colours; black where there is no data."""
        return colourise(self.labels, self.classes)

    def save(self, path: str | Path, *, tags: Mapping[str, str] = NO_TAGS) -> Path:
        """Write the labels, and ``tags``, as a palette PNG, or as a GeoTIFF where the name ends in ``.tif``.

        Raises:
            ConfigError: another ending, or more classes than a PNG holds.
            OutputError: it cannot be written there.
        """
        target = Path(path)
        if target.suffix.lower() in (".tif", ".tiff"):
            layer = label_layer(self.classes, tags)
            with RasterWriter(target, layer, self.labels.shape, crs=self.crs, transform=self.transform) as writer:
                writer.write(
                    0, np.where(self.labels == self.classes.ignore_index, layer.nodata, self.labels).astype(layer.dtype)
                )
        elif target.suffix.lower() == ".png":
            check_writable(target)
            write_bytes(target, self._as_palette(tags))
        else:
            raise ConfigError(f"labels are saved as .png or .tif; got {target.name}. Name it {target.stem}.png.")
        return target

    def _as_palette(self, tags: Mapping[str, str]) -> bytes:
        """The bytes of a PNG."""
        if len(self.classes) > 256:
            raise ConfigError(f"a PNG holds 256 classes; the model has {len(self.classes)}. Save them as .tif.")
        image, texts, buffer = Image.fromarray(self.labels.astype(np.uint8)).convert("P"), PngInfo(), io.BytesIO()
        image.putpalette([channel for colour in palette_of(self.classes) for channel in colour])
        for name, text in tags.items():
            texts.add_text(name, text)
        image.save(buffer, "PNG", pnginfo=texts)
        return buffer.getvalue()

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """The colours over the photograph that was predicted (over black if it is not known)."""
        colours = Image.fromarray(self.colours())
        if self.source is None:
            return colours
        photograph = Image.fromarray(read_photograph(self.source).values.transpose(1, 2, 0))
        return Image.blend(photograph, colours, opacity)

    def to_polygons(self, *, simplify: float = 0.0) -> PolygonList:
        """Polygons of each class as GeoJSON-like features with ``class``, ``name``, mean ``confidence`` and area.

        They are in the raster's CRS, or in pixels (column, row) from the top left corner; ``simplify`` is in pixels.
        The list has their ``crs`` and, where geopandas is installed, ``to_geopandas()``.

        Raises:
            ConfigError: a negative ``simplify``.
        """
        place = {"crs": self.crs, "transform": self.transform}
        return features(self.labels, self.confidence, self.classes, simplify=simplify, **place)

    def _shares(self) -> list[tuple[str, float]]:
        """The classes that occur and their shares, largest first."""
        shares = [(name, self.share(name)) for name in self.classes.names]
        return sorted((item for item in shares if item[1]), key=lambda item: -item[1])

    def __repr__(self) -> str:
        height, width = self.labels.shape
        found = [f"{name} {100 * share:.0f} %" for name, share in self._shares()]
        return f"Segmentation({width} x {height}: {', '.join(found) or 'no data'})"

    def _repr_png_(self) -> bytes:
        buffer, picture = io.BytesIO(), Image.fromarray(self.colours())
        picture.thumbnail((SHOWN, SHOWN), Image.Resampling.NEAREST)
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        """The picture and what its colours mean."""
        picture, text = data_uri(self._repr_png_()), html.escape(repr(self))
        rows = []
        for name, share in self._shares():
            colour = "rgb({}, {}, {})".format(*self.classes.palette[self.classes.label_of(name)])
            box = f'<span style="display:inline-block;width:1em;height:1em;background:{colour}"></span>'
            rows.append(f"<div>{box} {html.escape(name)} {100 * share:.1f} %</div>")
        return f'<img src="{picture}" alt="{text}" style="max-width:100%">{"".join(rows)}'


def masked(
    labels: Integer[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], ignore_index: int
) -> Integer[np.ndarray, "h w"]:
    """Labels with the ignore index where there is no data: uint8, or int32 where that does not hold it."""
    return np.where(valid, labels, np.int32(ignore_index)).astype(np.uint8 if 0 <= ignore_index < 256 else np.int32)


def palette_of(classes: ClassMap) -> list[tuple[int, int, int]]:
    """256 colours by label: the classes' own, then black."""
    return [*classes.palette[:256], *[NO_DATA_COLOUR] * (256 - len(classes))]
