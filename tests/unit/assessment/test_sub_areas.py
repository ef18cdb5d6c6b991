"""The figures of parts of a map, from points that were drawn for all of it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import regard
from regard.cli import main
from support_assessment import NAMES, columns_of, districts, label, pattern, write_map

WEST, EAST = (500_000, 4_999_000, 500_300, 5_001_000), (500_300, 4_999_000, 500_700, 5_001_000)
PARTS = {"west": np.s_[:, :30], "east": np.s_[:, 30:70], "outside": np.s_[:, 70:]}


def truth(labels: np.ndarray) -> np.ndarray:
    """Another pattern with the same pixels of no data."""
    return np.where(labels == 255, 255, np.roll(pattern(*labels.shape), 3, axis=1))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return districts(tmp_path / "districts.gpkg", {"west": WEST, "east": EAST})


def test_a_census_gives_the_truth_of_each_part(tmp_path: Path, two: Path) -> None:
    labels = pattern(8, 80)
    made, wanted = write_map(tmp_path / "map.tif", labels), truth(labels)
    regard.sample(made, tmp_path / "points.gpkg", points=int((labels < 3).sum()))
    found = regard.accuracy(made, label(tmp_path / "points.gpkg", wanted), sub_areas=two).as_dict()["sub_areas"]
    assert [*found] == ["east", "west", "outside"]
    for name, part in PARTS.items():
        data, shown, real = labels[part] < 3, labels[part], wanted[part]
        figures = found[name]
        assert figures["points"] == data.sum()
        assert figures["overall_accuracy"] == pytest.approx((shown == real)[data].mean(), rel=1e-5)
        assert figures["overall_accuracy_se"] == pytest.approx(0, abs=1e-9)
        shares = [(real[data] == k).mean() for k in range(3)]
        assert [*figures["area_share"].values()] == pytest.approx(shares, rel=1e-5)
        assert [*figures["mapped_share"].values()] == pytest.approx(
            [(shown[data] == k).mean() for k in range(3)], rel=1e-5
        )
        assert sum(figures["area_m2"].values()) == pytest.approx(sum(figures["mapped_m2"].values()))


def test_the_estimate_of_a_part_is_a_domain_estimate_in_fractions(tmp_path: Path, two: Path) -> None:
    """Of a map without a CRS, whose pixels count alike: value and variance written out point by point."""
    labels = pattern()
    made = write_map(tmp_path / "map.tif", labels)
    regard.sample(made, tmp_path / "points.gpkg", points=90)
    label(tmp_path / "points.gpkg", truth(labels))
    columns = columns_of(tmp_path / "points.gpkg")
    at = columns["map_row"], columns["map_column"]
    mapped, real, here = labels[at].tolist(), truth(labels)[at].tolist(), (at[1] < 30).tolist()
    size = {k: Fraction(int((labels == k).sum())) for k in range(3)}
    drawn = {k: Fraction(mapped.count(k)) for k in range(3)}
    weight = [size[k] / drawn[k] for k in mapped]
    top = [w * (d and m == r) for w, d, m, r in zip(weight, here, mapped, real, strict=True)]
    bottom = [w * d for w, d in zip(weight, here, strict=True)]
    value = sum(top, Fraction()) / sum(bottom, Fraction())
    variance = Fraction()
    for k in range(3):
        residuals = [(t - value * b) for t, b, m in zip(top, bottom, mapped, strict=True) if m == k]
        mean, n = sum(residuals, Fraction()) / drawn[k], drawn[k]
        variance += (1 - n / size[k]) * n / (n - 1) * sum((r - mean) ** 2 for r in residuals)
    found = regard.accuracy(made, tmp_path / "points.gpkg", sub_areas=two).as_dict()["sub_areas"]["west"]
    assert found["overall_accuracy"] == pytest.approx(float(value), rel=1e-5)
    assert found["overall_accuracy_se"] == pytest.approx(float(variance) ** 0.5 / float(sum(bottom)), rel=1e-4)


def test_the_parts_of_strata_by_part_sum_to_the_map(tmp_path: Path, two: Path) -> None:
    made = write_map(tmp_path / "map.tif", pattern())
    regard.sample(made, tmp_path / "points.gpkg", points=120, strata=two)
    found = regard.accuracy(made, label(tmp_path / "points.gpkg", truth(pattern())), sub_areas=two).as_dict()
    for name in NAMES:
        parts = [part["area_m2"][name] for part in found["sub_areas"].values()]
        assert sum(parts) == pytest.approx(found["area_m2"][name], rel=1e-6)
        variance = sum(part["area_m2_se"][name] ** 2 for part in found["sub_areas"].values())
        assert np.sqrt(variance) == pytest.approx(found["area_m2_se"][name], rel=1e-3)


def test_the_ground_of_a_part_is_estimated_where_only_an_area_was_sampled(tmp_path: Path, two: Path) -> None:
    """The area of interest cuts the district; so its areas are those that the points stand for there."""
    made = write_map(tmp_path / "map.tif", pattern())
    aoi = (500_100.0, 4_999_400.0, 500_500.0, 5_000_000.0)
    regard.sample(made, tmp_path / "points.gpkg", points=100, aoi=aoi)
    found = regard.accuracy(made, label(tmp_path / "points.gpkg", truth(pattern())), sub_areas=two).as_dict()
    columns = columns_of(tmp_path / "points.gpkg")
    west = columns["map_column"] < 30
    assert sum(found["sub_areas"]["west"]["area_m2"].values()) == pytest.approx(
        (columns["stratum_m2"] / columns["stratum_pixels"] * columns["weight"])[west].sum(), rel=1e-5
    )
    assert "mapped_m2" not in found["sub_areas"]["west"]


def test_a_part_without_points_says_nothing(tmp_path: Path) -> None:
    made = write_map(tmp_path / "map.tif", pattern())
    corner = districts(tmp_path / "corner.gpkg", {"corner": (500_000, 4_999_970, 500_010, 4_999_980)})
    regard.sample(made, tmp_path / "points.gpkg", points=12, seed=1)
    found = regard.accuracy(made, label(tmp_path / "points.gpkg", pattern()), sub_areas=corner)
    assert found.as_dict()["sub_areas"]["corner"]["overall_accuracy"] is None
    assert found.sub_area_table().splitlines()[2] == "| corner | 0 | – | – | – | – |"


def test_the_command_shows_them(tmp_path: Path, two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, points = write_map(tmp_path / "map.tif", pattern()), tmp_path / "points.gpkg"
    regard.sample(made, points, points=90)
    label(points, truth(pattern()))
    with pytest.raises(SystemExit, match="0"):
        main(["accuracy", str(made), str(points), "--sub-areas", str(two), "--json"])
    expected = regard.accuracy(made, points, sub_areas=two).as_dict()
    assert json.loads(capsys.readouterr().out) == {"files": [], **json.loads(json.dumps(expected))}
