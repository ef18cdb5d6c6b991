"""Without a word about windows, a map is made in those in which the model was scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from regard.errors import ConfigError
from regard.inference.scores import scores_of
from regard.io.image import read_image
from regard.mapping.blend import windows_of
from regard.mapping.predict import predict
from regard.models import Segmenter
from regard.options import Views, Windows
from support import save_image, tiny, write_tif

PIXELS = np.random.default_rng(3).integers(1, 250, (3, 150, 200), dtype=np.uint8)


def scored_in(window: int | None) -> Segmenter:
    model = tiny()
    return model.with_card(model.card.model_copy(update={"window": window}))


@pytest.mark.parametrize(
    ("window", "given", "tile", "overlap"),
    [
        (None, {}, 1024, 256),
        (0, {}, 1024, 256),
        (512, {}, 512, 128),
        (450, {}, 448, 96),
        (500, {}, 512, 128),
        (20, {}, 32, 0),
        (4096, {}, 4096, 256),
        (512, {"overlap": 64}, 512, 64),
        (512, {"tile": 1024}, 1024, 256),
        (512, {"tile": 512}, 512, 256),
    ],
)
def test_the_side_of_the_windows(window: int | None, given: dict[str, int], tile: int, overlap: int):
    made = windows_of(Windows(**given), scored_in(window))
    assert (made.tile, made.overlap) == (tile, overlap)
    assert Windows(made.tile, made.overlap) == made  # a possible one


def test_a_raster_is_mapped_in_them(tmp_path: Path):
    scene = write_tif(tmp_path / "scene.tif", PIXELS)
    plain = predict(scored_in(None), scene, tile=64, overlap=0, progress=False).labels
    assert np.array_equal(predict(scored_in(64), scene, progress=False, overlap=0).labels, plain)
    assert not np.array_equal(predict(scored_in(None), scene, progress=False).labels, plain)
    out = predict(scored_in(64), scene, tmp_path / "map.tif", progress=False)
    job = rasterio.open(out).tags()["regard_job"]
    again = predict(scored_in(64), scene, tmp_path / "b.tif", tile=64, overlap=0, progress=False)
    assert rasterio.open(again).tags()["regard_job"] == job  # a quarter of 64 is no multiple of 32: no overlap


def test_the_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scene = write_tif(tmp_path / "scene.tif", PIXELS)
    predict(scored_in(64), scene, tmp_path / "map.tif")
    assert "windows of 64 pixels; the model was scored in 64" in capsys.readouterr().err


def test_a_photograph_is_scored_in_them(tmp_path: Path):
    path = save_image(tmp_path / "a.png", PIXELS.transpose(1, 2, 0))
    model, pixels = scored_in(64), read_image(path)
    expected = scores_of(model, pixels, Views(window=64)).argmax(dim=0).numpy()
    assert np.array_equal(predict(model, path).labels, expected)
    whole = scores_of(model, pixels).argmax(dim=0).numpy()
    assert np.array_equal(predict(scored_in(0), path).labels, whole) and not np.array_equal(whole, expected)


def test_gsd_0_asks_for_what_the_card_must_say(tmp_path: Path):
    scene = write_tif(tmp_path / "scene.tif", PIXELS)
    with pytest.raises(ConfigError, match="gsd 0: the model's card does not say how many metres") as caught:
        predict(tiny(), scene, gsd=0.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"bare\.tif does not say how many metres a pixel has"):
        predict(tiny(), write_tif(tmp_path / "bare.tif", PIXELS, crs=None, transform=None), gsd=5.0)
