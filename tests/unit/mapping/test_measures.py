"""The rasters besides the map: the probability of every class, and the margin, as GDAL and a plain softmax see them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import Affine
from rio_cogeo.cogeo import cog_validate

from regard.checkpoints.file import save
from regard.cli import main
from regard.errors import ConfigError
from regard.inference.scores import grid_scores
from regard.io.cog_writer import RasterWriter, measure_layer
from regard.io.raster import Box, open_raster
from regard.io.window_reader import padded
from regard.mapping.predict import predict
from regard.models import Segmenter
from support import NAMES, tiny, write_tif

NAMED = ("out", "confidence", "probabilities", "margin")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The rasters of a scene of one window, whose upper left corner holds no data."""
    folder = tmp_path_factory.mktemp("made")
    values = np.random.default_rng(4).integers(1, 256, size=(3, 64, 96), dtype=np.uint8)
    values[:, :8, :24] = 0
    files = {name: folder / f"{name}.tif" for name in NAMED}
    predict(tiny(), write_tif(folder / "scene.tif", values, nodata=0), **files, tile=96, overlap=0)
    return files


def values_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read()


def test_gdal_reads_names_scale_and_no_data_of_every_band(made: dict[str, Path]) -> None:
    with rasterio.open(made["probabilities"]) as raster:
        assert raster.descriptions == NAMES and raster.dtypes == ("uint8",) * 3
        assert raster.scales == pytest.approx((1 / 255,) * 3) and raster.offsets == (0,) * 3
        assert raster.nodatavals == (0,) * 3
    valid, errors, _ = cog_validate(made["probabilities"], strict=True)
    assert valid, errors


def test_bands_are_the_softmax_of_the_blended_scores(made: dict[str, Path], tiny_model: Segmenter) -> None:
    """In float64, of the whole window at once."""
    with open_raster(made["out"].with_name("scene.tif")) as raster:
        pixels = padded(raster, Box(0, 0, 64, 96))
    cells = grid_scores(tiny_model, [pixels]).double()
    full = torch.nn.functional.interpolate(cells, (64, 96), mode="bilinear", align_corners=False)[0].softmax(dim=0)
    expected = np.where(pixels.valid, np.clip(255 * full.numpy(), 1, 255), 0)
    assert np.abs(values_of(made["probabilities"]) - expected).max() <= 0.5 + 1e-3


def test_the_rasters_agree(made: dict[str, Path]) -> None:
    labels, sure, shares, lead = (values_of(made[name]).astype(int) for name in NAMED)
    valid = labels[0] != 255
    ordered = np.sort(shares, axis=0)[:, valid]
    assert 0 < (~valid).sum() < valid.size and not shares[:, ~valid].any() and not lead[:, ~valid].any()
    assert np.array_equal(np.take_along_axis(shares[:, valid], labels[:, valid], axis=0), ordered[-1:])
    assert np.array_equal(shares.max(axis=0), sure[0])
    assert np.abs(lead[0, valid] - np.maximum(ordered[-1] - ordered[-2], 1)).max() <= 1
    assert np.abs(ordered.sum(axis=0) - 255).max() <= 2


def test_wide_rasters_of_several_bands_read_back(tmp_path: Path) -> None:
    """Wider than what is read back at once, in rows that no block ends with."""
    values = np.random.default_rng(0).integers(0, 256, size=(2, 20, 4200), dtype=np.uint8)
    layer, place = measure_layer("shares", {}, ("a", "b")), Affine(1, 0, 0, 0, -1, 0)
    with RasterWriter(tmp_path / "two.tif", layer, (20, 4200), transform=place) as writer:
        for band, rows in enumerate(values, start=1):
            writer.write(0, rows[:7], band)
            writer.write(7, rows[7:], band)
    assert np.array_equal(values_of(tmp_path / "two.tif"), values)


def test_the_command_writes_them_and_their_item(made: dict[str, Path], tmp_path: Path) -> None:
    model = save(tiny(), tmp_path / "model.safetensors")
    words = ["predict", str(model), str(made["out"].with_name("scene.tif")), "-o", str(tmp_path / "map.tif")]
    words += ["--probabilities", str(tmp_path / "p.tif"), "--stac", str(tmp_path / "item.json"), "--no-progress"]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--tile", "96", "--overlap", "0"])
    assert np.array_equal(values_of(tmp_path / "p.tif"), values_of(made["probabilities"]))
    bands = json.loads((tmp_path / "item.json").read_text())["assets"]["probabilities"]["bands"]
    assert [band["name"] for band in bands] == [*NAMES] and bands[0]["raster:scale"] == 1 / 255


@pytest.mark.parametrize(("error", "certain_from"), [(0.05, 0.45), (0.2, 0.4), (0.01, 2.0)])
def test_certain_is_where_the_card_promises_the_error(
    made: dict[str, Path], tmp_path: Path, error: float, certain_from: float
) -> None:
    card = tiny().card.model_copy(update={"certain": ((0.5, 0.02), (0.45, 0.04), (0.4, 0.2))})
    scene, sure = made["out"].with_name("scene.tif"), tmp_path / "sure.tif"
    predict(tiny().with_card(card), scene, tmp_path / "map.tif", confidence=sure, certain=error, tile=96, overlap=0)
    found, shares = values_of(tmp_path / "map_certain.tif")[0], values_of(sure)[0].astype(int)
    clear = np.abs(shares - 255 * certain_from) > 0.5  # not at the threshold, by the rounding of the confidence
    assert np.array_equal((found == 1)[clear], (shares > 255 * certain_from)[clear])
    assert np.array_equal(found == 255, shares == 0)
    assert (tmp_path / "map_certain.tif.aux.xml").read_text().count("certain") >= 2


@pytest.mark.parametrize(("error", "message"), [(0.05, "promises errors"), (1.5, "got certain 1.5")])
def test_no_certainty_without_a_promise(made: dict[str, Path], tmp_path: Path, error: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        predict(tiny(), made["out"].with_name("scene.tif"), tmp_path / "map.tif", certain=error)
    assert not list(tmp_path.iterdir())
