"""Blocks of pixels and borders of classes: as plain loops find them, and as samples use them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regard
from regard.assessment import population
from regard.assessment.units import Units, near_border
from regard.errors import ConfigError
from support_assessment import DEGREES, columns_of, label, pattern, write_map

OPTIONS = [
    {"boundary": 1},
    {"boundary": 5},
    {"unit": "block", "block": 4},
    {"unit": "block", "block": 7, "boundary": 2},
]


def speckled(height: int = 23, width: int = 31) -> np.ndarray:
    """Blobs of three classes with holes without data."""
    labels = pattern(height, width)
    labels[np.random.default_rng(3).random(labels.shape) < 0.05] = 255
    labels[5:9, 20:23] = 2
    return labels


def block_label(pixels: np.ndarray) -> int:
    """The most frequent class of some pixels, the lowest of equals; 3 without any."""
    found = Counter(pixels[pixels < 3].tolist())
    return min(found, key=lambda k: (-found[k], k)) if found else 3


def blocks(labels: np.ndarray, side: int) -> dict[tuple[int, int], np.ndarray]:
    """Each block by its first row and column."""
    height, width = labels.shape
    corners = [(row, column) for row in range(0, height, side) for column in range(0, width, side)]
    return {(row, column): labels[row : row + side, column : column + side] for row, column in corners}


def snyder(latitudes: np.ndarray, width: float) -> np.ndarray:
    """The area of cells between latitudes, ``width`` degrees wide, on WGS 84: Snyder 1987, equation 3-12."""
    a, e = 6_378_137.0, 0.0818191908426215
    sine = np.sin(np.radians(latitudes))
    q = (1 - e**2) * (sine / (1 - e**2 * sine**2) - np.log((1 - e * sine) / (1 + e * sine)) / (2 * e))
    return -(a**2) / 2 * np.radians(width) * np.diff(q)


@pytest.mark.parametrize("reach", [1, 2, 3, 6, 40])
def test_near_a_border_is_what_a_loop_over_neighbours_finds(reach: int) -> None:
    labels = speckled()
    expected = np.zeros(labels.shape, bool)
    for row, column in np.argwhere(labels < 3):
        around = labels[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        expected[row, column] = len({*around[around < 3].tolist()}) > 1
    assert np.array_equal(near_border(labels, 3, reach), expected)


@pytest.mark.parametrize("side", [2, 3, 5, 40])
def test_the_class_of_a_block_is_that_of_most_of_its_pixels(side: int) -> None:
    found = Units(side).labels(speckled(), 3)
    assert found.ravel().tolist() == [block_label(pixels) for pixels in blocks(speckled(), side).values()]


def test_equals_in_a_block_give_the_lowest_class() -> None:
    assert Units(2).labels(np.array([[2, 1], [1, 2]]), 3).tolist() == [[1]]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_seed_draws_the_same_units_whatever_is_read_at_a_time(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, files = write_map(tmp_path / "map.tif", pattern()), []
    for piece, strip in ((2**20, 512), (200, 8), (1, 1)):
        monkeypatch.setattr(population, "PIECE", piece)
        monkeypatch.setattr(population, "STRIP", strip)
        files.append(tmp_path / f"points{piece}.gpkg")
        regard.sample(made, files[-1], points=60, **options)
    first, *others = [columns_of(file) for file in files]
    for other in others:
        assert other.pop("stratum_m2") == pytest.approx(first["stratum_m2"], rel=1e-9)
        assert all(np.array_equal(other[name], first[name]) for name in other)


def test_strata_at_borders_hold_the_pixels_near_other_classes(tmp_path: Path) -> None:
    made, labels = write_map(tmp_path / "map.tif", pattern()), pattern()
    near = near_border(labels, 3, 2)
    design = regard.sample(made, tmp_path / "points.gpkg", points=60, boundary=2)
    found = {(stratum.label, stratum.border): stratum.pixels for stratum in design.strata}
    expected = {(k, side): int(((labels == k) & (near == side)).sum()) for k in range(3) for side in (False, True)}
    assert found == {part: pixels for part, pixels in expected.items() if pixels}
    columns = columns_of(tmp_path / "points.gpkg")
    at = columns["map_row"], columns["map_column"]
    parts = {*zip(columns["stratum"].tolist(), labels[at].tolist(), near[at].tolist(), strict=True)}
    assert len(parts) == len(design.strata)


def test_a_census_of_borders_gives_the_figures_of_one_of_classes(tmp_path: Path) -> None:
    made, wanted = write_map(tmp_path / "map.tif", pattern(16, 20)), np.roll(pattern(16, 20), 3, axis=1)
    results = []
    for number, options in enumerate(({}, {"boundary": 2})):
        points = tmp_path / f"points{number}.gpkg"
        regard.sample(made, points, points=int((wanted < 3).sum()), **options)
        results.append(regard.accuracy(made, label(points, wanted)).as_dict())
    for name in ("overall_accuracy", "users_accuracy", "producers_accuracy", "area_m2"):
        assert results[1][name] == pytest.approx(results[0][name])


@pytest.mark.parametrize("side", [3, 5])
def test_a_census_of_blocks_gives_the_map_of_blocks(tmp_path: Path, side: int) -> None:
    """In degrees, where rows differ in area, with blocks that are cut by the map's edge and by no data."""
    labels, wanted = speckled(), np.roll(speckled(), 2, axis=1)
    made = write_map(tmp_path / "map.tif", labels, DEGREES)
    pairs = [block_label(pixels) for pixels in blocks(labels, side).values()]
    truth = [block_label(pixels) for pixels in blocks(wanted, side).values()]
    units = sum(k < 3 for k in pairs)
    regard.sample(made, tmp_path / "points.gpkg", points=units, unit="block", block=side)
    of_blocks = np.kron(np.reshape(truth, Units(side).shape(*labels.shape)), np.ones((side, side), int))
    found = regard.accuracy(made, label(tmp_path / "points.gpkg", np.minimum(of_blocks, 2))).as_dict()
    size = np.repeat(snyder(75 - 0.5 * np.arange(24), 0.5)[:, None], 31, axis=1)
    ground = [pixels.sum() for pixels in blocks(np.where(labels < 3, size, 0), side).values()]
    counts, areas = np.zeros((3, 3), int), np.zeros((3, 3))
    for *pair, area in zip(pairs, np.minimum(truth, 2), ground, strict=True):
        if pair[0] < 3:
            counts[*pair] += 1
            areas[*pair] += area
    assert found["error_matrix"] == counts.tolist()
    assert np.array(found["error_matrix_share"]) == pytest.approx(areas / areas.sum(), rel=1e-6)
    assert found["block"] == side
    total = sum(area.area_m2 for area in regard.areas(made))
    assert sum(found["area_m2"].values()) == pytest.approx(total, rel=1e-6)
    assert found["overall_accuracy_se"] == pytest.approx(0, abs=1e-9)


def test_blocks_have_no_probabilities(tmp_path: Path) -> None:
    made = write_map(tmp_path / "map.tif", pattern())
    regard.sample(made, tmp_path / "points.gpkg", points=20, unit="block", block=2)
    with pytest.raises(ConfigError, match="the points are blocks"):
        regard.accuracy(made, label(tmp_path / "points.gpkg", pattern()), probabilities=made)


def test_points_stand_in_the_centre_of_their_block(tmp_path: Path) -> None:
    """At the edge of the map too, where a block is cut: its centre is that of the part on the map."""
    at = np.array([[0, 0], [7, 4], [8, 9]])
    assert Units(4).centres(at, (10, 9)).tolist() == [[2, 2], [6, 6], [9, 8.5]]
    assert Units().centres(at, (10, 10)).tolist() == (at + 0.5).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "block"}, "2 to 256"),
        ({"unit": "block", "block": 1}, "2 to 256"),
        ({"block": 3}, "unit block"),
        ({"boundary": 0}, "1 to 256"),
        ({"boundary": 10**9}, "1 to 256"),
    ],
)
def test_units_that_are_not_possible_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        regard.sample("map.tif", **options)
