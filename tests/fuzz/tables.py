"""Lists and tables: classes, splits, descriptions of scenes, polygons, manifests, and the journal of a killed run."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyogrio.raw
import rasterio
import shapely
import torch

import regard
from regard.datasets.mask import read_mask
from regard.inference.runtimes import Runner
from regard.io.source import Source
from regard.mapping.predict import opened
from tests.fuzz.damage import (
    NUMBERS,
    TEXTS,
    as_json,
    bytes_changed,
    json_changed,
    json_text_changed,
    number_edges,
    odd_value,
)
from tests.fuzz.pictures import model, written
from tests.fuzz.worker import Files, Format
from tests.support import map_options, write_set, write_tif

POLYGONS = [
    shapely.box(500_020, 4_999_800, 500_150, 4_999_950),
    shapely.Polygon([(500_100, 4_999_700), (500_300, 4_999_950), (500_300, 4_999_700), (500_200, 4_999_990)]),
    shapely.MultiPolygon(
        [shapely.box(500_200, 4_999_500, 500_250, 4_999_600), shapely.box(500_300, 4_999_500, 500_390, 4_999_690)]
    ),
    shapely.box(500_020, 4_999_500, 500_190, 4_999_700).difference(shapely.box(500_050, 4_999_550, 500_100, 4_999_600)),
]
KINDS = ("field", "wood", "field", "wood")
PARTS = "made/.map.tif.parts"
KEY = b"the key of this very job"


def data_sets() -> list[Files]:
    """A folder of three images with masks, a list of classes and lists of splits."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_set(Path(folder) / "set", count=3, size=(12, 12))
        return [{f"given/{path.relative_to(folder)}": path.read_bytes() for path in root.rglob("*") if path.is_file()}]


def classes_changed(rng: Random, files: Files) -> Files:
    return files | {"given/set/classes.json": json_text_changed(rng, json.loads(files["given/set/classes.json"]))}


def list_changed(rng: Random, files: Files) -> Files:
    """Lines left out, repeated, replaced by odd names; another encoding; as bytes."""
    name = rng.choice(("given/set/train.txt", "given/set/val.txt"))
    lines = files[name].decode().splitlines()
    kind = rng.choice(("bytes", "odd", "odd", "repeat", "many", "encoding", "suffix"))
    if kind == "bytes":
        return files | {name: bytes_changed(rng, files[name])}
    if kind == "odd":
        lines.insert(
            rng.randrange(len(lines) + 1), rng.choice((*TEXTS, "../../etc/passwd", "tile0/../tile1", "tile0\x85tile1"))
        )
    elif kind == "repeat":
        lines += lines
    elif kind == "many":
        lines += [f"tile{index}" for index in range(20_000)]
    else:
        lines = [f"{line}{rng.choice(('.png', '.tif', '.PNG', '.', ' ', '.txt'))}" for line in lines]
    text = rng.choice(("\n", "\r\n", "\r", "\u2028")).join(lines)
    return files | {
        name: text.encode(
            rng.choice(("utf-8", "utf-16", "utf-8-sig", "latin-1")) if kind == "encoding" else "utf-8",
            "replace" if kind == "encoding" else "surrogatepass",
        )
    }


def read_set(folder: Path) -> None:
    """The data set, and the labels of every pair."""
    data = regard.folder(folder / "given" / "set")
    for pairs in data.splits.values():
        for pair in pairs:
            read_mask(pair.mask, data.classes)


