"""A file of which the end is missing is refused, however it is read: never filled with zeros without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regard
from regard.errors import UnreadableImage
from regard.io.raster import Box, open_raster
from tests.fuzz.pictures import model
from tests.support import write_tif

SIDE = 256
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"driver": "PNG"},
    "png of 16 bits": {"driver": "PNG", "dtype": "uint16"},
    "jpeg": {"driver": "JPEG"},
    "progressive jpeg": {"driver": "JPEG", "PROGRESSIVE": "ON"},
    "jp2": {"driver": "JP2OpenJPEG", "REVERSIBLE": "YES", "QUALITY": "100"},
    "tiff": {},
    **{f"tiff, {name}": {"compress": name} for name in ("deflate", "lzw", "zstd", "packbits", "lzma", "webp", "lerc")},
    "tiff, jpeg": {"compress": "jpeg", "photometric": "ycbcr", "tiled": True},
}
ENDINGS = {"PNG": ("png", "pgw"), "JPEG": ("jpg", "jgw"), "JP2OpenJPEG": ("jp2", "j2w")}


@pytest.fixture(params=FORMATS)
def cut(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A placed image in which 1 % of the bytes are missing at the end."""
    profile = dict(FORMATS[request.param])
    ending, world = ENDINGS.get(profile.get("driver", ""), ("tif", "tfw"))
    coarse = np.random.default_rng(0).integers(1, 256, size=(3, SIDE // 4, SIDE // 4))
    values = coarse.repeat(4, 1).repeat(4, 2).astype(profile.pop("dtype", "uint8"))
    path = write_tif(tmp_path / f"scene.{ending}", values, **profile)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 99 // 100])
    path.with_suffix(f".{world}").write_text("2\n0\n0\n-2\n500000\n5000000\n")
    return path


@pytest.mark.parametrize("box", [Box(0, 0, SIDE, SIDE), Box(SIDE // 2, 0, SIDE // 2, SIDE), Box(SIDE - 9, 5, 9, 9)])
def test_no_window_of_a_cut_file_is_read(cut: Path, box: Box) -> None:
    with pytest.raises(UnreadableImage, match="cannot be read"), open_raster(cut) as raster:
        raster.read(box)


def test_a_cut_file_is_not_shrunk(cut: Path) -> None:
    with pytest.raises(UnreadableImage, match="cannot be read"), open_raster(cut) as raster:
        raster.read_scaled((50, 50))


def test_a_cut_file_gives_no_map(cut: Path, tmp_path: Path) -> None:
    for tile in (SIDE, 64):
        with pytest.raises(UnreadableImage):
            regard.predict(model(), cut, tmp_path / "map.tif", tile=tile, overlap=0, progress=False)
    assert not (tmp_path / "map.tif").exists()
