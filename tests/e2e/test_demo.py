"""The main job, whole: what `make demo` does after the installation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.features import rasterize
from rasterio.warp import transform_geom
from rio_cogeo.cogeo import cog_validate

import regard.cli as cli
from regard.checkpoints.file import bundled

BUNDLED = next(iter(bundled().values())).parent


def burnt(path: Path, grid: rasterio.DatasetReader) -> np.ndarray:
    """Polygons of longitude and latitude as rasterio draws them on a grid."""
    shapes = [one["geometry"] for one in json.loads(path.read_text())["features"]]
    return rasterize(transform_geom("EPSG:4326", grid.crs, shapes), grid.shape, transform=grid.transform) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:right angles for:regard.errors.SceneWarning")
def test_the_demo_maps_trains_scores_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--out", str(tmp_path), "--json"])
    output = capsys.readouterr()
    assert stop.value.code == 0, output.err
    facts = json.loads(output.out)

    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(BUNDLED / "banepa" / "ortho.tif") as scene:
        assert (made.crs, made.transform, made.shape) == (scene.crs, scene.transform, scene.shape)
        found, grid = made.read(1) == 1, scene
        drawn, mapped = (burnt(BUNDLED / "banepa" / name, grid) for name in ("buildings.geojson", "mapped.geojson"))
    assert cog_validate(tmp_path / "map.tif", strict=True)[0]
    assert (found & drawn & mapped).sum() > 0.75 * ((found | drawn) & mapped).sum()
    assert (tmp_path / "banepa" / "labels.json").is_file()
    assert facts["losses"]["last"] < 0.9 * facts["losses"]["first"]
    assert facts["scores"]["miou"] > 0.45
    listed = {Path(path) for path in facts["files"].values()}
    made = {path for path in tmp_path.iterdir() if path.is_file() and not path.name.endswith(".aux.xml")}
    assert all(path.is_file() for path in listed)
    assert listed - made == {tmp_path / "run" / "best.safetensors"} and made <= listed
    assert np.asarray(Image.open(tmp_path / "buildings.png")).std() > 10
    assert "http://" not in (tmp_path / "report.html").read_text().replace("http://www.w3.org", "")


def test_bundled_models_say_where_they_come_from_and_are_small() -> None:
    from regard.checkpoints.file import parse_card, read_header

    assert set(bundled()) == {"buildings-s", "dubai-s", "globe-s"}
    for path in bundled().values():
        card = parse_card(path, read_header(path))
        assert path.stat().st_size <= 10e6
        assert card.licence and card.credit and card.origin and card.scores["miou"] > 0.25
