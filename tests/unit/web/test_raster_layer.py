"""Tiles against what rasterio reads and warps."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from regard.errors import UnreadableImage
from regard.io.gdal import not_georeferenced_is_fine
from regard.io.raster import Box, open_raster
from regard.io.window_reader import read_web_mercator
from regard.web import raster_layer
from regard.web.grid import HALF_EARTH, SIDE, Address, grid_of
from regard.web.raster_layer import RasterLayer
from support import write_tif

# rasterio's and rio-tiler's own code, with the newest affine
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


def layer_of(path: Path, *, nearest: bool) -> RasterLayer:
    with open_raster(path) as raster:
        grid, bands = grid_of(raster.size, raster.crs, raster.transform), raster.bands
    return RasterLayer(partial(open_raster, path), grid, bands, nearest=nearest)


def over(layer: RasterLayer, z: int) -> list[Address]:
    """The tiles that touch the scene."""
    left, top, right, bottom = layer.grid.around(Box(0, 0, *layer.size))
    side, origin = (
        (SIDE * layer.grid.step(z), 0.0) if layer.grid.kind == "pixels" else (2 * HALF_EARTH / 2**z, HALF_EARTH)
    )
    columns = range(int((left + origin) / side), int((right + origin) / side) + 1)
    rows = sorted(int(abs(y - origin) / side) for y in (top, bottom))
    return [Address(z, x, y) for x in columns for y in range(rows[0], rows[1] + 1)]


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(3, *size), dtype=np.uint8)


@pytest.mark.parametrize("nearest", [True, False])
def test_pixel_tiles_are_windows(tmp_path: Path, nearest: bool) -> None:
    values = noise((300, 700))
    layer = layer_of(write_tif(tmp_path / "a.tif", values, crs=None, transform=None), nearest=nearest)
    assert layer.grid.finest == 2
    full = layer.tile(Address(2, 1, 0))
    assert (full.values == values[:, :256, 256:512]).all() and full.valid.all()
    edge = layer.tile(Address(2, 2, 1))
    assert (edge.values[:, :44, :188] == values[:, 256:, 512:]).all()
    assert edge.valid.sum() == 44 * 188 and not edge.valid[44:].any()
    assert not layer.tile(Address(2, 3, 3)).valid.any()
    half = layer.tile(Address(1, 0, 0))
    blocks = values[:, :300, :512].reshape(3, 150, 2, 256, 2)
    if nearest:
        inside = (half.values[:, :150][:, :, None, :, None] == blocks).any(axis=(2, 4))
        assert inside.all()
    else:
        assert np.abs(half.values[:, :150].astype(float) - blocks.mean(axis=(2, 4))).max() <= 0.5


def marked(path: Path, way: str, crs: str | None) -> Path:
    """A scene with 8 rows that are 0 in one band, 8 in the first three, 8 in all; its left columns by another way."""
    is_float = way in ("-9999", "nan")
    values = np.maximum(noise((64, 64)), 1).astype("float32" if is_float else "uint8")
    if way in ("alpha", "further band"):
        values = np.concatenate([values, np.full((1, 64, 64), 255, "uint8")])
    nodata = float(way) if is_float else 0
    values[0, :8], values[:3, 8:16], values[:, 16:24] = nodata, nodata, nodata
    place = {"crs": crs, "transform": crs and Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    write_tif(path, values, nodata=nodata, photometric="MINISBLACK" if is_float else "RGB", **place)
    with not_georeferenced_is_fine(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        if way == "mask":
            file.write_mask(np.arange(64)[None] >= np.full((64, 1), 10))
        if way == "alpha":
            file.colorinterp = [*file.colorinterp[:3], ColorInterp.alpha]
            file.write(np.broadcast_to(np.where(np.arange(64) < 10, 0, 100).astype("uint8"), (64, 64)), 4)
    return path


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:32633", None])
@pytest.mark.parametrize("way", ["nodata", "alpha", "mask", "further band", "-9999", "nan"])
def test_tiles_hold_data_where_the_map_has_data(tmp_path: Path, way: str, crs: str | None) -> None:
    path = marked(tmp_path / "scene.tif", way, crs)
    with open_raster(path, bands=(1, 2, 3)) as raster:
        expected, bounds, size = raster.read(Box(0, 0, 64, 64)).valid, raster.bounds, raster.size
        if crs is None:
            layer = RasterLayer(
                partial(open_raster, path), grid_of(size, None, raster.transform), (1, 2, 3), nearest=False
            )
            found = layer.tile(Address(layer.grid.finest, 0, 0)).valid[:64, :64]
        else:
            found = read_web_mercator(raster, transform_bounds(crs, "EPSG:3857", *bounds), 64, nearest=False).valid
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(found, expected)


def test_an_aligned_scene_in_web_mercator_is_read_as_it_is(tmp_path: Path) -> None:
    values, tile = noise((512, 512)), Address(10, 550, 360)
    side = 2 * HALF_EARTH / 2**10
    left, top = tile.x * side - HALF_EARTH, HALF_EARTH - tile.y * side
    place = {"crs": "EPSG:3857", "transform": Affine(side / 256, 0, left, 0, -side / 256, top)}
    path = write_tif(tmp_path / "a.tif", values, **place)
    layer = layer_of(path, nearest=False)
    assert layer.grid.finest == 10
    with rasterio.open(path) as raster:
        expected = raster.read(window=Window(256, 0, 256, 256))
    found = layer.tile(tile._replace(x=551))
    assert found.valid.all() and (found.values == expected).all()


def own_places(size: tuple[int, int]) -> np.ndarray:
    """A raster of two bands whose values are the column and the row of each pixel's centre."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return np.stack([columns, rows]).astype(np.float32)


