"""The strips' polygons against GDAL's polygons of the whole raster, and against the rules of a coverage."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rasterio.transform import Affine

from regard.errors import ConfigError
from regard.io.coverage import Region, Strip, joined, regions

RASTERS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 13), st.integers(1, 13)), elements=st.integers(0, 3))


def blobs(seed: int, height: int, width: int, classes: int = 4) -> np.ndarray:
    """Labels in patches of some pixels with specks."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, size=(height // 5 + 1, width // 5 + 1)).repeat(5, axis=0).repeat(5, axis=1)
    specks = rng.integers(0, classes, size=(height, width))
    return np.where(rng.random((height, width)) < 0.1, specks, coarse[:height, :width]).astype(np.uint8)


def cut(labels: np.ndarray, height: int, values: np.ndarray | None = None) -> Iterator[Strip]:
    for top in range(0, len(labels), height):
        rows = slice(top, top + height)
        yield Strip(top, labels[rows], None if values is None else values[rows])


def found(
    labels: np.ndarray, height: int, simplify: float = 0.0, nodata: int | None = None, values: np.ndarray | None = None
) -> list[Region]:
    left_out = () if nodata is None else (nodata,)
    return [region for some in regions(cut(labels, height, values), simplify, left_out) for region in some]


def by_gdal(labels: np.ndarray, nodata: int | None = None) -> set[tuple[int, bytes]]:
    pairs = rasterio.features.shapes(labels, connectivity=4)
    return {named(int(value), shapely.geometry.shape(shape)) for shape, value in pairs if value != nodata}


def named(label: int, shape: shapely.Polygon) -> tuple[int, bytes]:
    """A polygon without the corners that are none, so that equal ones are equal byte by byte."""
    return label, shapely.normalize(shapely.simplify(without_seam(shape), 0)).wkb


def without_seam(shape: shapely.Polygon) -> shapely.Polygon:
    """The same polygon with each ring begun at a true corner: simplify never drops a ring's first point."""
    rings = []
    for ring in [shape.exterior, *shape.interiors]:
        points = list(ring.coords)[:-1]
        lowest = points.index(min(points))
        rings.append(points[lowest:] + points[:lowest])
    return shapely.Polygon(rings[0], rings[1:])


def check_coverage(shapes: list[shapely.Polygon]) -> None:
    assert all(shape.geom_type == "Polygon" for shape in shapes)
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    assert sum(shape.area for shape in shapes) == pytest.approx(shapely.union_all(shapes).area, abs=1e-9)


@given(RASTERS, st.integers(1, 14))
def test_the_polygons_are_those_of_the_whole_raster_however_it_is_cut(labels: np.ndarray, height: int) -> None:
    polygons = [(region.label, region.polygon()) for region in found(labels, height)]
    assert len(polygons) == len(by_gdal(labels))
    assert {named(*polygon) for polygon in polygons} == by_gdal(labels)
    check_coverage([shape for _, shape in polygons])


@given(RASTERS, st.integers(1, 14))
def test_no_data_is_a_hole(labels: np.ndarray, height: int) -> None:
    polygons = [(region.label, region.polygon()) for region in found(labels, height, nodata=2)]
    assert {named(*polygon) for polygon in polygons} == by_gdal(labels, nodata=2)
    for label in (0, 1, 3):
        assert sum(shape.area for value, shape in polygons if value == label) == (labels == label).sum()


@given(RASTERS, st.integers(1, 14), st.floats(0.1, 6))
def test_simplified_polygons_leave_no_gap_and_do_not_overlap(labels: np.ndarray, height: int, by: float) -> None:
    simplified = found(labels, height, by)
    shapes = [region.polygon() for region in simplified]
    check_coverage(shapes)
    assert len(shapes) == len(by_gdal(labels))
    assert sum(shape.area for shape in shapes) == pytest.approx(labels.size)  # the whole raster and nothing else


