"""Points that the page changes: notes, or the labels of a sample. Each change is on disk when it is answered.

A GeoPackage is a SQLite database: a change is one transaction, which a killed process or a full disk leaves undone,
and which waits for QGIS to end its own. What a client writes must be based on what the file holds.
"""

from __future__ import annotations

import hashlib
import sqlite3
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyogrio
import pyproj
import shapely
from pydantic import BaseModel, ConfigDict, Field

from regard.errors import ConfigError, RegardError
from regard.io.raster import apply
from regard.io.vector_opening import check_stored, gdal_name
from regard.io.vector_writer import VectorWriter
from regard.web.raster_layer import Changed

NOTE = ("text", "class", "time")
LONGEST = 2000  # characters of a value
MOST = 100_000  # points
PATIENCE = 3.0  # seconds that a change waits for another program to end its own
INDEXED = "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? AND instr(sql, 'ST_')"
HEADER = b"GP\x00\x01"  # of a geometry: version 1, little-endian, no envelope; the number of the CRS follows
ENVELOPES = (0, 32, 48, 48, 64)  # bytes of the envelope after it, by its kind
Choices = Mapping[str, Collection[str]]


class Refused(RegardError):
    """A change that is not made, with the status of HTTP that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Change(BaseModel):
    """What a client wants: a point more, other values, or a point less. Coordinates are columns and rows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    do: Literal["add", "set", "delete"]
    fid: int | None = Field(None, ge=0, lt=2**53)
    x: float = Field(0, allow_inf_nan=False, ge=-1e8, le=1e8)
    y: float = Field(0, allow_inf_nan=False, ge=-1e8, le=1e8)
    values: dict[str, str] = Field({}, max_length=8)


class _Notes(VectorWriter):
    """An empty layer of notes."""

    geometry = "Point"

    def __init__(self, path: Path, crs: Any) -> None:
        super().__init__(path, crs, {name: np.empty(0, object) for name in NOTE}, description="notes of regard view")
        self._layer["SPATIAL_INDEX"] = "NO"  # its triggers need functions that plain SQLite has not


