"""Points drawn from a map: which, how many, and what their file holds."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import rasterio
import shapely

import regard
from regard.assessment import population
from regard.assessment.design import points_for, shared
from regard.assessment.options import SampleOptions
from regard.assessment.population import Population
from regard.errors import ConfigError, OutputError, RegardError
from regard.io.class_map_file import open_label_map
from support_assessment import DEGREES, NAMES, UTM, columns_of, label, pattern, write_map

PIXELS = np.bincount(pattern()[pattern() < 3])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_map(tmp_path_factory.mktemp("map") / "map.tif", pattern())


@pytest.fixture(scope="module")
def drawn(made: Path) -> Path:
    """30 points, 10 of each class."""
    regard.sample(made, made.with_name("points.gpkg"), points=30, seed=5)
    return made.with_name("points.gpkg")


def test_the_weights_of_a_stratum_sum_to_its_pixels(drawn: Path) -> None:
    columns = columns_of(drawn)
    mapped = pattern()[columns["map_row"], columns["map_column"]]
    assert np.bincount(mapped, columns["weight"]) == pytest.approx(PIXELS)
    assert len({*zip(columns["stratum"].tolist(), mapped.tolist(), strict=True)}) == 3


def test_points_lie_in_the_middle_of_different_pixels(made: Path, drawn: Path) -> None:
    about, _, geometry, _ = pyogrio.raw.read(drawn, layer="points")
    columns = columns_of(drawn)
    assert about["crs"] == "EPSG:32633"
    with rasterio.open(made) as raster:
        centres = [raster.xy(*at) for at in zip(columns["map_row"], columns["map_column"], strict=True)]
    assert shapely.get_coordinates(shapely.from_wkb(geometry)) == pytest.approx(np.array(centres))
    assert len({*zip(columns["map_row"].tolist(), columns["map_column"].tolist(), strict=True)}) == 30


def test_reference_is_empty_and_no_column_shows_the_class(drawn: Path) -> None:
    columns = columns_of(drawn)
    mapped = pattern()[columns["map_row"], columns["map_column"]]
    assert all(value is None for value in columns["reference"])
    assert not [name for name, values in columns.items() if np.array_equal(values, mapped)]
    assert (np.diff(mapped.astype(int)) < 0).sum() > 3
    assert not [name for name, values in columns.items() if {*map(str, values)} & {*NAMES}]


@pytest.mark.parametrize(
    "layout", [{"tiled": True, "blockxsize": 16, "blockysize": 16}, {"blockysize": 1}, {"compress": "lzw"}]
)
def test_the_same_seed_draws_the_same_points_whatever_the_blocks(
    drawn: Path, tmp_path: Path, layout: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(population, "PIECE", 200)
    other = write_map(tmp_path / "map.tif", pattern(), **layout)
    regard.sample(other, tmp_path / "points.gpkg", points=30, seed=5)
    expected, found = columns_of(drawn), columns_of(tmp_path / "points.gpkg")
    assert found.pop("stratum_m2") == pytest.approx(expected.pop("stratum_m2"), rel=1e-9)
    assert {name: values.tolist() for name, values in found.items()} == {
        name: values.tolist() for name, values in expected.items()
    }


def test_another_seed_draws_other_points(made: Path, drawn: Path, tmp_path: Path) -> None:
    regard.sample(made, tmp_path / "points.gpkg", points=30, seed=6)
    assert not np.array_equal(columns_of(drawn)["map_row"], columns_of(tmp_path / "points.gpkg")["map_row"])


def test_numbers_of_strata_tell_no_class(made: Path, tmp_path: Path) -> None:
    numbers = set()
    for seed in range(4):
        regard.sample(made, tmp_path / "points.gpkg", points=6, seed=seed, overwrite=True)
        columns = columns_of(tmp_path / "points.gpkg")
        mapped = pattern()[columns["map_row"], columns["map_column"]]
        numbers.add(tuple(columns["stratum"][mapped == k][0] for k in range(3)))
    assert len(numbers) > 1


def test_strata_of_one_size_are_drawn_independently(tmp_path: Path) -> None:
    made = write_map(tmp_path / "map.tif", np.repeat([[0, 1]], 200, axis=0).repeat(9, axis=1).astype(np.uint8))
    regard.sample(made, tmp_path / "points.gpkg", points=40)
    columns = columns_of(tmp_path / "points.gpkg")
    left = columns["map_column"] < 9
    assert {*columns["map_row"][left].tolist()} != {*columns["map_row"][~left].tolist()}


def test_every_pixel_of_a_stratum_is_drawn_as_often(tmp_path: Path) -> None:
    """300 draws of 10 of 100 pixels: chi-square of 99 degrees of freedom, corrected for draws without replacement."""
    labels = np.zeros((10, 11), np.uint8)
    labels[:, 3] = 1
    counts = np.zeros(labels.shape)
    with open_label_map(write_map(tmp_path / "map.tif", labels)) as source:
        whole = Population(source, SampleOptions())
        strata, _ = whole.counted()
        chosen = [type(stratum)(**{**vars(stratum), "points": 10}) for stratum in strata]
        for seed in range(300):
            place = whole.drawn(chosen, seed)
            counts[place.rows, place.columns] += 1
    assert (counts[:, 3] == 300).all()
    statistic = ((counts[labels == 0] - 30) ** 2 / (30 * 0.9)).sum()
    assert 60 < statistic < 150  # 0.1 % and 99.9 % of chi-square


def test_nothing_is_drawn_without_data_or_outside_the_area(made: Path, tmp_path: Path) -> None:
    west, north = 500_000, 5_000_000
    aoi = (west + 200.0, north - 400.0, west + 500.0, north + 0.0)
    design = regard.sample(made, tmp_path / "points.gpkg", points=40, aoi=aoi)
    inside = pattern()[:40, 20:50]
    assert [stratum.pixels for stratum in design.strata] == [(inside == k).sum() for k in (0, 2)]
    columns = columns_of(tmp_path / "points.gpkg")
    assert columns["map_row"].min() >= 2 and columns["map_row"].max() < 40
    assert columns["map_column"].min() >= 20 and columns["map_column"].max() < 50


@pytest.mark.parametrize(("place", "within"), [(UTM, 1e-7), (DEGREES, 1e-12)])
def test_the_ground_of_the_strata_is_that_of_regard_areas(
    tmp_path: Path, place: dict[str, object], within: float
) -> None:
    made = write_map(tmp_path / "map.tif", pattern(), place)
    strata = regard.sample(made).strata
    assert [stratum.area_m2 for stratum in strata] == pytest.approx(
        [area.area_m2 for area in regard.areas(made)], rel=within
    )


def test_polygons_cross_the_classes(made: Path, tmp_path: Path) -> None:
    """Two districts of 30 columns each; the rest of the map is one more stratum of each class."""
    boxes = [shapely.box(500_000, 4_999_000, 500_300, 5_001_000), shapely.box(500_300, 4_999_000, 500_600, 5_001_000)]
    names = np.array(["west", "east"], object)
    layer = {"driver": "GPKG", "crs": "EPSG:32633", "geometry_type": "Polygon"}
    pyogrio.raw.write(tmp_path / "districts.gpkg", shapely.to_wkb(boxes), [names], ["name"], **layer)
    design = regard.sample(made, tmp_path / "points.gpkg", points=60, strata=tmp_path / "districts.gpkg")
    found = {(stratum.polygon, stratum.name): stratum.pixels for stratum in design.strata}
    labels = pattern()
    parts = {"west": labels[:, :30], "east": labels[:, 30:60], "outside": labels[:, 60:]}
    expected = {
        (name, NAMES[k]): int((part == k).sum()) for name, part in parts.items() for k in range(3) if (part == k).any()
    }
    assert found == expected
    assert len(np.unique(columns_of(tmp_path / "points.gpkg")["stratum"])) == len(expected)
    each = regard.sample(
        made, per_class={"land": 300, "roof": 90, "water": 9}, strata=tmp_path / "districts.gpkg"
    ).strata
    land = {stratum.polygon: stratum.points for stratum in each if stratum.name == "land"}
    whole = (labels == 0).sum()
    assert land == pytest.approx({name: 300 * (part == 0).sum() / whole for name, part in parts.items()}, abs=1)


def test_sizes_by_class_and_by_allocation(made: Path) -> None:
    def points(**options: object) -> list[int]:
        return [stratum.points for stratum in regard.sample(made, **options).strata]

    assert points() == [50, 50, 24]  # all of the smallest class
    assert points(points=31) == [11, 10, 10]
    assert points(per_class={"land": 9, 1: 7, "water": 5}) == [9, 7, 5]
    share = PIXELS / PIXELS.sum()
    assert points(points=500, allocation="proportional") == pytest.approx(500 * share, abs=1)
    spread = share * np.sqrt([0.95 * 0.05, 0.7 * 0.3, 0.6 * 0.4])
    neyman = points(points=500, allocation="neyman", expected={"land": 0.95, "roof": 0.7, "water": 0.6})
    assert neyman == pytest.approx(500 * spread / spread.sum(), abs=1)
    assert sum(neyman) == 500


def test_the_cost_of_a_standard_error() -> None:
    """Olofsson et al. 2014, page 51: user's accuracies 0.70, 0.60, 0.90, 0.95 and a standard error of 0.01."""
    spread = np.sqrt([0.7 * 0.3, 0.6 * 0.4, 0.9 * 0.1, 0.95 * 0.05])
    assert points_for(np.array([0.02, 0.015, 0.32, 0.645]), spread, 0.01, 10_000_000) == 641


