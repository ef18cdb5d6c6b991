"""Several files as one raster: the pixels, the gaps and the maps are those of one file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

import regard.cli as cli
from regard.checkpoints.file import save
from regard.errors import BandMismatch, OutputError, RegardError, UnreadableImage
from regard.io.mosaic import mosaic
from regard.io.raster import Box, open_raster
from regard.mapping import blend as scene_engine
from regard.mapping.predict import predict
from regard.models import Segmenter
from support import tiny, write_tif

HEIGHT, WIDTH = 173, 211
WHOLE = Box(0, 0, HEIGHT, WIDTH)
VALUES = np.random.default_rng(6).integers(1, 256, size=(3, HEIGHT, WIDTH), dtype=np.uint8)
CUTS = [Box(0, 0, 90, 70), Box(0, 61, 90, 150), Box(83, 0, 90, 101), Box(90, 101, 83, 110)]


def at(left: float, top: float, size: float = 10) -> Affine:
    return Affine(size, 0, 500_000 + 10 * left, 0, -size, 5_000_000 - 10 * top)


def cut(folder: Path, values: np.ndarray, **profile: Any) -> list[Path]:
    """The values in four files."""
    return [
        write_tif(
            folder / f"tile{number}.tif",
            values[:, box.top : box.top + box.height, box.left : box.left + box.width],
            transform=at(box.left, box.top),
            **profile,
        )
        for number, box in enumerate(CUTS)
    ]


def mark(path: Path, box: Box, valid: np.ndarray) -> None:
    """A mask inside a file."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(valid[box.top : box.top + box.height, box.left : box.left + box.width])


@pytest.mark.parametrize(
    ("empty", "dtype"),
    [
        *(("nothing", "int16"), ("nodata", "uint8"), ("alpha", "uint8"), ("mask", "uint8")),
        *(("nodata", "float32"), ("mask", "uint16")),
    ],
)
def test_pixels_and_what_is_empty_are_those_of_one_file(tmp_path: Path, empty: str, dtype: str):
    values, valid = VALUES.astype(dtype), np.ones((HEIGHT, WIDTH), bool)
    if empty != "nothing":
        valid[70:140, 40:160] = False
    if empty == "nodata":
        values[:, ~valid] = 0
        files = [*cut(tmp_path, values, nodata=0), write_tif(tmp_path / "one.tif", values, nodata=0)]
    elif empty == "alpha":
        values = np.concatenate([values, (255 * valid[None]).astype(dtype)])
        profile = {"photometric": "RGB", "alpha": "yes"}
        files = [*cut(tmp_path, values, **profile), write_tif(tmp_path / "one.tif", values, **profile)]
    else:
        files = [*cut(tmp_path, values), write_tif(tmp_path / "one.tif", values)]
    if empty == "mask":
        for path, box in zip(files[1:], [*CUTS[1:], WHOLE], strict=True):  # the first file has none
            mark(path, box, valid | (np.indices(valid.shape)[0] < 90) & (np.indices(valid.shape)[1] < 70))
    with open_raster(files.pop()) as one, open_raster(mosaic(files)) as many:
        assert (many.size, many.crs, many.transform, many.band_names) == (
            one.size,
            one.crs,
            one.transform,
            one.band_names,
        )
        for box in (WHOLE, Box(80, 50, 31, 60)):
            expected, held = one.read(box)
            pixels, found = many.read(box)
            np.testing.assert_array_equal(found, held)
            np.testing.assert_array_equal(pixels[:, held], expected[:, held])
            assert pixels.dtype == expected.dtype


def test_the_last_file_is_seen_where_it_has_data_and_gaps_are_empty(tmp_path: Path):
    first = write_tif(tmp_path / "a.tif", np.full((1, 4, 4), 7, np.uint8), nodata=0, transform=at(0, 0))
    upper = np.full((1, 4, 4), 9, np.uint8)
    upper[0, :, 1] = 0
    second = write_tif(tmp_path / "b.tif", upper, nodata=0, transform=at(2, 0))
    third = write_tif(tmp_path / "c.tif", upper, nodata=0, transform=at(-1 + 0.04, 6.04))
    with open_raster(mosaic([first, second, third])) as raster:
        values, valid = raster.read(Box(0, 0, *raster.size))
        assert raster.size == (10, 7) and raster.transform.c == 500_000 - 10
    np.testing.assert_array_equal(values[0, 0], [0, 7, 7, 9, 7, 9, 9])
    np.testing.assert_array_equal(valid[0], [0, 1, 1, 1, 1, 1, 1])
    assert not valid[4:6].any() and valid[6:, [0, 2, 3]].all() and not valid[6:, [1, 4, 5, 6]].any()


