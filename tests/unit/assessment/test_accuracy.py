"""From labelled points to accuracies and areas: right values, and refusals."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

import regard
from regard.cli import main
from regard.errors import ClassMismatch, ConfigError, DatasetError, RegardError
from support_assessment import DEGREES, NAMES, UTM, columns_of, districts, label, pattern, write_map

Z = 1.959964


def truth() -> np.ndarray:
    """What the map should have shown: another pattern, so that all classes are confused."""
    labels = np.roll(pattern(), 3, axis=1)
    labels[2:, :5] = 2
    return labels


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return write_map(tmp_path / "map.tif", pattern())


@pytest.fixture
def labelled(made: Path) -> Path:
    regard.sample(made, made.with_name("points.gpkg"), points=90)
    return label(made.with_name("points.gpkg"), truth())


def test_figures_equal_the_formulas_of_olofsson(made: Path, labelled: Path) -> None:
    """Written out with the map's pixels and the points alone; the finite population is in the variances."""
    points = columns_of(labelled)
    mapped = pattern()[points["map_row"], points["map_column"]]
    reference = np.array([int(value) for value in points["reference"]])
    whole = np.bincount(pattern()[pattern() < 3]).astype(float)
    weights, counts = whole / whole.sum(), np.bincount(mapped)
    right = np.array([np.mean(reference[mapped == k] == k) for k in range(3)])
    left = 1 - counts / whole
    found = regard.accuracy(made, labelled).as_dict()
    assert found["overall_accuracy"] == pytest.approx(weights @ right, abs=1e-6)
    variance = weights**2 @ (left * right * (1 - right) / (counts - 1))
    assert found["overall_accuracy_se"] == pytest.approx(np.sqrt(variance), abs=1e-6)
    assert [*found["users_accuracy"].values()] == pytest.approx(right, abs=1e-6)
    assert [*found["mapped_share"].values()] == pytest.approx(weights, abs=1e-6)
    roof = np.array([np.mean(reference[mapped == k] == 1) for k in range(3)])
    total = sum(area.area_m2 for area in regard.areas(made))
    error = total * np.sqrt(weights**2 @ (left * roof * (1 - roof) / (counts - 1)))
    assert found["area_m2"]["roof"] == pytest.approx(total * (weights @ roof), rel=1e-6)
    assert found["area_m2_se"]["roof"] == pytest.approx(error, rel=1e-5)
    low, high = found["area_m2_interval"]["roof"]
    assert (high - low) / 2 == pytest.approx(Z * error, rel=1e-5)


def test_the_table_is_in_hectares_with_margins_of_95_percent(made: Path, labelled: Path) -> None:
    found = regard.accuracy(made, labelled)
    facts = found.as_dict()
    for name, row in zip(NAMES, found.table().splitlines()[2:], strict=True):
        mapped, area, margin = (facts["mapped_m2"][name], facts["area_m2"][name], Z * facts["area_m2_se"][name])
        cells = [cell.strip() for cell in row.strip("| ").split("|")]
        assert [float(cell) for cell in (cells[5], *cells[6].split("±"))] == pytest.approx(
            [mapped / 1e4, area / 1e4, margin / 1e4], rel=6e-3
        )


def test_a_census_gives_the_true_areas_and_accuracies(tmp_path: Path) -> None:
    """Every pixel of a map in degrees is labelled: what is estimated is what pyproj's ellipsoid makes of the truth."""
    made = write_map(tmp_path / "map.tif", pattern(24, 40), DEGREES)
    wanted = np.where(pattern(24, 40) == 255, 255, np.roll(pattern(24, 40), 3, axis=1))
    regard.sample(made, tmp_path / "points.gpkg", points=int((wanted < 3).sum()))
    found = regard.accuracy(made, label(tmp_path / "points.gpkg", wanted)).as_dict()
    other = regard.areas(write_map(tmp_path / "truth.tif", wanted, DEGREES))
    assert [*found["area_m2"].values()] == pytest.approx([area.area_m2 for area in other], rel=1e-9)
    assert [*found["area_m2_se"].values()] == [0, 0, 0]
    wrong = np.where(wanted == 255, 255, wanted != pattern(24, 40)).astype(np.uint8)
    hits = regard.areas(write_map(tmp_path / "hits.tif", wrong, DEGREES))[0].share
    assert found["overall_accuracy"] == pytest.approx(hits, rel=1e-9)


