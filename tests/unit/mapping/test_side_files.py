"""Files from a finished map: the same bytes as with the map, without the network; names; and what is refused."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from PIL import Image

import regard
from regard.classes import ClassMap
from regard.errors import ConfigError, MissingExtra, OutputError, UnreadableImage
from regard.io.cog_writer import RasterWriter, label_layer, write_style
from regard.io.polygons import PolygonList, write_polygons
from regard.mapping import blend
from regard.mapping.journal import Journal
from regard.mapping.predict import predict
from regard.mapping.side_files import item, missing_sides, style, write_preview, write_sides
from regard.models import Segmenter
from regard.options import Outputs, PolygonRules
from support import tiny, write_tif

SMALL = {"tile": 64, "overlap": 32, "progress": False}
SIDES = {"polygons": "map.gpkg", "areas": "areas.csv", "stac": "map.json", "preview": "map.png"}
METRES = rasterio.Affine(1, 0, 500_000, 0, -1, 5_000_000)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(8).integers(1, 256, size=(3, 130, 90), dtype=np.uint8)
    values[:, 50:60, :50] = 0
    return write_tif(tmp_path / "scene.tif", values, nodata=0)


def sides(folder: Path) -> dict[str, Path]:
    return {name: folder / file for name, file in SIDES.items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def a_map(path: Path, labels: np.ndarray, names: tuple[str, ...] = ("land", "building", "road")) -> Path:
    layer = label_layer(ClassMap.of(names), {})
    with RasterWriter(path, layer, labels.shape, crs="EPSG:32633", transform=METRES) as writer:
        writer.write(0, labels.astype(np.uint8))
    return path


def polygons_of(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    about, _, shapes, values = pyogrio.raw.read(path)
    return dict(zip(about["fields"], values, strict=True)), shapely.from_wkb(shapes)


def test_added_later_they_have_the_same_bytes_without_the_network(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, later, alone = (tmp_path / name for name in ("whole", "later", "alone"))
    for folder, files in ((whole, sides(whole)), (later, {})):
        predict(tiny_model, scene, folder / "map.tif", confidence=folder / "sure.tif", **files, **SMALL)
    expected = contents(whole)
    alone.mkdir()
    for name in ("map.tif", "sure.tif", "map.tif.aux.xml"):
        (alone / name).write_bytes(expected[name])
    monkeypatch.setattr(blend, "grid_scores", None)
    predict(tiny_model, scene, later / "map.tif", confidence=later / "sure.tif", **sides(later), **SMALL)
    assert contents(later) == expected
    again = {path.name: path.stat().st_mtime_ns for path in later.iterdir()}
    predict(tiny_model, scene, later / "map.tif", confidence=later / "sure.tif", **sides(later), **SMALL)
    assert {path.name: path.stat().st_mtime_ns for path in later.iterdir()} == again
    files, sure = sides(alone), alone / "sure.tif"
    regard.polygons(alone / "map.tif", files["polygons"], confidence=sure, areas=files["areas"])
    write_preview(alone / "map.tif", files["preview"])
    style(alone / "map.tif")
    item(Outputs(alone / "map.tif", sure, None, **files))
    assert contents(alone) == expected


def test_what_cannot_be_derived_is_said(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "map.tif"
    predict(tiny_model, scene, out, **SMALL)
    made = out.read_bytes()
    with pytest.raises(OutputError, match=r"map\.tif is complete, but confidence cannot be derived .*--overwrite"):
        predict(tiny_model, scene, out, confidence=tmp_path / "sure.tif", **SMALL)
    predict(tiny_model, scene, out, polygons=tmp_path / "map.fgb", **(SMALL | {"progress": True}))
    assert "has no column confidence" in capsys.readouterr().err
    assert "confidence" not in pyogrio.read_info(tmp_path / "map.fgb")["fields"]
    with pytest.raises(OutputError, match=r"map\.fgb already exists"):
        predict(tiny_model, scene, out, polygons=tmp_path / "map.fgb", sieve=5, **SMALL)
    (tmp_path / "sure.tif").write_bytes(b"another file")
    with pytest.raises(OutputError, match="already exists"):
        predict(tiny_model, scene, out, confidence=tmp_path / "sure.tif", **SMALL)
    assert out.read_bytes() == made


def test_a_stopped_run_is_resumed_with_fewer_rasters_and_not_with_more(
    scene: Path, tiny_model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, look, windows = Journal.keep, blend.grid_scores, []

    def stop(journal: Journal, layers: dict) -> None:
        if journal.done == 3:
            raise KeyboardInterrupt
        keep(journal, layers)

    whole = predict(tiny_model, scene, tmp_path / "whole.tif", **SMALL).read_bytes()
    monkeypatch.setattr(blend, "grid_scores", lambda *a: (windows.append(len(a[1])), look(*a))[1])
    counts = {}
    for name, first in (("fewer", True), ("more", False)):
        out = tmp_path / f"{name}.tif"
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Journal, "keep", stop)
            predict(tiny_model, scene, out, confidence=tmp_path / f"{name}_c.tif" if first else None, **SMALL)
        windows.clear()
        predict(tiny_model, scene, out, confidence=None if first else tmp_path / f"{name}_c.tif", **SMALL)
        counts[name] = sum(windows)
        assert out.read_bytes() == whole
    assert 0 < counts["fewer"] < counts["more"]


def test_neither_torch_nor_matplotlib_is_loaded(tmp_path: Path) -> None:
    a_map(tmp_path / "map.tif", np.random.default_rng(0).integers(0, 3, (40, 30)))
    lines = (
        "import sys, regard",
        "regard.polygons('map.tif', 'map.gpkg', areas='areas.csv', only=['building'])",
        "print(regard.areas('map.tif')[1].name, sorted({'torch', 'matplotlib'} & set(sys.modules)))",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "building []"


def test_only_some_classes_counted_and_with_their_holes_closed(tmp_path: Path) -> None:
    labels = np.zeros((60, 60))
    labels[5:25, 5:25], labels[10:13, 10:13], labels[16:22, 16:22] = 1, 2, 0  # holes of 9 and 36 m², a road in one
    labels[40:50, 40:50], labels[44:46, 44:46], labels[45, 45] = 1, 0, 1  # a hole of 3 m² and what touches it
    labels[30:38, 5:13], labels[32:36, 7:11], labels[33:35, 8:10] = 1, 0, 1  # a building in a court
    path, target = a_map(tmp_path / "map.tif", labels), tmp_path / "map.gpkg"

    def written(**rules: object) -> tuple[dict[str, np.ndarray], np.ndarray]:
        regard.polygons(path, target, areas=tmp_path / "areas.csv", overwrite=True, **rules)  # type: ignore[arg-type]
        return polygons_of(target)

    columns, shapes = written(only=["building"])
    assert set(columns["name"]) == {"building"} and len(shapes) == 4
    with (tmp_path / "areas.csv").open() as file:
        assert [row["polygons"] for row in csv.DictReader(file)] == ["", "4", ""]
    _, closed = written(only=["building"], minimum_hole=20.0)
    assert sorted(shapely.area(closed)) == [4, 48, 100, 364], "the court keeps its building, the large hole stays"
    _, closed = written(only=["building", "road"], minimum_hole=20.0)
    assert sorted(shapely.area(closed)) == [4, 9, 48, 100, 355], "the hole keeps its road"
    assert shapely.union_all(closed).area == shapely.area(closed).sum()
    columns, closed = written(only=["building"], minimum_hole=1000.0, minimum_area=50.0)
    assert sorted(shapely.area(closed)) == [64, 100, 400]
    assert columns["area_m2"] == pytest.approx(shapely.area(closed) / 0.9996**2, rel=1e-5)
    with pytest.raises(ConfigError, match="Name the classes to write with only"):
        written(minimum_hole=5.0)


@pytest.mark.parametrize(
    "stem", ["-dash", "x;y", "a!b'", "zip:x", "gpkg [ü]?", "a\nb", "x" * 200, "x" * 250, "ü" * 125]
)
def test_names_of_every_kind_are_written_or_refused_before_the_work(
    stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, windows, look, folder = tiny(), [], blend.grid_scores, tmp_path / "folder"
    scene = write_tif(tmp_path / "scene.tif", np.random.default_rng(8).integers(1, 256, (3, 40, 40), dtype=np.uint8))
    monkeypatch.setattr(blend, "grid_scores", lambda *a: (windows.append(1), look(*a))[1])
    folder.mkdir()
    monkeypatch.chdir(folder)
    names = {"out": "m.tif", "polygons": ".gpkg", "areas": ".csv", "stac": ".json", "preview": ".png"}
    files = {name: Path(f"{stem}{end}") for name, end in names.items()} | {"confidence": Path(f"{stem}_c.tif")}
    if len(stem.encode()) > 240:
        with pytest.raises(OutputError, match="Choose a shorter name"):
            predict(model, scene, **files, **SMALL)
        assert not windows and not list(folder.iterdir())
        return
    predict(model, scene, **files, **SMALL)
    expected = {path.name for path in files.values()} | {f"{stem}m.tif.aux.xml", f"{stem}m.qml"}
    assert {path.name for path in folder.iterdir()} == expected
    windows.clear()
    predict(model, scene, **files, **SMALL)  # is complete
    os.replace(files["polygons"], "plain.gpkg")
    assert not windows and pyogrio.read_info("plain.gpkg", force_feature_count=True)["features"] > 0


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson"])
def test_reserved_names_of_layers_alone(tmp_path: Path, suffix: str) -> None:
    path = a_map(tmp_path / "map.tif", np.random.default_rng(0).integers(0, 3, (9, 9)))
    stems = [
        "-dash",
        "x;y",
        "a b",
        "ü",
        'a"b',
        "a?b",
        "a!b",
        "a*b",
        "[a]",
        "a:b",
        "gpkg_contents",
        "sqlite_x",
        "rtree_a",
    ]
    for stem in (*stems, "a%b", "a|b", ".hidden", "~", "'", "a\nb", "x" * 200):
        write_polygons(path, tmp_path / f"{stem}{suffix}")
        plain = tmp_path / f"plain{suffix}"
        os.replace(tmp_path / f"{stem}{suffix}", plain)
        assert pyogrio.list_layers(plain)[0][0]
    assert {path.name for path in tmp_path.iterdir()} == {"map.tif", "map.tif.aux.xml", f"plain{suffix}"}


def test_side_files_older_than_the_map_or_of_other_columns_are_missing(tmp_path: Path) -> None:
    path, table, picture = a_map(tmp_path / "map.tif", np.zeros((9, 9))), tmp_path / "a.csv", tmp_path / "a.png"
    outputs = Outputs(path, areas=table, preview=picture)
    assert missing_sides(outputs, PolygonRules()) == [table, picture]
    write_sides(outputs)
    assert missing_sides(outputs, PolygonRules()) == []
    made = path.stat().st_mtime_ns
    os.utime(picture, ns=(made, made))
    assert missing_sides(outputs, PolygonRules()) == []
    os.utime(picture, ns=(made - 1, made - 1))
    assert missing_sides(outputs, PolygonRules()) == [picture]
    with_polygons = Outputs(path, areas=table, polygons=tmp_path / "p.gpkg")
    write_polygons(path, tmp_path / "p.gpkg")
    assert missing_sides(with_polygons, PolygonRules()) == [table], "it has no column of polygons"
    assert missing_sides(with_polygons, PolygonRules(sieve=3)) == [tmp_path / "p.gpkg", table], "by other rules"


def test_the_preview_has_the_colours_of_the_map(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 2, (40, 30))
    labels[:9, :7] = 255
    path = a_map(tmp_path / "map.tif", labels, ("Background", "building"))
    with Image.open(write_preview(path, tmp_path / "map.png")) as picture:
        shown = np.array(picture)
    colours = ClassMap.of(["Background", "building"]).palette
    assert shown.shape == (40, 30, 4) and np.array_equal(shown[..., 3] > 0, labels == 1)
    assert (shown[labels == 1] == (*colours[1], 255)).all()
    large = a_map(tmp_path / "large.tif", np.ones((60, 2100)), ("a", "b"))
    with Image.open(write_preview(large, tmp_path / "large.png")) as picture:
        assert picture.size == (1024, 29)


@pytest.mark.parametrize(
    "names, opacities",
    [
        (("background", "building"), ["0", "255"]),
        (("building", "not building"), ["255", "0"]),
        (("land", "water"), ["255", "255"]),
        (("background", "building", "road"), ["255"] * 3),
    ],
)
def test_the_background_of_two_classes_is_transparent(
    tmp_path: Path, names: tuple[str, ...], opacities: list[str]
) -> None:
    text = write_style(tmp_path / "map.tif", ClassMap.of(names)).read_text()
    assert [part.split('"')[0] for part in text.split(' alpha="')[1:]] == opacities


def test_what_is_no_finished_map_is_refused(scene: Path, tmp_path: Path) -> None:
    path = a_map(tmp_path / "map.tif", np.zeros((5, 5)))
    with pytest.raises(regard.RegardError, match="no tag regard_classes"):
        regard.areas(write_tif(tmp_path / "grey.tif", np.zeros((1, 5, 5), np.uint8)))
    with pytest.raises(regard.RegardError, match="which model made it"):
        item(Outputs(path, stac=tmp_path / "map.json"))
    with pytest.raises(UnreadableImage, match=r"sure\.tif does not exist"):
        item(Outputs(path, tmp_path / "sure.tif", stac=tmp_path / "map.json"))
    with pytest.raises(OutputError, match="is the input itself"):
        regard.areas(path, path)
    (tmp_path / "areas.csv").touch()
    with pytest.raises(OutputError, match=r"areas\.csv already exists\. Choose"):
        regard.areas(path, tmp_path / "areas.csv")
    with pytest.raises(OutputError, match=r"a preview is a \.png"):
        write_sides(Outputs(path, preview=tmp_path / "map.jpg"))
    assert len(regard.areas(path, tmp_path / "areas.csv", overwrite=True)) == 3
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "map.json").exists()


def test_polygons_in_memory_know_their_crs(scene: Path, tiny_model: Segmenter) -> None:
    found = predict(tiny_model, scene, **SMALL).to_polygons()  # type: ignore[union-attr]
    assert isinstance(found, PolygonList) and found.crs.to_epsg() == 32633
    collection = json.loads(json.dumps(found.__geo_interface__))
    assert collection["type"] == "FeatureCollection" and len(collection["features"]) == len(found) > 0
    try:
        import geopandas
    except ImportError:
        with pytest.raises(MissingExtra, match="pip install geopandas"):
            found.to_geopandas()
        return
    frame = found.to_geopandas()
    assert isinstance(frame, geopandas.GeoDataFrame) and frame.crs.to_epsg() == 32633 and len(frame) == len(found)


def test_the_command_writes_what_the_function_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from regard.cli import main

    path = a_map(tmp_path / "map.tif", np.random.default_rng(0).integers(0, 3, (40, 30)))
    regard.polygons(path, tmp_path / "a.gpkg", sieve=4, only=["road", "building"])
    arguments = ["polygons", str(path), "-o", str(tmp_path / "a2" / "a.gpkg"), "--sieve", "4"]
    for command in ([*arguments, "--only", "road", "building"], ["areas", str(path)]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 0
    assert (tmp_path / "a2" / "a.gpkg").read_bytes() == (tmp_path / "a.gpkg").read_bytes()
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "class,name,pixels,area_m2,hectares,share" and len(printed) == 5
    assert PolygonRules().written == ()
