"""The description of scenes and of the polygons over them, as a .json file has it, and the values of its columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from regard.classes import first_reason
from regard.errors import DatasetError, unknown
from regard.files import json_of
from regard.io.vectors import Polygons
from regard.options import GSD

ANY = "*"  # in the list of a class: every value that no class lists
BOUNDS = '{"bounds": [west, south, east, north], "crs": "EPSG:4326"}'
VECTORS = (".geojson", ".gpkg", ".shp", ".fgb", ".parquet", ".kml", ".gml", ".gdb", ".sqlite", ".topojson")
MOST_PIXELS, MOST_METRES = 2**31 - 1, 1e9  # of a scene; from the origin of a CRS


class Bounds(BaseModel):
    """A rectangle in a CRS that PROJ knows by this name: west, south, east, north."""

    model_config = ConfigDict(frozen=True)

    bounds: tuple[float, float, float, float]
    crs: str

    @model_validator(mode="after")
    def _check(self) -> Bounds:
        west, south, east, north = self.bounds
        try:
            pyproj.CRS.from_user_input(self.crs)
        except pyproj.exceptions.CRSError:
            raise ValueError("no such CRS") from None
        if not (west < east and south < north):
            raise ValueError("bounds in another order")
        if max(map(abs, self.bounds)) > MOST_METRES:
            raise ValueError("bounds that no place on Earth has")
        return self


class PolygonScenes(BaseModel):
    """A description of scenes and of the polygons over them; paths are relative to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    images: tuple[str, ...] = Field(min_length=1)
    labels: str
    layer: str | None = None  # of the labels, where the file has several
    where: str | None = None  # the condition for a polygon to be used: OGR SQL
    column: tuple[str, ...] = ()  # the first of these that has a value gives the class
    value: str | None = None  # the class of all polygons, in place of a column
    classes: dict[str, tuple[str, ...]] | None = None  # in this order, with their values; without, the column's
    background: str | None = None  # the class of the ground without a polygon
    extent: str | Bounds | None = None  # what was labelled; the rest is unlabelled
    split: str | None = None  # a column with train, val or test: of the polygons; with background, of the extent
    val: float = Field(0.3, ge=0, lt=1)  # share of each class's area, where no column gives the split
    touched: bool = False  # label every pixel that a polygon touches, not only those whose centre it covers
    # pixels; a block of ground, or the polygons centred in it, is in one split
    block: int | None = Field(None, ge=1, le=MOST_PIXELS)
    window: int = Field(1024, ge=32, le=MOST_PIXELS)  # pixels
    gsd: float | None = Field(None, ge=GSD[0], le=GSD[1])  # metres per pixel at which scenes are read and labels drawn

    @classmethod
    def read(cls, path: Path) -> PolygonScenes:
        """The description in a JSON file; a DatasetError if it is missing, not JSON, or lacks a part."""
        needed = '{"images": ["scene.tif"], "labels": "fields.gpkg", "column": "class"}'
        try:
            found = json_of(path.read_text(encoding="utf-8-sig"))
            if isinstance(found, dict) and found.get("type") == "FeatureCollection":
                raise DatasetError(describe_it(path))
            return cls.model_validate(found)
        except ValidationError as error:
            reason = cls._reason(error)
        except (OSError, ValueError) as error:
            reason = f"not JSON: {error}"
        raise DatasetError(f"{path}: {reason}. It needs {needed}.")

    @classmethod
    def _reason(cls, error: ValidationError) -> str:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            return str(unknown("key", str(first["loc"][0]), cls.model_fields)).rstrip(".")
        got = f", got {json.dumps(first['input'])[:60]}" if first["type"] not in ("missing", "value_error") else ""
        return first_reason(error).replace("a valid tuple", "a list in [ ]").removeprefix(": ") + got

    @field_validator("column", mode="before")
    @classmethod
    def _one_column(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @field_validator("classes", mode="before")
    @classmethod
    def _values_of_classes(cls, given: Any) -> Any:
        """Names alone are values too."""
        if isinstance(given, dict):
            given = {name: [values] if isinstance(values, str) else values for name, values in given.items()}
            every = [value for values in given.values() if isinstance(values, list) for value in values]
        elif isinstance(given, list | tuple):
            every = list(given)
            given = {name: [name] for name in every} if all(isinstance(name, str | int) for name in every) else given
        else:
            return given
        twice = next((value for value, count in Counter(map(repr, every)).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands twice")
        return given

    @field_validator("extent", mode="before")
    @classmethod
    def _bounds_with_a_crs(cls, given: Any) -> Any:
        if given is None or isinstance(given, str | Bounds):
            return given
        try:
            return Bounds.model_validate(given)
        except ValidationError:
            raise ValueError(f"got {json.dumps(given)[:60]}; need a file, or {BOUNDS}") from None

    @model_validator(mode="after")
    def _check_classes(self) -> PolygonScenes:
        if bool(self.column) == (self.value is not None):
            raise ValueError("""need either "column", which names the classes, or "value", the class of all polygons""")
        if self.value is not None and self.classes is not None and self.value not in self.classes:
            raise ValueError(f"value {self.value!r} is not among the classes {', '.join(self.classes)}")
        return self

    @property
    def source(self) -> str:
        """The file of the labels with its layer, as the readers of vectors take it."""
        return self.labels if self.layer is None else f"{self.labels}|layername={self.layer}"

    def names(self, present: Iterable[str]) -> tuple[str, ...]:
        """The classes in the order of their labels, from the values that are present where none are listed."""
        listed = self.classes or ([self.value] if self.value is not None else sorted(present))
        before = () if self.background is None or self.background in listed else (self.background,)
        return (*before, *listed)


def describe_it(path: Path) -> str:
    """What to write for a vector file that was given without a scene."""
    minimal = {"images": ["scene.tif"], "labels": path.name, "value": "building", "background": "other"}
    return f"{path.name} has polygons but no scene. Describe both in a file labels.json: {json.dumps(minimal)}."


def values_of(polygons: Polygons, description: PolygonScenes) -> np.ndarray:
    """The value of each polygon that gives its class: of the first column that has one; empty if none has."""
    if description.value is not None:
        return np.full(len(polygons.shapes), description.value)
    found = texts(polygons.values[0])
    for column in polygons.values[1 : len(description.column)]:
        found = np.where(found == "", texts(column), found)
    return found


def texts(column: np.ndarray) -> np.ndarray:
    """The values of a column as text; empty where there is none."""
    return np.array([text_of(value) for value in column])


def text_of(value: Any) -> str:
    """A value of a column as the name of a class; empty if there is none."""
    if value is None or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value).strip()
