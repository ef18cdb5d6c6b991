"""Windows are what the raster holds, mirrored beyond its edge."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from regard.io.raster import Box, open_raster
from regard.io.window_reader import padded, read_windows
from support import write_tif


def mirrored(values: np.ndarray, bottom: int, right: int) -> np.ndarray:
    pads = [(0, 0)] * (values.ndim - 2) + [
        (0, max(0, bottom - values.shape[-2])),
        (0, max(0, right - values.shape[-1])),
    ]
    return np.pad(values, pads, mode="symmetric")


@pytest.mark.parametrize("at_most", [float("inf"), 400.0, 0.0])
@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize(
    ("size", "tops", "lefts", "window"),
    [
        ((50, 300), [0, 12, 24, 26], [0, 60, 200], (24, 100)),
        ((50, 30), [0, 20, 32], [0, 20], (20, 20)),
        ((3, 2), [0], [0], (32, 32)),
        ((1, 1), [0], [0], (8, 8)),
    ],
)
def test_windows_are_the_mirrored_raster(
    tmp_path: Path,
    size: tuple[int, int],
    tops: list[int],
    lefts: list[int],
    window: tuple[int, int],
    at_most: float,
    tiled: bool,
) -> None:
    values = np.random.default_rng(5).integers(0, 5, size=(2, *size), dtype=np.uint16)
    blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
    path = write_tif(tmp_path / "scene.tif", values, nodata=0, **blocks)
    corner = tops[-1] + window[0], lefts[-1] + window[1]
    whole, there = mirrored(values, *corner), mirrored(~(values == 0).all(0), *corner)
    with open_raster(path) as raster:
        windows = read_windows(raster, tops, lefts, window, at_most=at_most)
        for (top, left), (pixels, valid) in zip(product(tops, lefts), windows, strict=True):
            cut = np.s_[..., top : top + window[0], left : left + window[1]]
            assert np.array_equal(pixels, whole[cut]) and np.array_equal(valid, there[cut])


@pytest.mark.parametrize(("tiled", "widths"), [(True, [96, 64]), (False, [128])])
def test_neighbours_are_read_together_and_files_of_full_rows_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiled: bool, widths: list[int]
) -> None:
    blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
    path = write_tif(tmp_path / "scene.tif", np.ones((1, 50, 128), np.uint8), **blocks)
    with open_raster(path) as raster:
        read, boxes = raster.read, []
        monkeypatch.setattr(raster, "read", lambda box: (boxes.append(box), read(box))[1])
        list(read_windows(raster, [0, 18], [0, 32, 64], (32, 64), at_most=96.0 * raster.bytes_of(32, 1)))
    assert [(box.top, box.width) for box in boxes] == [(top, width) for top in (0, 18) for width in widths]


def test_a_box_inside_is_read_as_it_is(tmp_path: Path) -> None:
    values = np.random.default_rng(6).integers(0, 9, size=(1, 20, 20), dtype=np.uint8)
    with open_raster(write_tif(tmp_path / "scene.tif", values)) as raster:
        assert np.array_equal(padded(raster, Box(3, 4, 5, 6))[0], values[:, 3:8, 4:10])
