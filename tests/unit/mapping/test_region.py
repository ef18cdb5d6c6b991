"""A region of a map against the whole map, and which windows it costs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from regard.io.raster import Box, open_raster
from regard.mapping.predict import predict
from regard.mapping.region import Regions
from regard.options import Windows
from support import tiny, write_tif

WINDOWS = Windows(tile=64, overlap=32)


@pytest.mark.parametrize("size", [(150, 203), (64, 64), (21, 130), (33, 9)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_region_is_that_of_the_whole_map(tmp_path: Path, size: tuple[int, int], align_corners: bool) -> None:
    rng = np.random.default_rng(sum(size))
    path = write_tif(tmp_path / "scene.tif", rng.integers(1, 256, size=(3, *size), dtype=np.uint8))
    model = tiny(align_corners=align_corners)
    whole = predict(model, path, tile=64, overlap=32)
    with open_raster(path) as raster:
        regions = Regions(model, raster, WINDOWS)
        for _ in range(6):
            top, left = rng.integers(size[0]), rng.integers(size[1])
            box = Box(
                int(top), int(left), int(rng.integers(1, size[0] - top + 1)), int(rng.integers(1, size[1] - left + 1))
            )
            region = regions.region(box)
            cut = np.s_[box.top : box.top + box.height, box.left : box.left + box.width]
            assert np.abs(region.confidence - whole.confidence[cut]).max() < 1e-5
            assert (region.labels == whole.labels[cut])[whole.confidence[cut] > 0.34].all()


def test_only_the_windows_that_reach_are_computed_and_few_are_cached(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "scene.tif", np.full((3, 500, 500), 90, dtype=np.uint8))
    with open_raster(path) as raster:
        regions = Regions(tiny(), raster, WINDOWS)
        regions.window = lru_cache(3)(regions._window)
        box = Box(0, 0, 16, 16)
        regions.region(box)
        assert regions.windows(box) == [(0, 0)] and regions.window.cache_info().misses == 1
        first = regions.window((0, 0))
        assert regions.window((0, 0)) is first
        regions.region(Box(100, 100, 60, 60))
        assert regions.window.cache_info().currsize == 3 and regions.window((0, 0)) is not first


def test_no_data_costs_no_forward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tif(tmp_path / "scene.tif", np.zeros((3, 80, 80), dtype=np.uint8), nodata=0)
    monkeypatch.setattr("regard.mapping.region.grid_scores", None)  # would fail if it were called
    with open_raster(path) as raster:
        assert not Regions(tiny(), raster, WINDOWS).region(Box(3, 3, 9, 9)).valid.any()