@cache
def scene() -> bytes:
    values = np.random.default_rng(3).integers(1, 255, size=(3, 12, 5), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    return written("scene.tif", lambda path: write_tif(path, values, compress="deflate"))


def _vector(name: str, driver: str, crs: str, shapes: list[Any]) -> bytes:
    columns = [np.array(KINDS, object), np.arange(len(KINDS))]
    return written(name, lambda path: pyogrio.raw.write(
        path, shapely.to_wkb(np.array(shapes)), columns, ["kind", "id"], crs=crs, geometry_type="Unknown",
        driver=driver, layer="fields",
    ))  # fmt: skip


def _described(labels: str, content: bytes) -> Files:
    about = {"images": ["scene.tif"], "labels": labels, "column": "kind", "window": 32, "block": 16}
    return {"given/scene.tif": scene(), f"given/{labels}": content, "given/fields.json": as_json(about)}


def geojsons() -> list[Files]:
    return [_described("fields.geojson", _vector("a.geojson", "GeoJSON", "EPSG:32633", POLYGONS))]


def geopackages() -> list[Files]:
    return [_described("fields.gpkg", _vector("a.gpkg", "GPKG", "EPSG:32633", POLYGONS))]


def descriptions() -> list[Files]:
    """Descriptions with a column of classes, and with a background and what was labelled."""
    files = geopackages()[0]
    extent = {"bounds": [500_000, 4_999_500, 500_400, 5_000_000], "crs": "EPSG:32633"}
    other = {
        "images": ["scene.tif"],
        "labels": "fields.gpkg|layername=fields",
        "value": "field",
        "background": "other",
        "extent": extent,
        "window": 32,
    }
    classes = {
        "images": ["scene.tif"],
        "labels": "fields.gpkg",
        "column": ["none", "kind"],
        "classes": {"a": ["field"], "b": ["*"]},
        "where": "id < 9",
        "val": 0.4,
        "gsd": 20.0,
    }
    classes["column"] = "kind"
    return [files, files | {"given/fields.json": as_json(other)}, files | {"given/fields.json": as_json(classes)}]


def description_changed(rng: Random, files: Files) -> Files:
    return files | {"given/fields.json": json_text_changed(rng, json.loads(files["given/fields.json"]))}


def geojson_changed(rng: Random, files: Files) -> Files:
    """A value of the JSON, a coordinate, the kind of a geometry, its CRS; as text or bytes."""
    name = "given/fields.geojson"
    found, kind = json.loads(files[name]), rng.choice(("json", "json", "numbers", "kind", "crs", "bytes", "rings"))
    geometry = rng.choice(found["features"])["geometry"]
    if kind == "json":
        content = json_text_changed(rng, found)
    elif kind == "numbers":
        text = files[name].decode()
        for _ in range(rng.randint(1, 6)):
            text = number_edges(rng, text)
        content = text.encode()
    elif kind == "bytes":
        content = bytes_changed(rng, files[name])
    else:
        if kind == "kind":
            geometry["type"] = rng.choice(
                (
                    "Point",
                    "LineString",
                    "MultiPolygon",
                    "Polygon",
                    "GeometryCollection",
                    "CurvePolygon",
                    "Nope",
                    "",
                    None,
                )
            )
        elif kind == "crs":
            found["crs"] = rng.choice((
                None, {"type": "name", "properties": {"name": rng.choice(("EPSG:4326", "EPSG:0",
                "urn:ogc:def:crs:OGC:1.3:CRS84", "x" * 10**5, "EPSG:4978", "EPSG:5773", "ESRI:104903", "LOCAL"))}},
                odd_value(rng), {"type": "link", "properties": {"href": "../neighbour/kept.txt"}},
            ))  # fmt: skip
        else:
            x, y = 500_000 + rng.choice((0, 200, 1e300, -1e7)), 4_999_800
            rings = (
                [[x, y]] * 3,
                [[x, y], [x + 100, y]],
                [],
                [[x, y]],
                [[x, y, 1, 2]] * 5,
                [[x + i % 7 * 50, y + i * i % 11 * 20] for i in range(4000)],
            )
            geometry |= {"type": "Polygon", "coordinates": [rng.choice(rings) for _ in range(rng.randint(1, 3))]}
        content = as_json(found)
    return files | {name: content}


def geopackage_changed(rng: Random, files: Files) -> Files:
    """The file as bytes, or its tables through SQL: geometries, types, CRSs, views, triggers, other layers."""
    name = "given/fields.gpkg"
    if rng.random() < 0.4:
        return files | {name: bytes_changed(rng, files[name])}
    database = sqlite3.connect(":memory:")
    database.deserialize(files[name])
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10**7)  # of what is made here; who reads the file has no limit
    database.create_function("ST_IsEmpty", 1, lambda _: 0)
    for function, count in (("ST_MinX", 1), ("ST_MaxX", 1), ("ST_MinY", 1), ("ST_MaxY", 1)):
        database.create_function(function, count, lambda _: 0.0)
    for _ in range(rng.choice((1, 1, 2))):
        try:
            _change_table(rng, database)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError):
            continue
    database.commit()
    return files | {name: database.serialize()}


