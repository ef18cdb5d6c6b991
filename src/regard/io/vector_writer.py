"""Vector files written: polygons in batches, published when complete, and what such a file says of itself."""

from __future__ import annotations

import filecmp
import json
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import pyproj
import shapely

from regard.errors import ConfigError, MissingExtra, OutputError, UnreadableImage, one_line
from regard.files import FileWriter, check_writable
from regard.io.vector_opening import as_it_is, gdal_name

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf", ".parquet": "Parquet"}
BATCH, BATCH_BYTES = 20_000, 2**22  # polygons, and bytes of their geometry, that are written at a time
BROKEN = (RuntimeError, OSError, IndexError, sqlite3.Error)  # raised where a file cannot be written or is cut short
RESERVED = re.compile(r"gpkg|sqlite_|rtree_", re.IGNORECASE)  # how no table of a GeoPackage may begin
RFC_7946 = {"RFC7946": "YES", "COORDINATE_PRECISION": 9}  # GDAL reprojects to WGS 84; 9 decimals are 0.1 mm

Columns = Mapping[str, np.ndarray]


def check_vector_target(path: Path) -> str:
    """The driver that the ending of ``path`` asks for, after a look whether the file can be written.

    Raises:
        ConfigError: an ending that is not among the formats.
        MissingExtra: GeoParquet without pyarrow.
        OutputError: the folder cannot be written to, or pyogrio takes its name for that of an archive.
    """
    driver = DRIVERS.get(path.suffix.lower())
    if driver is None:
        raise ConfigError(f"polygons go to {', '.join(DRIVERS)}; got {path.name}. Name it {path.stem}.gpkg.")
    if driver == "Parquet" and find_spec("pyarrow") is None:
        raise MissingExtra(f"{path.name} needs pyarrow, which is not installed: pip install pyarrow, or write .gpkg.")
    if re.search(r"[!\n\r\t]", str(path.parent.absolute())):
        raise OutputError(
            f"polygons cannot go to a folder with ! or a line break in its name: {path.parent}. Choose another."
        )
    check_writable(path)
    return driver


def layer_name(path: Path) -> str:
    """The name of the layer: the file's without its suffix, in characters that every format takes."""
    name = re.sub(r"[^\w .-]+", "_", path.stem).strip(" .-")
    return f"map_{name}" if RESERVED.match(name) else name or "polygons"


def description_of(path: Path, layer: str | None = None) -> str | None:
    """What a vector file says of itself or of a layer (see :class:`VectorWriter`); None where it says nothing, or
    cannot be read.
    """
    with suppress(*BROKEN, ImportError, ValueError):
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet

            return (parquet.read_schema(path).metadata or {}).get(b"description", b"").decode() or None
        about = _pyogrio().read_info(gdal_name(path), layer=layer, **as_it_is(path))
        return (about["layer_metadata"] or {}).get("DESCRIPTION")
    return None


def names_in(path: Path) -> list[str]:
    """The class of each polygon in a file of polygons by regard; an UnreadableImage if it cannot be read."""
    try:
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(path, columns=["name"])["name"].to_pylist()
        about = _pyogrio().raw.read(gdal_name(path), columns=["name"], read_geometry=False, **as_it_is(path))
    except BROKEN as error:
        raise UnreadableImage(f"{path} cannot be read again ({one_line(error)}). Is its disk still there?") from None
    return about[3][0].tolist()


