"""Labelling the points of a sample: what the page may know, what it writes, and that accuracy reads it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
from pyproj import Transformer
from rasterio.transform import Affine
from starlette.testclient import TestClient

import regard
import regard.cli as cli
from regard.errors import ConfigError
from regard.web.labelling import Labelling
from regard.web.raster_layer import Sources
from support import tiny, write_tif
from support_assessment import NAMES, UTM, columns_of, label, pattern, write_map
from web_support import TOKEN, client_of, picture

ORIGIN = "http://127.0.0.1"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of three classes and 30 points of it."""
    folder = tmp_path_factory.mktemp("drawn")
    regard.sample(write_map(folder / "map.tif", pattern()), folder / "points.gpkg", points=30)
    return folder


@pytest.fixture
def points(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(drawn / "points.gpkg", tmp_path))


@pytest.fixture
def labelling(points: Path) -> Iterator[Callable[..., Labelling]]:
    opened: list[Labelling] = []

    def make(scene: Path | None = None, model: Any = None) -> Labelling:
        scene = scene or write_tif(points.parent / "scene.tif", picture((60, 90)))
        opened.append(Labelling(Sources(scene), points, model))
        return opened[-1]

    yield make
    for viewer in opened:
        viewer.close()


def answer(client: TestClient, fid: int, seen: dict[int, Any] | None = None, **values: str) -> Any:
    """Label a point, as a page that has read the file at the time of ``seen``."""
    versions = seen or versions_of(client)
    headers = {"x-regard-token": TOKEN, "origin": ORIGIN, "if-match": versions[fid]}
    return client.post("/points.json", json={"do": "set", "fid": fid, "values": values}, headers=headers)


def versions_of(client: TestClient) -> dict[int, str]:
    return {point["fid"]: point["version"] for point in client.get("/points.json").json()["points"]}


def test_nothing_of_the_map_is_sent(labelling: Callable[..., Labelling]) -> None:
    client = client_of(labelling(model=tiny(classes=NAMES)))
    shown = client.get("/points.json").json()["points"]
    assert {name for point in shown for name in point} == {
        "fid", "x", "y", "version", "reference", "second_choice", "sure", "note", "time",
    }  # fmt: skip
    assert {name for card in client.get("/cards.json").json() for name in card} == {"fid", "outline"}
    about = client.get("/about.json").text
    assert not [word for word in ("stratum", "weight", "fingerprint", "map.tif") if word in about]
    for path in ("/prediction/0/0/0.png", "/confidence/0/0/0.png", "/pixels/prediction/0/0/0", "/pixels/coarse/0/0/0",
                 "/pixel.json?x=9&y=9", "/attention.json?x=9&y=9"):  # fmt: skip
        assert client.get(path).status_code == 404, path
    assert client.get("/pixels/scene/0/0/0.png").status_code == 200


def test_answers_are_read_by_accuracy_and_the_form_for_qgis_stays(
    labelling: Callable[..., Labelling], points: Path, drawn: Path
) -> None:
    client, labels = client_of(labelling()), pattern()
    columns = columns_of(points)
    for fid, (row, column) in enumerate(zip(columns["map_row"], columns["map_column"], strict=True), 1):
        name = NAMES[(labels[row, column] + (fid % 5 == 0)) % 3]  # every fifth is not what the map shows
        assert answer(client, fid, reference=name, sure="yes").status_code == 200
    other = points.parent / "other"
    other.mkdir()
    expected = label(Path(shutil.copy(drawn / "points.gpkg", other)), labels)
    with closing(sqlite3.connect(expected)) as database, database:
        database.execute("UPDATE points SET reference = (reference + 1) % 3 WHERE fid % 5 = 0")
    found, plain = (regard.accuracy(drawn / "map.tif", path).as_dict() for path in (points, expected))
    assert found["overall_accuracy"] == plain["overall_accuracy"] < 1
    with closing(sqlite3.connect(points)) as database:
        assert "ValueMap" in database.execute("SELECT styleQML FROM layer_styles").fetchone()[0]


def test_the_order_is_random_and_the_same_in_a_copy(labelling: Callable[..., Labelling]) -> None:
    orders = [[card["fid"] for card in labelling().cards] for _ in range(2)]
    assert orders[0] == orders[1] and sorted(orders[0]) == list(range(1, 31)) != orders[0]


