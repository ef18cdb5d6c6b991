"""Faults planted in a set of polygons, one by one, and a clean set without findings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import shapely
from PIL import Image, ImageFilter
from pyproj import Transformer
from rasterio.transform import Affine

import regard.cli as cli
from regard.doctor.audit import Audit, audit
from support import COLOURS, write_tif

CLASSES = ["oak", "ash", "elm"]
SIDE = 240

Fields = dict[str, Any]


def fields(place: Path) -> Fields:
    """A scene of 240 x 240 pixels of 10 m with 36 square fields of 25 pixels in the colour of their class."""
    rng, cells = np.random.default_rng(3), [(row, column) for row in range(6) for column in range(6)]
    kinds = [CLASSES[(row + column) % 3] for row, column in cells]
    corners = [(500_000 + 400 * column + 50, 5_000_000 - 400 * row - 350) for row, column in cells]
    labels = np.full((SIDE, SIDE), 0)
    for (row, column), kind in zip(cells, kinds, strict=True):
        labels[40 * row + 10 : 40 * row + 35, 40 * column + 5 : 40 * column + 30] = CLASSES.index(kind)
    noise = Image.fromarray(rng.integers(0, 256, size=labels.shape, dtype=np.uint8)).filter(ImageFilter.GaussianBlur(4))
    values = (COLOURS[labels] + (np.asarray(noise, dtype=float)[..., None] - 127) * 2).clip(1, 255)
    write_tif(place / "scene.tif", values.astype(np.uint8).transpose(2, 0, 1))
    return {
        "shapes": [shapely.box(x, y, x + 250, y + 250) for x, y in corners],
        "kinds": kinds,
        "parts": ["val" if row < 2 else "train" for row, _ in cells],
        "crs": "EPSG:32633",
        "told": {"images": ["scene.tif"], "classes": CLASSES},
    }


def found_in(place: Path, made: Fields) -> Audit:
    columns = [np.array(made[name], dtype=object) for name in ("kinds", "parts")]
    options = {"crs": made["crs"], "geometry_type": "Unknown", "driver": "GPKG"}
    shapes = shapely.to_wkb(np.array(made["shapes"]))
    pyogrio.raw.write(place / "fields.gpkg", shapes, columns, ["kind", "part"], **options)
    described = {"labels": "fields.gpkg", "column": "kind", "split": "part"} | made["told"]
    (place / "fields.json").write_text(json.dumps(described))
    return audit(place / "fields.json")


def said(found: Audit) -> list[tuple[str, str, str]]:
    return [(one.grade, one.kind, one.message) for one in found.findings]


@pytest.mark.parametrize("gsd", [None, 20.0])
def test_a_clean_set_has_no_findings_and_its_pixels_are_counted(tmp_path: Path, gsd: float | None):
    made = fields(tmp_path)
    made["told"]["gsd"] = gsd
    found = found_in(tmp_path, made)
    assert not said(found) and found.images == {"train": 1, "val": 1}
    if gsd is None:
        assert {split: pixels.tolist() for split, pixels in found.pixels.items()} == {
            "train": [8 * 625] * 3,
            "val": [4 * 625] * 3,
        }


def outside(made: Fields) -> None:
    made["shapes"][0] = shapely.transform(made["shapes"][0], lambda xy: xy + 90_000)


def bow_tie(made: Fields) -> None:
    west, south, east, north = made["shapes"][20].bounds
    made["shapes"][20] = shapely.Polygon([(west, south), (east, north), (east, south), (west, north - 60)])


def without_class(made: Fields) -> None:
    made["kinds"][7] = None


def unlisted(made: Fields) -> None:
    made["told"]["classes"] = ["oak", "ash", "fir"]


def unused_class(made: Fields) -> None:
    made["told"]["classes"] = [*CLASSES, "fir"]


def not_in_train(made: Fields) -> None:
    for index, part in enumerate(made["parts"]):
        if part == "train" and made["kinds"][index] == "elm":
            made["kinds"][index] = "oak"


def overlapping(made: Fields) -> None:
    """Half of a field of train lies over the field of val to the north."""
    made["shapes"][12] = shapely.transform(made["shapes"][12], lambda xy: xy + np.array([0, 275]))


def a_point(made: Fields) -> None:
    made["shapes"].append(shapely.Point(500_100, 4_999_900))
    made["kinds"].append("oak")
    made["parts"].append("train")


def degrees(made: Fields) -> None:
    carry = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform
    made["shapes"] = [shapely.transform(shape, lambda xy: np.stack(carry(*xy.T), axis=1)) for shape in made["shapes"]]
    made["crs"] = "EPSG:4326"


def wrong_system(made: Fields) -> None:
    made["crs"] = "EPSG:4326"


def one_class(made: Fields) -> None:
    made["kinds"] = ["oak"] * 36
    made["told"] = {"images": ["scene.tif"]}


def mostly_yes(made: Fields) -> None:
    made["kinds"] = ["yes"] * 33 + ["school"] * 2 + ["shop"]
    made["parts"] = ["train", "val"] * 18
    made["told"] = {"images": ["scene.tif"]}


def misspelt(made: Fields) -> None:
    made["kinds"] = ["concerte" if index in (5, 20) else "concrete" for index in range(36)]
    made["told"] = {"images": ["scene.tif"]}


def mostly_empty(made: Fields) -> None:
    made["kinds"] = [kind if index % 4 == 0 else None for index, kind in enumerate(made["kinds"])]


def sparse(made: Fields) -> None:
    made["shapes"] = [shape.centroid.buffer(50, cap_style="square") for shape in made["shapes"]]


def overlapping_across_blocks(made: Fields) -> None:
    made["shapes"][0] = shapely.box(500_000, 4_997_600, 502_400, 5_000_000)
    made["told"] |= {"split": None, "block": 40}


@pytest.mark.parametrize(
    ("plant", "grade", "kind", "words"),
    [
        (outside, "warning", "polygons", "fields.gpkg: 1 polygon (FID 1) outside every scene, not used"),
        (bow_tie, "warning", "polygons", "fields.gpkg: 1 polygon (FID 21) invalid (Self-intersection"),
        (without_class, "note", "polygons", "1 polygon (FID 8) without a value in 'kind'"),
        (unlisted, "error", "classes", "12 polygons (FID 3, 6, 8, 11, 13 and 7 more) of 'elm', which is not among"),
        (unused_class, "warning", "absent class", "nothing is labelled 'fir' (3)"),
        (not_in_train, "error", "absent class", "'elm' (2) is scored but never in train"),
        (
            overlapping,
            "error",
            "leak",
            "1 pair of polygons of two splits overlap; FID 13 (train) and FID 7 (val) share 50 %",
        ),
        (a_point, "note", "polygons", "1 feature without a polygon"),
        (degrees, "note", "coordinates", "fields.gpkg is in EPSG:4326, scene.tif in EPSG:32633"),
        (
            one_class,
            "error",
            "polygons",
            "36 polygons of 'oak' and no other class; ground without a polygon is unlabelled",
        ),
        (mostly_yes, "warning", "classes", "33 of 36 polygons say 'yes' in 'kind', the others 'school' 2, 'shop' 1:"),
        (misspelt, "note", "classes", "'concerte' (2) is spelt almost as 'concrete' (34). If they are one class"),
        (mostly_empty, "warning", "polygons", "27 polygons (FID 2, 3, 4, 6, 7 and 22 more) without a value in 'kind'"),
        (sparse, "note", "coverage", "36 polygons of oak, ash, elm cover 6.2 % of the scenes; the rest is unlabelled"),
        (overlapping_across_blocks, "note", "overlap", "of two splits overlap; FID"),
        (wrong_system, "error", "polygons", "says that its CRS is EPSG:4326, but its coordinates"),
    ],
)
def test_faults_of_polygons(tmp_path: Path, plant: Callable[[Fields], None], grade: str, kind: str, words: str):
    made = fields(tmp_path)
    plant(made)
    found = said(found_in(tmp_path, made))
    assert any(one[:2] == (grade, kind) and words in one[2] for one in found), found
    several = (unlisted, mostly_yes, mostly_empty, misspelt)  # another class, or another split without one
    assert len([one for one in found if one[0] != "note"]) <= (2 if plant in several else 1), found


def test_scenes_of_other_bands_missing_files_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made = fields(tmp_path)
    east = {"transform": Affine(10, 0, 500_000, 0, -10, 4_998_800)}
    write_tif(tmp_path / "south.tif", np.full((5, 120, SIDE), 9, np.uint8), **east)
    made["told"]["images"] = ["scene.tif", "south.tif"]
    kinds = {(grade, kind) for grade, kind, _ in said(found_in(tmp_path, made))}
    assert ("error", "bands") in kinds and ("warning", "blank") in kinds
    with pytest.raises(SystemExit) as end:
        cli.main(["check", str(tmp_path / "fields.json"), "-o", str(tmp_path / "page.html")])
    assert end.value.code == 1 and "bands" in capsys.readouterr().out
    assert "south_0_0" in (tmp_path / "page.html").read_text()
    (tmp_path / "south.tif").unlink()
    assert any("south.tif" in message for _, _, message in said(audit(tmp_path / "fields.json")))
    (tmp_path / "fields.json").write_text("{")
    assert said(audit(tmp_path / "fields.json"))[0][:2] == ("error", "polygons")


def test_polygons_have_the_ids_of_the_file_and_a_missing_column_names_those_there_are(tmp_path: Path):
    made = fields(tmp_path)
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shape),
            "properties": {"kind": kind, "osm_id": 700 + i},
        }
        for i, (shape, kind) in enumerate(zip(made["shapes"], made["kinds"], strict=True))
    ]
    features[4]["properties"]["kind"] = None
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    collection = {"type": "FeatureCollection", "crs": crs, "features": features}
    (tmp_path / "fields.geojson").write_text(json.dumps(collection))
    told = {"images": ["scene.tif"], "labels": "fields.geojson", "column": "kind"}
    (tmp_path / "told.json").write_text(json.dumps(told))
    messages = [message for _, _, message in said(audit(tmp_path / "told.json"))]
    assert any("1 polygon (osm_id 704) without a value" in message for message in messages), messages
    (tmp_path / "told.json").write_text(json.dumps(told | {"column": "crop"}))
    messages = [message for _, _, message in said(audit(tmp_path / "told.json"))]
    assert any("no column 'crop'; it has kind, osm_id." in message for message in messages), messages


def test_a_background_needs_no_second_class(tmp_path: Path):
    made = fields(tmp_path)
    made["told"] = {"images": ["scene.tif"], "column": [], "value": "field", "background": "path", "split": None}
    found = found_in(tmp_path, made)
    assert not said(found) and sum(pixels.sum() for pixels in found.pixels.values()) == SIDE**2
    made["shapes"], made["kinds"], made["parts"] = made["shapes"][:12], made["kinds"][:12], made["parts"][:12]
    assert not said(found_in(tmp_path, made))  # a tenth of the ground, but all of it is labelled


def test_the_rest_is_listed_by_an_asterisk(tmp_path: Path):
    made = fields(tmp_path)
    made["told"]["classes"] = {"oak": ["oak"], "other": ["*"]}
    assert not said(found_in(tmp_path, made))


@pytest.mark.parametrize("kinds", [["1", "1", "2"], ["yes", "yes", "no"], ["other", "other", "oak"]])
def test_codes_flags_and_other_are_classes(tmp_path: Path, kinds: list[str]):
    made = fields(tmp_path)
    made["kinds"], made["told"] = kinds * 12, {"images": ["scene.tif"]}
    assert not said(found_in(tmp_path, made))
