"""Vector files as GDAL opens them to be read: by their own names, without queries, and without writing next to them."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from regard.errors import ConfigError

MAGIC = b"SQLite format 3\0"
PARSED = re.compile(r"[;!?\n\r\t]|://")  # of a path: what pyogrio takes for a part of a URL
QUERIES = """WITH plain AS (SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%')
SELECT name FROM sqlite_master WHERE type = 'view'
UNION ALL SELECT plain.name FROM plain, pragma_table_xinfo(plain.name) WHERE hidden > 0"""


def gdal_name(path: Path) -> Path | str:
    """The name by which pyogrio opens a file as it is, whatever characters its path has."""
    path = path.absolute()
    return f"/vsisubfile/0_0,{path}" if PARSED.search(str(path)) else path


def as_it_is(path: Path) -> dict[str, str]:
    """The options with which GDAL reads a file: one of SQLite as one that nobody writes to, unless it has a log.

    Else to read what QGIS has edited, which leaves it in a mode for many writers, would put files next to it. GDAL
    makes a URL of the name for this, and does not escape it.
    """
    has_log = any(Path(f"{path}{log}").exists() for log in ("-wal", "-journal"))
    quiet = is_sqlite(path) and not has_log and not set("%?#") & set(str(path.absolute()))
    return {"IMMUTABLE": "YES"} if quiet else {}


def is_sqlite(path: Path) -> bool:
    """Whether a file begins as those of SQLite, such as GeoPackages, do."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def layers_in(path: Path) -> dict[str, str]:
    """The type of geometry of each layer that has one."""
    import pyogrio

    found, name, options = {}, gdal_name(path), as_it_is(path)
    if not options:
        return {layer: kind for layer, kind in pyogrio.list_layers(name).tolist() if kind is not None}
    with suppress(pyogrio.errors.DataLayerError):  # beyond the last one
        for number in count():
            about = pyogrio.read_info(name, layer=number, **options)
            found[about["layer_name"]] = about["geometry_type"]
    return {layer: kind for layer, kind in found.items() if kind is not None}


def check_stored(path: Path) -> None:
    """Raise a ConfigError for a GeoPackage with queries: to list its layers GDAL runs them, be they without end."""
    if not is_sqlite(path):
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as file:
        if found := file.execute(QUERIES).fetchone():
            raise ConfigError(
                f"{path.name} has a query, {found[0]!r}. Store what it gives: ogr2ogr new.gpkg {path.name}."
            )
