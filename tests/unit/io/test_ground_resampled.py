"""Scenes at another resolution: pixels as gdalwarp makes them, labels as gdal_rasterize draws them there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
import torch
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter

from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.errors import BandMismatch, ConfigError
from regard.io.ground import at_gsd
from regard.io.raster import Box, open_raster
from regard.training.train import train
from support import tiny, write_tif

SIZE = 120, 160


def scene(place: Path, name: str, metres: float, **profile: Any) -> Path:
    """The same ground, smooth, in pixels of so many metres."""
    rows, columns = (round(length * 10 / metres) for length in SIZE)
    noise = np.random.default_rng(2).normal(size=(3, 240, 320))
    smooth = gaussian_filter(noise, (0, 6, 6)) * 900 + 120
    at = [(np.arange(count) * length // count) for count, length in ((rows, 240), (columns, 320))]
    values = smooth[:, at[0][:, None], at[1]].clip(1, 255).astype(np.uint8)
    transform = Affine(10 * SIZE[1] / columns, 0, 500_000, 0, -10 * SIZE[0] / rows, 5_000_000)
    return write_tif(place / name, values, transform=transform, **profile)


def described(place: Path, images: list[str], **told: Any) -> LabelledData:
    """Two dozen crooked polygons of three classes."""
    rng, shapes = np.random.default_rng(5), []
    for _ in range(24):
        angles, reach = np.sort(rng.uniform(0, 2 * np.pi, 7)), rng.uniform(40, 200, 7)
        x, y = 500_000 + rng.uniform(0, 1600) + reach * np.cos(angles), 5_000_000 - rng.uniform(0, 1200)
        shapes.append(shapely.Polygon(np.stack([x, y + reach * np.sin(angles)], axis=1)))
    names, codes = np.array(["red thing", "green thing", "blue thing"] * 8, object), np.array([0, 1, 2] * 8)
    columns = [names, codes, np.array(["train", "val"] * 12, object)]
    pyogrio.raw.write(
        place / "fields.gpkg",
        shapely.to_wkb(np.array(shapes)),
        columns,
        ["kind", "code", "part"],
        crs="EPSG:32633",
        geometry_type="Polygon",
        driver="GPKG",
    )
    classes = ["red thing", "green thing", "blue thing"]
    facts = {"images": images, "labels": "fields.gpkg", "column": "kind", "split": "part", "classes": classes}
    (place / "fields.json").write_text(json.dumps(facts | told))
    return folder(place / "fields.json")


def assembled(data: LabelledData, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, labels and validity of the whole scene from its windows; where the splits share a window, from both."""
    values, labels = np.zeros((3, *size), np.uint8), np.full(size, 255)
    valid = np.zeros(size, bool)
    for split in data.splits:
        for pair in data.split(split):
            assert pair.box is not None
            top, left, height, width = pair.box
            part = np.s_[top : top + height, left : left + width]
            sample, drawn = data.read(pair), pair.read_labels(data.classes)
            values[:, *part], valid[part] = sample.image, sample.valid
            labels[part] = np.where(drawn == 255, labels[part], drawn)
    return values, labels, valid