def check_places(layer: RasterLayer, tile: Address) -> int:
    """A tile of such a raster shows the pixels that lie there by PROJ, to a quarter of its own; how many."""
    step, shape = layer.grid.step(tile.z), (SIDE, SIDE)
    places, found = layer.grid.places(layer.grid.extent(tile), shape), layer.tile(tile)
    height, width = layer.size
    ends = np.minimum.reduce([places.columns, width - places.columns, places.rows, height - places.rows])
    assert found.valid[ends > step].all() and not found.valid[ends < -step].any()
    inner = ends > 2 * step
    for values, expected in zip(found.values, places, strict=True):
        assert not inner.any() or np.abs(values - expected)[inner].max() <= step / 4
    return int(inner.sum())


@pytest.mark.parametrize("overviews", [False, True])
@pytest.mark.parametrize("zoom", [0, -2])
def test_earth_tiles_show_what_lies_there(tmp_path: Path, overviews: bool, zoom: int) -> None:
    path = write_tif(tmp_path / "a.tif", own_places((900, 1000)), nodata=None)
    if overviews:
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews([2, 4], Resampling.average)
    layer = layer_of(path, nearest=False)
    assert sum(check_places(layer, tile) for tile in over(layer, layer.grid.finest + zoom)) > 256 * 256 / 4


def test_nodata_and_nan_are_transparent(tmp_path: Path) -> None:
    values = np.maximum(noise((64, 64)), 1).astype(np.float32)
    values[..., :32] = np.nan
    for place in ({}, {"crs": None, "transform": None}):
        layer = layer_of(write_tif(tmp_path / f"{len(place)}.tif", values, **place), nearest=False)
        for tile in over(layer, layer.grid.finest):
            places, valid = layer.grid.places(layer.grid.extent(tile), (SIDE, SIDE)), layer.tile(tile).valid
            ends = np.minimum.reduce([places.columns - 32, 64 - places.columns, places.rows, 64 - places.rows])
            assert valid[ends > 2].all() and not valid[ends < -2].any()
            assert place == {} or valid.sum() == 64 * 32