UNLIKE: dict[str, tuple[dict[str, Any], type[RegardError], str]] = {
    "CRS": ({"crs": "EPSG:32634"}, UnreadableImage, "is in EPSG:32634, .*a.tif in EPSG:32633"),
    "no CRS": ({"crs": None}, UnreadableImage, "is in no CRS, .*a.tif in EPSG:32633"),
    "resolution": ({"transform": at(8, 0, 9)}, UnreadableImage, "its pixels are 9 x 9, those of .*a.tif 10 x 10"),
    "grid": ({"transform": at(8.5, 0)}, UnreadableImage, r"is 0.5 pixels off the grid of .*a.tif"),
    "rotated": ({"transform": at(8, 0) @ Affine.rotation(5)}, UnreadableImage, "rotated geotransform"),
    "no place": ({"transform": None, "crs": None}, UnreadableImage, "has no geotransform"),
    "dtype": ({"dtype": "uint16"}, BandMismatch, r"has a band of uint16 \(red\), .*a.tif of uint8 \(red\)"),
    "nodata": ({"nodata": 0}, BandMismatch, r"uint8 \(red, nodata 0\), .*a.tif of uint8 \(red\)"),
    "bands": ({"bands": 4}, BandMismatch, r"has 4 bands, .*a.tif 3"),
    "bits": ({"nbits": 1}, BandMismatch, "b.tif has 1 bit a band"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_what_is_unlike_is_refused_with_both_names(tmp_path: Path, what: str):
    profile, error, words = UNLIKE[what]
    settings = {"transform": at(8, 0), **profile}
    first = write_tif(tmp_path / "a.tif", VALUES[:, :8, :8], transform=at(0, 0), photometric="RGB")
    values = np.ones((settings.pop("bands", 3), 8, 8), settings.get("dtype", np.uint8))
    other = write_tif(tmp_path / "b.tif", values, photometric="RGB", **settings)
    with pytest.raises(error, match=words) as caught:
        mosaic([first, other])
    assert "b.tif" in str(caught.value) and "\n" not in str(caught.value)


def test_an_alpha_band_of_a_mosaic_is_no_data(tmp_path: Path):
    values = np.full((4, 8, 8), 255, np.uint8)
    files = [
        write_tif(tmp_path / f"{left}.tif", values, transform=at(left, 0), photometric="RGB", alpha="yes")
        for left in (0, 8)
    ]
    with pytest.raises(BandMismatch, match="says where there is data"):
        open_raster(mosaic(files), bands=(1, 2, 4))


def test_the_map_is_that_of_one_file_also_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, area = tiny(), (500_100.0, 4_998_400.0, 501_900.0, 4_999_900.0)
    options: dict[str, Any] = {"tile": 64, "overlap": 32, "aoi": area, "gsd": 12.0}
    values = VALUES.copy()
    values[:, 20:100, 100:180] = 0
    files = cut(tmp_path, values, nodata=0)
    one = write_tif(tmp_path / "one.tif", values, nodata=0)
    expected = predict(model, one, tmp_path / "expected.tif", confidence=tmp_path / "sure.tif", **options)
    scores, seen = scene_engine.grid_scores, []

    def stopping(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == 30:  # the last window: rows that reach into the kept ones are seen again
            raise KeyboardInterrupt
        return scores(*arguments)

    made = {"out": tmp_path / "map.tif", "confidence": tmp_path / "map_sure.tif"}
    monkeypatch.setattr(scene_engine, "grid_scores", stopping)
    with pytest.raises(KeyboardInterrupt):
        predict(model, files, **made, **options, mosaic=True)
    before = len(seen)
    predict(model, files, **made, **options, mosaic=True)
    whole = len(seen)
    predict(model, files, **made, **options, mosaic=True, overwrite=True)
    assert whole - before < len(seen) - whole  # it went on
    for ours, theirs in ((made["out"], expected), (made["confidence"], tmp_path / "sure.tif")):
        with rasterio.open(ours) as found, rasterio.open(theirs) as known:
            assert found.read().tobytes() == known.read().tobytes() and found.transform == known.transform
    stamp = made["out"].stat().st_mtime_ns
    predict(model, files, **made, **options, mosaic=True)
    assert made["out"].stat().st_mtime_ns == stamp
    os.utime(files[2], ns=(stamp + 10**9, stamp + 10**9))
    with pytest.raises(OutputError, match="already exists"):
        predict(model, files, **made, **options, mosaic=True)
    with pytest.raises(OutputError, match=r"tile1.tif is the input itself"):
        predict(model, files, files[1], mosaic=True)


def test_the_command(tmp_path: Path, tiny_model: Segmenter, capsys: pytest.CaptureFixture[str]):
    saved = save(tiny_model, tmp_path / "m.safetensors")
    files = cut(tmp_path, VALUES)
    made = str(tmp_path / "map.tif")
    command = ["predict", str(saved), str(tmp_path / "tile*.tif"), "--mosaic", "-o", made, "--json"]
    for more in (["--dry-run"], ["--verify"]):
        with pytest.raises(SystemExit) as stop:
            cli.main([*command, *more])
        output = capsys.readouterr()
        assert stop.value.code == 0, output.err
        facts = json.loads(output.out)
        assert facts.get("source", "4 files as one (").startswith("4 files as one (")
    assert facts["files"] == [made] and facts["verified"]["pixels"] > 0
    files[3].unlink()
    files[3].mkdir()
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--overwrite"])
    assert stop.value.code == 1 and "tile3.tif is a folder" in capsys.readouterr().err
