"""The analyst's way on the sample of Banepa: footprints and an outline to a map, polygons and hectares.

What is written is held against rasterio.features, pyproj's geodesics and a count of pixels.
"""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely
from rasterio.transform import Affine
from rasterio.windows import Window

import regard
import regard.cli as cli
from browser_support import viewing
from page_support import BANEPA, copy_banepa, interrupt_at
from support import tiny, write_tif

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # in rasterio
SMALL = Window(512, 640, 192, 192)
NETWORK = ["--backbone", "test_resnet", "--config.width", "16", "--config.output-stride", "16"]
STEPS = ["--steps", "6", "--batch", "2", "--crop", "64", "--workers", "0", "--evaluate-every", "3", "--warmup", "2"]
GEOD = pyproj.Geod(ellps="WGS84")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([*map(str, arguments)])
    return int(end.value.code or 0)


def truth_of(image: Path) -> np.ndarray:
    """The labels of the sample on the grid of an image, drawn by rasterio over all of it at once."""
    with rasterio.open(image) as grid:
        shape, transform, crs = grid.shape, grid.transform, grid.crs

    def drawn(name: str) -> np.ndarray:
        features = json.loads((BANEPA / name).read_text())["features"]
        shapes = [rasterio.warp.transform_geom("EPSG:4326", crs, one["geometry"]) for one in features]
        return rasterio.features.rasterize(shapes, shape, transform=transform)

    return np.where(drawn("mapped.geojson") == 1, drawn("buildings.geojson"), 255)


def pixels_on_the_ellipsoid(path: Path) -> list[float]:
    """m² of each class: the sum of the geodesic areas of its pixels, one by one."""
    with rasterio.open(path) as made:
        labels, crs, transform = made.read(1), made.crs, made.transform
    to_degrees = pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(crs.to_wkt()), "EPSG:4326", always_xy=True)
    columns, rows = np.meshgrid(np.arange(labels.shape[1] + 1), np.arange(labels.shape[0] + 1))
    east, north = to_degrees.transform(*(transform @ (columns.astype(float), rows.astype(float))))
    total = [0.0, 0.0, 0.0]
    for row, column in np.argwhere(labels != 255):
        around = (row, row, row + 1, row + 1), (column, column + 1, column + 1, column)
        total[labels[row, column]] += abs(GEOD.polygon_area_perimeter(east[around], north[around])[0])
    return total


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as lines:
        return list(csv.DictReader(lines))


def test_windows_have_the_labels_that_rasterio_draws(tmp_path: Path) -> None:
    copy_banepa(tmp_path, Window(832, 1600, 384, 300))  # with ground outside the outline
    truth, data = truth_of(tmp_path / "ortho.tif"), regard.folder(tmp_path / "labels.json")
    found = np.full(truth.shape, 255)
    for pair in [*data.split("train"), *data.split("val")]:
        top, left, height, width = pair.box
        labels = data.read(pair).labels
        part = found[top : top + height, left : left + width]
        assert not ((part != 255) & (labels != 255)).any()
        np.copyto(part, labels, where=labels != 255)
    assert np.array_equal(found, truth) and {0, 1, 255} == set(np.unique(truth).tolist())


