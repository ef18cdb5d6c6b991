"""A trained model's card says what is true of its own data, and nothing of those of the model it began from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
from rasterio.transform import Affine

from regard.card import Card
from regard.checkpoints.adapt import adapt
from regard.checkpoints.file import load, save
from regard.cli import main
from regard.datasets.folder import folder
from regard.datasets.source_text import stated
from regard.datasets.statistics import measured_resolution
from regard.models import Segmenter
from regard.training.train import train
from support import NAMES, save_image, tiny, write_set, write_tif

QUICK: dict[str, Any] = {"steps": 1, "batch": 2, "crop": 32, "workers": 0, "progress": False, "log": ("none",)}
OLD = {"origin": "Dubai", "licence": "CC0", "credit": "Them", "ground_resolution": 0.5, "window": 99, "protocol": "val"}
OWN = ("origin", "licence", "credit")


def old_model() -> Segmenter:
    model = tiny()
    return model.with_card(model.card.model_copy(update={**OLD, "scores": {"miou": 0.9}}))


def card_after(data: Path, out: Path, **settings: Any) -> Card:
    return load(train(old_model(), folder(data), out, **QUICK, **settings).best).card


def test_nothing_is_said_of_the_data_of_the_initial_model(set_folder: Path, tmp_path: Path):
    card = card_after(set_folder, tmp_path / "run")
    assert [getattr(card, name) for name in OWN] == ["", "", ""] and card.ground_resolution is None
    assert card.window == 0 and card.protocol == "val, whole images" and card.scores["miou"] != 0.9
    save(old_model(), tmp_path / "old.safetensors")
    found = adapt(tmp_path / "old.safetensors", classes=old_model().classes, bands=old_model().bands).model.card
    assert {name: getattr(found, name) for name in OLD} == {name: getattr(tiny().card, name) for name in OLD}
    assert found.mean == old_model().card.mean and found.classes == old_model().classes


def test_the_source_text_and_what_is_given_stand_on_the_card(set_folder: Path, tmp_path: Path):
    (set_folder / "SOURCE.txt").write_text("Origin: Banepa\n mosaic\nLicense: CC-BY-4.0\nCredit: OAM\n\nNotes here.\n")
    card = card_after(set_folder, tmp_path / "run", credit="HOT", window=32)
    assert [getattr(card, name) for name in OWN] == ["Banepa mosaic", "CC-BY-4.0", "HOT"]
    assert card.window == 32 and card.protocol == "val, windows of 32 pixels"


def test_the_command_takes_the_source_and_resumes_with_another(set_folder: Path, tmp_path: Path):
    save(old_model(), tmp_path / "old.safetensors")
    words = ["train", str(set_folder), "--init", str(tmp_path / "old.safetensors"), "-o", str(tmp_path / "run")]
    words += ["--steps", "1", "--batch", "2", "--crop", "32", "--workers", "0", "--log", "none", "--no-progress"]
    for licence in ("ODbL", "CC0"):
        with pytest.raises(SystemExit) as end:
            main([*words, "--origin", "Kathmandu", "--licence", licence])
        assert end.value.code == 0
    card = load(tmp_path / "run" / "best.safetensors").card
    assert (card.origin, card.licence, card.credit) == ("Kathmandu", "ODbL", "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A set of tiles,\nmade here.\nLicence: CC0\n", {"origin": "A set of tiles, made here.", "licence": "CC0"}),
        ("licence:\n  ODbL\nCREDIT: a: b\n", {"licence": "ODbL", "credit": "a: b"}),
        ("\ufeffOrigin: x\n", {"origin": "x"}),
        ("", {}),
        ("Imagery: OAM,\n CC-BY\n\nMasks: mine\n", {"origin": "Imagery: OAM, CC-BY Masks: mine"}),
    ],
)
def test_a_source_text_is_read_by_its_names(text: str, found: dict[str, str], tmp_path: Path):
    (tmp_path / "SOURCE.txt").write_text(text, encoding="utf-8")
    assert stated(tmp_path) == found == stated(tmp_path / "data.json")
    (tmp_path / "SOURCE.txt").write_bytes(b"\xff\xfe\x00")
    assert stated(tmp_path) == {} == stated(tmp_path / "no" / "data.json")


def test_the_resolution_is_that_on_the_ground(tmp_path: Path):
    """In Web Mercator at 60° N, a pixel of 1 m on the map is half a metre on the ground; by pyproj's geodesics."""
    write_set(tmp_path / "set")
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(25.0, 60.0)
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 48), dtype=np.uint8)
    for index in range(4):
        (tmp_path / f"set/images/tile{index}.png").unlink()
        side = 1.0 if index < 3 else 8.0
        place = Affine(side, 0, x, 0, -side, y)
        write_tif(tmp_path / f"set/images/tile{index}.tif", image, crs="EPSG:3857", transform=place)
    back = pyproj.Transformer.from_crs(3857, 4326, always_xy=True)
    (west, east), (south, north) = back.transform([x, x + 1], [y - 1, y])
    geod = pyproj.Geod(ellps="WGS84")
    expected = (geod.inv(west, north, east, north)[2] * geod.inv(west, south, west, north)[2]) ** 0.5
    assert measured_resolution(folder(tmp_path / "set")) == pytest.approx(expected, rel=1e-3)  # the middle of four
    assert card_after(tmp_path / "set", tmp_path / "run").ground_resolution == pytest.approx(expected, rel=1e-3)


def test_photographs_with_a_world_file_are_measured_and_others_are_not(tmp_path: Path):
    root = write_set(tmp_path / "set")
    assert measured_resolution(folder(root)) is None
    path = root / "images" / "tile0.png"
    path.with_suffix(".pgw").write_text("2\n0\n0\n-2\n500000\n4500000\n")
    assert measured_resolution(folder(root)) is None  # no CRS
    save_image(path, np.zeros((40, 48, 3)))
    wkt = pyproj.CRS(32633).to_wkt("WKT1_GDAL")
    path.with_name("tile0.png.aux.xml").write_text(f"<PAMDataset><SRS>{wkt}</SRS></PAMDataset>")
    assert measured_resolution(folder(root)) == pytest.approx(2.0, rel=1e-3)


def test_an_older_card_has_no_window(tmp_path: Path):
    facts = json.loads(tiny().card.model_dump_json())
    del facts["window"]
    assert Card.model_validate(facts).window is None and Card.model_validate(facts).classes.names == NAMES