def test_the_outline_is_the_pixel_of_the_map_in_a_finer_scene(
    labelling: Callable[..., Labelling], points: Path
) -> None:
    fine = write_tif(points.parent / "fine.tif", picture((240, 360)), transform=Affine(2.5, 0, 500_000, 0, -2.5, 5e6))
    columns = columns_of(points)
    for card in labelling(fine).cards:
        row, column = columns["map_row"][card["fid"] - 1], columns["map_column"][card["fid"] - 1]
        left, top = 4 * column, 4 * row
        expected = [[left, top], [left + 4, top], [left + 4, top + 4], [left, top + 4]]
        np.testing.assert_allclose(card["outline"], expected, atol=1e-3)


def test_the_outline_is_placed_by_its_ground_in_a_scene_of_another_crs(
    labelling: Callable[..., Labelling], points: Path
) -> None:
    to_mercator = Transformer.from_crs(32633, 3857, always_xy=True)
    west, north = to_mercator.transform(499_900, 5_000_100)
    place = Affine(3, 0, west, 0, -3, north)
    scene = write_tif(points.parent / "m.tif", picture((500, 700)), crs="EPSG:3857", transform=place)
    card, columns = labelling(scene).cards[0], columns_of(points)
    row, column = columns["map_row"][card["fid"] - 1], columns["map_column"][card["fid"] - 1]
    corner = UTM["transform"] @ (float(column), float(row))
    np.testing.assert_allclose(card["outline"][0], ~place @ to_mercator.transform(*corner), atol=1e-3)


def test_two_windows_keep_each_others_answers(labelling: Callable[..., Labelling]) -> None:
    client = client_of(labelling())
    seen = versions_of(client)
    assert answer(client, 1, seen, reference="land").status_code == 200
    assert answer(client, 2, seen, reference="roof").status_code == 200
    late = answer(client, 1, seen, reference="water")
    assert late.status_code == 412 and "another window" in late.json()["error"]
    found = {point["fid"]: point["reference"] for point in client.get("/points.json").json()["points"]}
    assert (found[1], found[2]) == ("land", "roof")


REFUSED: dict[str, dict[str, Any]] = {
    "no class": {"do": "set", "fid": 1, "values": {"reference": "lava"}},
    "a value of the class": {"do": "set", "fid": 1, "values": {"reference": "1"}},
    "no second class": {"do": "set", "fid": 1, "values": {"second_choice": "lava"}},
    "half sure": {"do": "set", "fid": 1, "values": {"sure": "perhaps"}},
    "the weight": {"do": "set", "fid": 1, "values": {"weight": "1"}},
    "the time": {"do": "set", "fid": 1, "values": {"time": "never"}},
    "a point more": {"do": "add", "x": 1, "y": 1, "values": {"reference": "land"}},
    "a point less": {"do": "delete", "fid": 1},
}


def test_what_is_no_answer_changes_nothing(labelling: Callable[..., Labelling], points: Path) -> None:
    client = client_of(labelling())
    before, headers = (
        columns_of(points),
        {"x-regard-token": TOKEN, "origin": ORIGIN, "if-match": versions_of(client)[1]},
    )
    for kind, change in REFUSED.items():
        assert client.post("/points.json", json=change, headers=headers).status_code == 422, kind
    after = columns_of(points)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize("query", ["x=1&y=1", "x=1&y=1&side=0", "x=1&y=nan&side=9", "x=1&y=1&side=1e9"])
def test_a_picture_around_a_point_has_limits(labelling: Callable[..., Labelling], query: str) -> None:
    client = client_of(labelling())
    assert client.get(f"/around.png?{query}").status_code == 422
    assert client.get("/around.png?x=1&y=1&side=9").headers["content-type"] == "image/png"


def test_classes_are_those_of_the_file_its_form_or_the_model(
    labelling: Callable[..., Labelling], points: Path, drawn: Path
) -> None:
    stored = labelling().classes
    assert stored.names == NAMES
    with closing(sqlite3.connect(points)) as database, database:
        database.execute("UPDATE gpkg_contents SET description = ''")
    assert labelling().classes.names == NAMES
    with closing(sqlite3.connect(points)) as database, database:
        database.execute("UPDATE layer_styles SET styleQML = '<qgis/>'")
    with pytest.raises(ConfigError, match="does not say which classes there are"):
        labelling()
    assert labelling(model=tiny(classes=("a", "b"))).classes.names == ("a", "b")