class VectorWriter(FileWriter):
    """Writes polygons with their columns in batches; leaving the ``with`` block without an error publishes them.

    The batches go to a GeoPackage, to which one can append; the other formats are streamed from it at the end. GeoJSON
    is in longitude and latitude (RFC 7946), if the CRS has a place on Earth. A GeoPackage holds a date: ``when``, in
    seconds since 1970, makes its bytes the same at every run. ``description`` stands in the file: the layer's in the
    terms of GDAL, the schema's metadata in GeoParquet.

    GDAL does not report every write that fails: all is written twice and compared.
    """

    geometry = "Polygon"

    def __init__(
        self, path: Path, crs: Any, empty: Columns, *, when: float | None = None, description: str = ""
    ) -> None:
        self._when, self._description = time() if when is None else when, description
        self._driver = check_vector_target(path)
        super().__init__(path)
        self.count = 0
        folder = path.parent.absolute()
        self._works = [folder / f"{self._unfinished.name}.{number}.work.part.gpkg" for number in (1, 2)]
        self._parts = [folder / f"{self._unfinished.name}.{number}.part{path.suffix.lower()}" for number in (1, 2)]
        self._crs = None if crs is None else crs.to_wkt()
        self._layer = {"layer": layer_name(path), "crs": self._crs, "geometry_type": self.geometry}
        self._waiting: list[tuple[Any, Columns]] = [(np.empty(0, object), empty)]
        self._held = self._bytes = 0
        self._bounds: list[Any] = []  # of the polygons of each call

    def write(self, shapes: Any, columns: Columns) -> None:
        """Some polygons in the map's coordinates, and as many values in each column."""
        geometry = shapely.to_wkb(shapes)  # smaller than the objects of GEOS
        self._waiting.append((geometry, columns))
        self._held += len(geometry)
        self._bytes += sum(map(len, geometry))
        if len(shapes):
            self._bounds.append(shapely.total_bounds(shapes))
        if self._held >= BATCH or self._bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        geometry = np.concatenate([part for part, _ in self._waiting])
        names = list(self._waiting[0][1])
        values = [np.concatenate([columns[name] for _, columns in self._waiting]) for name in names]
        with self._checked():
            for work in self._works:
                exists = work.exists()
                about = {} if exists else {"DESCRIPTION": self._description}
                _pyogrio().raw.write(
                    work, geometry, values, names, driver="GPKG", append=exists, **self._layer, **about
                )
        self.count += len(geometry)
        self._waiting = [(geometry[:0].copy(), dict(zip(names, (v[:0].copy() for v in values), strict=True)))]
        self._held = self._bytes = 0

    def _publish(self) -> None:
        self._flush()
        with self._checked():
            for work, part in zip(self._works, self._parts, strict=True):
                if self._driver == "GPKG":
                    self._date(work)
                    os.replace(work, part)
                elif self._driver == "Parquet":
                    self._to_parquet(work, part)
                else:
                    self._convert(work, part)
            first, second = self._parts
            whole, layer = filecmp.cmp(first, second, shallow=False), None
            if self._driver == "GPKG":
                layer = self._layer["layer"]
            if whole and self._driver != "Parquet":
                whole = len(_pyogrio().read_bounds(first, layer=layer)[0]) == self.count
            if not whole:
                raise self._failed("what was written does not read back")
            os.replace(first, self.path)

    @contextmanager
    def _checked(self) -> Iterator[None]:
        """Turn pyogrio's errors into OutputError; a map without a CRS, and a damaged twin, give no warning.

        What would undo a change of SQLite's stays in memory: a file that is not whole is never published.
        """
        journal = _pyogrio().get_gdal_config_option("OGR_SQLITE_JOURNAL")
        _pyogrio().set_gdal_config_options({"OGR_SQLITE_JOURNAL": "MEMORY"})
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "GPKG: |unable to read srs_id", RuntimeWarning)
                warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
                yield
        except BROKEN as error:
            raise self._failed(error) from None
        finally:
            _pyogrio().set_gdal_config_options({"OGR_SQLITE_JOURNAL": journal})

    @property
    def _stated_date(self) -> str:
        return datetime.fromtimestamp(self._when, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def _date(self, work: Path) -> None:
        """Set the date (GDAL's setting is process-wide), and SQLite's counts of changes, which depend on the clock."""
        with closing(sqlite3.connect(work)) as database, database:
            database.execute("PRAGMA journal_mode = MEMORY")
            database.execute("UPDATE gpkg_contents SET last_change = ?", [self._stated_date])
        with work.open("r+b") as file:
            for place in (24, 92):
                file.seek(place)
                file.write((1).to_bytes(4, "big"))

    def _convert(self, work: Path, part: Path) -> None:
        options = RFC_7946 if self._driver == "GeoJSON" and _is_on_earth(self._crs) else {}
        with _pyogrio().raw.open_arrow(work, use_pyarrow=False) as (about, stream):
            layer = {"geometry_name": about["geometry_name"] or "wkb_geometry", **self._layer, **options}
            layer["DESCRIPTION"] = self._description
            _pyogrio().raw.write_arrow(stream, part, driver=self._driver, **layer)

    def _to_parquet(self, work: Path, part: Path) -> None:
        """Write GeoParquet 1.1.0: geometry as WKB, the CRS as PROJJSON."""
        import pyarrow
        from pyarrow import parquet

        about: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"]}
        about["crs"] = None if self._crs is None else pyproj.CRS.from_wkt(self._crs).to_json_dict()
        if self.count:
            about["bbox"] = [*np.min(self._bounds, axis=0)[:2].tolist(), *np.max(self._bounds, axis=0)[2:].tolist()]
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": about}}
        with _pyogrio().raw.open_arrow(work, use_pyarrow=False) as (source, stream):
            reader = pyarrow.RecordBatchReader.from_stream(stream)
            name = source["geometry_name"] or "wkb_geometry"
            fields = [pyarrow.field("geometry", pyarrow.binary()) if f.name == name else f for f in reader.schema]
            schema = pyarrow.schema(fields, metadata={"geo": json.dumps(geo), "description": self._description})
            with parquet.ParquetWriter(part, schema, compression="zstd") as writer:
                for batch in reader:
                    writer.write_batch(pyarrow.RecordBatch.from_arrays(batch.columns, schema=schema))


def _is_on_earth(crs: str | None) -> bool:
    """Whether a CRS can be brought to longitude and latitude: a local one cannot."""
    try:
        return crs is not None and bool(pyproj.Transformer.from_crs(crs, "OGC:CRS84"))
    except pyproj.exceptions.ProjError:
        return False


def _pyogrio() -> Any:
    """Imported when a file is written, as it holds a GDAL of its own: 43 MB."""
    import pyogrio.raw

    return pyogrio