VIEW = "DROP TABLE fields; CREATE VIEW fields AS "
COUNTING = f"{VIEW}WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
ENDLESS = f"{COUNTING}SELECT i AS fid, NULL AS geom, 'x' AS kind, i AS id FROM n"
CALLS = "load_extension('../neighbour/kept.txt') AS geom, writefile('../neighbour/ran.txt', 'x') AS kind"
LISTED = "INSERT INTO gpkg_contents(table_name, data_type, identifier, srs_id)"
STATEMENTS = (
    *("DELETE FROM fields", "DROP TABLE fields", "DROP TABLE gpkg_contents", "DROP TABLE gpkg_geometry_columns"),
    *("DELETE FROM gpkg_spatial_ref_sys", "CREATE TABLE two AS SELECT * FROM fields", "PRAGMA user_version = -1"),
    *("ALTER TABLE fields RENAME COLUMN kind TO 'k\"ind'", "ALTER TABLE fields ADD COLUMN 'a b' BLOB"),
    *("INSERT INTO fields SELECT fid + 10, geom, kind, id FROM fields", "PRAGMA application_id = 0"),
    *(f"{LISTED} VALUES ('two', 'features', 'two', 32633)", f"{VIEW}SELECT * FROM fields"),
    *(ENDLESS, f"{ENDLESS} LIMIT 100000", f"{VIEW}SELECT 1 AS fid, {CALLS}, 1 AS id"),
    f"{VIEW}SELECT 1 AS fid, zeroblob(900000000) AS geom, 'a' AS kind, 1 AS id",
)


def _change_table(rng: Random, database: sqlite3.Connection) -> None:
    kind = rng.choice(("shape", "shape", "shape", "value", "column", "definition", "sql", "sql"))
    if kind == "shape":
        rows = database.execute("SELECT fid, geom FROM fields LIMIT 50").fetchall()  # of a view without end, some
        row, blob = rng.choice(rows or [(1, b"")])
        blob = blob if isinstance(blob, bytes) else b""
        other = shapely.to_wkb(
            rng.choice((shapely.Point(1, 2), shapely.Polygon(), shapely.LineString([(0, 0), (1, 1)]), *POLYGONS)),
            output_dimension=rng.choice((2, 3)),
        )
        blob = rng.choice(
            (bytes_changed(rng, blob), blob[:40] + bytes_changed(rng, blob[40:]), blob[:8] + other, None, "text", 3)
        )
        database.execute("UPDATE fields SET geom = ? WHERE fid = ?", (blob, row))
    elif kind == "value":
        value = rng.choice(
            (
                *TEXTS,
                *(number for number in NUMBERS if abs(number) < 2**63 or isinstance(number, float)),
                None,
                b"\0\xff",
            )
        )
        database.execute(
            f"UPDATE fields SET {rng.choice(('kind', 'id', 'fid'))} = ? WHERE fid = ?", (value, rng.randint(1, 4))
        )
    elif kind == "column":
        table = rng.choice(
            ("gpkg_contents", "gpkg_geometry_columns", "gpkg_spatial_ref_sys", "gpkg_extensions", "sqlite_sequence")
        )
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        database.execute(
            f"UPDATE {table} SET {rng.choice(columns or ['name'])} = ?",
            (rng.choice((*TEXTS, 0, -1, 10**18, None, 1e300, "fields", "LOCAL_CS['x']")),),
        )
    elif kind == "definition":
        known = database.execute("SELECT definition FROM gpkg_spatial_ref_sys LIMIT 50").fetchall()
        known = known or [("",)]  # a view of none
        system = str(rng.choice(known)[0])
        spoiled = rng.choice(
            (number_edges(rng, system), bytes_changed(rng, system.encode()).decode("latin-1"), system * 50)
        )
        database.execute("UPDATE gpkg_spatial_ref_sys SET definition = ? WHERE srs_id = 32633", (spoiled,))
    else:
        database.executescript("PRAGMA legacy_alter_table = ON;" + rng.choice(STATEMENTS))


