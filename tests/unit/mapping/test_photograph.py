"""A photograph's map as a file: nothing is replaced unasked, and what is done is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.checkpoints.file import save
from regard.classes import ClassMap
from regard.errors import ConfigError, OutputError, ScenesFailed, UnreadableImage
from regard.files import write_bytes
from regard.inference.segmentation import Segmentation
from regard.io.raster import Box, open_raster
from regard.mapping.batch import predict_many
from regard.mapping.job import tags_in
from regard.mapping.predict import predict
from regard.models import Segmenter
from support import map_options, save_image


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(8)
    return [save_image(tmp_path / "photos" / f"{name}.png", rng.integers(0, 256, (40, 50, 3))) for name in "ab"]


def test_no_photograph_is_replaced_by_its_map(photographs: list[Path], tiny_model: Segmenter, tmp_path: Path):
    before = [path.read_bytes() for path in photographs]
    model = str(save(tiny_model, tmp_path / "m.safetensors"))
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is the input itself"):
            predict(tiny_model, photographs[0], photographs[0], overwrite=overwrite)
        with pytest.raises(OutputError, match="is the input itself"):
            predict(tiny_model, photographs[0], tmp_path / "a.png", confidence=photographs[0], overwrite=overwrite)
        with pytest.raises(ScenesFailed, match="2 of 2"):
            predict_many(model, [tmp_path / "photos" / "*.png"], map_options(tmp_path / "photos", overwrite=overwrite))
    assert [path.read_bytes() for path in photographs] == before


def test_a_map_that_is_done_is_left_alone_and_no_other_file_is_replaced(
    photographs: list[Path], tiny_model: Segmenter, tmp_path: Path
):
    model, out = str(save(tiny_model, tmp_path / "m.safetensors")), tmp_path / "maps"
    predict_many(model, photographs, map_options(out))
    made = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert len(made) == 2
    again = predict_many(model, photographs, map_options(out))
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.png")} == made and len(again["files"]) == 2
    with pytest.raises(ScenesFailed, match=r"a\.png already exists"):
        predict_many(model, photographs, map_options(out, flip=True))
    save_image(photographs[0], np.zeros((40, 50, 3)))
    os.utime(photographs[0], ns=(2**62, 2**62))
    with pytest.raises(ScenesFailed, match="1 of 2"):
        predict_many(model, photographs, map_options(out))
    predict_many(model, photographs, map_options(out, overwrite=True))
    write_bytes(tmp_path / "mine.png", photographs[1].read_bytes())
    with pytest.raises(OutputError, match=r"mine\.png already exists"):
        predict(tiny_model, photographs[1], tmp_path / "mine.png")


def test_predict_leaves_a_finished_map_of_a_photograph_untouched(
    photographs: list[Path], tiny_model: Segmenter, tmp_path: Path
):
    files = {"out": tmp_path / "map.png", "confidence": tmp_path / "confidence.tif"}
    first = predict(tiny_model, photographs[0], **files)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files.values()}
    again = predict(tiny_model, photographs[0], **files)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files.values()} == before
    assert isinstance(again, Segmentation) and np.array_equal(again.labels, first.labels)
    assert np.array_equal(again.confidence, first.confidence)
    predict(tiny_model, photographs[0], **files, overwrite=True)
    for path, (content, modified) in before.items():
        assert path.read_bytes() == content and path.stat().st_mtime_ns > modified


def test_several_sources_are_several_maps(photographs: list[Path], tiny_model: Segmenter, tmp_path: Path):
    results = predict(tiny_model, photographs, tmp_path / "maps")
    assert [result.source.name for result in results] == ["a.png", "b.png"]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["a.png", "b.png"]
    in_memory = predict(tiny_model, [*map(str, photographs)])
    assert all(np.array_equal(*(each.labels for each in pair)) for pair in zip(results, in_memory, strict=True))
    (alone,) = predict(tiny_model, [tmp_path / "photos" / "a*.png"], tmp_path / "maps")
    assert np.array_equal(alone.labels, results[0].labels)
    with pytest.raises(OutputError, match="need a folder"):
        predict(tiny_model, photographs, tmp_path / "map.png")
    with pytest.raises(ConfigError, match="--confidence names one file"):
        predict(tiny_model, photographs, tmp_path / "maps", confidence=tmp_path / "c.tif")


def test_a_source_that_fails_does_not_stop_the_others(photographs: list[Path], tiny_model: Segmenter, tmp_path: Path):
    photographs[0].write_bytes(b"no image")
    with pytest.raises(ScenesFailed, match=r"1 of 2 sources failed.*a\.png: UnreadableImage"):
        predict(tiny_model, photographs, tmp_path / "maps")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["b.png"]
    with pytest.raises(UnreadableImage):
        predict(tiny_model, photographs[:1], tmp_path / "maps")


def test_its_files_say_what_made_them(photographs: list[Path], tiny_model: Segmenter, tmp_path: Path):
    to, confidence = tmp_path / "map.png", tmp_path / "sure.tif"
    predict(tiny_model, photographs[0], to, confidence=confidence)
    with Image.open(to) as image:
        assert image.info["regard_model"] == "danet_ocr"
    assert tags_in(to)["regard_job"] == tags_in(confidence)["regard_job"]
    assert tags_in(confidence)["regard_weights_sha256"] == tags_in(to)["regard_weights_sha256"]
    assert not list(tmp_path.glob(".*"))


def test_more_classes_than_a_png_holds(tmp_path: Path):
    classes = ClassMap.of([f"class {number}" for number in range(300)])
    result = Segmentation(np.full((4, 5), 299, np.int32), np.ones((4, 5), np.float32), classes)
    with pytest.raises(ConfigError, match=r"256 classes; the model has 300. Save them as \.tif"):
        result.save(tmp_path / "map.png")
    with open_raster(result.save(tmp_path / "map.tif")) as raster:
        assert (raster.read_band(Box(0, 0, 4, 5)) == 299).all()