@pytest.mark.parametrize("place", [{}, {"crs": None, "transform": None}])
def test_far_views_of_a_large_file_without_overviews_come_from_a_small_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: dict[str, None]
) -> None:
    monkeypatch.setattr(raster_layer, "READ_WHOLE", 512)
    monkeypatch.setattr(raster_layer, "FAR", 256)
    monkeypatch.setattr(raster_layer, "CHUNK", 64)
    path = write_tif(tmp_path / "a.tif", own_places((1000, 900)), **place)
    layer = layer_of(path, nearest=False)
    assert layer.factor == 4 and layer.ready.wait(20)
    assert layer._far is not None and layer._far._idle.empty()
    assert sum(check_places(layer, tile) for tile in over(layer, layer.grid.finest - 2)) > 10_000
    assert not layer._far._idle.empty()
    layer.close()
    assert layer._far._idle.empty() and layer._near._idle.empty()


def test_a_file_with_overviews_needs_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster_layer, "READ_WHOLE", 512)
    path = write_tif(tmp_path / "a.tif", own_places((900, 1000)))
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2], Resampling.average)
    assert layer_of(path, nearest=False).factor == 0


def test_a_far_view_is_rough_at_first_and_then_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"READ_WHOLE": 512, "FAR": 256, "CHUNK": 64, "FIRST": 0, "AGAIN": 0}.items():
        monkeypatch.setattr(raster_layer, name, value)
    go_on, shrink, read = threading.Event(), RasterLayer._shrink, []

    def slowly(layer: RasterLayer, *arguments: object) -> None:
        read.append(arguments)
        assert len(read) < 6 or go_on.wait(20)
        shrink(layer, *arguments)

    monkeypatch.setattr(RasterLayer, "_shrink", slowly)
    values = np.broadcast_to(np.linspace(20, 250, 900).astype(np.uint8), (3, 1000, 900))
    path = write_tif(tmp_path / "a.tif", values, crs=None, transform=None, tiled=True, blockxsize=64, blockysize=64)
    layer, far = layer_of(path, nearest=False), Address(0, 0, 0)
    while layer.progress < 5 / 240:
        time.sleep(0.01)
    found = layer.tile(far, rough=True)
    assert layer.is_rough(layer.grid.step(0)) and not layer.is_rough(1.0) and 0 < layer.progress < 0.1
    inside = np.s_[:250, :225]
    assert found.valid[inside].all() and (found.values[0][inside] > 0).all()
    go_on.set()
    whole = layer.tile(far)
    assert not layer.is_rough(layer.grid.step(0)) and layer.progress == 1 and len(read) == 16 * 15
    expected = values[0, :, :900].reshape(250, 4, 225, 4).mean(axis=(1, 3))
    assert np.abs(whole.values[0][inside] - expected).max() <= 1
    assert np.abs(found.values[0][inside] - expected).mean() < 70
    layer.close()


@pytest.mark.parametrize(("size", "chunk"), [((100, 70), (8, 16)), ((64, 64), (64, 64)), ((9, 500), (3, 500))])
def test_chunks_cover_a_raster_once_and_reach_over_what_is_not_read(
    size: tuple[int, int], chunk: tuple[int, int]
) -> None:
    read, shown = np.zeros(size, int), np.zeros(size, bool)
    for (top, left, height, width), reach in raster_layer._spread(size, chunk):
        assert not read[top : top + reach[0], left : left + reach[1]].any()
        read[top : top + height, left : left + width] += 1
        shown[top : top + reach[0], left : left + reach[1]] = True
        assert shown.all()
    assert (read == 1).all()


def test_a_damaged_file_says_so_in_one_line(tmp_path: Path) -> None:
    path = write_tif(
        tmp_path / "a.tif", noise((600, 600)), tiled=True, blockxsize=256, blockysize=256, compress="deflate"
    )
    layer = layer_of(path, nearest=False)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3 : len(raw) // 3 + 20_000] = b"\x07" * 20_000
    path.write_bytes(raw)
    with pytest.raises(UnreadableImage, match=r"a\.tif: a tile"):
        for tile in over(layer, layer.grid.finest):
            layer.tile(tile)
