"""A sample's points to be labelled: one card a point, in random order, without a sight of the map that drew them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pyogrio.raw
import pyproj
import shapely
from affine import Affine
from jaxtyping import Float
from pydantic import ValidationError

from regard.classes import ClassMap, default_palette
from regard.errors import ConfigError
from regard.io.raster import to_map
from regard.io.vector_opening import as_it_is, gdal_name, layers_in
from regard.io.vectors import refusing
from regard.web.point_file import PointFile
from regard.web.raster_layer import Sources
from regard.web.scene_view import SceneView

LABEL = ("reference", "second_choice", "sure", "note", "time")
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
STYLE = "SELECT styleQML FROM layer_styles WHERE useAsDefault AND length(styleQML) < 1000000"


class Labelling(SceneView):
    """A scene and the points of a file on it, with what the page may know of them: where they are, not what is mapped.

    Raises:
        ConfigError: no file of points, none in the scene, or no classes to choose from.
    """

    def __init__(self, sources: Sources, points: Path, model: Any = None) -> None:
        if points.suffix.lower() != ".gpkg":
            raise ConfigError(f"points to label are in a GeoPackage; got {points.name}. regard sample writes one.")
        with refusing(points, "the points that regard sample wrote"):
            options = {"layer": next(iter(layers_in(points)), None), **as_it_is(points)}
            about = pyogrio.read_info(gdal_name(points), **options)
            meta, fids, geometry, values = pyogrio.raw.read(gdal_name(points), return_fids=True, **options)
        drawn = _said((about["layer_metadata"] or {}).get("DESCRIPTION"))
        classes = model.classes if model is not None else classes_in(points, drawn)
        super().__init__(sources, classes, model.bands if model is not None else None)
        names = frozenset(classes.names)
        choices = {"reference": names, "second_choice": names, "sure": ("yes", "no")}
        to_scene = self._from(about["crs"], points.name)
        self.points = PointFile(points, self.raster.transform, LABEL, choices, to_scene)
        columns = dict(zip(meta["fields"].tolist(), values, strict=True))
        xy = shapely.get_coordinates(shapely.from_wkb(geometry))
        corners = _units(xy, columns, drawn.get("transform"))
        outlines = self._pixels(xy, to_scene) if corners is None else self._placed(corners, to_scene)
        self.cards = [
            {"fid": fid, "outline": outline.round(4).tolist()}
            for fid, outline in sorted(zip(fids.tolist(), outlines, strict=True), key=lambda card: _shuffled(card[0]))
            if self._holds(outline.mean(axis=0))
        ]
        self.outside = len(outlines) - len(self.cards)
        if not self.cards:
            raise ConfigError(f"no point of {points.name} lies in {sources.scene.name}. Give the scene of the map.")

    def _from(self, crs: str | None, name: str) -> pyproj.Transformer | None:
        """From the CRS of the points to the scene's; None where it is the same."""
        own = None if self.raster.crs is None else pyproj.CRS.from_wkt(self.raster.crs.to_wkt())
        if (own is None) != (crs is None):
            raise ConfigError(f"{name} is in {crs or 'no CRS'}, the scene in {own and own.name}. Give both in one.")
        same = own is None or own == pyproj.CRS(crs)
        return None if same else pyproj.Transformer.from_crs(crs, own, always_xy=True)

    def _placed(self, corners: Float[np.ndarray, "n m 2"], to_scene: Any) -> Float[np.ndarray, "n m 2"]:
        """Corners on the ground in the scene's pixels."""
        flat = corners.reshape(-1, 2)
        if to_scene is not None:
            flat = np.stack(to_scene.transform(*flat.T), axis=1)
        return to_map(flat, ~self.raster.transform).reshape(corners.shape)

    def _pixels(self, xy: Float[np.ndarray, "n 2"], to_scene: Any) -> Float[np.ndarray, "n 4 2"]:
        """The scene's pixels at points that say nothing of the map's."""
        return np.floor(self._placed(xy[:, None], to_scene)) + CORNERS

    def _holds(self, centre: Float[np.ndarray, "2"]) -> bool:
        height, width = self.raster.size
        return bool(0 <= centre[0] < width and 0 <= centre[1] < height)

    def about(self) -> dict[str, Any]:
        """Facts of scene, classes and points for the page; there is nothing of a map among them."""
        return super().about() | {
            "exact_from": 0, "coarse": False, "map": None, "layers": [], "model": None, "xyz": {"kind": "none"},
            "label": {"columns": LABEL, "outside": self.outside},
        }  # fmt: skip


def _said(description: str | None) -> dict[str, Any]:
    """What regard sample wrote of the map into the file; nothing where another program has left it out."""
    with suppress(ValueError, KeyError, TypeError):
        found = json.loads(description or "")["regard_sample"]
        return found if isinstance(found, dict) else {}
    return {}


def classes_in(points: Path, drawn: dict[str, Any]) -> ClassMap:
    """The classes that a file of points offers: as regard sample wrote them, else the list of its form in QGIS.

    Raises:
        ConfigError: it says nothing of classes.
    """
    with suppress(KeyError, TypeError, ValidationError):
        return ClassMap(**drawn["classes"])
    with suppress(sqlite3.Error, ElementTree.ParseError, TypeError, ValidationError):
        with closing(sqlite3.connect(f"{points.absolute().as_uri()}?mode=ro", uri=True)) as database:
            form = ElementTree.fromstring(database.execute(STYLE).fetchone()[0])
        options = form.findall(".//field[@name='reference']//Option[@type='QString']")
        names = tuple(option.get("value", "") for option in options)
        return ClassMap(names=names, palette=default_palette(len(names)))
    raise ConfigError(
        f"{points.name} does not say which classes there are. Name the model of the map: regard view MODEL SCENE "
        f"--label {points.name}."
    )


def _units(xy: Float[np.ndarray, "n 2"], columns: dict[str, Any], transform: Any) -> Float[np.ndarray, "n 4 2"] | None:
    """The corners of each point's pixel or block of the map, in the coordinates of the points.

    None where the points do not say which pixel is theirs, or where that does not say how large one is.
    """
    if not {"map_row", "map_column"} <= set(columns):
        return None
    at = np.stack([np.asarray(columns[name], float) for name in ("map_column", "map_row")], axis=1)
    side = np.asarray(columns.get("block", np.ones(len(at))), float)[:, None]
    first = at // side * side
    place = _stored(transform) or _fitted(xy, first, side)
    if place is None or not np.isfinite(first).all():
        return None
    size = 2 * (to_map(xy, ~place) - first)  # of a block at the map's edge: what there is of it
    return to_map((first[:, None] + size[:, None] * CORNERS).reshape(-1, 2), place).reshape(-1, 4, 2)


def _stored(transform: Any) -> Affine | None:
    with suppress(TypeError, ValueError):
        place = Affine(*map(float, transform))
        return None if place.is_degenerate else place
    return None


def _fitted(xy: Any, first: Any, side: Any) -> Affine | None:
    """The transform by which whole units lie where their points are; None where those lie on one line."""
    whole = ((first < first.max(axis=0)) | (side == 1)).all(axis=1) & np.isfinite(first).all(axis=1)
    centres = np.concatenate([first + side / 2, np.ones_like(side)], axis=1)[whole]
    if np.linalg.matrix_rank(centres) < 3:
        return None
    found = np.linalg.lstsq(centres, xy[whole], rcond=None)[0]
    return Affine(*found[:, 0], *found[:, 1])


def _shuffled(fid: int) -> bytes:
    """A place in an order that is random, and the same in every copy of the file."""
    return hashlib.sha256(str(fid).encode()).digest()
