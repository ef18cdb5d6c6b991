"""The layers of one scene as tiles, its legend, and the inspection of its pixels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from cachetools import LRUCache, cachedmethod
from jaxtyping import Bool, Float, Integer

from regard.errors import ConfigError
from regard.inference.pictures import PERCENTILES, shown_bands
from regard.io.image import is_placed, read_image
from regard.io.raster import Box, Raster, open_raster
from regard.io.source import is_photograph
from regard.io.window_reader import in_memory
from regard.mapping.scene_check import check_scene
from regard.models import Segmenter
from regard.options import Windows
from regard.web.georeference import Placement
from regard.web.grid import Address, Grid, PixelGrid, grid_of
from regard.web.live_map import Answer, LiveMap, quick_windows
from regard.web.live_prediction import Connected, Photograph
from regard.web.pixel_query import attention, inspect
from regard.web.png import classes_png, errors_png, heat_png, labels_of, packed, scene_png, stretch_of_scene
from regard.web.point_file import PointFile
from regard.web.raster_layer import Changed, RasterLayer, Sources, layer_on

SCENE_TILES, MAP_TILES = 512, 512
MOST_VIEWS = 4  # choices of bands that are kept
Stretch = Float[np.ndarray, "2 3"] | None
Bands = tuple[int, int, int]


class Viewer:
    """One model, one scene, and its map, confidence and labels."""

    def __init__(self, model: Segmenter, sources: Sources, windows: Windows, *, notes: Path | None = None) -> None:
        self.model, self.sources, self._opened = model.eval(), sources, sources.states()
        self.windows = windows = quick_windows(windows, model)
        self.is_photograph = is_photograph(sources.scene) and not is_placed(sources.scene)
        self.open_scene = self._opener()
        self.raster = self.open_scene()
        self.grid: Grid = grid_of(self.raster.size, self.raster.crs, self.raster.transform)  # of the tiles for others
        self.pixels = PixelGrid(self.raster.size)  # of the page
        self.place = Placement(self.raster)
        own = self.place.crs is not None
        self.notes = notes and PointFile.notes(
            notes, self.raster.crs if own else None, self.raster.transform if own else Affine(1, 0, 0, 0, -1, 0)
        )
        bands = [self.raster.bands[place] for place in shown_bands(model.bands)]
        self.bands: Bands = (bands[0], bands[1], bands[2])
        self.layers = {"scene": RasterLayer(self.open_scene, self.grid, bands, nearest=False)}
        for name in ("labels_map", "confidence", "labels"):
            path: Path | None = getattr(sources, name)
            if path is not None:
                self.layers[name] = layer_on(
                    self.grid, path, name, sources.scene, self.raster.size, model.classes.names
                )
        photograph = Photograph(model, sources.scene, sources.bands, windows) if self.is_photograph else None
        self.live = LiveMap(model, self.raster, windows, photograph)
        self._scene_tiles: LRUCache[Any, bytes] = LRUCache(SCENE_TILES)
        self._maps: LRUCache[Any, Answer] = LRUCache(MAP_TILES)
        self._imagery: LRUCache[tuple[int, ...], RasterLayer] = LRUCache(MOST_VIEWS)
        self._stretches: LRUCache[Any, Stretch] = LRUCache(16)
        self._lock = threading.RLock()
        self.stretch = self.stretch_of(self.bands, None)

    def check(self) -> None:
        """Before the model's first window: see :func:`~regard.mapping.scene_check.check_scene`."""
        if self.sources.labels_map is None and not self.is_photograph:
            check_scene(self.model, self.raster)

    def _opener(self) -> Callable[[], Raster]:
        """Opens the scene as a raster; a photograph is decoded once, upright, into memory."""
        path, bands, expected = self.sources.scene, self.sources.bands, self.model.bands
        if self.is_photograph:
            return in_memory(read_image(path, bands=bands, expected=expected))
        return partial(open_raster, path, bands=bands, expected=expected)

    @property
    def names(self) -> list[str]:
        """The layers that there are tiles of; a map without its confidence has no such layer."""
        confident = "labels_map" not in self.layers or "confidence" in self.layers
        further = ["labels", "errors"] if "labels" in self.layers else []
        return ["scene", "prediction", *(["confidence"] if confident else []), *further]

    @property
    def tiles_of_values(self) -> set[str]:
        """The layers whose classes and confidences the page gets; it makes the errors itself."""
        known, labelled = "labels_map" in self.layers, "labels" in self.layers
        return (
            {"prediction"}
            | ({"labels"} if labelled else set())
            | (set() if known or self.is_photograph else {"coarse"})
        )

    def picture(self, name: str, tile: Address, shown: Bool[np.ndarray, " k"], connected: Connected) -> bytes:
        """A tile of a layer as PNG, for QGIS; only the ``shown`` classes of the prediction and the labels."""
        self.check_unchanged()
        classes = self.model.classes
        if name == "scene":
            return self.scene(tile)
        if name == "labels":
            return classes_png(self.truth(tile), classes, shown)
        answer = self.answer(tile, connected)
        if name == "confidence":  # dark where it is low
            return heat_png(answer.confidence, "viridis", (1.0, 1.0))
        if name == "errors":
            return errors_png(answer.labels, self.truth(tile))
        return classes_png(answer.labels, classes, shown)

    def values(self, name: str, tile: Address, connected: Connected) -> bytes:
        """A tile of a layer of classes in the scene's own pixels, for the page, which colours it.

        ``coarse`` is the prediction from the scene at the tile's resolution.
        """
        self.check_unchanged()
        if name == "labels":
            return packed(self.truth(tile, self.pixels), None, len(self.model.classes))
        answer = self.coarse(tile, connected) if name == "coarse" else self.answer(tile, connected, self.pixels)
        return packed(answer.labels, answer.confidence, len(self.model.classes))

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

    @cachedmethod(
        attrgetter("_maps"),
        lambda self, tile, connected, grid=None: ((grid or self.grid).kind, tile),
        attrgetter("_lock"),
    )
    def answer(self, tile: Address, connected: Connected, grid: Grid | None = None) -> Answer:
        """The tile of the class map, from its file or else by the model."""
        grid = grid or self.grid
        if "labels_map" in self.layers:
            return self._from_file(tile, grid)
        return self.live.answer(grid.places(grid.extent(tile)), connected)

    @cachedmethod(attrgetter("_maps"), lambda self, tile, connected: ("coarse", tile), attrgetter("_lock"))
    def coarse(self, tile: Address, connected: Connected) -> Answer:
        """See :meth:`LiveMap.coarse`."""
        bands = tuple(self.raster.bands)
        return self.live.coarse(tile, self.imagery(bands), connected)

    def truth(self, tile: Address, grid: Grid | None = None) -> Integer[np.ndarray, "h w"]:
        """The reference classes of a tile."""
        return labels_of(self.layers["labels"].tile(tile, grid), self.model.classes)

    def _from_file(self, tile: Address, grid: Grid) -> Answer:
        labels = labels_of(self.layers["labels_map"].tile(tile, grid), self.model.classes)
        if "confidence" not in self.layers:
            return Answer(labels, np.zeros_like(labels, np.uint8))
        confidence, valid = self.layers["confidence"].tile(tile, grid)
        floating = np.issubdtype(confidence.dtype, np.floating)
        return Answer(labels, np.where(valid, confidence[0] * 255 if floating else confidence[0], 0).astype(np.uint8))

    def inspect(self, x: float, y: float, connected: Connected, *, why: bool = False) -> dict[str, Any]:
        """Class, probabilities and band values of the pixel at a column and row; ``why``: its attention maps instead.

        Raises:
            ConfigError: the scene has no such pixel.
        """
        self.check_unchanged()
        height, width = self.raster.size
        if not (0 <= x < width and 0 <= y < height):
            raise ConfigError(
                f"{self.sources.scene.name} does not reach there; it is {width} x {height} pixels. Choose one inside."
            )
        with self.live.gate.turn(connected):
            return (attention if why else inspect)(self, int(x), int(y))

    def check_unchanged(self) -> None:
        """No tile mixes two files: a link or another run of the model may have taken a name meanwhile."""
        for before, now in zip(self._opened, self.sources.states(), strict=True):
            if before != now:
                raise Changed(f"{Path(now[0]).name} has changed since it was opened. Start the viewer again.")

    def about(self) -> dict[str, Any]:
        """Facts of scene, map and model for the page."""
        card, sources, own = self.model.card, self.sources, self.grid
        known = sources.labels_map is not None
        live = self.live.finest_with(self.pixels.step, range(self.pixels.finest))
        return {
            "scene": sources.scene.name,
            "size": list(self.raster.size),
            "finest": self.pixels.finest,
            "exact_from": 0 if known else live,
            "coarse": not known and not self.is_photograph,
            "place": self.place.about(),
            "xyz": {"kind": own.kind, "coarsest": own.coarsest, "finest": own.finest,
                    "extent": list(own.around(Box(0, 0, *self.raster.size)))},
            "progress": self.layers["scene"].progress,
            "notes": self.notes.path.name if self.notes else None,
            "bands": {"names": self.band_names, "shown": list(self.bands), "bytes": self.raster.dtypes[0] == "uint8"},
            "classes": [
                {"name": name, "colour": list(colour)}
                for name, colour in zip(card.classes.names, card.classes.palette, strict=True)
            ],
            "map": sources.labels_map.name if sources.labels_map else None,
            "layers": self.names[1:],
            "model": {"architecture": card.architecture, "licence": card.licence, "origin": card.origin},
        }  # fmt: skip

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