def read_scenes(folder: Path) -> None:
    """As labels of a scene, and as an area of interest."""
    about = folder / "given" / "fields.json"
    regard.folder(about)
    vectors = next(path for path in (folder / "given").iterdir() if path.suffix in (".geojson", ".gpkg"))
    regard.predict(model(), folder / "given" / "scene.tif", aoi=vectors, progress=False)


def manifests() -> list[Files]:
    """Two scenes, one with a name for its map, and results of an earlier run."""
    rows = [{"source": "../given/scene.tif", "target": "a/map.tif"}, {"source": "../given/two.tif", "target": "b.tif"}]
    more = [row | {"files": [], "pixels": 5, "seconds": 0.1, "failed": "", "warnings": []} for row in rows]
    return [
        {"given/scene.tif": scene(), "given/two.tif": scene(), "given/list.jsonl": b"\n".join(map(as_json, r))}
        for r in (rows, more)
    ]


def manifest_changed(rng: Random, files: Files) -> Files:
    """A value of a line, a line left out, repeated or replaced; as bytes. A target stays in its folder."""
    lines, kind = files["given/list.jsonl"].splitlines(), rng.choice(("value", "value", "value", "line", "bytes"))
    place = rng.randrange(len(lines))
    if kind == "value":
        row = json_changed(rng, json.loads(lines[place]))
        if (
            isinstance(row, dict)
            and isinstance(row.get("target"), str)
            and ("/" in row["target"] or ".." in row["target"])
        ):
            row["target"] = "a/b/map.tif"
        lines[place] = as_json(row)
    elif kind == "line":
        odd = rng.choice(
            (
                b"",
                b"[]",
                b"null",
                b"[" * 10**5,
                b'{"source": 5}',
                b"\xff",
                b'{"source": "../given"}',
                b'{"source": "list.jsonl"}',
            )
        )
        lines[place : place + 1] = rng.choice(([], [lines[place]] * 3, [odd]))
    content = b"\n".join(lines)
    return files | {
        "given/list.jsonl": bytes_changed(rng, content).replace(b"..", b"." if rng.random() < 0.1 else b"..")
        if kind == "bytes"
        else content
    }


def read_manifest(folder: Path) -> None:
    """Map every scene of the list into the current folder, which is ``made``."""
    regard.predict(model(), [folder / "given" / "list.jsonl"], Path("maps"), tile=32, overlap=0, progress=False)


OPTIONS: dict[str, Any] = {"tile": 32, "overlap": 0}


