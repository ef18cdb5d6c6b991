"""What odd and hostile files did once, each as small as it can be."""

from __future__ import annotations

import json
import sqlite3
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
import torch
from safetensors.torch import save_file

import regard
from regard.checkpoints.file import load, save
from regard.classes import ClassMap
from regard.errors import (
    CheckpointError,
    ClassMismatch,
    ConfigError,
    DatasetError,
    OutputError,
    RegardError,
    UnreadableImage,
)
from regard.files import digest
from regard.io.even_odd import filled
from regard.io.image import image_size
from regard.io.raster import open_raster
from regard.io.vectors import read_shapes
from regard.mapping.journal import Journal
from regard.mapping.sources import listed
from regard.tensor_files import read_tensors
from support import save_image, tiny, write_tif
from tests.fuzz.formats import FORMATS
from tests.fuzz.models import Touch
from tests.fuzz.tables import POLYGONS, _vector
from tests.fuzz.worker import Task


def with_config(path: Path, **config: object) -> Path:
    """A small model's file whose card has other settings; its tensors and their digest are as they were."""
    model = tiny()
    card = model.card.model_dump(mode="json")
    card["config"] |= config
    header = {"regard": json.dumps(card), "sha256": digest(model.state_dict())}
    save_file(model.state_dict(), path, header)
    return path


def test_a_card_cannot_name_a_pickle(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": Touch(str(tmp_path / "ran"))}}, tmp_path / "evil.pth")
    for name in ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        path = with_config(tmp_path / "m.safetensors", backbone_options={name: str(tmp_path / "evil.pth")})
        with pytest.raises(ConfigError, match=f"may not name other files; got {name}"):
            load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"key_width": -1}, "key_width -1 must be from 1"),
        ({"dropout": 2.0}, "dropout 2.0 must be from 0 to 1"),
        ({"backbone_options": {"norm_layer": "eval"}}, "KeyError"),
        ({"backbone": "resnet152"}, "does not fit"),
        ({"backbone": "resnet18", "backbone_options": {"layers": [10**6] * 4}}, "its card describes"),
        ({"width": 60_000}, "weights disagree"),
    ],
)
def test_a_card_that_describes_no_such_network_is_refused(config: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=message):
        load(with_config(tmp_path / "m.safetensors", **config))


@pytest.mark.parametrize("kind", ["expanded", "sparse", "without numbers"])
def test_tensors_that_are_not_in_their_file_are_refused(kind: str, tmp_path: Path) -> None:
    plain = torch.ones(1)
    made = {"expanded": plain.expand(10**6, 10**6), "sparse": plain.to_sparse(), "without numbers": plain.to("meta")}
    torch.save({"a": made[kind]}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="dense tensor"):
        read_tensors(tmp_path / "m.pth")


def test_a_zip_that_unpacks_to_much_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(10**7))
    with pytest.raises(CheckpointError, match="a zip that unpacks to 10 MiB"):
        read_tensors(tmp_path / "m.pth")