class PointFile:
    """The points of a GeoPackage, with some of its columns.

    With ``choices``, the values that columns may have, points are neither made nor deleted, and the layer gets the
    columns that it lacks but for the first. ``to_scene`` leads from the file's CRS to that of ``transform``.
    """

    def __init__(
        self, path: Path, transform: Any, columns: Sequence[str], choices: Choices | None = None, to_scene: Any = None
    ) -> None:
        self.path, self.transform, self.columns = path.resolve(), transform, tuple(columns)
        self.choices, self.fixed, self._to_scene = choices or {}, choices is not None, to_scene
        self._inode = self.path.stat().st_ino
        with self._database() as database:
            self._table, self._geometry, self._key, self._srs = self._described(database)

    @classmethod
    def notes(cls, path: Path, crs: Any, transform: Any) -> PointFile:
        """The notes of a file, which is made if it does not exist, in a scene's coordinates.

        Raises:
            ConfigError: no GeoPackage with the columns of notes, or one in another CRS.
        """
        if path.suffix.lower() != ".gpkg":
            raise ConfigError(f"notes go to a GeoPackage; got {path.name}. Name it {path.stem}.gpkg.")
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with _Notes(path, crs):
                    pass
        found = cls(path, transform, NOTE)
        stored = pyogrio.read_info(gdal_name(path))["crs"]
        if (stored is None) != (crs is None) or (stored and pyproj.CRS(stored) != pyproj.CRS.from_wkt(crs.to_wkt())):
            raise ConfigError(f"{path.name} is in {stored or 'no CRS'}, the scene in another. Choose another file.")
        return found

    def _described(self, database: sqlite3.Connection) -> tuple[str, str, str, int]:
        """Table, column of the geometry, primary key and number of the CRS."""
        found = database.execute("SELECT table_name, column_name, srs_id FROM gpkg_geometry_columns").fetchall()
        if len(found) != 1:
            raise ConfigError(f"{self.path.name} has {len(found)} layers. Give one with a layer of points.")
        table, geometry, srs = found[0]
        info = database.execute("SELECT name, pk FROM pragma_table_info(?)", [table]).fetchall()
        missing = [name for name in self.columns if name not in {name for name, _ in info}]
        for name in missing if self.fixed and self.columns[0] not in missing else ():
            database.execute(f"ALTER TABLE {_quoted(table)} ADD COLUMN {_quoted(name)} TEXT")
            missing = []
        key = [name for name, primary in info if primary]
        if missing or len(key) != 1:
            raise ConfigError(f"{self.path.name} has no column {(missing or ['fid'])[0]!r}. Give another file.")
        if database.execute(INDEXED, [table]).fetchone():
            raise ConfigError(
                f"{self.path.name} has a spatial index, which only GDAL can keep. Copy it without: "
                f"ogr2ogr -lco SPATIAL_INDEX=NO new.gpkg {self.path.name}."
            )
        return table, geometry, key[0], srs

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """The file as it was opened, and one transaction in it.

        Raises:
            Changed: another file has its name. Refused: locked, full or damaged.
        """
        try:
            if self.path.stat().st_ino != self._inode or self.path.is_symlink():
                raise Changed(f"{self.path.name} has changed since it was opened. Start the viewer again.")
            check_stored(self.path)
            with closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous = EXTRA")
                database.execute("PRAGMA trusted_schema = OFF")
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
        except FileNotFoundError:
            raise Changed(f"{self.path.name} is no longer there. Start the viewer again.") from None
        except sqlite3.Error as error:
            full, locked = "full" in str(error), "locked" in str(error)
            reason = "The disk is full" if full else "Another program is writing to it" if locked else str(error)
            raise Refused(
                507 if full else 423 if locked else 500, f"{self.path.name}: nothing was saved. {reason}."
            ) from None

    def about(self) -> dict[str, Any]:
        """Facts of the file for the page, which keeps what is not yet saved under ``id``."""
        return {"name": self.path.name, "id": f"{self.path.name} {self._inode}", "fixed": self.fixed}

    def points(self) -> dict[str, Any]:
        """All points by column and row, each with its version, and the version of the file's contents."""
        with self._database() as database:
            found = self._rows(database)
        return {"columns": self.columns, "fixed": self.fixed, "version": _version(found), "points": found}

    def change(self, change: Change, version: str) -> dict[str, Any]:
        """Make a change of the point that has this version, or add one to the contents that have it.

        Returns the point as it is now; and the new version, if points come and go.

        Raises:
            Refused: the contents have another version (412), or the change does not fit them (422).
        """
        self._check(change)
        with self._database() as database:
            found = self._rows(database, change.fid)
            if change.fid is not None and not found:
                raise Refused(422, "that point is no longer there. Reload the page.")
            if version != (_version(found) if change.fid is None else found[0]["version"]):
                raise Refused(412, f"{self.path.name} was changed in another window or program. This is not saved.")
            fid = self._made(database, change, len(found))
            database.execute("UPDATE gpkg_contents SET last_change = ?", [_now()])
            now = self._rows(database, fid)
            whole = None if self.fixed else _version(self._rows(database))
        return {"version": whole, "point": now[0] if now else None}

    def _check(self, change: Change) -> None:
        unknown = [name for name in change.values if name not in self.columns or name == "time"]
        if unknown or (self.fixed and change.do != "set") or (change.do == "add") != (change.fid is None):
            raise Refused(422, "that change does not fit the file. Reload the page.")
        for name, text in change.values.items():
            if text and name in self.choices and text not in self.choices[name]:
                raise Refused(422, f"{text[:80]!r} is no value of {name}. Reload the page.")
            if len(text) > LONGEST or any(ord(letter) < 32 and letter not in "\n\t" for letter in text):
                raise Refused(422, f"a text has more than {LONGEST} characters, or control characters. Shorten it.")

    def _made(self, database: sqlite3.Connection, change: Change, known: int) -> int:
        """The number of the point that was made, changed or deleted."""
        values = {name: text or None for name, text in change.values.items()}
        if "time" in self.columns:
            values["time"] = _now()
        if change.do == "add":
            if known >= MOST:
                raise Refused(422, f"{self.path.name} has {MOST} points already. Choose another file.")
            values = {self._geometry: self._stored(change.x, change.y), **values}  # type: ignore[dict-item]
            names, given = ", ".join(map(_quoted, values)), ", ".join("?" * len(values))
            insert = f"INSERT INTO {_quoted(self._table)} ({names}) VALUES ({given})"
            return int(database.execute(insert, [*values.values()]).lastrowid or 0)
        where = f"{_quoted(self._table)} {{}} WHERE {_quoted(self._key)} = ?"
        if change.do == "delete":
            database.execute("DELETE FROM " + where.format(""), [change.fid])
        elif values:
            named = ", ".join(f"{_quoted(name)} = ?" for name in values)
            database.execute("UPDATE " + where.format("SET " + named), [*values.values(), change.fid])
        return int(change.fid or 0)

    def _rows(self, database: sqlite3.Connection, fid: int | None = None) -> list[dict[str, Any]]:
        """All points, or the one with this number."""
        names = [self._key, self._geometry, *self.columns]
        where = "" if fid is None else f"WHERE {_quoted(self._key)} = ?"
        query = f"SELECT {', '.join(map(_quoted, names))} FROM {_quoted(self._table)} {where} ORDER BY 1"
        rows = database.execute(query, [] if fid is None else [fid]).fetchall()
        found = []
        for (number, _, *values), (x, y) in zip(rows, self._shown([row[1] for row in rows]), strict=True):
            texts = ["" if value is None else str(value) for value in values]
            point = {"fid": number, "x": x, "y": y, **dict(zip(self.columns, texts, strict=True))}
            found.append(point | {"version": _version([point])})
        return found

    def _stored(self, column: float, row: float) -> bytes:
        point = shapely.Point(self.transform @ (column, row))
        return HEADER + self._srs.to_bytes(4, "little", signed=True) + shapely.to_wkb(point, byte_order=1)

    def _shown(self, stored: Sequence[bytes]) -> list[list[float]]:
        """Columns and rows of stored points."""
        try:
            shapes = shapely.from_wkb([each[8 + ENVELOPES[each[3] >> 1 & 7] :] for each in stored])
        except (TypeError, IndexError, shapely.errors.GEOSException):
            shapes = np.array([None])
        if not (shapely.get_type_id(shapes) == 0).all():
            raise ConfigError(f"{self.path.name} has something else than points. Give a layer of points.")
        x, y = shapely.get_x(shapes), shapely.get_y(shapes)
        if self._to_scene is not None:
            x, y = self._to_scene.transform(x, y)
        return np.stack(apply(~self.transform, x, y), axis=1).reshape(-1, 2).tolist()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _version(points: list[dict[str, Any]]) -> str:
    return hashlib.sha256(repr(points).encode()).hexdigest()[:32]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