@pytest.mark.parametrize("simplify", [0.0, 1.5])
def test_patches_of_a_larger_raster(simplify: float) -> None:
    labels = blobs(1, 60, 70)
    shapes = [region.polygon() for region in found(labels, 16, simplify)]
    check_coverage(shapes)
    if simplify:
        plain = sum(len(shapely.get_coordinates(region.polygon())) for region in found(labels, 16))
        assert sum(len(shapely.get_coordinates(shape)) for shape in shapes) < 0.8 * plain
    else:
        assert len(shapes) == len(by_gdal(labels))


def test_a_patch_over_many_strips_is_one_polygon() -> None:
    labels = np.zeros((40, 9), np.uint8)
    labels[3:37, 2] = labels[3:37, 6] = labels[36, 2:7] = 1  # a U: two pieces until its lowest row
    ring = [region for region in found(labels, 4) if region.label == 1]
    assert len(ring) == 1 and ring[0].polygon().area == (labels == 1).sum() == ring[0].pixels


@given(arrays.arrays(bool, st.tuples(st.integers(2, 9), st.integers(1, 9))))
def test_joined_rings_are_the_union_that_shapely_makes(area: np.ndarray) -> None:
    """Each 4-connected area, its rows traced one by one, with vertices at every pixel."""
    for whole, value in rasterio.features.shapes(area.astype(np.uint8), connectivity=4):
        rows = np.repeat(
            rasterio.features.geometry_mask([whole], area.shape, Affine.identity(), invert=True)[None], len(area), 0
        )
        rows &= np.eye(len(area), dtype=bool)[:, :, None]
        pairs = [pair for row in rows for pair in rasterio.features.shapes(row.astype(np.uint8), connectivity=4)]
        pieces = [shapely.segmentize(shapely.geometry.shape(shape), 1) for shape, inside in pairs if inside]
        pieces = shapely.transform(pieces, np.rint)
        if value and len(pieces) > 1:
            expected = shapely.make_valid(shapely.coverage_union_all(pieces))  # GEOS 3.13 leaves holes in the shell
            shape = joined(shapely.get_exterior_ring(pieces))
            assert shape.is_valid and shape.normalize() == expected.normalize()


def test_regions_come_as_soon_as_they_are_whole() -> None:
    labels = np.repeat(np.arange(6, dtype=np.uint8), 2)[:, None].repeat(5, axis=1)
    assert [[region.label for region in some] for some in regions(cut(labels, 2))] == [[], [0], [1], [2], [3], [4], [5]]


@pytest.mark.parametrize("height", [1, 7, 100])
def test_values_are_summed_over_each_region(height: int) -> None:
    labels, values = blobs(2, 50, 30), np.random.default_rng(2).integers(0, 256, size=(50, 30), dtype=np.uint8)
    for region in found(labels, height, values=values):
        inside = rasterio.features.geometry_mask(
            [region.polygon()], labels.shape, rasterio.Affine.identity(), invert=True
        )
        assert region.pixels == inside.sum() and region.total == values[inside].sum()


def test_an_impossible_tolerance_is_refused() -> None:
    with pytest.raises(ConfigError, match="simplify -1"):
        found(np.zeros((2, 2), np.uint8), 2, simplify=-1.0)


@pytest.mark.parametrize("simplify", [0.0, 1.0])
def test_the_sides_of_a_strip_leave_no_needless_corners(simplify: float) -> None:
    labels = np.repeat(np.arange(3, dtype=np.uint8), 4)[:, None].repeat(9, axis=1)
    assert [shapely.get_num_coordinates(region.polygon()) for region in found(labels, 4, simplify)] == [5, 5, 5]


@pytest.mark.parametrize("width", [49, 98, 389])
def test_long_sides_meet_at_whole_pixels(width: int) -> None:
    """Widths w for which i * (1 / w) * w is not always i in floating point."""
    labels = np.zeros((8, width), np.uint8)
    labels[3:6, 1] = 1
    found = [region for part in regions([Strip(0, labels[:4]), Strip(4, labels[4:])]) for region in part]
    assert sorted(shapely.area(region.polygon()) for region in found) == [3, 8 * width - 3]
    assert all((shapely.get_coordinates(region.polygon()) % 1 == 0).all() for region in found)
