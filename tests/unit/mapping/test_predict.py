"""Predictions of photographs and rasters: same numbers as the model, on the same place."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
import torch
from PIL import Image

from regard.classes import ClassMap
from regard.errors import ConfigError, OutputError, UnknownName, UnreadableImage
from regard.inference.scores import class_scores, prepare
from regard.inference.segmentation import Segmentation
from regard.io.image import image_size, read_image
from regard.mapping.predict import predict
from regard.models import Segmenter
from regard.options import Views
from support import save_image, write_tif

VIEW = {"tile": 64, "overlap": 32}


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    return save_image(tmp_path / "street.png", np.random.default_rng(2).integers(0, 256, size=(45, 61, 3)))


def test_a_photograph_gets_the_labels_of_the_model(photograph: Path, tiny_model: Segmenter, tmp_path: Path) -> None:
    result = predict(tiny_model, photograph, tmp_path / "labels.png")
    assert isinstance(result, Segmentation)
    values = np.asarray(Image.open(photograph)).transpose(2, 0, 1)
    image = prepare(values, np.ones(values.shape[1:], dtype=bool), tiny_model.scaling)[None]
    with torch.inference_mode():
        scores = tiny_model(image)[0]
    assert np.array_equal(result.labels, scores.argmax(dim=0).numpy())
    np.testing.assert_allclose(result.confidence, scores.softmax(dim=0).amax(dim=0).numpy(), atol=1e-6)
    saved = Image.open(tmp_path / "labels.png")
    assert saved.mode == "P" and np.array_equal(np.asarray(saved), result.labels)
    assert tuple(saved.getpalette()[3:6]) == tiny_model.classes.palette[1]
    assert sum(result.share(name) for name in tiny_model.classes.names) == pytest.approx(1)
    first = tiny_model.classes.names[result.labels[0, 0]]
    assert repr(result).startswith("Segmentation(61 x 45: ") and f"{first} {100 * result.share(first):.0f} %" in repr(
        result
    )
    with pytest.raises(UnknownName, match="no class 'rod'"):
        result.share("rod")
    assert result.overlay().size == (61, 45)
    assert result._repr_png_().startswith(b"\x89PNG")
    page = result._repr_html_()
    assert all(
        f"{name} {100 * result.share(name):.1f} %" in page
        for name in np.array(result.classes.names)[np.unique(result.labels)]
    )
    assert base64.b64encode(result._repr_png_()).decode() in page


@pytest.mark.parametrize("limit", [2000, 1000], ids=["Pillow would warn", "Pillow would refuse"])
def test_a_photograph_above_the_limit_of_pixels_is_mapped_in_windows(
    photograph: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    same = write_tif(tmp_path / "street.tif", np.asarray(Image.open(photograph)).transpose(2, 0, 1))
    predict(tiny_model, same, tmp_path / "map.tif", confidence=tmp_path / "expected.tif", **VIEW)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert (image_size(photograph), read_image(photograph).values.shape) == ((45, 61), (3, 45, 61))
    predict(tiny_model, photograph, tmp_path / "same.tif", confidence=tmp_path / "sure.tif", **VIEW)
    found, expected = (read_image(tmp_path / name).values for name in ("sure.tif", "expected.tif"))
    assert np.array_equal(found, expected) and len(np.unique(found)) > 1
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save_image(tmp_path / "turned.jpg", np.zeros((45, 61, 3)), exif=exif)
    with pytest.raises(UnreadableImage, match=r"stored turned \(EXIF orientation 6\)"):
        predict(tiny_model, turned, tmp_path / "map.tif", **VIEW)


def test_names_of_classes_are_no_markup_in_a_notebook() -> None:
    classes = ClassMap(names=("<b>", "a&b"), palette=((1, 2, 3), (9, 8, 7)))
    page = Segmentation(np.array([[0, 1]], np.uint8), np.ones((1, 2)), classes)._repr_html_()
    assert "<b>" not in page and "&lt;b&gt; 50.0 %" in page and "a&amp;b 50.0 %" in page and "rgb(9, 8, 7)" in page


def test_the_patches_without_a_place_are_features_in_pixels(tiny_model: Segmenter) -> None:
    rng, classes = np.random.default_rng(5), tiny_model.classes
    labels = rng.choice(np.array([0, 1, 2, classes.ignore_index], np.uint8), (9, 11)).repeat(5, 0).repeat(4, 1)
    result = Segmentation(labels, rng.random(labels.shape), classes)
    found = result.to_polygons()
    shapes = [(feature["geometry"], feature["properties"]["class"]) for feature in found]
    drawn = rasterio.features.rasterize(shapes, labels.shape, fill=classes.ignore_index)
    assert np.array_equal(drawn, labels)
    pixels, sure = ([feature["properties"][name] for feature in found] for name in ("pixels", "confidence"))
    assert sum(pixels) == (labels != classes.ignore_index).sum()
    assert np.dot(pixels, sure) == pytest.approx(result.confidence[labels != classes.ignore_index].sum())
    assert len(result.to_polygons(simplify=2.0)) == len(found) and json.dumps(found)


def test_the_patches_of_a_raster_are_those_of_its_vector_file(
    tmp_path: Path, scene: Path, tiny_model: Segmenter
) -> None:
    predict(tiny_model, scene, tmp_path / "map.tif", polygons=tmp_path / "map.gpkg", tile=64, overlap=32)
    found = predict(tiny_model, scene, tile=64, overlap=32).to_polygons()
    about, _, stored, values = pyogrio.raw.read(tmp_path / "map.gpkg", columns=["name", "area_m2"])
    columns = dict(zip(about["fields"], values, strict=True))
    assert sorted(feature["properties"]["name"] for feature in found) == sorted(columns["name"])
    areas = [feature["properties"]["area_m2"] for feature in found]
    np.testing.assert_allclose(sorted(areas), sorted(columns["area_m2"]))
    shapes = shapely.GeometryCollection([shapely.geometry.shape(feature["geometry"]) for feature in found])
    expected = shapely.GeometryCollection(list(shapely.from_wkb(stored)))
    assert shapely.equals(shapely.normalize(shapes), shapely.normalize(expected))


def test_transparent_pixels_get_no_class(tmp_path: Path, tiny_model: Segmenter) -> None:
    values = np.random.default_rng(2).integers(0, 256, size=(40, 50, 4))
    values[:, :10, 3] = 0
    values[:, 10:, 3] = 255
    result = predict(tiny_model, save_image(tmp_path / "cut.png", values))
    assert (result.labels[:, :10] == 255).all() and (result.labels[:, 10:] != 255).all()


def test_a_map_keeps_the_place_and_marks_what_is_empty(tmp_path: Path, tiny_model: Segmenter) -> None:
    values = np.random.default_rng(3).integers(1, 256, size=(3, 150, 130), dtype=np.uint8)
    values[:, :40, :30] = 0
    scene = write_tif(tmp_path / "scene.tif", values, nodata=0)
    path = predict(tiny_model, scene, tmp_path / "map.tif", confidence=tmp_path / "sure.tif", tile=64, overlap=32)
    in_memory = predict(tiny_model, scene, tile=64, overlap=32)
    with rasterio.open(scene) as before, rasterio.open(path) as after, rasterio.open(tmp_path / "sure.tif") as sure:
        assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
        labels = after.read(1)
        assert (labels[:40, :30] == 255).all() and (np.delete(labels, np.s_[:30], axis=1) != 255).all()
        assert np.array_equal(labels, in_memory.labels)
        assert (sure.read(1) > 0).sum() == (labels != 255).sum()
        np.testing.assert_allclose(sure.read(1) / 255, in_memory.confidence, atol=0.5 / 255 + 1e-6)
        assert "regard_card" in after.tags() and len(after.tags()["regard_weights_sha256"]) == 64


def test_bands_can_be_chosen(tmp_path: Path, tiny_model: Segmenter) -> None:
    values = np.random.default_rng(4).integers(0, 256, size=(4, 70, 70), dtype=np.uint8)
    four = write_tif(tmp_path / "four.tif", values)
    three = write_tif(tmp_path / "three.tif", values[[3, 0, 1]])
    chosen = predict(tiny_model, four, bands=(4, 1, 2), tile=64, overlap=32)
    assert np.array_equal(chosen.labels, predict(tiny_model, three, tile=64, overlap=32).labels)


def test_training_mode_is_put_back(photograph: Path, tiny_model: Segmenter) -> None:
    tiny_model.train()
    predict(tiny_model, photograph)
    assert tiny_model.training


def test_results_are_saved_as_png_or_tif_only(photograph: Path, tiny_model: Segmenter, tmp_path: Path) -> None:
    result = predict(tiny_model, photograph)
    with pytest.raises(ConfigError, match=r"labels\.jpg"):
        result.save(tmp_path / "labels.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(result.save(tmp_path / "labels.tif")) as raster:
            assert np.array_equal(raster.read(1), result.labels)


def test_the_input_is_never_overwritten(scene: Path, tiny_model: Segmenter, tmp_path: Path) -> None:
    before = scene.read_bytes()
    with pytest.raises(OutputError, match="input itself"):
        predict(tiny_model, scene, scene)
    with pytest.raises(OutputError, match=r"map\.png.*GeoTIFF|GeoTIFF.*map\.png"):
        predict(tiny_model, scene, tmp_path / "map.png")
    assert scene.read_bytes() == before


@pytest.mark.parametrize("window", [None, 32])
def test_flipping_the_image_flips_the_flipped_scores(tiny_model: Segmenter, window: int | None) -> None:
    image = torch.randn(1, 3, 64, 64)
    one = class_scores(tiny_model, image, Views(flip=True, window=window))
    two = class_scores(tiny_model, image.flip(-1), Views(flip=True, window=window)).flip(-1)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.exp().sum(dim=1), torch.ones(1, 64, 64), rtol=1e-4, atol=1e-4)


def test_polygons_cover_what_the_map_covers(tmp_path: Path, scene: Path, tiny_model: Segmenter) -> None:
    path = predict(tiny_model, scene, tmp_path / "map.tif", polygons=tmp_path / "map.gpkg", tile=64, overlap=32)
    meta, _, geometry, _ = pyogrio.raw.read(tmp_path / "map.gpkg")
    with rasterio.open(path) as raster:
        pixels = (raster.read(1) != 255).sum()
    assert sum(shape.area for shape in shapely.from_wkb(geometry)) == pytest.approx(pixels * 100)
    assert meta["crs"] == "EPSG:32633"
    with pytest.raises(ConfigError, match="written map"):
        predict(tiny_model, scene, polygons=tmp_path / "other.gpkg")


def test_what_takes_more_memory_than_allowed_is_refused(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"takes about \d+ MB besides the model; 20 are allowed.*--max-memory"):
        predict(tiny_model, scene, tmp_path / "map.tif", max_memory=20.0)
    monkeypatch.setattr("regard.mapping.predict.IN_MEMORY", 70 * 90 - 1)
    with pytest.raises(ConfigError, match=r"too many for memory. Name a file: out='map\.tif'"):
        predict(tiny_model, scene)
    assert not list(tmp_path.glob("map*"))


def test_pixels_without_data_have_no_confidence(tmp_path: Path, tiny_model: Segmenter) -> None:
    values = np.random.default_rng(4).integers(1, 256, size=(3, 40, 50), dtype=np.uint8)
    values[:, :7] = 0
    found = predict(tiny_model, write_tif(tmp_path / "a.tif", values, nodata=0), tile=64, overlap=0)
    assert isinstance(found, Segmentation) and (found.labels[:7] == 255).all()
    assert not found.confidence[:7].any() and (found.confidence[7:] > 0).all()
