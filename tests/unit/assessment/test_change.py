"""Two maps of one grid: strata by pairs of classes, and areas from class to class."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

import regard
from regard.assessment.accuracy import Accuracy
from regard.cli import main
from regard.errors import RegardError, SizeMismatch
from support_assessment import NAMES, UTM, columns_of, pattern, write_map

LATER = ("land", "roof")
PAIRS = [f"{first} > {second}" for first in NAMES for second in LATER]


def dates(height: int = 16, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """An earlier map of three classes and a later one of two; the later has a column without data."""
    later = np.minimum(np.roll(pattern(height, width), 4, axis=1), 1)
    later[:2], later[:, 7] = 255, 255
    return pattern(height, width), later


def paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.where((first == 255) | (second == 255), 255, 2 * first + second).astype(np.uint8)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    first, second = dates()
    return write_map(tmp_path / "2015.tif", first), write_map(tmp_path / "2020.tif", second, names=LATER)


def label_pairs(points: Path, truth: np.ndarray) -> Path:
    """Fill ``reference`` with the names of pairs."""
    with closing(sqlite3.connect(points)) as database, database:
        chosen = f'SELECT fid, map_row, map_column FROM "{points.stem}"'
        rows = [(PAIRS[truth[row, column]], fid) for fid, row, column in database.execute(chosen)]
        database.executemany(f'UPDATE "{points.stem}" SET reference = ? WHERE fid = ?', rows)
    return points


def truth() -> np.ndarray:
    """What has changed in truth: the first map was right, the second lies 2 columns off."""
    first, second = dates()
    moved = np.roll(second, 2, axis=1)
    return np.where(paired(first, second) == 255, 255, paired(first, np.where(moved == 255, 0, moved)))


def census(both: tuple[Path, Path], folder: Path) -> Accuracy:
    count = int((paired(*dates()) < 255).sum())
    regard.sample(both[0], folder / "points.gpkg", later=both[1], points=count)
    return regard.accuracy(both[0], label_pairs(folder / "points.gpkg", truth()), later=both[1])


def test_strata_are_the_pairs_that_occur(both: tuple[Path, Path], tmp_path: Path) -> None:
    design = regard.sample(both[0], tmp_path / "points.gpkg", later=both[1], points=60)
    pairs = paired(*dates())
    found = {stratum.name: stratum.pixels for stratum in design.strata}
    assert found == {PAIRS[k]: (pairs == k).sum() for k in np.unique(pairs[pairs < 255])}
    columns = columns_of(tmp_path / "points.gpkg")
    assert (pairs[columns["map_row"], columns["map_column"]] < 255).all()


def test_a_census_gives_the_true_areas_from_class_to_class(both: tuple[Path, Path], tmp_path: Path) -> None:
    facts = census(both, tmp_path).as_dict()
    real, total = truth(), sum(facts["mapped_m2"].values())
    shares = {PAIRS[k]: (real == k).sum() / (real < 255).sum() for k in range(6)}
    for name, share in shares.items():
        first, second = name.split(" > ")
        assert facts["from_to_m2"][first][second] == pytest.approx(share * total, rel=1e-5)
    change = sum(share for name, share in shares.items() if name.split(" > ")[0] != name.split(" > ")[1])
    assert facts["changed_share"] == pytest.approx(change, rel=1e-5)
    assert facts["changed_m2"] == pytest.approx(change * total, rel=1e-5)
    assert facts["overall_accuracy"] == pytest.approx((real == paired(*dates()))[real < 255].mean(), rel=1e-5)


def test_a_map_of_pairs_gives_the_same_as_two_maps(both: tuple[Path, Path], tmp_path: Path) -> None:
    change = write_map(tmp_path / "change.tif", paired(*dates()), names=PAIRS)
    regard.sample(both[0], tmp_path / "two.gpkg", later=both[1], points=80)
    regard.sample(change, tmp_path / "one.gpkg", points=80)
    two = regard.accuracy(both[0], label_pairs(tmp_path / "two.gpkg", truth()), later=both[1]).as_dict()
    one = regard.accuracy(change, label_pairs(tmp_path / "one.gpkg", truth())).as_dict()
    assert two.pop("map") == "2015.tif > 2020.tif"
    assert one.pop("map") == "change.tif"
    assert one == two


def test_the_share_of_change_has_the_error_of_its_design(both: tuple[Path, Path], tmp_path: Path) -> None:
    """Σ W² (1 - n/N) p (1 - p) / (n - 1), with p the share of changed points in each stratum."""
    regard.sample(both[0], tmp_path / "points.gpkg", later=both[1], points=90)
    facts = regard.accuracy(both[0], label_pairs(tmp_path / "points.gpkg", truth()), later=both[1]).as_dict()
    columns, pairs, real = columns_of(tmp_path / "points.gpkg"), paired(*dates()), truth()
    at = columns["map_row"], columns["map_column"]
    variance, whole = 0.0, (pairs < 255).sum()
    for k in np.unique(pairs[at]):
        of, pixels = real[at][pairs[at] == k], (pairs == k).sum()
        p, n = (of // 2 != of % 2).mean(), len(of)
        if n < pixels:
            variance += (pixels / whole) ** 2 * (1 - n / pixels) * p * (1 - p) / (n - 1)
    assert facts["changed_share_se"] == pytest.approx(np.sqrt(variance), rel=1e-4)


def test_the_command_prints_a_table_from_class_to_class(
    both: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = str(tmp_path / "points.gpkg")
    with pytest.raises(SystemExit, match="0"):
        main(["sample", str(both[0]), "--later", str(both[1]), "-o", points, "--points", "70", "--json"])
    assert json.loads(capsys.readouterr().out)["map"] == "2015.tif > 2020.tif"
    label_pairs(Path(points), truth())
    with pytest.raises(SystemExit, match="0"):
        main(["accuracy", str(both[0]), points, "--later", str(both[1])])
    printed = capsys.readouterr().out
    assert "| from \\ to, ha | land | roof |" in printed
    assert "changed: " in printed
    assert (
        "from, to" in regard.report(regard.accuracy(both[0], points, later=both[1]), tmp_path / "page.html").read_text()
    )


def test_maps_of_different_grids_are_refused(both: tuple[Path, Path], tmp_path: Path) -> None:
    moved = {**UTM, "transform": UTM["transform"] @ Affine.translation(0.5, 0)}
    others = [
        write_map(tmp_path / "moved.tif", dates()[1], moved, names=LATER),
        write_map(tmp_path / "small.tif", dates()[1][:-1], names=LATER),
        write_map(tmp_path / "zone.tif", dates()[1], {**UTM, "crs": "EPSG:32634"}, names=LATER),
    ]
    for other in others:
        with pytest.raises(SizeMismatch, match=f"{other.name} is not on the grid of 2015.tif"):
            regard.sample(both[0], later=other)


def test_points_of_change_need_both_maps(both: tuple[Path, Path], tmp_path: Path) -> None:
    regard.sample(both[0], tmp_path / "points.gpkg", later=both[1], points=60)
    label_pairs(tmp_path / "points.gpkg", truth())
    with pytest.raises(RegardError, match="drawn from another map"):
        regard.accuracy(both[0], tmp_path / "points.gpkg")
