"""The commands of the step-by-step pages run in their order, on a small part of their data and with a small network."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.windows import Window

import regard.cli as cli
from page_support import ROOT, Shown, commands_of, copy_banepa, interrupt_at
from regard.web.viewer import Viewer
from support import write_tif
from web_support import client_of

BUILDINGS, LANDCOVER = "docs/buildings.md", "docs/landcover.md"
SMALL = {
    "--init buildings-s": "--backbone test_resnet --config.width 16 --workers 0 --warmup 2",
    "--steps 120": "--steps 6",
    "--evaluate-every 40": "--evaluate-every 3",
    "--crop 256": "--crop 64",
    "--steps 300": "--steps 8",
}


WORLD = 2 * math.pi * 6_378_137.0  # metres around the equator of web mercator


def visit(viewer: Viewer, **_: Any) -> str:
    """In place of a server that waits for Ctrl-C: its page, and each layer where the middle of the scene is."""
    client, zoom = client_of(viewer), 20
    with rasterio.open(viewer.sources.scene) as scene:
        left, bottom, right, top = scene.bounds
    column = int(((left + right) / 2 / WORLD + 0.5) * 2**zoom)
    row = int((0.5 - (bottom + top) / 2 / WORLD) * 2**zoom)
    answers = [client.get(f"/{layer}/{zoom}/{column}/{row}.png") for layer in ("scene", "prediction", "confidence")]
    assert "text/html" in client.get("/").headers["content-type"]
    assert [answer.headers["content-type"] for answer in answers] == 3 * ["image/png"]
    return "http://127.0.0.1/"


def run(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command; where the page shows ``^C`` it is interrupted after its second step."""
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as end:
        if shown.is_interrupted:
            interrupt_at(patched, step=2)
        cli.main(shown.arguments)
    return int(end.value.code or 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # in rasterio
@pytest.mark.filterwarnings("ignore:right angles for:regard.errors.SceneWarning")  # its network is untrained
def test_the_commands_about_buildings_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_banepa(tmp_path, Window(512, 640, 320, 320))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("regard.web.serve.serve", visit)
    commands = commands_of(BUILDINGS, SMALL)
    for shown in commands:
        code, expected = run(shown, monkeypatch), 130 if shown.is_interrupted else 0
        assert code == expected, (shown.arguments, capsys.readouterr().err)
    assert [shown.is_interrupted for shown in commands].count(True) == 1


def write_fields(folder: Path) -> None:
    """Six bands in stripes of three covers, and two rows of polygons in them."""
    covers = np.tile(np.arange(96) // 32, (96, 1))
    noise = np.random.default_rng(0).integers(0, 60, size=(6, 96, 96))
    write_tif(folder / "landsat.tif", (noise + 150 * (np.arange(6)[:, None, None] // 2 == covers)).astype(np.uint8))
    corners = [(left, top) for left in range(0, 96, 16) for top in (4, 36, 68)]
    shapes = [
        shapely.box(500_030 + 10 * x, 5_000_000 - 10 * y - 200, 500_130 + 10 * x, 5_000_000 - 10 * y)
        for x, y in corners
    ]
    names = np.array([("forest", "water", "rock")[x // 32] for x, _ in corners], dtype=object)
    where = {"crs": "EPSG:32633", "geometry_type": "Polygon", "driver": "GPKG"}
    pyogrio.raw.write(folder / "fields.gpkg", shapely.to_wkb(np.array(shapes)), [names], ["label"], **where)
    described = re.search(r"```json\n(.*?)```", (ROOT / LANDCOVER).read_text(), flags=re.DOTALL)
    assert described is not None
    (folder / "fields.json").write_text(described[1])


def test_the_commands_about_land_cover_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fields(tmp_path)
    monkeypatch.chdir(tmp_path)
    small = {
        "--init globe-s": "--backbone test_resnet --config.width 16 --config.output-stride 16 --workers 0 --warmup 2",
        "--steps 80": "--steps 4",
        "--evaluate-every 20": "--evaluate-every 2",
        "--crop 96": "--crop 48",
    }
    for shown in commands_of(LANDCOVER, small):
        assert run(shown, monkeypatch) == 0, (shown.arguments, capsys.readouterr().err)