def test_names_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    torch.save({1: torch.ones(3)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError):
        read_tensors(tmp_path / "m.pth")


def test_a_message_is_one_line_that_a_terminal_can_show() -> None:
    assert str(RegardError("a\nb\x1b[2J\0\ud800")) == r"a\nb\x1b[2J\x00\ud800"
    assert len(str(RegardError("\x1b" * 10**5))) < 2001


def test_lists_in_lists_without_end_are_no_json(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text("[" * 100_000)
    with pytest.raises(DatasetError, match="not JSON"):
        ClassMap.read(tmp_path / "classes.json")
    (tmp_path / "list.jsonl").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="line 1 is not a scene"):
        listed([tmp_path / "list.jsonl"])


def test_very_many_classes_are_checked_in_no_time() -> None:
    names = [str(index) for index in range(70_000)]
    with pytest.raises(ClassMismatch, match="'0' stands twice"):
        ClassMap.of([*names, "0"])


@pytest.mark.parametrize("name", ["é" * 300 + ".tif", "a\0b.tif", "x" * 100_000])
def test_a_name_that_no_file_can_have_does_not_exist(name: str) -> None:
    for read in (image_size, regard.load, read_tensors_of, read_shapes, regard.folder):
        with pytest.raises(RegardError):
            read(name)


def read_tensors_of(name: str) -> object:
    return read_tensors(Path(name))


def test_the_size_of_a_png_with_damaged_pixels_is_an_error_of_ours(tmp_path: Path) -> None:
    content = save_image(tmp_path / "a.png", [[0] * 9] * 9).read_bytes()
    at = content.index(b"IDAT")
    length = int.from_bytes(content[at - 4 : at], "big")
    data = b"IDAT" + bytes(length)
    spoiled = content[:at] + data + zlib.crc32(data).to_bytes(4, "big") + content[at + 8 + length :]
    (tmp_path / "a.png").write_bytes(spoiled)
    with pytest.raises(UnreadableImage, match="broken"):
        image_size(tmp_path / "a.png")


def test_a_geopackage_with_a_query_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    path.write_bytes(_vector("a.gpkg", "GPKG", "EPSG:32633", POLYGONS))
    assert len(read_shapes(path).shapes) == len(POLYGONS)
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE VIEW much AS SELECT 1 AS fid, zeroblob(900000000) AS geom")
        file.commit()
    with pytest.raises(ConfigError, match="has a query, 'much'"):
        read_shapes(path)


def test_a_file_of_very_many_bands_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 65,535 each question about all bands takes seconds."""
    path = write_tif(tmp_path / "a.tif", np.ones((3, 4, 4), np.uint8))
    with open_raster(path):
        monkeypatch.setattr("regard.io.gdal.MOST_BANDS", 2)
    with pytest.raises(UnreadableImage, match="has 3 bands; 2 are read at most"):
        open_raster(path)


FORGED = [
    {"width": 0}, {"dtype": "O"}, {"width": 10**12}, {"rows": -1}, {"sha256": None}, {"rows": "text", "width": 2**63},
]  # fmt: skip


@pytest.mark.parametrize("change", FORGED)
def test_a_forged_line_of_a_journal_does_not_count(change: dict, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "map.tif", {}) as journal:
        journal.keep([{"labels": np.ones((2, 3), np.uint8)}])
        raise KeyboardInterrupt
    lines = journal.folder / "journal.jsonl"
    line = json.loads(lines.read_text())
    line["labels"] |= change
    lines.write_bytes(json.dumps(line).encode() + b"\n\xff\n")
    with Journal(tmp_path / "map.tif", {}) as again:
        assert again.done == 0


def test_a_saved_model_still_loads(tmp_path: Path) -> None:
    model = tiny()
    loaded = load(save(model, tmp_path / "m.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


def test_to_read_a_geopackage_with_a_log_of_writers_changes_nothing_next_to_it(tmp_path: Path) -> None:
    polygon = shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)]))
    kinds = np.array(["a"], object)
    path = tmp_path / "fields.gpkg"
    pyogrio.raw.write(path, polygon, [kinds], ["kind"], crs="EPSG:32633", geometry_type="Polygon", layer="fields")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA journal_mode = wal").fetchone() == ("wal",)
    before = tmp_path.stat().st_mtime_ns
    assert len(read_shapes(path, ["kind"]).shapes) == 1
    assert tmp_path.stat().st_mtime_ns == before


def test_what_is_written_to_the_log_alone_is_read(tmp_path: Path) -> None:
    polygon = shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)]))
    path = tmp_path / "fields.gpkg"
    pyogrio.raw.write(
        path, polygon, [], [], crs="EPSG:32633", geometry_type="Polygon", layer="fields", SPATIAL_INDEX="NO"
    )
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("DROP TRIGGER IF EXISTS trigger_delete_feature_count_fields")
        database.execute("DELETE FROM fields WHERE fid = 2")
        database.commit()
        assert len(read_shapes(path).shapes) == 1


def test_edges_that_lie_on_each_other_a_thousand_times_take_no_time(tmp_path: Path) -> None:
    corners = [[1e300, 4999800.0], [1e300, 4999820.0], [1e300, 4999880.0], [1e300, 4999980.0]]
    ring = (corners + corners[::-1]) * 1000
    rings = [[*ring, ring[0]], [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]], [[1, 1], [1, 1], [5, 5], [1, 1]]]
    began = time.process_time()
    shapes = filled(np.array([shapely.Polygon(one) for one in rings]))
    assert [round(shape.area) for shape in shapes] == [0, 81, 0]
    assert time.process_time() - began < 2


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
@pytest.mark.parametrize(
    "write",
    [
        lambda model, scene, name: regard.predict(model, scene, out=f"{name}.tif"),
        lambda model, scene, name: regard.predict(model, scene, out=scene.with_name("m.tif"), entropy=f"{name}.tif"),
        lambda model, scene, name: regard.predict(model, [scene, scene], out=name),
        lambda model, scene, name: regard.save(model, f"{name}.safetensors"),
        lambda model, scene, name: regard.save(model, name),
        lambda model, scene, name: regard.export(model, f"{name}.onnx"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(write: Callable[..., object], name: str, tmp_path: Path) -> None:
    save_image(scene := tmp_path / "scene.tif", np.ones((64, 64, 3)))
    with pytest.raises(OutputError, match="null or half character") as caught:
        write(tiny(), scene, name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_such_a_name_in_a_manifest_is_refused(name: str, tmp_path: Path) -> None:
    save_image(tmp_path / "scene.tif", np.ones((64, 64, 3)))
    rows = [{"source": str(tmp_path / "scene.tif"), "target": f"{name}.tif"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(OutputError, match="null or half character"):
        regard.predict(tiny(), [tmp_path / "m.jsonl"], out=tmp_path / "maps")


@pytest.mark.parametrize(
    "change",
    [
        {"block": 10**400},
        {"window": 10**400},
        {"gsd": 1e-320},
        {"gsd": 1e300},
        {"extent": {"bounds": [0, 0, 1e300, 9], "crs": "EPSG:32633"}},
        {"extent": {"bounds": [0, 0, float("nan"), 9], "crs": "EPSG:32633"}},
    ],
)
def test_numbers_that_no_scene_has_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    about = {"images": ["scene.tif"], "labels": "fields.geojson", "column": "kind"}
    (tmp_path / "fields.json").write_text(json.dumps(about | change))
    with pytest.raises(DatasetError, match=r"block|window|gsd|extent"):
        regard.folder(tmp_path / "fields.json")


@pytest.mark.parametrize(
    "options",
    [
        *({"gsd": value} for value in (1e-320, 1e300, float("nan"), -1.0)),
        *({"scales": (value,)} for value in (1e-300, 1e300, float("inf"), float("nan"))),
        {"max_memory": float("nan")},
    ],
)
def test_options_that_no_map_has_are_refused(options: dict[str, object], tmp_path: Path) -> None:
    save_image(scene := tmp_path / "scene.tif", np.ones((64, 64, 3)))
    with pytest.raises(ConfigError):
        regard.predict(tiny(), scene, tmp_path / "map.tif", **options)
    assert not (tmp_path / "map.tif").exists()


def test_a_sieve_larger_than_the_map_is_one_of_all_its_pixels(tmp_path: Path) -> None:
    save_image(scene := tmp_path / "scene.tif", np.random.default_rng(0).integers(1, 255, (64, 64, 3)))
    regard.predict(tiny(), scene, tmp_path / "map.tif")
    shapes = []
    for most in (64 * 64 - 1, 10**12):
        regard.polygons(tmp_path / "map.tif", tmp_path / f"{most}.gpkg", sieve=most)
        shapes.append(read_shapes(tmp_path / f"{most}.gpkg").shapes.tolist())
    assert shapes[0] == shapes[1]


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
def test_a_palette_with_fewer_colours_than_are_used_is_named(tmp_path: Path) -> None:
    png = FORMATS["PNG"]
    (found,) = Task("PNG", png, png.seeds(), 22).files(453).values()
    (tmp_path / "photo.png").write_bytes(found)
    with pytest.raises(UnreadableImage, match="palette"):
        regard.predict(tiny(), tmp_path / "photo.png")
