"""Areas with the help of probabilities: unbiased whatever they are, narrower where they are good."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import regard
from regard.cli import main
from regard.errors import ConfigError, SizeMismatch
from regard.io.cog_writer import RasterWriter, measure_layer
from support_assessment import NAMES, UTM, columns_of, label, pattern, write_map


def truth() -> np.ndarray:
    labels = np.roll(pattern(), 3, axis=1)
    labels[2:, :5] = 2
    labels[:2] = 255
    return labels


def write_probabilities(path: Path, labels: np.ndarray, sure: float) -> Path:
    """The probability ``sure`` of these labels, the rest shared by the other two."""
    layer = measure_layer("probabilities", {}, NAMES)
    with RasterWriter(path, layer, labels.shape, **UTM) as writer:
        for k in range(3):
            share = np.where(labels == k, sure, (1 - sure) / 2)
            writer.write(0, np.where(labels == 255, 0, np.rint(255 * share)).astype(np.uint8), k + 1)
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    regard.sample(write_map(tmp_path / "map.tif", pattern()), tmp_path / "points.gpkg", points=120)
    return label(tmp_path / "points.gpkg", truth())


def test_true_probabilities_give_the_true_areas_without_an_error(labelled: Path, tmp_path: Path) -> None:
    wanted = write_probabilities(tmp_path / "p.tif", truth(), 1.0)
    found = regard.accuracy(tmp_path / "map.tif", labelled, probabilities=wanted).as_dict()
    other = regard.areas(write_map(tmp_path / "truth.tif", truth()))
    assert [*found["area_m2_assisted"].values()] == pytest.approx([area.area_m2 for area in other], rel=1e-6)
    assert max(found["area_m2_assisted_se"].values()) == pytest.approx(0, abs=1e-3)


def test_it_is_the_difference_estimator_of_a_plain_loop(labelled: Path, tmp_path: Path) -> None:
    """Written out by pixels, point by point; those of 10 m in UTM differ by less than 1e-4 over the map."""
    other, mapped, points = np.roll(pattern(), 5, axis=1), pattern(), columns_of(labelled)
    found = regard.accuracy(
        tmp_path / "map.tif", labelled, probabilities=write_probabilities(tmp_path / "p.tif", other, 0.8)
    ).as_dict()
    steps = {True: 204 / 254, False: 25 / 254}  # 255 times 0.8, and what is left, in whole numbers, of their sum
    at = [*zip(points["map_row"].tolist(), points["map_column"].tolist(), strict=True)]
    for k, name in enumerate(NAMES):
        share = np.mean([steps[bool(label == k)] for label in other[mapped < 3]])
        for stratum in range(3):
            mine = [place for place in at if mapped[place] == stratum]
            off = np.mean([float(truth()[place] == k) - steps[bool(other[place] == k)] for place in mine])
            share += (mapped == stratum).sum() / (mapped < 3).sum() * off
        assert found["area_m2_assisted"][name] / sum(found["area_m2"].values()) == pytest.approx(share, abs=2e-4)


def test_good_probabilities_narrow_the_interval_and_useless_ones_do_not(labelled: Path, tmp_path: Path) -> None:
    near = truth()
    near[30:32] = pattern()[30:32]
    good = write_probabilities(tmp_path / "good.tif", near, 0.98)
    even = write_probabilities(tmp_path / "even.tif", truth(), 1 / 3)
    one, other = (
        regard.accuracy(tmp_path / "map.tif", labelled, probabilities=path).as_dict() for path in (good, even)
    )
    for name in NAMES:
        assert one["area_m2_assisted_se"][name] < 0.5 * one["area_m2_se"][name]
        assert other["area_m2_assisted_se"][name] == pytest.approx(other["area_m2_se"][name], rel=1e-6)
        assert other["area_m2_assisted"][name] == pytest.approx(other["area_m2"][name], rel=1e-4)


def test_the_command_shows_them(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_probabilities(tmp_path / "p.tif", pattern(), 0.8)
    with pytest.raises(SystemExit, match="0"):
        main(["accuracy", str(tmp_path / "map.tif"), str(labelled), "--probabilities", str(path), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert {*facts["area_m2_assisted"]} == {*NAMES} and len(facts["area_m2_assisted_interval"]["roof"]) == 2


def test_what_does_not_belong_to_the_map_is_refused(labelled: Path, tmp_path: Path) -> None:
    small = write_probabilities(tmp_path / "small.tif", truth()[:30], 0.8)
    plain = write_map(tmp_path / "plain.tif", pattern())
    for path, kind, message in ((small, SizeMismatch, "the map 90 x 60"), (plain, ConfigError, "1 bands")):
        with pytest.raises(kind, match=message):
            regard.accuracy(tmp_path / "map.tif", labelled, probabilities=path)


def test_points_of_a_part_are_refused(labelled: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.gpkg"
    regard.sample(tmp_path / "map.tif", part, points=60, aoi=(500_000.0, 4_999_500.0, 500_900.0, 5_000_000.0))
    path = write_probabilities(tmp_path / "p.tif", pattern(), 0.8)
    with pytest.raises(ConfigError, match="of the whole map"):
        regard.accuracy(tmp_path / "map.tif", label(part, truth()), probabilities=path)