@pytest.mark.parametrize("gsd", [25.0, 17.3, 6.0])
@pytest.mark.parametrize("nodata", [None, 0])
def test_windows_are_as_gdalwarp_and_gdal_rasterize_make_the_scene(tmp_path: Path, gsd: float, nodata: int | None):
    if shutil.which("gdalwarp") is None:
        pytest.skip("GDAL's tools are not installed")
    path = scene(tmp_path, "scene.tif", 10, nodata=nodata)
    if nodata is not None:
        with rasterio.open(path, "r+") as raster:
            values = raster.read()
            values[:, 30:70, 40:90] = 0
            raster.write(values)
    data = described(tmp_path, ["scene.tif"], gsd=gsd, window=32, val=0)
    size = tuple(round(length * 10 / gsd) for length in SIZE)
    warp = ["gdalwarp", "-q", "-r", "bilinear", "-ts", str(size[1]), str(size[0]), path, tmp_path / "warped.tif"]
    extent = [str(value) for value in (500_000, 5_000_000 - 10 * SIZE[0], 500_000 + 10 * SIZE[1], 5_000_000)]
    subprocess.run([*warp[:2], "-te", *extent, *warp[2:]], check=True)
    with rasterio.open(tmp_path / "warped.tif") as warped:
        expected, there, transform = warped.read(), warped.dataset_mask() > 0, warped.transform
    write_tif(tmp_path / "truth.tif", np.full((1, *size), 255, np.uint8), transform=transform)
    for part in ("train", "val"):  # labels of both splits, those of val above
        burn = ["gdal_rasterize", "-q", "-a", "code", "-where", f"part='{part}'"]
        subprocess.run([*burn, tmp_path / "fields.gpkg", tmp_path / "truth.tif"], check=True)
    with rasterio.open(tmp_path / "truth.tif") as truth:
        drawn = truth.read(1)
    values, labels, valid = assembled(data, size)
    seen = np.zeros(size, bool)
    for pairs in data.splits.values():
        for pair in pairs:
            assert pair.box is not None
            seen[pair.box.top : pair.box.top + pair.box.height, pair.box.left : pair.box.left + pair.box.width] = True
    assert seen.mean() > 0.7 and len(np.unique(drawn)) == 4 and (nodata is None) == there.all()
    assert np.array_equal(labels, drawn)
    assert np.array_equal(valid[seen], there[seen])
    assert np.abs(values.astype(int) - expected)[:, seen & there].max() <= 1


def test_a_scene_is_shown_as_predict_shows_it(tmp_path: Path):
    """Fewer pixels: the antialiased bilinear interpolation that `regard predict --gsd` uses."""
    path = scene(tmp_path, "scene.tif", 5)
    with open_raster(path) as native, at_gsd(native, 20.0) as raster:
        values, valid = raster.read(Box(0, 0, *raster.size))
        own = torch.from_numpy(native.read(Box(0, 0, *native.size))[0]).float()[None]
    shown = torch.nn.functional.interpolate(own, values.shape[1:], mode="bilinear", antialias=True)[0].numpy()
    assert valid.all() and values.shape == (3, 60, 80)
    assert np.abs(values - shown).max() <= 1.5


def test_scenes_of_two_resolutions_meet_at_one_and_the_card_says_it(tmp_path: Path):
    scene(tmp_path, "fine.tif", 5)
    scene(tmp_path, "coarse.tif", 20)
    data = described(tmp_path, ["fine.tif", "coarse.tif"], gsd=10)
    fine, coarse = (
        [data.read(pair) for pair in data.split("train") if pair.image.name == name]
        for name in ("fine.tif", "coarse.tif")
    )
    assert fine[0].labels.shape == coarse[0].labels.shape == SIZE
    assert (fine[0].labels == coarse[0].labels).mean() > 0.999
    assert np.abs(fine[0].image.astype(float) - coarse[0].image).mean() < 12
    settings = {"steps": 1, "batch": 2, "crop": 32, "workers": 0, "window": 64}
    card = train(tiny(), data, tmp_path / "run", progress=False, **settings)
    header = (tmp_path / "run" / "best.safetensors").read_bytes()[:20000]
    assert card.scores is not None and b'ground_resolution\\":10.0' in header


def test_what_cannot_be_brought_to_a_resolution_is_refused(tmp_path: Path):
    plain = write_tif(tmp_path / "plain.tif", np.ones((3, 40, 40), np.uint8), crs=None)
    with open_raster(plain) as raster, pytest.raises(ConfigError, match=r"plain\.tif does not say how many metres"):
        at_gsd(raster, 5.0).__enter__()
    infrared = write_tif(tmp_path / "rgbi.tif", np.ones((4, 40, 40), np.uint8), photometric="RGB", alpha="yes")
    with open_raster(infrared, bands=[1, 4]) as raster, pytest.raises(BandMismatch, match="marked as alpha"):
        at_gsd(raster, 5.0).__enter__()