def test_a_wanted_standard_error_is_reached_by_neyman(made: Path) -> None:
    design = regard.sample(made, target_se=0.02, allocation="neyman")
    assert design.expected_se == pytest.approx(0.02, rel=0.01)


def test_points_are_shared_within_their_bounds() -> None:
    rng = np.random.default_rng(4)
    for _ in range(100):
        pixels = rng.integers(1, 60, rng.integers(1, 9))
        least = np.minimum(pixels, 2)
        total = int(rng.integers(least.sum(), pixels.sum() + 1))
        points = shared(total, rng.random(len(pixels)), pixels, 2)
        assert points.sum() == total
        assert ((least <= points) & (points <= pixels)).all()


def test_the_largest_remainder_gets_the_point_that_is_left() -> None:
    assert shared(10, np.array([5.3, 3.1, 1.6]), np.full(3, 100), 0).tolist() == [5, 3, 2]


def test_qgis_finds_a_form_with_the_classes(drawn: Path) -> None:
    with closing(sqlite3.connect(drawn)) as database:
        rows = database.execute("SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles")
        (table, geometry, default, qml), *more = rows.fetchall()
    assert (table, geometry, default, more) == ("points", "geom", 1, [])
    fields = {field.get("name"): field for field in ElementTree.fromstring(qml).iter("field")}
    choices = [option.get("value") for option in fields["reference"].iter("Option") if option.get("value") is not None]
    assert choices == [*NAMES]
    hidden = {name for name, field in fields.items() if field.find("editWidget").get("type") == "Hidden"}
    assert hidden == {*columns_of(drawn)} - {"id", "reference"}