@cache
def _map() -> np.ndarray:
    """The labels of the scene by an undisturbed run."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "scene.tif").write_bytes(scene())
        path = regard.predict(model(), Path(folder) / "scene.tif", Path(folder) / "map.tif", progress=False, **OPTIONS)
        with rasterio.open(path) as raster:
            return raster.read(1)


def journals() -> list[Files]:
    """What a run leaves that was killed after its first row of windows."""
    _map()
    with tempfile.TemporaryDirectory() as folder:
        root, calls, good = Path(folder), [], model()
        (root / "scene.tif").write_bytes(scene())

        def interrupted(image: torch.Tensor) -> torch.Tensor:
            calls.append(image)
            if len(calls) > 4:
                raise KeyboardInterrupt
            return good.run(image)

        try:
            stopped = Runner(good.card, interrupted, stride=8, mark=bytes(32)).eval()
            regard.predict(stopped, root / "scene.tif", root / "map.tif", progress=False, **OPTIONS)
        except KeyboardInterrupt:
            pass
        parts = {f"{PARTS}/{path.name}": path.read_bytes() for path in (root / ".map.tif.parts").iterdir()}
    return [{**parts, "given/scene.tif": scene(), f"{PARTS}/key": KEY}]


def journal_changed(rng: Random, files: Files) -> Files:
    """Damage as of a disk, which must not change the map; or a line that is forged, with sums that are right."""
    name, kind = (
        rng.choice([name for name in files if name.startswith(PARTS)]),
        rng.choice(("bytes", "line", "line", "forged", "forged", "gone", "more")),
    )
    lines = f"{PARTS}/journal.jsonl"
    if kind == "bytes":
        return files | {name: bytes_changed(rng, files[name])}
    if kind == "gone":
        return {other: content for other, content in files.items() if other != name}
    if kind == "more":
        return files | {f"{PARTS}/{rng.choice(('000001.labels.gz', 'x', 'deep/x', 'confidence.tif', '.part'))}": b"x"}
    row = json.loads(files[lines])
    if kind == "line":
        return files | {lines: as_json(json_changed(rng, row)) + b"\n", "given/forged": b""}
    part = f"{PARTS}/000000.labels.gz"
    about = row["labels"]
    forged: tuple[Callable[[], object], ...] = (
        lambda: about.update(width=rng.choice((0, -1, 1, 41, 10**6, 10**12, 1.5, None, "x"))),
        lambda: about.update(
            dtype=rng.choice(("uint16", "O", "V1", "float64", "x" * 1000, "", None, "uint8,uint8", "M8[s]"))
        ),
        lambda: files.update(
            {part: rng.choice((b"", files[part][:-9], files[part] * 3, rng.randbytes(50), files[part] * 100))}
        ),
        lambda: row.update({rng.choice(("../../../neighbour/kept.txt", "/", "", "a/b", "\0", "labels2")): dict(about)}),
    )
    for change in rng.sample(forged, rng.choice((1, 1, 2))):
        change()
    about["sha256"] = hashlib.sha256(files[part]).hexdigest()
    return files | {lines: as_json(row) + b"\n" * rng.choice((1, 2)), "given/forged": b""}


def read_journal(folder: Path) -> None:
    """Resume the run; the map is that of an undisturbed one unless the journal was forged."""
    source, out = folder / "given" / "scene.tif", folder / "made" / "map.tif"
    key = folder / PARTS / "key"
    with opened(model(), Source.of(source), map_options(out, **OPTIONS)) as job:
        if key.exists() and key.read_bytes() == KEY:
            key.write_text(job.journal.key)
    regard.predict(model(), source, out, progress=False, **OPTIONS)
    with rasterio.open(out) as raster:
        labels = raster.read(1)
    assert labels.shape == _map().shape
    assert (folder / "given" / "forged").exists() or np.array_equal(labels, _map()), "another map than undisturbed"


FORMATS = {
    "classes.json": Format(data_sets, classes_changed, read_set),
    "split list": Format(data_sets, list_changed, read_set),
    "scenes.json": Format(descriptions, description_changed, read_scenes),
    "GeoJSON": Format(geojsons, geojson_changed, read_scenes),
    "GeoPackage": Format(geopackages, geopackage_changed, read_scenes),
    "manifest": Format(manifests, manifest_changed, read_manifest),
    "journal": Format(journals, journal_changed, read_journal),
}
