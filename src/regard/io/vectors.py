"""Vector files: polygons of any format, areas of interest, and a writer that publishes complete files only."""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyogrio
import pyogrio.raw
import pyproj
import shapely

from regard.errors import ConfigError, MissingExtra, UnreadableImage
from regard.files import FileWriter, check_writable
from regard.io.raster import Raster, to_map

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf", ".parquet": "Parquet"}
BATCH = 20_000  # polygons
BROKEN = (RuntimeError, OSError, IndexError, sqlite3.Error)  # raised where a file cannot be written or is cut short

Columns = Mapping[str, np.ndarray]
Area = str | Path | Sequence[float]  # bounds, or a vector file


def check_vector_target(path: Path) -> str:
    """The driver that the ending of ``path`` asks for, after a look whether the file can be written.

    Raises:
        ConfigError: an ending that is not among the formats.
        MissingExtra: GeoParquet without pyarrow.
        OutputError: the folder cannot be written to.
    """
    driver = DRIVERS.get(path.suffix.lower())
    if driver is None:
        raise ConfigError(f"polygons go to {', '.join(DRIVERS)}; got {path.name}. Name it {path.stem}.gpkg.")
    if driver == "Parquet" and find_spec("pyarrow") is None:
        raise MissingExtra(f"{path.name} needs pyarrow, which is not installed: pip install pyarrow, or write .gpkg.")
    check_writable(path)
    return driver


class Polygons(NamedTuple):
    """The polygons of a vector file in its own CRS, their numbers there, their values in some columns, and how many
    features are no polygons: points, lines, those without a place.
    """

    crs: str | None
    numbers: np.ndarray
    shapes: np.ndarray
    values: list[np.ndarray]
    others: int


