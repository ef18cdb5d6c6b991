"""Notes that the page writes: what the file holds for others, and what is refused."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from regard.errors import ConfigError
from regard.web.point_file import Change, PointFile, Refused
from regard.web.raster_layer import Changed

UTM, PLACE = CRS.from_epsg(32633), Affine(10, 0, 500_000, 0, -10, 5_000_000)


def notes(folder: Path) -> PointFile:
    return PointFile.notes(folder / "notes.gpkg", UTM, PLACE)


def add(file: PointFile, text: str, x: float = 1.5, y: float = 2.5) -> dict[str, Any]:
    change = Change(do="add", x=x, y=y, values={"text": text})
    return file.change(change, file.points()["version"])


def test_gdal_reads_what_was_written(tmp_path: Path) -> None:
    file = notes(tmp_path)
    add(file, "a path\nover water", 100.5, 20.25)
    add(file, "ü 漢字")
    meta, _, geometry, values = pyogrio.raw.read(file.path)
    assert pyogrio.read_info(file.path)["crs"] == "EPSG:32633"
    columns = dict(zip(meta["fields"], values, strict=True))
    assert columns["text"].tolist() == ["a path\nover water", "ü 漢字"] and all(columns["time"])
    assert shapely.from_wkb(geometry[0]).coords[0] == (501_005.0, 4_999_797.5)


def test_a_note_is_changed_and_deleted_and_others_stay(tmp_path: Path) -> None:
    file = notes(tmp_path)
    one, two = add(file, "one")["point"], add(file, "two")
    file.change(Change(do="set", fid=one["fid"], values={"text": "uno"}), one["version"])
    file.change(Change(do="delete", fid=two["point"]["fid"]), two["point"]["version"])
    assert [(point["text"], point["x"], point["y"]) for point in file.points()["points"]] == [("uno", 1.5, 2.5)]


def test_the_file_is_opened_again_with_its_notes(tmp_path: Path) -> None:
    add(notes(tmp_path), "kept")
    assert [point["text"] for point in notes(tmp_path).points()["points"]] == ["kept"]


def test_who_has_not_seen_the_last_change_does_not_undo_it(tmp_path: Path) -> None:
    file = notes(tmp_path)
    old = file.points()["version"]
    add(file, "of the other window")
    with pytest.raises(Refused, match="changed in another window") as refusal:
        file.change(Change(do="add", values={"text": "lost?"}), old)
    assert refusal.value.status == 412 and len(file.points()["points"]) == 1


def test_an_edit_in_another_program_is_seen(tmp_path: Path) -> None:
    file = notes(tmp_path)
    before = add(file, "one")["version"]
    with sqlite3.connect(file.path) as database:
        database.execute("UPDATE notes SET text = 'by QGIS'")
    assert file.points()["version"] != before and file.points()["points"][0]["text"] == "by QGIS"


WRONG = {
    "no such column": {"do": "add", "values": {"fid": "7"}},
    "the time is ours": {"do": "add", "values": {"time": "never"}},
    "set without a point": {"do": "set", "values": {"text": "x"}},
    "a point that is not there": {"do": "delete", "fid": 99},
    "a number for a new point": {"do": "add", "fid": 3},
    "control characters": {"do": "add", "values": {"text": "a\x1b[2Jb"}},
    "an endless text": {"do": "add", "values": {"text": "x" * 2001}},
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_change_that_does_not_fit_is_refused(tmp_path: Path, kind: str) -> None:
    file = notes(tmp_path)
    version = add(file, "kept")["version"]
    with pytest.raises(Refused) as refusal:
        file.change(Change(**WRONG[kind]), version)
    assert refusal.value.status == 422 and file.points()["version"] == version


def test_names_and_texts_are_not_run_as_sql(tmp_path: Path) -> None:
    file = PointFile.notes(tmp_path / 'no"te; DROP.gpkg', UTM, PLACE)
    add(file, "'); DROP TABLE notes; --")
    assert file.points()["points"][0]["text"] == "'); DROP TABLE notes; --"


def test_a_replaced_file_is_not_written(tmp_path: Path) -> None:
    file, other = notes(tmp_path), tmp_path / "other.gpkg"
    other.write_bytes(file.path.read_bytes())
    os.replace(other, file.path)
    with pytest.raises(Changed, match="has changed since it was opened"):
        add(file, "x")
    file.path.unlink()
    with pytest.raises(Changed, match="no longer there"):
        file.points()


def test_a_full_disk_and_another_writer_leave_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = notes(tmp_path)
    version = add(file, "kept")["version"]
    with sqlite3.connect(file.path, isolation_level=None) as other:
        monkeypatch.setattr("regard.web.point_file.PATIENCE", 0.05)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Refused, match="Another program is writing") as refusal:
            file.points()
        other.execute("ROLLBACK")
    assert refusal.value.status == 423 and file.points()["version"] == version

    def full(*_: object) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(file, "_made", full)
    with pytest.raises(Refused, match="The disk is full") as refusal:
        add(file, "x")
    assert refusal.value.status == 507 and file.points()["version"] == version


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Name it notes\.gpkg"):
        PointFile.notes(tmp_path / "notes.txt", UTM, PLACE)
    notes(tmp_path)
    with pytest.raises(ConfigError, match="the scene in another"):
        PointFile.notes(tmp_path / "notes.gpkg", CRS.from_epsg(3857), PLACE)
    path = tmp_path / "indexed.gpkg"
    pyogrio.raw.write(
        path, shapely.to_wkb(shapely.points([[1, 2]])), [np.array(["a"], object)] * 3, ["text", "class", "time"],
        crs="EPSG:32633", geometry_type="Point", driver="GPKG",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="has a spatial index"):
        PointFile.notes(path, UTM, PLACE)
