"""Maps as files: killed and resumed, kept when complete, limited to an area, at another resolution."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st

from regard.checkpoints.file import save
from regard.errors import ConfigError, OutputError, UnreadableImage
from regard.io.cog_writer import RasterWriter
from regard.io.raster import Box, open_raster
from regard.io.source import Source
from regard.mapping import blend as scene_engine
from regard.mapping import measures
from regard.mapping import stage as map_stage
from regard.mapping import write as map_file
from regard.mapping.blend import Rows
from regard.mapping.journal import Journal
from regard.mapping.plan import _around, plan, verify_map
from regard.mapping.predict import at_resolution, predict
from regard.models import Segmenter
from support import map_options, tiny, write_tif

SMALL = {"tile": 64, "overlap": 32}
RASTERS = ("out", "confidence", "entropy", "probabilities", "margin")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(8).integers(1, 256, size=(3, 230, 90), dtype=np.uint8)
    values[:, 100:120, :50] = 0
    return write_tif(tmp_path / "scene.tif", values, nodata=0)


def labels_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read(1)


@pytest.mark.parametrize(("parts", "again_rows"), [(1, 7), (3, 6)])
def test_a_stopped_run_resumes_and_gives_the_same_bytes(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, again_rows: int
) -> None:
    files = {name: tmp_path / "whole" / f"{name}.tif" for name in RASTERS}
    predict(tiny_model, scene, **files, **SMALL)
    keep, windows = Journal.keep, []

    def stop(journal: Journal, layers: dict) -> None:
        if journal.done == parts:
            raise KeyboardInterrupt
        keep(journal, layers)

    again = {name: tmp_path / "stopped" / f"{name}.tif" for name in files}
    monkeypatch.setattr(Journal, "keep", stop)
    with pytest.raises(KeyboardInterrupt):
        predict(tiny_model, scene, **again, **SMALL)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == [".out.tif.parts"]
    monkeypatch.setattr(Journal, "keep", keep)
    look = scene_engine.grid_scores
    monkeypatch.setattr(scene_engine, "grid_scores", lambda *a: (windows.append(len(a[1])), look(*a))[1])
    predict(tiny_model, scene, **again, **SMALL)
    assert sum(windows) == 2 * again_rows  # two windows a row; one or two rows again for the blend
    for name, path in files.items():
        assert again[name].read_bytes() == path.read_bytes()
    assert not list((tmp_path / "stopped").glob(".*"))


KILLED = """
import sys, time
from pathlib import Path
from regard.mapping.journal import Journal
from regard.mapping.predict import predict
from regard.checkpoints.file import load, save
keep = Journal.keep
Journal.keep = lambda journal, layers: (time.sleep(0.05), keep(journal, layers))
predict(load(sys.argv[1]), sys.argv[2], sys.argv[3], confidence=sys.argv[4], tile=64, overlap=32)
"""


@pytest.mark.slow
def test_killed_runs_leave_nothing_half_written_and_end_alike(
    scene: Path, tiny_model: Segmenter, tmp_path: Path
) -> None:
    model = save(tiny_model, tmp_path / "model.safetensors")
    whole, sure = tmp_path / "a" / "map.tif", tmp_path / "a" / "sure.tif"
    predict(tiny_model, scene, whole, confidence=sure, **SMALL)
    target, beside = tmp_path / "b" / "map.tif", tmp_path / "b" / "sure.tif"
    arguments = [sys.executable, "-c", KILLED, model, scene, target, beside]
    kills = 0
    for wait in (0.03, 0.11, 0.0):
        process = subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"})
        journal = tmp_path / "b" / ".map.tif.parts" / "journal.jsonl"
        before = journal.read_text() if journal.is_file() else ""
        while wait and process.poll() is None and not (journal.is_file() and journal.read_text() != before):
            time.sleep(0.005)
        time.sleep(wait)
        if wait and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        for path in (target, beside):
            assert not path.exists() or path.read_bytes() == (whole if path == target else sure).read_bytes()
    assert kills >= 1 and process.returncode == 0
    assert target.read_bytes() == whole.read_bytes() and beside.read_bytes() == sure.read_bytes()


def test_a_complete_map_is_kept_and_others_are_not_replaced(scene: Path, tiny_model: Segmenter, tmp_path: Path) -> None:
    path = predict(tiny_model, scene, tmp_path / "map.tif", **SMALL)
    assert isinstance(path, Path)
    made = path.stat().st_mtime_ns
    predict(tiny_model, scene, path, **SMALL)
    assert path.stat().st_mtime_ns == made
    with pytest.raises(OutputError, match=r"map\.tif already exists.*--overwrite"):
        predict(tiny_model, scene, path, tile=96, overlap=32)
    os.utime(scene)
    with pytest.raises(OutputError, match="already exists"):
        predict(tiny_model, scene, path, **SMALL)
    predict(tiny_model, scene, path, overwrite=True, **SMALL)
    assert path.stat().st_mtime_ns > made


@pytest.mark.parametrize("last", ["sure.tif", "map.tif"])
def test_a_run_that_ended_while_it_published_resumes_without_overwrite(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    expected = predict(tiny_model, scene, tmp_path / "whole.tif", **SMALL).read_bytes()
    out = tmp_path / "out"
    files = {"out": out / "map.tif", "confidence": out / "sure.tif", "areas": out / "areas.csv"}
    publish = RasterWriter._publish

    def stop_after(writer: RasterWriter) -> None:
        publish(writer)
        if writer.path.name == last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RasterWriter, "_publish", stop_after)
        with pytest.raises(KeyboardInterrupt):
            predict(tiny_model, scene, **files, **SMALL)
    assert (out / last).is_file() and (out / ".map.tif.parts").is_dir()
    with pytest.raises(OutputError, match="already exists"):  # another job
        predict(tiny_model, scene, **files, flip=True, **SMALL)
    predict(tiny_model, scene, **files, **SMALL)
    assert files["out"].read_bytes() == expected and all(path.is_file() for path in files.values())
    assert not list(out.glob(".*"))


def test_a_style_that_cannot_be_written_is_there_after_the_next_run(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def without_room(part: Path, path: Path) -> None:
        if Path(path).suffix == ".qml":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(part, path)

    with monkeypatch.context() as patched, pytest.raises(OutputError, match="No space left"):
        patched.setattr(os, "replace", without_room)
        predict(tiny_model, scene, tmp_path / "map.tif", **SMALL)
    predict(tiny_model, scene, tmp_path / "map.tif", **SMALL)
    assert {path.name for path in tmp_path.iterdir()} >= {"map.tif", "map.qml"}


def test_where_the_labels_are_all_rasters_are(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, published = RasterWriter._publish, []
    monkeypatch.setattr(RasterWriter, "_publish", lambda writer: (published.append(writer.path.stem), publish(writer)))
    files = {name: tmp_path / f"{name}.tif" for name in RASTERS}
    predict(tiny_model, scene, **files, tile=256, overlap=0)
    assert sorted(published) == sorted(files) and published[-1] == "out"


def test_a_map_that_another_run_finished_meanwhile_is_not_made_again(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, enter = tmp_path / "map.tif", Journal.__enter__

    def enter_late(journal: Journal) -> Journal:
        monkeypatch.setattr(Journal, "__enter__", enter)
        predict(tiny_model, scene, target, **SMALL)
        monkeypatch.setattr(map_file, "stage", None)
        return enter(journal)

    monkeypatch.setattr(Journal, "__enter__", enter_late)
    assert predict(tiny_model, scene, target, **SMALL) == target
    assert not list(tmp_path.glob(".*"))
    for left in (
        ".map.tif.parts/000000.labels.gz",
        ".map.tif.0a1b.part",
    ):  # by a run that was killed while it cleared up
        (tmp_path / left).parent.mkdir(exist_ok=True)
        (tmp_path / left).touch()
    assert predict(tiny_model, scene, target, **SMALL) == target
    assert not list(tmp_path.glob(".*"))


def test_a_source_that_changes_meanwhile_is_noticed(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Journal.keep
    monkeypatch.setattr(Journal, "keep", lambda journal, layers: (os.utime(scene, (1, 1)), keep(journal, layers)))
    with pytest.raises(UnreadableImage, match="changed while"):
        predict(tiny_model, scene, tmp_path / "out" / "map.tif", **SMALL)
    assert not list((tmp_path / "out").iterdir())


def test_what_a_killed_run_left_is_swept(scene: Path, tiny_model: Segmenter, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    left = [
        ".map.gpkg.0a1b.work.part.gpkg",
        ".map.gpkg.0a1b.work.part.gpkg-journal",
        ".map.tif.0a1b.part",
        ".map.qml.part",
    ]
    others = [".other.tif.0a1b.part", "map.tif.part", ".map.gpkg.bak"]
    for name in (*left, *others):
        (out / name).touch()
    predict(tiny_model, scene, out / "map.tif", polygons=out / "map.gpkg", **SMALL)
    made = {"map.tif", "map.tif.aux.xml", "map.qml", "map.gpkg"}
    assert {path.name for path in out.iterdir()} == {*others, *made}


def test_a_disk_without_room_is_refused_before_the_work(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "LABEL_BYTES", 1e12)
    with pytest.raises(OutputError, match=r"MiB free; the map of 90 x 230 pixels may need"):
        predict(tiny_model, scene, tmp_path / "out" / "map.tif", **SMALL)


def test_the_files_beside_a_map(scene: Path, tiny_model: Segmenter, tmp_path: Path) -> None:
    path = predict(tiny_model, scene, tmp_path / "map.tif", areas=tmp_path / "areas.csv", **SMALL)
    labels = labels_of(path)
    with (tmp_path / "areas.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["pixels"]) for row in rows] == [(labels == label).sum() for label in range(3)]
    expected = [100 * (labels == label).sum() / 0.9996**2 for label in range(3)]  # UTM on its central meridian
    assert [float(row["area_m2"]) for row in rows] == pytest.approx(expected, rel=1e-6)
    assert all(name in (tmp_path / "map.qml").read_text() for name in tiny_model.classes.names)
    with pytest.raises(ConfigError, match="areas"):
        predict(tiny_model, scene, areas=tmp_path / "b.csv")
    with pytest.raises(OutputError, match="same name"):
        predict(tiny_model, scene, tmp_path / "b.tif", entropy=tmp_path / "b.tif")


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb"])
def test_polygons_have_their_confidence_and_the_same_bytes_at_every_run(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, suffix: str
) -> None:
    """Also where no raster of it is asked for, at another time, and after a stop."""
    (tmp_path / "a").mkdir()
    with_raster = tmp_path / "a" / f"p{suffix}"
    predict(tiny_model, scene, tmp_path / "a" / "map.tif", polygons=with_raster, confidence=tmp_path / "c.tif", **SMALL)
    time.sleep(0.01)
    alone = tmp_path / f"p{suffix}"
    predict(tiny_model, scene, tmp_path / "map.tif", polygons=alone, **SMALL)
    assert alone.read_bytes() == with_raster.read_bytes()
    assert "confidence" in pyogrio.read_info(alone)["fields"] and not list(tmp_path.glob(".*"))
    assert not (tmp_path / "confidence.tif").exists()


def test_an_area_of_interest_by_bounds_and_by_polygons(scene: Path, tiny_model: Segmenter, tmp_path: Path) -> None:
    bounds = (500_100.0, 4_998_500.0, 500_600.0, 4_999_500.0)  # columns 10 to 60, rows 50 to 150
    inside = labels_of(predict(tiny_model, scene, tmp_path / "a.tif", aoi=bounds, **SMALL)) != 255
    expected = np.zeros((230, 90), bool)
    expected[50:150, 10:60] = True
    expected[100:120, :50] = False
    assert np.array_equal(inside, expected)
    shape = shapely.box(*bounds)
    vector = tmp_path / "area.gpkg"
    fields = {"geometry_type": "Polygon", "crs": "EPSG:32633"}
    pyogrio.raw.write(vector, np.array([shapely.to_wkb(shape)]), [], np.array([], object), **fields)
    assert np.array_equal(labels_of(predict(tiny_model, scene, tmp_path / "b.tif", aoi=vector, **SMALL)) != 255, inside)
    with pytest.raises(ConfigError, match=r"misses scene\.tif"):
        predict(tiny_model, scene, tmp_path / "c.tif", aoi=(0.0, 0.0, 1.0, 1.0), **SMALL)
    with pytest.raises(ConfigError, match="west, south, east, north"):
        predict(tiny_model, scene, tmp_path / "c.tif", aoi=(3.0, 0.0, 1.0, 1.0), **SMALL)
    with pytest.raises(UnreadableImage, match="does not exist"):
        predict(tiny_model, scene, tmp_path / "c.tif", aoi=tmp_path / "no.gpkg", **SMALL)


def test_another_resolution_changes_the_view_and_not_the_grid(scene: Path, tmp_path: Path) -> None:
    model = tiny()
    with open_raster(scene) as raster:
        fitted = at_resolution(map_options(tile=128, overlap=64, gsd=20.0), model, raster)
        assert (fitted.windows.tile, fitted.windows.overlap) == (256, 128)
        assert fitted.views.scales == pytest.approx((0.5,), rel=1e-3)
        assert at_resolution(map_options(tile=128, overlap=64, gsd=5.0), model, raster).windows.tile == 64
        with pytest.raises(ConfigError, match="the model's card"):
            at_resolution(map_options(gsd=0.0), model, raster)
        with pytest.raises(ConfigError, match="gdalwarp"):
            at_resolution(map_options(gsd=200.0), model, raster)
    seen = predict(model, scene, gsd=20.0, tile=128, overlap=64)
    assert seen.labels.shape == (230, 90)
    direct = predict(model, scene, tile=256, overlap=128, scales=(0.5,))
    assert np.array_equal(seen.labels, direct.labels)


def test_a_map_is_verified_and_planned(scene: Path, tiny_model: Segmenter, tmp_path: Path) -> None:
    model = str(save(tiny_model, tmp_path / "model.safetensors"))
    path = predict(tiny_model, scene, tmp_path / "map.tif", **SMALL)
    source = Source.of(scene)
    honest = verify_map(model, source, map_options(path, **SMALL), boxes=2)
    assert honest["pixels"] > 0 and honest["changed_percent"] < 60
    with rasterio.open(path) as raster:
        values, profile = raster.read(), {"crs": raster.crs, "transform": raster.transform, "nodata": 255}
    forged = write_tif(
        tmp_path / "forged.tif", np.where(values == 255, 255, (values + 1) % 3).astype(np.uint8), **profile
    )
    assert verify_map(model, source, map_options(forged, **SMALL), boxes=2)["changed_percent"] > 80
    facts = plan(model, source, map_options(path, confidence=tmp_path / "c.tif", **SMALL))
    assert facts["windows"] == 14 and facts["restart_points"] == 7


@given(whole=st.integers(1, 3000), length=st.integers(1, 512), larger=st.sampled_from([96, 768, 1536]), data=st.data())
def test_a_box_is_verified_in_a_window_around_it_that_lies_in_the_scene(
    whole: int, length: int, larger: int, data: st.DataObject
):
    length = min(length, whole, larger // 3 // 32 * 32)
    begin = 32 * data.draw(st.integers(0, (whole - length) // 32))
    first, side = _around(begin, length, larger, whole)
    assert first % 32 == side % 32 == 0 and 0 <= first <= begin and begin + length <= first + side < whole + 32
    assert side == larger or whole <= side < whole + 32


def test_what_is_outside_the_area_does_not_reach_the_model(scene: Path) -> None:
    with open_raster(scene) as raster:
        raster.area = shapely.box(10, 20, 30, 40)
        _, valid = raster.read(Box(15, 5, 10, 10))
        assert valid[5:, 5:].all() and not valid[:5].any() and not valid[:, :5].any()


def test_finished_rows_are_not_gathered(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory grows with a scene's width by the few rows that are worked on, whatever the height of a window."""
    made, alive = map_stage.predict_rows, []

    def watched(*scene: object, **how: object) -> Iterator[Rows]:
        seen: list[weakref.ref[np.ndarray]] = []
        for rows in made(*scene, **how):  # type: ignore[arg-type]
            seen.append(weakref.ref(rows.labels))
            alive.append(sum(one() is not None for one in seen))
            yield rows

    monkeypatch.setattr(scene_engine, "GRID_ROWS_AT_ONCE", 1)
    monkeypatch.setattr(map_stage, "predict_rows", watched)
    predict(tiny_model, scene, tmp_path / "map.tif", confidence=tmp_path / "confidence.tif", **SMALL)
    assert len(alive) > 10 and max(alive) <= 2
