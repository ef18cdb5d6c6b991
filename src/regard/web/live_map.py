"""The map that a model makes of a scene, tile by tile, as it is asked for: coarse from far away, exact from near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, UInt8

from regard.inference.scores import scores_of, views_of
from regard.inference.segmentation import Segmentation
from regard.io.image import read_image, slices
from regard.io.raster import Box, Raster
from regard.mapping.blend import windows_of
from regard.mapping.measures import as_bytes
from regard.mapping.predict import predict
from regard.mapping.region import Region, Regions, Window
from regard.models import Segmenter
from regard.options import Views, Windows
from regard.web.grid import SIDE, Address, PixelGrid, Places
from regard.web.live_prediction import Connected, Disconnected, Gate
from regard.web.png import NOTHING
from regard.web.raster_layer import RasterLayer

QUICK = (512, 128)  # tile and overlap of windows that nothing else decides, so that one is soon shown
MOST_WINDOWS = 36  # of the model for one tile; coarser tiles are not predicted exactly
MARGIN = SIDE // 2  # pixels around a coarse tile that the model sees with it


class Answer(NamedTuple):
    """A tile of a class map: its labels (or ``NOTHING``), and the probability of each in steps of 1/255."""

    labels: Integer[np.ndarray, "h w"]
    confidence: UInt8[np.ndarray, "h w"]

    @classmethod
    def empty(cls) -> Answer:
        return cls(np.full((SIDE, SIDE), NOTHING, np.int16), np.zeros((SIDE, SIDE), np.uint8))


class Photograph:
    """The map of a photograph, which is not tiled, with the methods of :class:`~regard.mapping.region.Regions`."""

    def __init__(self, model: Segmenter, path: Path, bands: tuple[int | str, ...] | None, windows: Windows) -> None:
        self.model, self.path, self.bands, self.tile = model, path, bands, windows.tile

    @cached_property
    def whole(self) -> Segmentation:
        found = predict(self.model, self.path, bands=self.bands)
        assert isinstance(found, Segmentation)
        return found

    def windows(self, box: Box) -> list[Window]:
        return [(0, 0)]

    def window(self, window: Window) -> Segmentation:
        return self.whole

    def region(self, box: Box) -> Region:
        labels = self.whole.labels[slices(box)]
        return Region(labels, self.whole.confidence[slices(box)], labels != self.whole.classes.ignore_index)

    def probabilities(self, x: int, y: int) -> Float[np.ndarray, " k"]:
        pixels = read_image(self.path, bands=self.bands, expected=self.model.bands)
        return scores_of(self.model, pixels, views_of(Views(), self.model))[:, y, x].softmax(dim=0).cpu().numpy()


class LiveMap:
    """Windows of the model behind a gate; the latest ones are kept."""

    def __init__(self, model: Segmenter, raster: Raster, windows: Windows, photograph: Photograph | None) -> None:
        self.model, self.raster, self.windows = model, raster, windows
        self.gate = Gate()
        self.regions: Regions | Photograph = photograph or Regions(model, raster, windows)
        self.grid = PixelGrid(raster.size)

    def answer(self, places: Places, connected: Connected) -> Answer:
        """The tile whose pixels are these ``places`` of the scene, as :func:`regard.predict` would map them."""
        found = Answer.empty()
        inside, rows, columns = places.within(Box(0, 0, *self.raster.size))
        if not inside.any():
            return found
        top, left = int(rows.min()), int(columns.min())
        part = self.region(Box(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1), connected)
        if part is None:
            return found
        cut = (rows - top, columns - left)
        found.labels[inside] = np.where(part.valid[cut], part.labels[cut].astype(np.int16), NOTHING)
        found.confidence[inside] = as_bytes(part.confidence[cut], part.valid[cut])
        return found

    def region(self, box: Box, connected: Connected) -> Region | None:
        """The predicted map of ``box``; None where it needs more than ``MOST_WINDOWS`` windows.

        Raises:
            Busy, Disconnected: see :meth:`Gate.turn`.
        """
        windows = self.regions.windows(box)
        if len(windows) > MOST_WINDOWS:
            return None
        with self.gate.turn(connected):
            for window in windows:
                if not connected():
                    raise Disconnected
                self.regions.window(window)
            return self.regions.region(box)

    def coarse(self, tile: Address, imagery: RasterLayer, connected: Connected) -> Answer:
        """A tile of the scene's own grid, predicted from the scene at the tile's resolution in one window.

        Raises:
            Busy, Disconnected: see :meth:`Gate.turn`.
        """
        left, top, right, bottom = self.grid.extent(tile)
        around, side = MARGIN * self.grid.step(tile.z), SIDE + 2 * MARGIN
        extent = (left - around, top - around, right + around, bottom + around)
        pixels = imagery.cut(extent, side, rough=True)
        if not pixels.valid[MARGIN:-MARGIN, MARGIN:-MARGIN].any():
            return Answer.empty()
        with self.gate.turn(connected):
            scores = scores_of(self.model, pixels)[:, MARGIN:-MARGIN, MARGIN:-MARGIN].softmax(dim=0).cpu()
        best = scores.max(dim=0)
        valid = pixels.valid[MARGIN:-MARGIN, MARGIN:-MARGIN]
        labels = np.where(valid, best.indices.numpy().astype(np.int16), np.int16(NOTHING))
        return Answer(labels, as_bytes(best.values.numpy(), valid))

    def finest_with(self, step: Callable[[int], float], zooms: range) -> int:
        """The coarsest of the ``zooms`` at which a tile needs at most ``MOST_WINDOWS`` windows of the model."""
        apart = self.windows.tile - self.windows.overlap
        rows, columns = (-(-length // apart) for length in self.raster.size)
        for z in zooms:
            if min(rows * columns, (SIDE * step(z) / apart + 2) ** 2) <= MOST_WINDOWS:
                return z
        return zooms.stop


def quick_windows(windows: Windows, model: Segmenter) -> Windows:
    """Those given, else those of the model's card as predict takes them, else small ones that are soon shown."""
    if not (windows.tile or model.card.window):
        windows = replace(windows, tile=QUICK[0], overlap=QUICK[1])
    return windows_of(windows, model)
