"""The layers of one scene as tiles, its legend, and the inspection of its pixels."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cachetools import LRUCache, cachedmethod
from jaxtyping import Bool, Float, Integer, UInt8

from regard.errors import ClassMismatch, SizeMismatch, UnreadableImage
from regard.inference.pictures import shown_bands
from regard.io.image import image_size, is_placed, read_image
from regard.io.raster import Box, Raster, open_raster
from regard.io.source import is_photograph
from regard.io.window_reader import in_memory
from regard.mapping.blend import windows_of
from regard.mapping.region import Region, Regions
from regard.mapping.scene_check import check_scene
from regard.models import Segmenter
from regard.options import Windows
from regard.web.grid import SIDE, Address, Grid, grid_of
from regard.web.live_prediction import Connected, Disconnected, Gate, Photograph
from regard.web.pixel_query import inspect
from regard.web.png import NOTHING, classes_png, errors_png, heat_png, labels_of, scene_png, stretch_of_scene
from regard.web.raster_layer import RasterLayer, Sources

SCENE_TILES, MAP_TILES = 512, 512
QUICK = (512, 128)  # tile and overlap of windows that nothing else decides, so that one is soon shown
MOST_WINDOWS = 36  # of the model for one tile; coarser tiles are not predicted


class Answer(NamedTuple):
    """A tile of a class map: its labels (or ``NOTHING``), and the probability of each in steps of 1/255."""

    labels: Integer[np.ndarray, "h w"]
    confidence: UInt8[np.ndarray, "h w"]


class Viewer:
    """One model, one scene, and its map, confidence and labels."""

    def __init__(self, model: Segmenter, sources: Sources, windows: Windows) -> None:
        self.model, self.sources, self._opened = model.eval(), sources, sources.fingerprints()
        if not (windows.tile or model.card.window):  # else as predict does
            windows = replace(windows, tile=QUICK[0], overlap=QUICK[1])
        self.windows = windows = windows_of(windows, model)
        self.is_photograph = is_photograph(sources.scene) and not is_placed(sources.scene)
        self.open_scene = self._opener()
        self.raster = self.open_scene()
        self.grid: Grid = grid_of(self.raster.size, self.raster.crs, self.raster.transform)
        bands = [self.raster.bands[place] for place in shown_bands(model.bands)]
        self.stretch = stretch_of_scene(self.raster, bands)
        self.layers = {"scene": RasterLayer(self.open_scene, self.grid, bands, nearest=False)}
        for name in ("labels_map", "confidence", "labels"):
            path: Path | None = getattr(sources, name)
            if path is not None:
                self.layers[name] = self._layer(path, name)
        self.gate = Gate()
        self.regions: Regions | Photograph = (
            Photograph(model, sources.scene, sources.bands, windows)
            if self.is_photograph
            else Regions(model, self.raster, windows)
        )
        self._scene_tiles: LRUCache[Address, bytes] = LRUCache(SCENE_TILES)
        self._maps: LRUCache[Address, Answer] = LRUCache(MAP_TILES)
        self._lock = threading.Lock()

    def check(self) -> None:
        """Before the model's first window: see :func:`~regard.mapping.scene_check.check_scene`."""
        if self.sources.labels_map is None and not isinstance(self.regions, Photograph):
            check_scene(self.model, self.raster)

    def _opener(self) -> Callable[[], Raster]:
        """Opens the scene as a raster; a photograph is decoded once, upright, into memory."""
        path, bands, expected = self.sources.scene, self.sources.bands, self.model.bands
        if self.is_photograph:
            return in_memory(read_image(path, bands=bands, expected=expected))
        return partial(open_raster, path, bands=bands, expected=expected)

    def _layer(self, path: Path, name: str) -> RasterLayer:
        if image_size(path) != self.raster.size:
            raise SizeMismatch(
                f"{path.name} is {image_size(path)[1]} x {image_size(path)[0]} pixels, {self.sources.scene.name} "
                f"{self.raster.size[1]} x {self.raster.size[0]}. Give files on the same grid."
            )
        with open_raster(path) as raster:
            stored = raster.tags().get("regard_classes")
            count = len(raster.bands)
        names = self.model.classes.names
        if stored is not None and name == "labels_map" and tuple(json.loads(stored)) != names:
            raise ClassMismatch(
                f"{path.name} has the classes {', '.join(json.loads(stored))}; the model has {', '.join(names)}. Give "
                "the model that made the map."
            )
        bands = (1, 2, 3) if count >= 3 and name == "labels" else (1,)
        return RasterLayer(partial(open_raster, path), self.grid, bands, nearest=name != "confidence")

    @property
    def names(self) -> list[str]:
        """The layers that there are tiles of; a map without its confidence has no such layer."""
        confident = "labels_map" not in self.layers or "confidence" in self.layers
        further = ["labels", "errors"] if "labels" in self.layers else []
        return ["scene", "prediction", *(["confidence"] if confident else []), *further]

    def picture(self, name: str, tile: Address, shown: Bool[np.ndarray, " k"], connected: Connected) -> bytes:
        """A tile of a layer as PNG; only the ``shown`` classes of the prediction and the labels."""
        self._check_unchanged()
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

    def scene(self, tile: Address) -> bytes:
        """The scene; overviews show as much as has been read."""
        layer = self.layers["scene"]
        if layer.is_rough(tile):
            return scene_png(layer.tile(tile, rough=True), self.stretch)
        return self._whole_scene(tile)

    @cachedmethod(attrgetter("_scene_tiles"), lock=attrgetter("_lock"))
    def _whole_scene(self, tile: Address) -> bytes:
        return scene_png(self.layers["scene"].tile(tile), self.stretch)

    @cachedmethod(attrgetter("_maps"), lambda self, tile, connected: tile, attrgetter("_lock"))
    def answer(self, tile: Address, connected: Connected) -> Answer:
        """The tile of the class map, from its file or else by the model."""
        return self._from_file(tile) if "labels_map" in self.layers else self._from_model(tile, connected)

    def truth(self, tile: Address) -> Integer[np.ndarray, "h w"]:
        """The reference classes of a tile."""
        return labels_of(self.layers["labels"].tile(tile), self.model.classes)

    def _from_file(self, tile: Address) -> Answer:
        labels = labels_of(self.layers["labels_map"].tile(tile), self.model.classes)
        if "confidence" not in self.layers:
            return Answer(labels, np.zeros_like(labels, np.uint8))
        confidence, valid = self.layers["confidence"].tile(tile)
        floating = np.issubdtype(confidence.dtype, np.floating)
        return Answer(labels, np.where(valid, confidence[0] * 255 if floating else confidence[0], 0).astype(np.uint8))

    def _from_model(self, tile: Address, connected: Connected) -> Answer:
        nothing = Answer(np.full((SIDE, SIDE), NOTHING, np.int16), np.zeros((SIDE, SIDE), np.uint8))
        places = self.grid.places(self.grid.extent(tile), (SIDE, SIDE))
        inside, rows, columns = places.within(Box(0, 0, *self.raster.size))
        if not inside.any():
            return nothing
        top, left = int(rows.min()), int(columns.min())
        part = self.region(Box(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1), connected)
        if part is None:
            return nothing
        cut = (rows - top, columns - left)
        nothing.labels[inside] = np.where(part.valid[cut], part.labels[cut].astype(np.int16), NOTHING)
        nothing.confidence[inside] = np.where(part.valid[cut], np.rint(part.confidence[cut] * 255).clip(1), 0)
        return nothing

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

    @property
    def coarsest_live(self) -> int:
        """The coarsest zoom at which a tile needs at most ``MOST_WINDOWS`` windows of the model."""
        apart = self.windows.tile - self.windows.overlap
        rows, columns = (-(-length // apart) for length in self.raster.size)
        for z in range(self.grid.coarsest, self.grid.finest):
            if min(rows * columns, (SIDE * self.grid.step(z) / apart + 2) ** 2) <= MOST_WINDOWS:
                return z
        return self.grid.finest

    def shares(self, z: int, left: float, top: float, right: float, bottom: float) -> dict[str, Any]:
        """The frequency of each class in a view (in pixels of zoom ``z``), over the tiles predicted so far."""
        counts = np.zeros(len(self.model.classes) + 1)
        for x in range(int(left // SIDE), int(right // SIDE) + 1):
            for y in range(int(top // SIDE), int(bottom // SIDE) + 1):
                with self._lock:
                    found = self._maps.get(Address(z, x, y))
                if found is not None:
                    counts += self._count(found, Address(z, x, y), (left, top, right, bottom))
        return {"shares": (counts[:-1] / max(counts[:-1].sum(), 1e-9)).tolist()}

    def _count(self, found: Answer, tile: Address, view: tuple[float, float, float, float]) -> Float[np.ndarray, " n"]:
        left, top, right, bottom = np.rint(view).astype(int) - np.array([tile.x, tile.y, tile.x, tile.y]) * SIDE
        cut = (slice(max(0, top), max(0, bottom)), slice(max(0, left), max(0, right)))
        labels = found.labels[cut]
        weights = np.broadcast_to(self.grid.weights(tile)[cut[0], None], labels.shape)
        return np.bincount(labels.ravel() % (len(self.model.classes) + 1), weights.ravel(), len(self.model.classes) + 1)

    def inspect(self, x: float, y: float, connected: Connected) -> dict[str, Any]:
        """Class probabilities and attention maps of the pixel under a point of the page."""
        self._check_unchanged()
        with self.gate.turn(connected):
            return inspect(self.model, self.sources.scene, self.grid, self.regions, (x, y), bands=self.sources.bands)

    def _check_unchanged(self) -> None:
        """No tile mixes two files: a link or another run of the model may have taken a name meanwhile."""
        for before, now in zip(self._opened, self.sources.fingerprints(), strict=True):
            if before != now:
                raise UnreadableImage(f"{Path(now[0]).name} has changed since it was opened. Start the viewer again.")

    def about(self) -> dict[str, Any]:
        """Facts of scene, map and model for the page."""
        card, sources = self.model.card, self.sources
        known = sources.labels_map is not None
        return {
            "scene": sources.scene.name,
            "size": list(self.raster.size),
            "kind": self.grid.kind,
            "bounds": self.grid.corners(self.grid.around(Box(0, 0, *self.raster.size))),
            "coarsest": self.grid.coarsest,
            "finest": self.grid.finest,
            "coarsest_live": self.grid.coarsest if known else self.coarsest_live,
            "progress": self.layers["scene"].progress,
            "classes": [
                {"name": name, "colour": list(colour)}
                for name, colour in zip(card.classes.names, card.classes.palette, strict=True)
            ],
            "map": sources.labels_map.name if sources.labels_map else None,
            "layers": self.names[1:],
            "model": {"architecture": card.architecture, "licence": card.licence, "origin": card.origin},
        }

    def close(self) -> None:
        """Close all files."""
        self.raster.close()
        for layer in self.layers.values():
            layer.close()
