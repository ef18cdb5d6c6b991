"""Labelled images: where they are, which split they belong to, and how one is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from regard.classes import ClassMap
from regard.datasets.mask import read_mask
from regard.errors import SizeMismatch, unknown
from regard.io.extent import Extent, reaching, scaled
from regard.io.gdal import rasterise
from regard.io.ground import at_gsd
from regard.io.image import Pixels, image_bands, read_image
from regard.io.raster import Box, open_raster

SPLITS = ("train", "val", "test")


class Sample(NamedTuple):
    """One image with its labels; pixels without data have the ignore index."""

    image: Shaped[np.ndarray, "c h w"]
    labels: Int[np.ndarray, "h w"]
    valid: Bool[np.ndarray, "h w"]
    name: str

    @property
    def pixels(self) -> Pixels:
        """The image without its labels, as ``scores_of`` takes it."""
        return Pixels(self.image, self.valid)


@dataclass(frozen=True, eq=False)
class PolygonLabels:
    """Polygons over one scene in its pixels (x right, y down) with their labels; where two overlap the later holds.

    A pixel gets a label by its centre; with ``touched`` by any part of it. Ground without a polygon has the label
    ``background``, if there is one; what is not in every one of the ``extents`` is unlabelled.
    """

    shapes: np.ndarray
    labels: Int[np.ndarray, " n"]
    touched: bool = False
    background: int | None = None
    extents: tuple[Extent, ...] = ()

    def within(self, box: Box) -> PolygonLabels:
        """The polygons that may reach into a box, by their bounds."""
        near, extents = reaching(self.shapes, box), tuple(extent.within(box) for extent in self.extents)
        return replace(self, shapes=self.shapes[near], labels=self.labels[near], extents=extents)

    def coarser(self, factor: float) -> PolygonLabels:
        """The same on a grid of pixels ``factor`` times as wide and high."""
        extents = tuple(extent.coarser(factor) for extent in self.extents)
        return replace(self, shapes=scaled(self.shapes, factor), extents=extents)

    def draw(self, box: Box, ignore_index: int) -> Int[np.ndarray, "h w"]:
        """The label of each pixel; where no polygon is, that of the background or the ignore index."""
        near, fill = self.within(box), ignore_index if self.background is None else self.background
        labels = rasterise(near.shapes, near.labels, box, fill=fill, touched=self.touched)
        for extent in near.extents:
            labels[~extent.covers(box)] = ignore_index
        return labels


@dataclass(frozen=True)
class Pair:
    """An image file with its labels: a mask file, or the ``polygons`` of a vector file; of both, one ``box`` or all.

    With ``gsd`` (metres per pixel) the image is resampled, and the box is in the resampled pixels.
    """

    name: str
    image: Path
    mask: Path
    box: Box | None = None
    polygons: PolygonLabels | None = None
    gsd: float | None = None

    @property
    def title(self) -> str:
        """The image's file name; of a window of a scene, its own name."""
        return self.image.name if self.box is None else self.name

    def band_names(self, bands: Sequence[int | str] | None) -> tuple[str, ...]:
        """The names of the image's bands, or of those chosen."""
        return image_bands(self.image, bands=bands)

    def read_image(self, bands: Sequence[int | str] | None, expected: Sequence[str] | None) -> Pixels:
        """The values of the image and which of its pixels are valid; see ``regard.io.image.read_image``."""
        if self.gsd is None or self.box is None:
            return read_image(self.image, bands=bands, expected=expected, box=self.box)
        with open_raster(self.image, bands=bands, expected=expected) as native, at_gsd(native, self.gsd) as raster:
            return raster.read(self.box)

    def read_labels(self, classes: ClassMap) -> Int[np.ndarray, "h w"]:
        """The labels of the image; raises what ``read_mask`` raises."""
        if self.polygons is not None and self.box is not None:
            return self.polygons.draw(self.box, classes.ignore_index)
        return read_mask(self.mask, classes, box=self.box)


@dataclass(frozen=True)
class LabelledData:
    """A data set: its classes and, by split, its pairs.

    ``bands`` selects bands of the images; ``gsd`` (metres per pixel) is set where all images are resampled to it.
    """

    root: Path
    classes: ClassMap
    splits: Mapping[str, tuple[Pair, ...]]
    bands: tuple[int | str, ...] | None = None
    gsd: float | None = None

    def split(self, name: str) -> tuple[Pair, ...]:
        """The pairs of one split.

        Raises:
            UnknownName: the data has no such split.
        """
        if name not in self.splits:
            raise unknown("split", name, self.splits)
        return self.splits[name]

    def band_names(self) -> tuple[str, ...]:
        """The names of the bands of the first training image, which a new model for this data expects."""
        return self.split("train")[0].band_names(self.bands)

    def read(self, pair: Pair, *, expected: Sequence[str] | None = None) -> Sample:
        """One image and its labels.

        Raises:
            UnreadableImage, BandMismatch, ClassMismatch: see ``read_image`` and ``read_mask``.
            SizeMismatch: image and mask differ in size.
        """
        image, valid = pair.read_image(self.bands, expected)
        labels = pair.read_labels(self.classes)
        check_size(pair, image.shape[1:], labels.shape)
        return Sample(image, np.where(valid, labels, self.classes.ignore_index), valid, pair.name)


def check_size(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    """Raise a SizeMismatch if an image and its mask, of these heights and widths, are not equally large."""
    if image != mask:
        rotated = " One of them is rotated by 90 degrees." if mask == image[::-1] else ""
        raise SizeMismatch(
            f"{pair.image.name} is {image[1]} x {image[0]} pixels, its mask {pair.mask.name} {mask[1]} x {mask[0]}."
            f"{rotated} Export both at one size."
        )


def boxes(size: tuple[int, int], side: int) -> list[Box]:
    """Squares of ``side`` pixels that cover an image, smaller at the lower and right edge, row by row."""
    height, width = size
    corners = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
    return [Box(top, left, min(side, height - top), min(side, width - left)) for top, left in corners]