def test_strata_by_polygon_estimate_the_same_map(tmp_path: Path) -> None:
    """A census once more, by districts: strata that are not the classes change no true value."""
    districts = tmp_path / "districts.geojson"
    ring = [[15.0, 45.0], [15.005, 45.0], [15.005, 45.3], [15.0, 45.3], [15.0, 45.0]]
    feature = {
        "type": "Feature",
        "properties": {"name": "west"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    districts.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    labels = pattern(30, 45)
    made = write_map(tmp_path / "map.tif", labels)
    wanted = np.where(labels == 255, 255, np.roll(labels, 3, axis=1))
    design = regard.sample(made, tmp_path / "all.gpkg", points=int((labels < 3).sum()), strata=districts)
    assert {stratum.polygon for stratum in design.strata} == {"west", "outside"}
    found = regard.accuracy(made, label(tmp_path / "all.gpkg", wanted)).as_dict()
    other = regard.areas(write_map(tmp_path / "truth.tif", wanted))
    assert [*found["area_m2"].values()] == pytest.approx([area.area_m2 for area in other], rel=1e-6)


@pytest.mark.parametrize("text", ["name", "value", "number"])
def test_labels_are_names_or_values(made: Path, labelled: Path, text: str) -> None:
    expected = regard.accuracy(made, labelled).as_dict()
    written = {"name": "'{}'", "value": "' {} '", "number": "'{}.0'"}[text]
    with closing(sqlite3.connect(labelled)) as database, database:
        for k, name in enumerate(NAMES):
            new = written.format(name if text == "name" else k)
            database.execute(f"UPDATE points SET reference = {new} WHERE reference = '{k}'")
    assert regard.accuracy(made, labelled).as_dict() == expected


def test_points_without_a_label_are_left_out(made: Path, tmp_path: Path) -> None:
    regard.sample(made, tmp_path / "points.gpkg", points=90)
    found = regard.accuracy(made, label(tmp_path / "points.gpkg", truth(), "id <= 60")).as_dict()
    assert (found["points"], found["unlabelled"]) == (60, 30)


def test_a_large_class_without_an_error_is_a_caution(made: Path, tmp_path: Path) -> None:
    """Of 20 points in 68 % of the map none is wrong: 3 / 20 of that may be."""
    regard.sample(made, tmp_path / "points.gpkg", per_class={"land": 20, "roof": 20, "water": 20})
    found = regard.accuracy(made, label(tmp_path / "points.gpkg", pattern()))
    share = 100 * 3 / 20 * (pattern() == 0).sum() / (pattern() < 3).sum()
    assert "at 20 points in land" in found.caution
    assert f"up to {share:.1f} % of the map" in found.caution
    assert found.caution in regard.report(found, tmp_path / "page.html").read_text()


def test_errors_that_were_found_need_no_caution(made: Path, labelled: Path) -> None:
    assert regard.accuracy(made, labelled).caution == ""


def test_a_map_without_a_crs_has_shares_alone(tmp_path: Path) -> None:
    made = write_map(tmp_path / "map.tif", pattern(), {"transform": DEGREES["transform"]})
    regard.sample(made, tmp_path / "points.gpkg", points=90)
    found = regard.accuracy(made, label(tmp_path / "points.gpkg", truth())).as_dict()
    assert found["area_m2"] == dict.fromkeys(NAMES)
    assert sum(found["area_share"].values()) == pytest.approx(1)


def changed(points: Path, statement: str) -> Path:
    with closing(sqlite3.connect(points)) as database, database:
        database.execute(statement)
    return points


@pytest.mark.parametrize(
    ("statement", "kind", "message"),
    [
        ("UPDATE points SET reference = NULL WHERE stratum = 2", DatasetError, r"no label in 1 stratum of 3 \(2\)"),
        ("DELETE FROM points WHERE stratum = 2", DatasetError, r"no label in 1 stratum of 3 \(2\)"),
        ("UPDATE points SET map_row = (SELECT map_row FROM points WHERE id = 2), map_column = (SELECT map_column FROM "
         "points WHERE id = 2) WHERE id = 1", ConfigError, "a point twice"),
        ("UPDATE points SET fingerprint = 'other' WHERE id = 1", ConfigError, "the points of 2 samples"),
        ("UPDATE points SET reference = NULL WHERE stratum = 2 AND id > (SELECT min(id) FROM points WHERE stratum = 2)",
         DatasetError, "a single label in stratum 2"),
        ("UPDATE points SET reference = 'sea' WHERE id = 1", ClassMismatch, "'sea', not a class"),
        ("UPDATE points SET reference = '3' WHERE id = 1", ClassMismatch, "'3', not a class"),
        ("UPDATE points SET reference = '0.5' WHERE id = 1", ClassMismatch, "'0.5', not a class"),
        ("ALTER TABLE points DROP COLUMN weight", ConfigError, "no column 'weight'"),
        ("DELETE FROM points", ConfigError, "has no points"),
        ("CREATE VIEW more AS SELECT * FROM points", ConfigError, "has a query, 'more'"),
        ("UPDATE points SET map_row = 60 WHERE id = 1", DatasetError, "outside the map"),
        ("UPDATE points SET map_column = 90 WHERE id = 1", DatasetError, "outside the map"),
        ("UPDATE points SET map_column = -1 WHERE id = 1", DatasetError, "outside the map"),
        ("UPDATE points SET stratum = 1 WHERE id = (SELECT min(id) FROM points WHERE stratum = 2)", DatasetError,
         "another stratum"),
    ],
)  # fmt: skip
def test_what_cannot_be_assessed_is_refused_in_one_line(
    made: Path, labelled: Path, statement: str, kind: type[RegardError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        regard.accuracy(made, changed(labelled, statement))
    assert "\n" not in str(caught.value)


def test_the_points_of_another_map_are_refused(labelled: Path, tmp_path: Path) -> None:
    other = pattern()
    other[30, 30] = 2
    elsewhere = {**UTM, "transform": UTM["transform"] @ Affine.translation(1, 0)}
    for labels, place in ((other, UTM), (pattern(), elsewhere)):
        with pytest.raises(DatasetError, match="drawn from another map"):
            regard.accuracy(write_map(tmp_path / "other.tif", labels, place), labelled)


def test_the_same_map_in_another_file_is_the_same(made: Path, labelled: Path, tmp_path: Path) -> None:
    copy = write_map(tmp_path / "copy.tif", pattern(), compress="deflate", tiled=True, blockxsize=32, blockysize=32)
    expected = regard.accuracy(made, labelled).as_dict()
    assert regard.accuracy(copy, labelled).as_dict() == {**expected, "map": "copy.tif"}


def test_a_page_shows_the_figures(made: Path, labelled: Path, tmp_path: Path) -> None:
    found = regard.accuracy(made, labelled)
    text = regard.report(found, tmp_path / "page.html").read_text()
    assert f"{100 * found.estimates.overall.value[0]:.1f}" in text
    assert all(f"{100 * value:.1f}" in text for value in found.estimates.users.value)
    assert all(name in text for name in NAMES)


def test_the_page_marks_agreement_and_disagreement_on_the_map(made: Path, labelled: Path, tmp_path: Path) -> None:
    found = regard.accuracy(made, labelled)
    text = regard.report(found, tmp_path / "page.html").read_text()
    right = int(np.trace(found.estimates.counts))
    assert 0 < right < found.points
    assert text.count("<circle") == right
    assert text.count('<path d="M') == 2 * (found.points - right)  # a cross and its outline
    wrong = int((found.located.mapped != found.located.reference).argmax())
    row, column = int(found.located.rows[wrong]), int(found.located.columns[wrong])
    names = NAMES[pattern()[row, column]], NAMES[truth()[row, column]]
    assert f"row {row}, column {column}: mapped {names[0]}, reference {names[1]}" in text


def test_the_page_shows_sub_areas_and_two_interpreters(made: Path, labelled: Path, tmp_path: Path) -> None:
    parts = districts(tmp_path / "parts.gpkg", {"west side": (500_000, 4_999_000, 500_450, 5_001_000)})
    found = regard.accuracy(made, labelled, sub_areas=parts, second=labelled)
    text = regard.report(found, tmp_path / "page.html").read_text()
    assert all(f'<th scope="row">{part.name}</th><td>{part.points}</td>' in text for part in found.sub_areas)
    assert "Two interpreters agree at 100.0 %" in text
    assert "Cohen&#39;s kappa 1.00" in text


def test_the_commands_say_the_same(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points, page = tmp_path / "drawn.gpkg", tmp_path / "page.html"
    with pytest.raises(SystemExit, match="0"):
        main(["sample", str(made), "-o", str(points), "--per-class", "land=20", "1=20", "water=10", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert [stratum["points"] for stratum in facts["strata"]] == [20, 20, 10]
    label(points, truth())
    with pytest.raises(SystemExit, match="0"):
        main(["accuracy", str(made), str(points), "-o", str(page), "--json"])
    expected = json.loads(json.dumps(regard.accuracy(made, points).as_dict()))
    assert json.loads(capsys.readouterr().out) == {"files": [str(page)], **expected}
    assert page.is_file()
