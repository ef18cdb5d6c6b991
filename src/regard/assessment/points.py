"""The points of a sample as a layer that people label: written with its form for QGIS, and read again."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyogrio
import pyogrio.raw
import shapely
from jaxtyping import Float, Int

from regard.errors import ConfigError, listed
from regard.files import check_targets, refuse_to_replace
from regard.io.gdal import XML
from regard.io.vector_opening import as_it_is, gdal_name, layers_in
from regard.io.vector_writer import VectorWriter
from regard.io.vectors import layer_of, refusing

# What an estimate needs besides `reference`. It stands with each point, and so in every export of the layer.
HIDDEN = (
    "stratum", "strata", "weight", "stratum_pixels", "stratum_m2", "map_row", "map_column", "block", "fingerprint",
)  # fmt: skip
LATER = ("block",)  # columns that files of earlier versions have not
COLUMNS = ("reference", *HIDDEN)
STYLES = """CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"""  # as QGIS makes it


class PointWriter(VectorWriter):
    """Writes points to a GeoPackage with the style and the form by which QGIS opens them: a list of class names."""

    geometry = "Point"

    def __init__(
        self, path: Path, crs: Any, columns: dict[str, np.ndarray], names: tuple[str, ...], about: str
    ) -> None:
        super().__init__(path, crs, {name: values[:0] for name, values in columns.items()}, description=about)
        self._names, self._columns = names, columns
        self._layer["SPATIAL_INDEX"] = "NO"  # its triggers need functions that plain SQLite has not, to label with

    def add(self, xy: Float[np.ndarray, "n 2"]) -> None:
        """All points, with their columns."""
        self.write(shapely.points(xy), self._columns)

    def _date(self, work: Path) -> None:
        """Set the date, and add the style."""
        qml = XML.get_template("points.qml.j2").render(names=self._names, hidden=HIDDEN)
        layer = self._layer["layer"]
        with closing(sqlite3.connect(work)) as database, database:
            database.execute(STYLES)
            database.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, "
                "styleName, styleQML, styleSLD, useAsDefault, description, update_time) "
                "VALUES ('', '', ?, 'geom', 'labels', ?, '', 1, ?, ?)",
                [layer, qml, "the classes to choose from", self._stated_date],
            )
            database.execute(
                "INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', "
                "'layer_styles')"
            )
        super()._date(work)


def checked_target(out: str | Path, sources: Sequence[Path], *, overwrite: bool) -> Path:
    """The file that points are to be written to, before any work is done.

    Raises:
        ConfigError: it is no GeoPackage.
        OutputError: it is a source, exists and ``overwrite`` is not given, or cannot be written.
    """
    target = Path(out)
    if target.suffix.lower() != ".gpkg":
        raise ConfigError(f"points go to a GeoPackage, with their form; got {target.name}. Name it .gpkg.")
    check_targets([target], sources)
    if not overwrite:
        refuse_to_replace([target], ", and its labels would be lost")
    return target


class Points(NamedTuple):
    """The points of a file: ``reference`` as it stands there; the others are those that :data:`COLUMNS` names.

    ``block`` is the side of the units in pixels; ``stratum_pixels`` counts units.
    """

    reference: list[Any]
    stratum: Int[np.ndarray, " n"]
    strata: int
    stratum_pixels: Int[np.ndarray, " n"]
    stratum_m2: Float[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " n"]
    block: int
    fingerprint: str

    def places(self) -> list[tuple[int, int]]:
        """Row and column of each point."""
        return list(zip(self.rows.tolist(), self.columns.tolist(), strict=True))


class Table(NamedTuple):
    """A layer of points as it stands in a file; ``geometry`` is WKB, None if it was not asked for."""

    path: Path
    layer: str | None
    crs: str | None
    geometry: np.ndarray | None
    columns: dict[str, np.ndarray]


def read_table(source: str | Path, *, geometry: bool = False) -> Table:
    """The layer of points that is named, or the first one of the file."""
    path, layer = layer_of(source)
    layer = layer or next(iter(layers_in(path)), None)
    about, _, shapes, values = pyogrio.raw.read(gdal_name(path), layer=layer, read_geometry=geometry, **as_it_is(path))
    return Table(path, layer, about["crs"], shapes, dict(zip(about["fields"].tolist(), values, strict=True)))


def read_points(source: str | Path) -> Points:
    """The points of a sample, in any vector format that has kept their columns.

    Raises:
        UnreadableImage: the file cannot be read as vectors.
        ConfigError: it holds no points of a sample, or those of several; or queries, which GDAL would run.
    """
    path = layer_of(source)[0]
    with refusing(path, "the points that regard sample wrote"):
        values = read_table(source).columns
    missing = [name for name in COLUMNS if name not in (*values, *LATER)]
    if missing:
        raise ConfigError(
            f"{path.name} has no column {missing[0]!r}; the points of regard sample have {listed(COLUMNS, 16)}. Label "
            "the file that it wrote, and keep its columns."
        )
    values = {"block": np.ones(len(values["stratum"])), **values}
    numbers = [np.asarray(values[name], float) for name in HIDDEN[:-1]]
    if not len(numbers[0]) or np.isnan(numbers[:4]).any() or np.isnan(numbers[5:]).any():
        raise ConfigError(f"{path.name} has no points, or some without a stratum. Label the file of regard sample.")
    stratum, count, pixels, rows, columns, block = (numbers[place].astype(np.int64) for place in (0, 1, 3, 5, 6, 7))
    samples = sorted({*zip(values["fingerprint"].astype(str).tolist(), count.tolist(), block.tolist(), strict=True)})
    if len(samples) > 1:
        raise ConfigError(f"{path.name} has the points of {len(samples)} samples. Give those of one.")
    if len({*zip(rows.tolist(), columns.tolist(), strict=True)}) < len(rows):
        raise ConfigError(f"{path.name} has a point twice. Delete the copies.")
    digest, strata, side = samples[0]
    return Points(values["reference"].tolist(), stratum, strata, pixels, numbers[4], rows, columns, side, digest)
