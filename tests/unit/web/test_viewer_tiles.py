"""What the tiles show, against ``predict``, ``rasterio`` and counting."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from pyproj import Transformer
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject

from regard.errors import BandMismatch, ClassMismatch, ConfigError, SizeMismatch
from regard.explain.explain import explain
from regard.inference.scores import scores_of
from regard.inference.segmentation import Segmentation
from regard.io.raster import Box, Pixels, open_raster
from regard.mapping.predict import predict
from regard.web.grid import HALF_EARTH, Address
from regard.web.pixel_query import _overlay
from regard.web.png import NOTHING, labels_of, packed
from regard.web.viewer import Viewer
from support import COLOURS, save_image, tiny, write_tif
from web_support import TILING, always, picture

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
ALL = np.ones(3, bool)


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def whole_map(viewer: Viewer) -> Segmentation:
    found = predict(viewer.model, viewer.sources.scene, tile=TILING.tile, overlap=TILING.overlap)
    assert isinstance(found, Segmentation)
    return found


def test_the_models_tiles_are_cut_from_the_map_that_predict_makes(plain: Viewer) -> None:
    expected = whole_map(plain)
    left, right = (plain.answer(Address(1, x, 0), always) for x in (0, 1))
    found = np.concatenate([left.labels, right.labels], axis=1)[:150, :300]
    sure = np.concatenate([left.confidence, right.confidence], axis=1)[:150, :300]
    assert (found == expected.labels)[expected.confidence > 0.34].all()
    assert np.abs(sure / 255 - expected.confidence).max() <= 0.5 / 255 + 1e-4
    assert (left.labels[150:] == -1).all() and (right.labels[:, 44:] == -1).all()
    colours = decoded(plain.picture("prediction", Address(1, 0, 0), ALL, always))
    assert (colours[:150, :, :3] == expected.colours()[:, :256]).all()
    assert (colours[:150, :, 3] == 255).all() and not colours[150:, :, 3].any()


def test_a_tile_on_earth_is_the_warped_map(earth: Viewer) -> None:
    expected = whole_map(earth)
    z, side = earth.grid.finest, 2 * HALF_EARTH / 2**earth.grid.finest
    left, top, right, bottom = earth.grid.around(Box(0, 0, *earth.raster.size))
    seen = 0
    for x in range(int((left + HALF_EARTH) / side), int((right + HALF_EARTH) / side) + 1):
        for y in range(int((HALF_EARTH - top) / side), int((HALF_EARTH - bottom) / side) + 1):
            west, north, east, south = earth.grid.extent(Address(z, x, y))
            warped = np.full((256, 256), 255, np.uint8)
            reproject(
                expected.labels, warped, src_crs=expected.crs, src_transform=expected.transform, dst_crs="EPSG:3857",
                dst_transform=Affine((east - west) / 256, 0, west, 0, (south - north) / 256, north),
                resampling=Resampling.nearest, src_nodata=255, dst_nodata=255, tolerance=0,
            )  # fmt: skip
            found = earth.answer(Address(z, x, y), always).labels
            seen += (warped != 255).sum()
            assert (found != np.where(warped == 255, -1, warped.astype(int))).mean() < 1e-4  # ties of rounding
    assert seen > 10_000


def test_a_photograph_is_looked_at_whole_and_upright(photograph: Viewer) -> None:
    expected = whole_map(photograph)
    assert photograph.raster.size == (90, 60) == expected.labels.shape
    found = photograph.answer(Address(0, 0, 0), always)
    assert (found.labels[:90, :60] == expected.labels).all()
    scene = decoded(photograph.scene(Address(0, 0, 0)))
    turned = np.rot90(np.asarray(Image.open(photograph.sources.scene).convert("RGB")), -1)
    assert (scene[:90, :60, :3] == turned).all() and not scene[90:, :, 3].any()
    answer = photograph.inspect(20.0, 70.0, always)
    assert answer["class"] == expected.labels[70, 20] and (answer["x"], answer["y"]) == (20, 70)
    assert max(answer["probabilities"]) == pytest.approx(expected.confidence[70, 20], abs=1e-4)


def test_transparent_pixels_of_a_photograph_have_no_class(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> None:
    values = np.concatenate([picture((40, 50)), np.full((1, 40, 50), 255, np.uint8)])
    values[3, :10] = 0
    viewer = viewer_of(save_image(tmp_path / "a.png", values.transpose(1, 2, 0)))
    answer = viewer.answer(Address(0, 0, 0), always)
    assert (answer.labels[:10] == -1).all() and (answer.labels[10:40, :50] >= 0).all()
    assert (
        not answer.confidence[:10].any()
        and not decoded(viewer.picture("prediction", Address(0, 0, 0), ALL, always))[:10].any()
    )
    assert not decoded(viewer.scene(Address(0, 0, 0)))[:10, :, 3].any()


def test_labels_of_a_band_where_there_is_data() -> None:
    values, valid = np.array([[[0, 2, 3, 255, 1]]]), np.array([[True, True, True, True, False]])
    assert labels_of(Pixels(values, valid), tiny().classes).tolist() == [[0, 2, -1, -1, -1]]


def test_hidden_classes_are_transparent(plain: Viewer) -> None:
    labels = plain.answer(Address(1, 0, 0), always).labels
    shown = np.array([True, False, True])
    alpha = decoded(plain.picture("prediction", Address(1, 0, 0), shown, always))[..., 3]
    assert {0, 1} <= set(np.unique(labels)) - {-1} or len(np.unique(labels)) > 1
    assert ((alpha == 255) == ((labels == 0) | (labels == 2))).all()


def test_a_map_and_labels_from_files(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> None:
    model, rng = tiny(), np.random.default_rng(4)
    scene = write_tif(tmp_path / "s.tif", picture((100, 120)), crs=None, transform=None)
    labels = rng.integers(0, 3, size=(100, 120))
    truth = np.where(rng.random((100, 120)) < 0.2, 255, rng.integers(0, 3, size=(100, 120)))
    finished = predict(model, scene, tmp_path / "map.tif", confidence=tmp_path / "sure.tif", tile=64, overlap=32)
    viewer = viewer_of(scene, model, labels_map=finished, confidence=tmp_path / "sure.tif")
    with open_raster(Path(finished)) as file, open_raster(tmp_path / "sure.tif") as sure:
        answer = viewer.answer(Address(0, 0, 0), always)
        assert (answer.labels[:100, :120] == file.read_band(Box(0, 0, *file.size))).all()
        assert viewer.live.regions.window.cache_info().misses == 0
        steps = sure.read_band(Box(0, 0, *sure.size))
        assert (answer.confidence[:100, :120] == steps).all()
    shares = write_tif(tmp_path / "shares.tif", steps[None] / np.float32(255), crs=None, transform=None)
    again = viewer_of(scene, model, labels_map=finished, confidence=shares).answer(Address(0, 0, 0), always)
    assert np.abs(again.confidence[:100, :120].astype(int) - steps).max() <= 1

    save_image(tmp_path / "labels.png", labels)
    for name, values in (("index.png", truth), ("colours.png", np.vstack([COLOURS, [(0, 0, 0)]])[truth.clip(0, 3)])):
        path = save_image(tmp_path / name, values)
        model.card = model.card.model_copy(
            update={"classes": model.classes.model_copy(update={"palette": tuple(map(tuple, COLOURS.tolist()))})}
        )
        viewer = viewer_of(scene, model, labels_map=tmp_path / "labels.png", labels=path)
        assert viewer.about()["layers"] == ["prediction", "labels", "errors"]
        known = truth != 255
        assert (viewer.truth(Address(0, 0, 0))[:100, :120][known] == truth[known]).all()
        wrong = decoded(viewer.picture("errors", Address(0, 0, 0), ALL, always))[:100, :120, 3] > 0
        assert (wrong == (known & (labels != truth))).all()
        assert (decoded(viewer.picture("labels", Address(0, 0, 0), ALL, always))[:100, :120, 3] > 0)[known].all()


def test_files_that_do_not_fit_are_refused(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> None:
    scene = write_tif(tmp_path / "s.tif", picture((100, 120)))
    small = write_tif(tmp_path / "small.tif", picture((90, 120))[:1])
    with pytest.raises(SizeMismatch, match=r"small\.tif is 120 x 90 pixels, s\.tif 120 x 100"):
        viewer_of(scene, labels=small)
    other = predict(tiny(classes=("a", "b")), scene, tmp_path / "map.tif", tile=64, overlap=32)
    with pytest.raises(ClassMismatch, match="has the classes a, b; the model has red thing"):
        viewer_of(scene, labels_map=other)
    with pytest.raises(BandMismatch):
        viewer_of(write_tif(tmp_path / "two.tif", picture((40, 40))[:2]))


def test_the_stretch_is_one_for_the_scene_and_fits_its_values(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> None:
    values = picture((300, 600)).astype(np.float32) * 10 + 1000
    values[:, :, :300] -= 500
    values[:, 150:] += 400
    values[:, 5, 5] = np.nan
    viewer = viewer_of(write_tif(tmp_path / "s.tif", values, crs=None, transform=None))
    assert viewer.stretch is not None
    expected = np.nanpercentile(values.reshape(3, -1), (2, 98), axis=1)
    assert np.abs(viewer.stretch - expected).max() < 0.1 * (expected[1] - expected[0]).max()
    left, right = (decoded(viewer.scene(Address(2, x, 0)))[:, :40, :3].mean() for x in (0, 2))
    assert left < right - 20


def test_an_answer_shows_what_the_pixel_attends_to(plain: Viewer) -> None:
    probabilities = plain.live.regions.probabilities(100, 70)
    answer, overlays = plain.inspect(100.7, 70.6, always), plain.inspect(100.7, 70.6, always, why=True)["overlays"]
    assert (answer["x"], answer["y"]) == (100, 70)
    assert np.allclose(answer["probabilities"], probabilities) and answer["class"] == probabilities.argmax()
    assert {overlay["group"] for overlay in overlays} == {"Attention", "Regions", "Channels"}
    regions = [overlay for overlay in overlays if overlay["group"] == "Regions"]
    assert sum(region["weight"] for region in regions) == pytest.approx(1, abs=1e-4)
    left, top, right, bottom = overlays[0]["extent"]
    assert left <= 100 < right and top <= 70 < bottom and overlays[0]["scale"][1] >= 2
    image = decoded(base64.b64decode(overlays[0]["picture"].removeprefix("data:image/png;base64,")))
    assert image.shape[:2] == (bottom - top, right - left)
    assert image[..., 3].min() < 10 and image[..., 3].max() > 200, "what is not attended to stays as bright as it was"


def test_an_answer_tells_the_values_and_the_place(earth: Viewer) -> None:
    answer = earth.inspect(150.2, 75.9, always)
    with rasterio.open(earth.sources.scene) as file:
        values, (x, y) = file.read()[:, 75, 150], file.transform @ (150.5, 75.5)
        place = Transformer.from_crs(file.crs.to_wkt(), "EPSG:4326", always_xy=True).transform(x, y)
    assert [band["value"] for band in answer["bands"]] == values.tolist()
    assert answer["coordinates"] == pytest.approx([x, y]) and answer["degrees"] == pytest.approx(place)


def test_the_page_gets_labels_and_confidences_as_numbers(plain: Viewer) -> None:
    """Deflated: 256 x 256 bytes of labels, 255 where there is none, then as many of confidence."""
    expected = whole_map(plain)
    raw = np.frombuffer(zlib.decompress(plain.values("prediction", Address(1, 0, 0), always)), np.uint8)
    labels, confidence = raw.reshape(2, 256, 256)
    assert (labels[:150] == expected.labels[:, :256])[expected.confidence[:, :256] > 0.34].all()
    assert np.abs(confidence[:150] / 255 - expected.confidence[:, :256]).max() <= 0.5 / 255 + 1e-4
    assert (labels[150:] == 255).all() and not confidence[150:].any()


def test_more_classes_than_a_byte_counts_take_two() -> None:
    labels = np.array([[0, 299, NOTHING]])
    assert zlib.decompress(packed(labels, None, 300)) == b"\x00\x00\x2b\x01\xff\xff"


def test_a_coarse_tile_is_the_prediction_of_the_shrunk_scene(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> None:
    """Zoom 0 of 4000 x 3000 pixels has a step of 16: one picture of 250 x 188, in the middle of 512 x 512."""
    values = picture((3000, 4000))
    viewer = viewer_of(write_tif(tmp_path / "s.tif", values, crs=None, transform=None))
    found = viewer.coarse(Address(0, 0, 0), always)
    shrunk, valid = np.zeros((3, 512, 512), np.uint8), np.zeros((512, 512), bool)
    shrunk[:, 128:315, 128:378] = values[:, :2992].reshape(3, 187, 16, 250, 16).mean(axis=(2, 4)).round()
    valid[128:315, 128:378] = True
    expected = scores_of(viewer.model, Pixels(shrunk, valid)).softmax(dim=0)[:, 128:315, 128:378].max(dim=0)
    assert (found.labels[:187, :250] == expected.indices.numpy()).mean() > 0.99
    assert np.abs(found.confidence[:187, :250] / 255 - expected.values.numpy()).mean() < 0.01
    assert (found.labels[188:] == NOTHING).all() and (found.labels[:, 250:] == NOTHING).all()


def test_other_bands_and_stretches_show_the_files_values(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> None:
    values = np.random.default_rng(0).integers(0, 3000, (5, 200, 300)).astype(np.uint16)
    viewer = viewer_of(write_tif(tmp_path / "s.tif", values, crs=None, transform=None), bands=(1, 2, 3))
    found = decoded(viewer.scene(Address(1, 0, 0), viewer.pixels, (5, 4, 4), 10.0))[:200, :, :3]
    low, high = np.percentile(values[4], (10, 90))
    expected = (255 * (values[4, :, :256] - low) / (high - low)).clip(0, 255)
    assert np.abs(found[..., 0] - expected).mean() < 6, "the stretch comes from samples"
    assert (found[..., 1] == found[..., 2]).all() and (found[..., 0] != found[..., 1]).any()


def test_an_overlay_is_bright_where_the_weights_are(plain: Viewer) -> None:
    """All weight on the first of 4 x 8 cells, 32 times that of uniform attention, of a scene of 150 x 300 pixels."""
    weights = np.zeros((4, 8), np.float32)
    weights[0, 0] = 1
    why = explain(plain.model, plain.sources.scene, (3, 4))
    overlay = _overlay(why, weights)
    assert 20 < overlay["scale"][1] <= 32
    content = base64.b64decode(overlay["picture"].removeprefix("data:image/png;base64,"))
    bright = np.asarray(Image.open(io.BytesIO(content)))  # indices of strength
    assert bright.shape == (150, 300) and (bright[:9, :9] == 255).all()
    assert max(bright[80:].max(), bright[:, 90:].max()) < 5


def test_a_model_without_attention_answers_with_probabilities(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> None:
    model = tiny("deeplab")
    for path in (
        write_tif(tmp_path / "s.tif", picture((50, 70)), crs=None, transform=None),
        save_image(tmp_path / "p.png", picture((50, 70)).transpose(1, 2, 0)),
    ):
        viewer = viewer_of(path, model)
        answer = viewer.inspect(30.0, 20.0, always)
        assert viewer.inspect(30.0, 20.0, always, why=True) == {"overlays": []} and not answer["attention"]
        assert answer["class"] == whole_map(viewer).labels[20, 30]


@pytest.mark.parametrize("place", [(-1.0, 5.0), (5.0, 150.0), (1e8, 1e8)])
def test_a_question_outside_the_scene_is_refused(plain: Viewer, place: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"plain\.tif does not reach there; it is 300 x 150 pixels"):
        plain.inspect(*place, always)


def test_far_tiles_of_a_large_scene_are_not_predicted(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> None:
    viewer = viewer_of(write_tif(tmp_path / "s.tif", picture((2000, 1500)), crs=None, transform=None))
    assert viewer.about()["exact_from"] == viewer.pixels.finest == 3
    assert (viewer.answer(Address(0, 0, 0), always).labels == -1).all()
    assert viewer.live.regions.window.cache_info().misses == 0