@pytest.mark.parametrize("said", [True, False], ids=["as written", "without its description"])
def test_a_block_is_outlined_as_far_as_the_map_reaches(
    labelling: Callable[..., Labelling], points: Path, drawn: Path, said: bool
) -> None:
    points.unlink()
    regard.sample(drawn / "map.tif", points, points=60, unit="block", block=7)
    if not said:
        with closing(sqlite3.connect(points)) as database, database:
            database.execute("UPDATE gpkg_contents SET description = ''")
    columns, edges = columns_of(points), 0
    for card in labelling().cards:
        row, column = (int(columns[name][card["fid"] - 1]) // 7 * 7 for name in ("map_row", "map_column"))
        right, bottom = min(column + 7, 90), min(row + 7, 60)
        edges += (right, bottom) != (column + 7, row + 7)
        expected = [[column, row], [right, row], [right, bottom], [column, bottom]]
        np.testing.assert_allclose(card["outline"], expected, atol=1e-3)
    assert edges, "a block at the edge was drawn"


def test_points_of_another_place_are_refused(labelling: Callable[..., Labelling], points: Path) -> None:
    far = write_tif(points.parent / "far.tif", picture((60, 90)), transform=Affine(10, 0, 0, 0, -10, 0))
    with pytest.raises(ConfigError, match=r"no point of points\.gpkg lies in far\.tif"):
        labelling(far)
    nowhere = write_tif(points.parent / "nowhere.tif", picture((60, 90)), crs=None, transform=None)
    with pytest.raises(ConfigError, match="Give both in one"):
        labelling(nowhere)


def test_points_outside_are_counted_and_left_out(labelling: Callable[..., Labelling], points: Path) -> None:
    west = write_tif(points.parent / "west.tif", picture((60, 45)))
    viewer = labelling(west)
    inside = int((columns_of(points)["map_column"] < 45).sum())
    assert len(viewer.cards) == inside and viewer.about()["label"]["outside"] == 30 - inside


def test_points_on_one_line_are_outlined_by_the_scenes_pixels(
    labelling: Callable[..., Labelling], points: Path
) -> None:
    with closing(sqlite3.connect(points)) as database, database:
        database.execute("DELETE FROM points WHERE fid > 2")
        database.execute("UPDATE gpkg_contents SET description = ''")
    fine = write_tif(points.parent / "fine.tif", picture((240, 360)), transform=Affine(2.5, 0, 500_000, 0, -2.5, 5e6))
    for card in labelling(fine).cards:
        left, top = np.min(card["outline"], axis=0)
        assert np.ptp(card["outline"], axis=0).tolist() == [1, 1] and left % 1 == top % 1 == 0


def test_a_map_is_not_shown_to_who_labels(points: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_tif(points.parent / "scene.tif", picture((60, 90)))
    for arguments, words in (
        (["m.safetensors", scene, "map.tif", "--label", points], "without a look at any map; got MAP"),
        ([scene, "--label", points, "--confidence", "c.tif"], "got --confidence"),
        ([scene], "the model comes first"),
        ([scene, "--label", points.with_suffix(".csv")], "in a GeoPackage"),
        ([scene, "--label", points.with_name("none.gpkg")], "does not exist"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["view", *map(str, arguments), "--no-browser"])
        error = capsys.readouterr().err
        assert stop.value.code in (1, 2) and words in error and error.count("\n") == 1, error


def test_a_file_that_others_labelled_keeps_its_columns(labelling: Callable[..., Labelling], points: Path) -> None:
    before = columns_of(points)
    client = client_of(labelling())
    answer(client, 3, reference="roof", second_choice="land", sure="no", note="under a tree\nor not")
    after = columns_of(points)
    for name in before.keys() - {"reference"}:
        np.testing.assert_array_equal(before[name], after[name])
    row = {name: values[2] for name, values in after.items()}
    assert (row["reference"], row["second_choice"], row["sure"]) == ("roof", "land", "no")
    assert row["note"] == "under a tree\nor not" and row["time"].endswith("Z")
    assert (
        json.loads(pyogrio.read_info(points, layer="points")["layer_metadata"]["DESCRIPTION"])["regard_sample"][
            "points"
        ]
        == 30
    )
