"""The commands of docs/refine.md run in their order, on a part of the sample of Banepa."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.windows import Window

import regard
import regard.cli as cli
from page_support import commands_of, copy_banepa

SMALLER = {"buildings-s": "small.safetensors", "better.tif": "better.tif --overlap 32 --tile 96"}


def write_edits(path: Path, names: list[str]) -> None:
    """Small polygons of these classes, in turn, all over the image."""
    with rasterio.open("ortho.tif") as image:
        bounds, crs = image.bounds, image.crs.to_wkt()
    x, y = np.meshgrid(*(np.linspace(bounds[i], bounds[i + 2], 8)[1:-1] for i in range(2)))
    shapes = shapely.buffer(shapely.points(x.ravel(), y.ravel()), 0.5)
    classes = np.resize(np.array(names, object), len(shapes))
    pyogrio.raw.write(
        path, shapely.to_wkb(shapes), [classes], ["class"], geometry_type="Polygon", crs=crs, driver="GPKG"
    )


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::regard.errors.SceneWarning")
def test_the_commands_of_the_page_correct_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_banepa(tmp_path, Window(512, 640, 128, 160))
    monkeypatch.chdir(tmp_path)
    write_edits(Path("edits.gpkg"), ["other", "building"])
    write_edits(Path("yards.gpkg"), ["other", "yard"])
    network = {"backbone": "test_resnet", "width": 16, "output_stride": 16}
    regard.save(regard.create("danet_ocr", classes=["other", "building"], **network), "small.safetensors")
    commands = commands_of("docs/refine.md", SMALLER)
    assert [command.arguments[0] for command in commands] == ["refine", "predict", "refine"]
    for command in commands:
        with pytest.raises(SystemExit) as end:
            cli.main(command.arguments)
        assert end.value.code == 0
    assert regard.load("yards.safetensors").classes.names == ("other", "building", "yard")
    with rasterio.open("better.tif") as made:
        assert made.shape == (160, 128)
