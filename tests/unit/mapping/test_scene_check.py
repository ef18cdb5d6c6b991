"""What does not suit a model is refused before the first window, or told once; the same with --dry-run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from regard.cli import main
from regard.errors import BandMismatch, SceneWarning
from regard.inference.values import check_image
from regard.io.image import Pixels
from regard.io.raster import open_raster
from regard.io.window_reader import sampled, stored_range
from regard.mapping import blend
from regard.mapping.batch import predict_many
from regard.mapping.predict import predict
from regard.mapping.scene_check import check_scene
from regard.models import Segmenter
from support import map_options, tiny, write_tif

SMALL: dict[str, Any] = {"tile": 64, "overlap": 0, "progress": False}
BYTES = np.random.default_rng(4).integers(1, 250, (3, 96, 96))


def with_block(dtype: str, value: float) -> np.ndarray:
    values = BYTES.astype(dtype)
    values[:, 10:40, 10:40] = value
    return values


def reflectance(cloud: float) -> np.ndarray:
    values = (BYTES / 255).astype(np.float32)
    values[:, :9] = cloud
    return values


def refused(model: Segmenter, path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The line of the refusal, before any window was scored."""
    monkeypatch.setattr(blend, "grid_scores", lambda *_: pytest.fail("a window was scored"))
    with pytest.raises(BandMismatch) as caught:
        predict(model, path, path.with_name("map.tif"), **SMALL)
    assert not list(path.parent.glob("*map*"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((BYTES - 128).astype("int8"), "values from -127 to 121"),
        ((-BYTES / 10).astype("float32"), r"values from -24.9 to -0.1; .*-scale -24.9 -0.1 0 255"),
        ((BYTES * 100).astype("uint32"), "values from 100 to 24900"),
        (BYTES * 1000.0, "values from 1000 to 249000"),
        (reflectance(1.3), r"mostly fractions of 1 \(values from 0.0039.* to 1.3\)"),
        (reflectance(0.9), "mostly fractions of 1"),
        (with_block("float32", -3.4e38), r"the value -3.4e\+38 in 9.8 % of its pixels.*--nodata=-3.4e\+38"),
        (with_block("float64", 1e30), "--nodata=1e\\+30"),
        (with_block("int16", -9999), "--nodata=-9999"),
        (with_block("uint16", 65535), "--nodata=65535"),
    ],
    ids=lambda value: value.dtype.name if isinstance(value, np.ndarray) else None,
)
def test_values_that_the_model_does_not_know_are_refused(
    values: np.ndarray, told: str, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_tif(tmp_path / "scene.tif", values, compress="deflate")
    line = refused(tiny_model, path, monkeypatch)
    assert "\n" not in line
    with pytest.raises(BandMismatch, match=told):
        raise BandMismatch(line)
    with pytest.raises(BandMismatch, match=r"image\.tif"):  # the same of an image, as training and evaluate read it
        check_image(Pixels(values, np.ones(values.shape[1:], bool)), tiny_model.scaling, "image.tif")


def test_the_value_for_no_data_makes_the_scene_fit_and_stands_in_the_map(tiny_model: Segmenter, tmp_path: Path):
    path = write_tif(tmp_path / "scene.tif", with_block("int16", -9999))
    plain = predict(tiny_model, path, tmp_path / "map.tif", nodata=-9999.0, **SMALL)
    with rasterio.open(plain) as map_:
        empty = map_.read(1) == 255
        assert map_.tags()["regard_nodata"] == "-9999"
    assert empty.sum() == 900 and empty[10:40, 10:40].all()
    job = rasterio.open(plain).tags()["regard_job"]
    again = predict(tiny_model, path, tmp_path / "map.tif", nodata=-9999.0, overwrite=True, **SMALL)
    assert rasterio.open(again).tags()["regard_job"] == job
    other = predict(tiny_model, write_tif(tmp_path / "b.tif", BYTES.astype("int16")), tmp_path / "m.tif", **SMALL)
    assert "regard_nodata" not in rasterio.open(other).tags()


@pytest.mark.parametrize("tiled", [False, True])
def test_a_bright_part_far_right_is_found_before_the_first_window(
    tiled: bool, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values = np.full((3, 64, 2240), 100, np.uint16)
    values[..., 2200:] = 3000
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64} if tiled else {}
    path = write_tif(tmp_path / "scene.tif", values, **blocks)
    assert "values from 100 to 3000" in refused(tiny_model, path, monkeypatch)


def test_the_statistics_in_the_file_tell_what_a_sparse_look_misses(
    tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values = np.full((3, 4096, 2048), 100, np.uint16)
    values[:, 1300, 300] = 4000
    path = write_tif(tmp_path / "scene.tif", values, compress="deflate")
    with open_raster(path) as raster:
        assert sum(part.values[0].size for part in sampled(raster)) <= 64 * 128 * 128
        assert stored_range(raster) is None
        with pytest.warns(SceneWarning, match="stores 16 bits"):
            check_scene(tiny_model, raster)
    with rasterio.open(path, "r+") as file:
        for band in (1, 2, 3):
            file.update_tags(band, STATISTICS_MINIMUM=100, STATISTICS_MAXIMUM=4000)
    assert "values from 100 to 4000" in refused(tiny_model, path, monkeypatch)


def test_a_dry_run_refuses_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write_tif(tmp_path / "scene.tif", (BYTES - 128).astype("int8"))
    with pytest.raises(SystemExit) as end:
        main(["predict", "dubai-s", str(path), "-o", str(tmp_path / "m.tif"), "--dry-run"])
    assert end.value.code == 1 and "values from -127 to 121" in capsys.readouterr().err


def test_a_model_of_measured_bands_knows_a_fill_by_its_distance(tmp_path: Path):
    model = tiny(bands=("a", "b", "c"))
    model = model.with_card(model.card.model_copy(update={"divisor": 1.0, "mean": (900.0,) * 3, "std": (200.0,) * 3}))
    values = (BYTES * 8).astype("int16")
    predict(model, write_tif(tmp_path / "fine.tif", values), **SMALL)
    values[:, :20] = -9999
    with pytest.raises(BandMismatch, match="--nodata=-9999"):
        predict(model, write_tif(tmp_path / "filled.tif", values), **SMALL)
    wide = model.with_card(model.card.model_copy(update={"std": (4000.0,) * 3}))  # trained with the fill in its images
    predict(wide, tmp_path / "filled.tif", **SMALL)


def told(model: Segmenter, path: Path, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict(model, path, **SMALL, **options)
    assert all(each.category is SceneWarning for each in caught)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize(("trained", "warned"), [(4.9, True), (5.1, False), (19.0, False), (21.0, True), (None, False)])
def test_a_resolution_more_than_twice_off_is_told_once(trained: float | None, warned: bool, tmp_path: Path):
    model = tiny()
    model = model.with_card(model.card.model_copy(update={"ground_resolution": trained}))
    path = write_tif(
        tmp_path / "scene.tif", np.tile(BYTES, (1, 2, 2)).astype("uint8")
    )  # 10 m in UTM: 9.996 on the ground
    lines = told(model, path)
    assert len(lines) == warned and ("--gsd 0" in "".join(lines)) == warned
    if warned:
        assert not told(model, path, gsd=0.0)


@pytest.mark.parametrize(("value", "told_as"), [(0, "0"), (255, "255")])
def test_a_black_or_white_hole_is_told_until_it_is_no_data(value: int, told_as: str, tmp_path: Path):
    values = BYTES.astype("uint8")
    values[:, :64, :64] = value
    path = write_tif(tmp_path / "scene.tif", values)
    lines = told(tiny(), path)
    assert len(lines) == 1 and f"about 44 % of scene.tif is {told_as} in all bands" in lines[0]
    assert f"--nodata {told_as}" in lines[0] and not told(tiny(), path, nodata=float(value))
    values[0, :64, :64] = 7  # red or cyan: ground
    assert not told(tiny(), write_tif(tmp_path / "scene.tif", values))


def coloured(path: Path, *colours: ColorInterp) -> Path:
    write_tif(path, BYTES.astype("uint8"), photometric="RGB")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = colours
    return path


def test_an_order_of_bands_that_the_colours_contradict_is_told(tmp_path: Path):
    path = coloured(tmp_path / "scene.tif", ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    lines = told(tiny(), path, bands=(3, 2, 1))
    assert len(lines) == 1 and "bands 3, 2, 1 of scene.tif are blue, green, red" in lines[0]
    assert "Use --bands 1,2,3" in lines[0] and not told(tiny(), path, bands=(1, 2, 3)) and not told(tiny(), path)


def test_colours_order_the_bands_where_their_names_do_not(tmp_path: Path):
    path = coloured(tmp_path / "scene.tif", ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("B02", "B03", "B04")
    with open_raster(path, expected=("red", "green", "blue")) as raster:
        assert raster.bands == (3, 2, 1)
    assert not told(tiny(), path)


def test_of_several_sources_each_warning_stands_in_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    values = BYTES.astype("uint8")
    values[:, :64, :64] = 255
    for name in ("a", "b"):
        write_tif(tmp_path / "scenes" / f"{name}.tif", values)
    options = map_options(tmp_path / "maps", tile=64, overlap=0)
    with pytest.warns(SceneWarning, match=r"a\.tif is 255"), pytest.warns(SceneWarning, match=r"b\.tif is 255"):
        facts = predict_many("dubai-s", [str(tmp_path / "scenes" / "*.tif")], options, progress=False)
    rows = [json.loads(line) for line in Path(facts["results"]).read_text().splitlines()]
    assert [[text.split()[4] for text in row["warnings"]] for row in rows] == [["a.tif"], ["b.tif"]]


def test_the_command_tells_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    values = BYTES.astype("uint8")
    values[:, :64, :64] = 0
    path = write_tif(tmp_path / "scene.tif", values)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(SystemExit) as end:
            main(["predict", "dubai-s", str(path), "-o", str(tmp_path / "m.tif"), "--no-progress"])
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 0 and len(lines) == 1 and lines[0].startswith("warning: about 44 % of scene.tif is 0")
