"""The layers of one scene as tiles, its legend, and the inspection of its pixels."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from cachetools import LRUCache, cachedmethod
from jaxtyping import Bool, Integer

from regard.errors import ConfigError
from regard.io.raster import Box
from regard.mapping.scene_check import check_scene
from regard.models import Segmenter
from regard.options import Windows
from regard.web.grid import Address, Grid
from regard.web.live_map import Answer, LiveMap, Photograph, quick_windows
from regard.web.live_prediction import Connected
from regard.web.pixel_query import attention, inspect
from regard.web.png import classes_png, errors_png, heat_png, labels_of, packed
from regard.web.point_file import PointFile
from regard.web.raster_layer import Sources, layer_on
from regard.web.scene_view import SceneView

MAP_TILES = 512


class Viewer(SceneView):
    """One model, one scene, and its map, confidence and labels."""

    predicts = True
    hint = "Tiles of the model for QGIS: {url}prediction/{{z}}/{{x}}/{{y}}.png\n"

    def __init__(self, model: Segmenter, sources: Sources, windows: Windows, *, notes: Path | None = None) -> None:
        self.model, self.windows = model.eval(), quick_windows(windows, model)
        super().__init__(sources, model.classes, model.bands)
        own = self.place.crs is not None
        place = (self.raster.crs, self.raster.transform) if own else (None, Affine(1, 0, 0, 0, -1, 0))
        self.points = None if notes is None else PointFile.notes(notes, *place)
        for name in ("labels_map", "confidence", "labels"):
            path: Path | None = getattr(sources, name)
            if path is not None:
                self.layers[name] = layer_on(
                    self.grid, path, name, sources.scene, self.raster.size, model.classes.names
                )
        photograph = Photograph(model, sources.scene, sources.bands, self.windows) if self.is_photograph else None
        self.live = LiveMap(model, self.raster, self.windows, photograph)
        self._maps: LRUCache[Any, Answer] = LRUCache(MAP_TILES)

    def check(self) -> None:
        """Before the model's first window: see :func:`~regard.mapping.scene_check.check_scene`."""
        if self.sources.labels_map is None and not self.is_photograph:
            check_scene(self.model, self.raster)

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

    def about(self) -> dict[str, Any]:
        """Facts of scene, map and model for the page."""
        card, sources, own = self.model.card, self.sources, self.grid
        known = sources.labels_map is not None
        live = self.live.finest_with(self.pixels.step, range(self.pixels.finest))
        return super().about() | {
            "exact_from": 0 if known else live,
            "coarse": not known and not self.is_photograph,
            "xyz": {"kind": own.kind, "coarsest": own.coarsest, "finest": own.finest,
                    "extent": list(own.around(Box(0, 0, *self.raster.size)))},
            "map": sources.labels_map.name if sources.labels_map else None,
            "layers": self.names[1:],
            "model": {"architecture": card.architecture, "licence": card.licence, "origin": card.origin},
        }  # fmt: skip
