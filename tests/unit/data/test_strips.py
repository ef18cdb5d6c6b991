"""Strips are what the raster holds, mirrored beyond its edge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from regard.data.raster import Box, open_raster
from regard.data.strips import padded, read_strips
from support import write_tif


def mirrored(values: np.ndarray, bottom: int, right: int) -> np.ndarray:
    pads = [(0, 0)] * (values.ndim - 2) + [
        (0, max(0, bottom - values.shape[-2])),
        (0, max(0, right - values.shape[-1])),
    ]
    return np.pad(values, pads, mode="symmetric")


@pytest.mark.parametrize("at_most", [float("inf"), 0.0])
@pytest.mark.parametrize(
    ("size", "tops", "height", "width"),
    [((50, 30), [0, 12, 24, 26], 24, 30), ((50, 30), [0, 20, 32], 20, 40), ((3, 2), [0], 32, 32), ((1, 1), [0], 8, 8)],
)
def test_strips_are_the_mirrored_raster(
    tmp_path: Path, size: tuple[int, int], tops: list[int], height: int, width: int, at_most: float
) -> None:
    values = np.random.default_rng(5).integers(0, 5, size=(2, *size), dtype=np.uint16)
    path = write_tif(tmp_path / "scene.tif", values, nodata=0)
    whole, there = mirrored(values, tops[-1] + height, width), mirrored(~(values == 0).all(0), tops[-1] + height, width)
    with open_raster(path) as raster:
        for top, strip in zip(tops, read_strips(raster, tops, height, width, at_most=at_most), strict=True):
            half = width // 2
            for left, count in ((0, half), (half, width - half)):
                pixels, valid = strip.cut(left, count)
                cut = np.s_[..., top : top + height, left : left + count]
                assert np.array_equal(pixels, whole[cut]) and np.array_equal(valid, there[cut])
            assert np.array_equal(strip.valid, there[top : top + height])


def test_every_row_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tif(tmp_path / "scene.tif", np.ones((1, 50, 8), np.uint8))
    with open_raster(path) as raster:
        read = raster.read
        rows: list[int] = []
        monkeypatch.setattr(
            raster, "read", lambda box: (rows.extend(range(box.top, box.top + box.height)), read(box))[1]
        )
        assert len(list(read_strips(raster, [0, 15, 30], 20, 8))) == 3
    assert rows == list(range(50))


def test_a_box_inside_is_read_as_it_is(tmp_path: Path) -> None:
    values = np.random.default_rng(6).integers(0, 9, size=(1, 20, 20), dtype=np.uint8)
    with open_raster(write_tif(tmp_path / "scene.tif", values)) as raster:
        assert np.array_equal(padded(raster, Box(3, 4, 5, 6))[0], values[:, 3:8, 4:10])
