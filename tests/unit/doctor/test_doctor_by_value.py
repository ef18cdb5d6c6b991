"""What is found, and what is not, on either side of each limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rasterio.crs import CRS
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.datasets.folder import Finding
from regard.datasets.labelled_data import Pair
from regard.datasets.polygon_description import PolygonScenes
from regard.doctor.audit import _check_frequencies, sort_findings
from regard.doctor.geospatial import _check_column, find_overlaps
from regard.doctor.inspection import Ground, Inspection, inspect
from regard.doctor.suspects import Suspect, _contradiction, _most_doubtful
from support import save_image, write_tif

TWO = ClassMap.of(["a", "b"])
UTM = CRS.from_epsg(32633)


def placed(name: str, split: str, east: float, size: tuple[int, int], labelled: np.ndarray) -> Inspection:
    """An image of so many pixels of a metre, whose labels are known on a coarse grid."""
    pair = Pair(name, Path(f"{name}.tif"), Path(f"{name}.tif"))
    ground = Ground(UTM, Affine(1, 0, 500_000 + east, 0, -1, 5_000_000), size)
    return Inspection(pair, split, ground=ground, labelled=labelled)


def test_shared_ground_is_told_of_the_smaller_image() -> None:
    large = placed("large", "train", 0, (100, 400), np.ones((5, 5), bool))
    small = placed("small", "val", 300, (100, 200), np.ones((5, 5), bool))
    (found,) = find_overlaps([large, small])
    assert found.message.startswith("small.tif (val) and large.tif (train) share 50 %")


@pytest.mark.parametrize(("rows", "leak"), [([True, False], True), ([False, True], False)])
def test_labels_in_the_north_are_in_the_north(rows: list[bool], leak: bool) -> None:
    whole = placed("whole", "train", 0, (100, 100), np.array([rows]).T)
    north = placed("north", "val", 0, (40, 100), np.ones((2, 2), bool))
    assert bool([*find_overlaps([whole, north])]) == leak


@pytest.mark.parametrize(("pixels", "rare"), [(90, True), (110, False)])
def test_a_class_is_rare_below_a_thousandth(pixels: int, rare: bool) -> None:
    found = [*_check_frequencies({"train": np.array([100_000 - pixels, pixels])}, TWO)]
    assert [one.kind for one in found] == ["rare class"] * rare


def test_the_most_severe_comes_first_and_each_once() -> None:
    given = [Finding(grade, kind, "") for grade, kind in (("note", "a"), ("error", "b"), ("warning", "c"))]
    assert [one.grade for one in sort_findings([*given, *given])] == ["error", "warning", "note"]


@pytest.mark.parametrize(("other", "alike"), [("fores", True), ("marsh", False), ("florist", False)])
def test_values_that_are_spelt_almost_the_same(other: str, alike: bool) -> None:
    description = PolygonScenes(images=("s.tif",), labels="fields.gpkg", column="kind")
    found = [*_check_column(description, np.array(["forest"] * 4 + [other] * 3))]
    assert any("is spelt almost as 'forest' (4)" in one.message for one in found) == alike


def inspected(folder: Path, image: np.ndarray, east: float = 0) -> Inspection:
    """A scene of pixels of 10 m with labels half of each class, whose mask lies so far to the east."""
    labels = np.arange(64).reshape(1, 8, 8) % 2
    write_tif(folder / "image.tif", image, nodata=0, crs=UTM, transform=Affine(10, 0, 5e5, 0, -10, 5e6))
    write_tif(folder / "mask.tif", labels, nodata=None, crs=UTM, transform=Affine(10, 0, 5e5 + east, 0, -10, 5e6))
    return inspect(Pair("image", folder / "image.tif", folder / "mask.tif"), "train", TWO)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (3, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize(("east", "told"), [(0, False), (0.001, False), (5, True), (10, True)])
def test_a_mask_lies_on_the_grid_of_its_image(tmp_path: Path, east: float, told: bool) -> None:
    found = inspected(tmp_path, noise(), east).findings
    assert [one.kind for one in found] == ["coordinates"] * told
    assert not told or f"0.0 pixels below and {east / 10} right" in found[0].message


def test_pixels_without_data_are_not_counted(tmp_path: Path) -> None:
    image = noise()
    image[:, :2] = 0  # nodata
    assert inspected(tmp_path, image).counts.tolist() == [24, 24]


def test_one_constant_band_is_not_blank(tmp_path: Path) -> None:
    image = noise()
    image[1] = 77
    assert inspected(tmp_path, image).findings == []
    image[:] = 77
    assert [one.kind for one in inspected(tmp_path, image).findings] == ["blank"]


def test_the_highest_losses_come_first_and_those_far_above_are_warnings() -> None:
    pairs = [Pair(str(n), Path(f"{n}.png"), Path(f"{n}.png")) for n in range(12)]
    found = _most_doubtful([Suspect(pair, 0.1 + 0.01 * n + 5 * (n == 7), "") for n, pair in enumerate(pairs)])
    assert [one.files[0] for one in found] == [f"{n}.png" for n in (7, 11, 10, 9, 8, 6, 5, 4, 3, 2)]
    assert [one.grade for one in found] == ["warning", *["note"] * 9]


def test_a_contradiction_is_confident_labelled_and_a_share_of_what_is_labelled() -> None:
    labels = torch.tensor([[0, 0, 0, 1, 255, 255]])
    confident = torch.tensor([[0.02, 0.1, 0.4, 0.05, 0.02, 0.02]])  # of a
    text = _contradiction(torch.stack([confident, 1 - confident]), labels, TWO)
    assert text == "; 25 % of it is labelled a where the model is confident of b"
    assert _contradiction(torch.stack([1 - confident, confident])[:, :, 4:], labels[:, 4:], TWO) == ""


def test_a_photograph_of_no_place_has_no_ground(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", noise().transpose(1, 2, 0))
    save_image(tmp_path / "m.png", np.arange(64).reshape(8, 8) % 2)
    found = inspect(Pair("a", tmp_path / "a.png", tmp_path / "m.png"), "train", TWO)
    assert found.ground is None and found.counts.tolist() == [32, 32] and found.findings == []