def read_shapes(path: Path, columns: Sequence[str] = ()) -> Polygons:
    """The polygons of a vector file as they stand there.

    Raises:
        UnreadableImage: the file cannot be read as vectors.
        ConfigError: no polygon, or no such column.
    """
    if not path.is_file():
        raise UnreadableImage(f"{path} does not exist. Give the path of a vector file.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Several features with id", RuntimeWarning)
            meta, numbers, geometry, values = pyogrio.raw.read(path, columns=list(columns), return_fids=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise UnreadableImage(f"{path} cannot be read as vectors ({' '.join(str(error).split())[:120]}).") from None
    fields = list(meta["fields"])
    missing = [name for name in columns if name not in fields]
    if missing:
        names = ", ".join(pyogrio.read_info(path)["fields"])
        raise ConfigError(f"{path.name} has no column {missing[0]!r}; it has {names or 'none'}. Choose one of them.")
    shapes = shapely.from_wkb(geometry)
    kept = shapely.area(shapes) > 0
    if not kept.any():
        raise ConfigError(f"{path.name} has no polygon. Give polygons of the area that is wanted.")
    found = [values[fields.index(name)][kept] for name in columns]
    return Polygons(meta["crs"], numbers[kept], shapes[kept], found, int((~kept).sum()))


def read_polygons(path: Path, raster: Raster, columns: Sequence[str] = ()) -> tuple[np.ndarray, list[np.ndarray]]:
    """The polygons of a vector file in the raster's CRS, and their values in some columns.

    Raises:
        UnreadableImage, ConfigError: see :func:`read_shapes`; no CRS to bring it to the raster's, or the wrong one.
    """
    crs, _, shapes, values, _ = read_shapes(path, columns)
    if raster.crs is None or crs is None:
        raise ConfigError(f"{path.name if crs is None else raster.source.name} has no CRS, so the two do not meet.")
    change = pyproj.Transformer.from_crs(crs, raster.crs.to_wkt(), always_xy=True)
    moved = shapely.transform(shapes, lambda xy: np.stack(change.transform(xy[:, 0], xy[:, 1]), axis=1))
    if not np.isfinite(shapely.bounds(moved)).all():
        reach = ", ".join(f"{value:.6g}" for value in shapely.total_bounds(shapes))
        raise ConfigError(
            f"{path.name} says that its CRS is {crs[:60]}, but its coordinates ({reach}) are none of that. Say "
            f"the right one: ogr2ogr -a_srs EPSG:... {path.stem}_right.gpkg {path.name}."
        )
    return moved, values


def area_of_interest(wanted: Area, raster: Raster) -> Any:
    """A shapely geometry in pixels of the raster: x to the right, y down, from its top left corner.

    ``wanted``: bounds (west, south, east, north) in the raster's CRS, or a vector file with polygons in any CRS.

    Raises:
        UnreadableImage: the file cannot be read as vectors.
        ConfigError: no bounds, no polygon, no CRS to bring it to the raster's, or nothing of it on the raster.
    """
    shapes = read_polygons(Path(wanted), raster)[0] if isinstance(wanted, str | Path) else [_box(wanted)]
    area = shapely.transform(shapely.union_all(shapes), lambda xy: to_map(xy, ~raster.transform))
    if not area.intersects(shapely.box(0, 0, *raster.size[::-1])):
        raise ConfigError(
            f"the area of interest, {_rounded(shapely.union_all(shapes).bounds)} in the raster's CRS, misses "
            f"{raster.source.name}: {_rounded(raster.bounds)}. The order is west, south, east, north."
        )
    return area


def _box(bounds: Sequence[float]) -> Any:
    if len(bounds) != 4 or not (bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        raise ConfigError(f"got area {tuple(bounds)}; need west, south, east, north, or a vector file with polygons.")
    return shapely.box(*bounds)


def _rounded(bounds: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in bounds)


class VectorWriter(FileWriter):
    """Writes polygons with their columns in batches; leaving the ``with`` block without an error publishes them.

    The batches go to a GeoPackage, to which one can append; the other formats are streamed from it at the end. A
    GeoPackage holds a date: ``when``, in seconds since 1970, makes its bytes the same at every run.
    """

    def __init__(self, path: Path, crs: Any, empty: Columns, *, when: float | None = None) -> None:
        self._when = when
        self._driver = check_vector_target(path)
        super().__init__(path)
        self.count = 0
        self._work = path.with_name(f"{self._unfinished.name}.work.part.gpkg")
        self._part = path.with_name(f"{self._unfinished.name}.part{path.suffix.lower()}")
        self._crs = None if crs is None else crs.to_wkt()
        self._layer = {"layer": path.stem, "crs": self._crs, "geometry_type": "Polygon"}
        self._waiting: list[tuple[Any, Columns]] = [(np.empty(0, object), empty)]
        self._held = 0
        self._bounds: list[Any] = []  # of each batch

    def write(self, shapes: Any, columns: Columns) -> None:
        """Some polygons in the map's coordinates, and as many values in each column."""
        self._waiting.append((shapes, columns))
        self._held += len(shapes)
        if self._held >= BATCH:
            self._flush()

    def _flush(self) -> None:
        shapes = np.concatenate([part for part, _ in self._waiting])
        names = list(self._waiting[0][1])
        values = [np.concatenate([columns[name] for _, columns in self._waiting]) for name in names]
        exists = self._work.exists()
        with self._checked():
            geometry = shapely.to_wkb(shapes)
            pyogrio.raw.write(self._work, geometry, values, names, driver="GPKG", append=exists, **self._layer)
        self.count += len(shapes)
        if len(shapes):
            self._bounds.append(shapely.total_bounds(shapes))
        self._waiting, self._held = [(shapes[:0], dict(zip(names, (v[:0] for v in values), strict=True)))], 0

    def _publish(self) -> None:
        self._flush()
        with self._checked():
            if self._driver == "GPKG":
                self._date()
                os.replace(self._work, self._part)
            elif self._driver == "Parquet":
                self._to_parquet()
            else:
                self._convert()
            self._read_back()
        os.replace(self._part, self.path)

    @contextmanager
    def _checked(self) -> Iterator[None]:
        """Turn pyogrio's errors into OutputError; a map without a CRS gives no warning."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
                yield
        except BROKEN as error:
            raise self._failed(error) from None

    def _date(self) -> None:
        """Set the date (GDAL's setting is process-wide), and SQLite's counts of changes, which depend on the clock."""
        if self._when is not None:
            date = datetime.fromtimestamp(self._when, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            with closing(sqlite3.connect(self._work)) as database, database:
                database.execute("UPDATE gpkg_contents SET last_change = ?", [date])
            with self._work.open("r+b") as file:
                for place in (24, 92):
                    file.seek(place)
                    file.write((1).to_bytes(4, "big"))

    def _read_back(self) -> None:
        """Decode every polygon: a full disk is not always told when it is written to."""
        if self._driver != "Parquet" and len(pyogrio.read_bounds(self._part)[0]) != self.count:
            raise self._failed("what was written does not read back")

    def _convert(self) -> None:
        with pyogrio.raw.open_arrow(self._work, use_pyarrow=False) as (about, stream):
            name = about["geometry_name"] or "wkb_geometry"
            pyogrio.raw.write_arrow(stream, self._part, driver=self._driver, geometry_name=name, **self._layer)

    def _to_parquet(self) -> None:
        """Write GeoParquet 1.1.0: geometry as WKB, the CRS as PROJJSON."""
        import pyarrow
        from pyarrow import parquet

        about: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"]}
        about["crs"] = None if self._crs is None else pyproj.CRS.from_wkt(self._crs).to_json_dict()
        if self.count:
            about["bbox"] = [*np.min(self._bounds, axis=0)[:2].tolist(), *np.max(self._bounds, axis=0)[2:].tolist()]
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": about}}
        with pyogrio.raw.open_arrow(self._work, use_pyarrow=False) as (source, stream):
            reader = pyarrow.RecordBatchReader.from_stream(stream)
            name = source["geometry_name"] or "wkb_geometry"
            fields = [pyarrow.field("geometry", pyarrow.binary()) if f.name == name else f for f in reader.schema]
            schema = pyarrow.schema(fields, metadata={"geo": json.dumps(geo)})
            with parquet.ParquetWriter(self._part, schema, compression="zstd") as writer:
                for batch in reader:
                    writer.write_batch(pyarrow.RecordBatch.from_arrays(batch.columns, schema=schema))