def test_the_layer_says_how_it_was_drawn(drawn: Path) -> None:
    about = json.loads(pyogrio.read_info(drawn, layer="points")["layer_metadata"]["DESCRIPTION"])["regard_sample"]
    assert about["fingerprint"] == columns_of(drawn)["fingerprint"][0]
    assert about["options"] == {"points": 30, "allocation": "equal", "minimum": 2, "seed": 5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 5}, "need 6 at least"),
        ({"points": 10**6}, "not more than pixels"),
        ({"points": 30, "target_se": 0.1}, "need one of them"),
        ({"per_class": {"land": 5, "roof": 5}}, "Add water=50"),
        ({"per_class": {"land": 5, "roof": 5, "watr": 5}}, "Did you mean 'water'"),
        ({"per_class": ["land=many"]}, "land=50"),
        ({"expected": {"land": 1.2}}, "need a share"),
        ({"minimum": 1}, "needs 2 points"),
        ({"target_se": 2.0}, "between 0 and 0.5"),
        ({"seed": -1}, "0 or above"),
        ({"aoi": (0.0, 0.0, 1.0, 1.0)}, "misses map.tif"),
    ],
)
def test_what_is_not_possible_is_refused_in_one_line(made: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(RegardError, match=message) as caught:
        regard.sample(made, **options)
    assert "\n" not in str(caught.value)


def test_labels_are_not_overwritten_unasked(made: Path, drawn: Path) -> None:
    with pytest.raises(OutputError, match="labels would be lost"):
        regard.sample(made, drawn, points=30)


def test_points_go_to_a_geopackage(made: Path) -> None:
    with pytest.raises(ConfigError, match=r"Name it \.gpkg"):
        regard.sample(made, made.with_name("points.geojson"))


def test_strata_by_confidence_are_where_it_lies_and_estimate_the_same_map(tmp_path: Path) -> None:
    """A census by levels of confidence: each point lies in its level, and the accuracy is that of the whole map."""
    labels = pattern(30, 45)
    made, steps = write_map(tmp_path / "map.tif", labels), np.arange(30 * 45, dtype=np.uint8).reshape(30, 45)
    sure = write_map(tmp_path / "sure.tif", steps)
    design = regard.sample(
        made, tmp_path / "all.gpkg", points=int((labels < 3).sum()), confidence=sure, levels=(0.2, 0.7)
    )
    assert {stratum.confidence for stratum in design.strata} == {(0, 0.2), (0.2, 0.7), (0.7, 1)}
    for stratum in design.strata:
        low, high = (255 * limit for limit in stratum.confidence)
        inside = (labels == stratum.label) & (steps >= low) & ((steps < high) | (high == 255))
        assert stratum.pixels == inside.sum()
    wanted = np.where(labels == 255, 255, np.roll(labels, 3, axis=1))
    found = regard.accuracy(made, label(tmp_path / "all.gpkg", wanted)).as_dict()
    assert found["overall_accuracy"] == pytest.approx(np.mean(wanted[labels < 3] == labels[labels < 3]), abs=1e-4)


@pytest.mark.parametrize("levels", [(0.9, 0.6), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0)])
def test_levels_that_do_not_rise_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="rising confidences"):
        SampleOptions(levels=levels)