def test_from_footprints_to_hectares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps of a small network: check, train (interrupted and resumed), evaluate, map, polygons, areas, report."""
    copy_banepa(tmp_path, SMALL)
    monkeypatch.chdir(tmp_path)
    told = json.loads(Path("labels.json").read_text()) | {"block": 64, "window": 64}
    Path("labels.json").write_text(json.dumps(told))
    assert run("check", "labels.json", "-o", "check.html") == 0
    with monkeypatch.context() as patched:
        interrupt_at(patched, step=2)
        assert run("train", "labels.json", "-o", "run", *NETWORK, *STEPS) == 130
    assert run("train", "labels.json", "-o", "run", *NETWORK, *STEPS) == 0
    assert run("evaluate", "run/best.safetensors", "labels.json", "--save", "scores.json") == 0
    wanted = ("--areas", "areas.csv", "--polygons", "map.gpkg", "--confidence", "conf.tif")
    assert run("predict", "run/best.safetensors", "ortho.tif", "-o", "map.tif", *wanted) == 0
    rows, areas = table(Path("areas.csv")), pixels_on_the_ellipsoid(Path("map.tif"))
    assert [float(row["area_m2"]) for row in rows] == pytest.approx(areas[:2], rel=1e-3)
    assert [float(row["hectares"]) for row in rows] == pytest.approx([area / 1e4 for area in areas[:2]], rel=1e-3)
    whole = pyogrio.raw.read("map.gpkg")
    shapes, names = shapely.from_wkb(whole[2]), whole[3][list(whole[0]["fields"]).index("name")]
    with rasterio.open("map.tif") as made:
        burn = [(shape, ["other", "building"].index(name)) for shape, name in zip(shapes, names, strict=True)]
        again = rasterio.features.rasterize(burn, made.shape, fill=255, transform=made.transform)
        assert np.array_equal(again, made.read(1))
    assert run("polygons", "map.tif", "-o", "some.gpkg", "--only", "building", "--areas", "some.csv") == 0
    assert table(Path("some.csv"))[1]["polygons"] == str(names.tolist().count("building"))
    assert run("areas", "map.tif", "-o", "again.csv") == 0
    assert [row["area_m2"] for row in table(Path("again.csv"))] == [row["area_m2"] for row in rows]
    assert run("report", "run", "--data", "labels.json", "-o", "run.html") == 0
    assert run("report", "map.tif", "--confidence", "conf.tif", "-o", "map.html") == 0
    pages = [Path(name).read_text() for name in ("run.html", "map.html")]
    assert "building" in pages[0] and f"{float(rows[0]['hectares']):.2f}" in pages[1]


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:4326", "EPSG:3413", "EPSG:32645", "ESRI:54008"])
def test_hectares_are_those_of_the_ellipsoid_in_every_crs(tmp_path: Path, crs: str) -> None:
    """The image warped to that CRS, mapped; web mercator alone would be 27 % too large here."""
    with rasterio.open(BANEPA / "ortho.tif") as image:
        values = image.read(out_shape=(3, 48, 48))
        grid = image.transform @ Affine.scale(image.width / 48, image.height / 48)
        where = rasterio.warp.calculate_default_transform(image.crs, crs, 48, 48, *image.bounds)
        shape = (3, where[2], where[1])
        warped, _ = rasterio.warp.reproject(
            values,
            np.zeros(shape, np.uint8),
            src_transform=grid,
            src_crs=image.crs,
            dst_transform=where[0],
            dst_crs=crs,
        )
    write_tif(tmp_path / "scene.tif", warped, crs=crs, transform=where[0], nodata=0)
    regard.predict(tiny(), tmp_path / "scene.tif", out=tmp_path / "map.tif", areas=tmp_path / "a.csv", progress=False)
    found = [float(row["area_m2"]) for row in table(tmp_path / "a.csv")]
    assert found == pytest.approx(pixels_on_the_ellipsoid(tmp_path / "map.tif"), rel=1e-3)
    assert sum(found) == pytest.approx(54_821, rel=0.03)  # of the sample: nearest pixels at its edge


def test_a_local_grid_has_no_hectares(tmp_path: Path) -> None:
    site = {"crs": 'LOCAL_CS["site grid",UNIT["metre",1]]', "transform": Affine(0.5, 0, 0, 0, -0.5, 0)}
    write_tif(tmp_path / "scene.tif", np.full((3, 40, 50), 90, np.uint8), **site)
    regard.predict(tiny(), tmp_path / "scene.tif", out=tmp_path / "map.tif", areas=tmp_path / "a.csv", progress=False)
    rows = table(tmp_path / "a.csv")
    assert {(row["area_m2"], row["hectares"]) for row in rows} == {("", "")}
    assert sum(int(row["pixels"]) for row in rows) == 2000


def command(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    run_it = [sys.executable, "-m", "regard", *map(str, arguments)]
    return subprocess.Popen(run_it, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(folder: Path, *arguments: object) -> str:
    process = command(folder, *arguments)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    return said


@pytest.mark.nightly
def test_sixty_steps_interrupted_and_resumed_find_buildings(tmp_path: Path) -> None:
    """As processes, with a bundled model to begin with; the viewer over HTTP."""
    copy_banepa(tmp_path, Window(640, 700, 640, 640))
    start = ["--init", "dubai-s", "--config.output-stride", 16, "--steps", 60, "--batch", 4, "--crop", 128]
    train = ("train", "labels.json", "-o", "run", *start, "--evaluate-every", 30, "--scale", 1, 1, "--workers", 0)
    process = command(tmp_path, *train)
    assert process.stderr is not None
    while not re.match(r"step \d+/60", line := process.stderr.readline()):
        assert line, "the training ended before its first step"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Progress saved. Run this to resume: regard train labels.json" in errors
    finished(tmp_path, *train)
    best = ("run/best.safetensors", "ortho.tif")
    finished(tmp_path, "predict", *best, "-o", "map.tif", "--nodata", 255, "--regularise", "building", "--polygons",
             "found.gpkg")  # fmt: skip
    scores = json.loads(finished(tmp_path, "evaluate", "map.tif", "labels.json", "--split", "all", "--json"))
    truth = truth_of(tmp_path / "ortho.tif")
    with rasterio.open(tmp_path / "map.tif") as made:
        found = made.read(1)
    both, either = ((found == 1) & (truth == 1)).sum(), ((found == 1) | (truth == 1))[truth != 255].sum()
    assert scores["iou"]["building"] == pytest.approx(both / either, abs=1e-3)
    share, accuracy = (truth == 1).sum() / (truth != 255).sum(), (found == truth)[truth != 255].mean()
    assert accuracy > max(share, 1 - share) + 0.05  # better than one class everywhere
    assert pyogrio.read_info(tmp_path / "found.gpkg")["features"] > 3
    with viewing(*(tmp_path / name for name in (*best, "map.tif"))) as url:
        about = json.load(urllib.request.urlopen(f"{url}about.json"))
        (west, south), (east, north) = about["bounds"]
        middle = rasterio.warp.transform("EPSG:4326", "EPSG:3857", [(west + east) / 2], [(south + north) / 2])
        world, zoom = 2 * np.pi * 6_378_137, about["finest"]
        column, row = int((middle[0][0] / world + 0.5) * 2**zoom), int((0.5 - middle[1][0] / world) * 2**zoom)
        assert b"<html" in urllib.request.urlopen(url).read()
        for layer in ("scene", "prediction"):
            assert urllib.request.urlopen(f"{url}{layer}/{zoom}/{column}/{row}.png").read().startswith(b"\x89PNG")
