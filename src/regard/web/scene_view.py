"""One scene as tiles of its pixels, in bands and a stretch of choice: what every page of the viewer shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache
from jaxtyping import Float

from regard.classes import ClassMap
from regard.inference.pictures import PERCENTILES, shown_bands
from regard.io.image import is_placed, read_image
from regard.io.raster import Raster, open_raster
from regard.io.source import is_photograph
from regard.io.window_reader import in_memory
from regard.web.georeference import Placement
from regard.web.grid import Address, Extent, Grid, PixelGrid, grid_of
from regard.web.png import scene_png, stretch_of_scene
from regard.web.point_file import PointFile
from regard.web.raster_layer import Changed, RasterLayer, Sources

SCENE_TILES = 512
MOST_VIEWS = 4  # choices of bands that are kept
Stretch = Float[np.ndarray, "2 3"] | None
Bands = tuple[int, int, int]


class SceneView:
    """A scene, the ``classes`` of its pixels, and a file of points on it; ``expected`` are the bands of a model."""

    points: PointFile | None = None
    predicts = False  # whether there are answers of a model to ask for
    hint = ""  # what the terminal says besides the address

    def __init__(self, sources: Sources, classes: ClassMap, expected: Sequence[str] | None = None) -> None:
        self.sources, self.classes, self._opened = sources, classes, sources.states()
        self.is_photograph = is_photograph(sources.scene) and not is_placed(sources.scene)
        self.open_scene = self._opener(expected)
        self.raster = self.open_scene()
        self.grid: Grid = grid_of(self.raster.size, self.raster.crs, self.raster.transform)  # of the tiles for others
        self.pixels = PixelGrid(self.raster.size)  # of the page
        self.place = Placement(self.raster)
        bands = [self.raster.bands[place] for place in shown_bands(self._colours(expected))]
        self.bands: Bands = (bands[0], bands[1], bands[2])
        self.layers = {"scene": RasterLayer(self.open_scene, self.grid, bands, nearest=False)}
        self._scene_tiles: LRUCache[Any, bytes] = LRUCache(SCENE_TILES)
        self._imagery: LRUCache[tuple[int, ...], RasterLayer] = LRUCache(MOST_VIEWS)
        self._stretches: LRUCache[Any, Stretch] = LRUCache(16)
        self._lock = threading.RLock()
        self.stretch = self.stretch_of(self.bands, None)

    def _opener(self, expected: Sequence[str] | None) -> Callable[[], Raster]:
        """Opens the scene as a raster; a photograph is decoded once, upright, into memory."""
        path, bands = self.sources.scene, self.sources.bands
        if self.is_photograph:
            return in_memory(read_image(path, bands=bands, expected=expected))
        return partial(open_raster, path, bands=bands, expected=expected)

    def _colours(self, expected: Sequence[str] | None) -> Sequence[str]:
        """The names of the bands that are read, among which red, green and blue may be."""
        if expected or self.sources.bands:
            return expected or [""] * len(self.raster.bands)
        return [self.raster.file_bands[number - 1].colour for number in self.raster.bands]

    def scene(
        self, tile: Address, grid: Grid | None = None, bands: Bands | None = None, cut: float | None = None
    ) -> bytes:
        """The scene; overviews show as much as has been read. ``cut`` percent of values are clipped at both ends."""
        grid, bands = grid or self.grid, bands or self.bands
        layer, stretch = self.imagery(bands), self.stretch_of(bands, cut)
        if layer.is_rough(grid.step(tile.z)):
            return scene_png(layer.tile(tile, grid, rough=True), stretch)
        key = (grid.kind, tile, bands, cut)
        with self._lock:
            found = self._scene_tiles.get(key)
        if found is None:
            found = scene_png(layer.tile(tile, grid), stretch)
            with self._lock:
                self._scene_tiles[key] = found
        return found

    def imagery(self, bands: tuple[int, ...]) -> RasterLayer:
        """The scene in these bands of its file."""
        if bands == self.bands:
            return self.layers["scene"]
        with self._lock:
            if bands not in self._imagery:
                while len(self._imagery) >= MOST_VIEWS:
                    self._imagery.popitem()[1].close()
                self._imagery[bands] = RasterLayer(self.open_scene, self.pixels, bands, nearest=False)
            return self._imagery[bands]

    def around(self, extent: Extent, side: int, bands: Bands | None = None, cut: float | None = None) -> bytes:
        """A square of the scene, in its pixels, as a picture of ``side`` pixels."""
        bands = bands or self.bands
        return scene_png(self.imagery(bands).cut(extent, side, rough=True), self.stretch_of(bands, cut))

    def stretch_of(self, bands: Bands, cut: float | None) -> Stretch:
        """The values that are black and white: percentiles of the whole scene; None for bytes as they are."""
        if cut == 0 or (cut is None and self.raster.dtypes[0] == "uint8"):
            return None
        low, high = PERCENTILES if cut is None else (cut, 100 - cut)
        ends = (float(low), float(high))
        with self._lock:
            if (bands, ends) not in self._stretches:
                with self.open_scene() as raster:
                    self._stretches[bands, ends] = stretch_of_scene(raster, bands, ends)
            return self._stretches[bands, ends]

    def check_unchanged(self) -> None:
        """No tile mixes two files: a link or another run of the model may have taken a name meanwhile."""
        for before, now in zip(self._opened, self.sources.states(), strict=True):
            if before != now:
                raise Changed(f"{Path(now[0]).name} has changed since it was opened. Start the viewer again.")

    def about(self) -> dict[str, Any]:
        """Facts of the scene and the classes for the page."""
        return {
            "scene": self.sources.scene.name,
            "size": list(self.raster.size),
            "finest": self.pixels.finest,
            "place": self.place.about(),
            "progress": self.layers["scene"].progress,
            "points": self.points.about() if self.points else None,
            "bands": {"names": self.band_names, "shown": list(self.bands), "bytes": self.raster.dtypes[0] == "uint8"},
            "classes": [
                {"name": name, "colour": list(colour)}
                for name, colour in zip(self.classes.names, self.classes.palette, strict=True)
            ],
        }

    @property
    def band_names(self) -> list[str]:
        """Of all bands of the scene's file."""
        bands = enumerate(self.raster.file_bands, 1)
        return [
            band.description or (band.colour if band.colour not in ("gray", "undefined") else f"band {number}")
            for number, band in bands
        ]

    def close(self) -> None:
        """Close all files."""
        self.raster.close()
        for layer in (*self.layers.values(), *self._imagery.values()):
            layer.close()
