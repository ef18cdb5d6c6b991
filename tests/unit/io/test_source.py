"""Files inside archives, behind a server, and VRTs: read like the file itself, and told apart when they change."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil

from regard.checkpoints.file import save
from regard.errors import OutputError, ScenesFailed, UnreadableImage
from regard.io.image import image_size
from regard.io.raster import Box, open_raster
from regard.io.source import Source
from regard.mapping.batch import predict_many
from regard.mapping.predict import predict
from regard.models import Segmenter
from support import map_options, write_tif

VALUES = np.random.default_rng(5).integers(0, 256, size=(3, 70, 90), dtype=np.uint8)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_tif(tmp_path / "scene.tif", VALUES, compress="deflate")


@pytest.fixture
def archive(tmp_path: Path, scene: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(scene, "in/scene.tif")
    return tmp_path / "a.zip"


@pytest.fixture
def server(scene: Path) -> Iterator[str]:
    """The address of a server of the scene's folder. A process of its own: GDAL waits for it and lets no thread run."""
    command = [sys.executable, Path(__file__).with_name("range_server.py"), scene.parent]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("plain/scene.tif", "plain/scene.tif"),
        ("https://host/a/b.tif?x=1", "/vsicurl/https://host/a/b.tif?x=1"),
        ("/vsicurl/https://host/b.tif", "/vsicurl/https://host/b.tif"),
        ("s3://bucket/key/b.tif", "/vsis3/bucket/key/b.tif"),
        ("zip+https://host/a.zip!in/b.tif", "/vsizip/vsicurl/https://host/a.zip/in/b.tif"),
        ("zip://nowhere/a.zip!/b.tif", "/vsizip/nowhere/a.zip/b.tif"),
    ],
)
def test_names_are_those_of_gdal(typed: str, meant: str):
    assert Source.of(typed).gdal_name == meant == Source.of(Path(typed)).gdal_name
    assert str(Source.of(typed)) == typed == str(Source.of(Source.of(typed)))


def test_unknown_kinds_of_addresses_are_refused():
    with pytest.raises(UnreadableImage, match="gopher is not read"):
        Source.of("gopher://host/b.tif").gdal_name  # noqa: B018


@pytest.mark.parametrize(
    ("typed", "name", "suffix", "virtual"),
    [
        ("plain/scene.TIF", "scene.TIF", ".tif", False),
        ("https://host/a/b.tif?x=1/2", "b.tif", ".tif", True),
        ("zip://a.zip!b.tif", "b.tif", ".tif", True),
        ("/vsizip/a.zip/in/b.tif", "b.tif", ".tif", True),
        ("C:/scenes/b.tif", "b.tif", ".tif", False),
    ],
)
def test_sources_know_their_name_and_whether_they_are_virtual(typed: str, name: str, suffix: str, virtual: bool):
    source = Source.of(typed)
    assert (source.name, source.stem, source.suffix, source.is_virtual) == (name, name[: -len(suffix)], suffix, virtual)
    assert source.local == (None if virtual else Path(typed))


@pytest.mark.parametrize(
    "typed", ["{server}//no/other.tif?key=a", "/vsicurl/{server}/none.tif", "zip+{server}/a.zip!/b.tif"]
)
def test_messages_show_the_address_as_it_was_written(typed: str, server: str, tiny_model: Segmenter, tmp_path: Path):
    address = typed.format(server=server)
    for read in (open_raster, image_size, lambda address: predict(tiny_model, address, tmp_path / "map.tif")):
        with pytest.raises(UnreadableImage) as raised:
            read(address)
        assert str(raised.value).startswith(f"{address}: the header cannot be read")
    with pytest.raises(ScenesFailed) as failed:
        model, options = str(save(tiny_model, tmp_path / "tiny.safetensors")), map_options(tmp_path / "maps")
        predict_many(model, [address, f"{server}/x.tif"], options)
    assert f" {address}: UnreadableImage: {address}: the header" in str(failed.value)


@pytest.mark.parametrize("form", ["/vsizip/{0}/in/scene.tif", "zip://{0}!in/scene.tif", "zip://{0}!/in/scene.tif"])
@pytest.mark.parametrize("absolute", [True, False])
def test_members_of_archives_are_read(archive: Path, form: str, absolute: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(archive.parent)
    path = form.format(archive if absolute else archive.name)
    assert image_size(path) == (70, 90)
    with open_raster(path) as raster:
        np.testing.assert_array_equal(raster.read(Box(0, 0, 70, 90))[0], VALUES)
        assert raster.fingerprints[0][1:] == (archive.stat().st_size, archive.stat().st_mtime_ns)


def test_packed_files_and_files_behind_a_server_are_read(scene: Path, server: str):
    packed = scene.with_suffix(".tif.gz")
    packed.write_bytes(gzip.compress(scene.read_bytes()))
    addresses = [f"/vsigzip/{packed}", f"gzip://{packed}", f"/vsicurl/{server}/scene.tif", f"{server}/scene.tif"]
    for path in addresses:
        with open_raster(path) as raster:
            np.testing.assert_array_equal(raster.read(Box(0, 0, 70, 90))[0], VALUES)
            assert raster.fingerprints[0][1] in (packed.stat().st_size, str(scene.stat().st_size))
            assert str(raster.fingerprints[0][2]) == str((scene if "http" in path else packed).stat().st_mtime_ns)
    with pytest.raises(UnreadableImage, match="404"):
        open_raster(f"{server}/other.tif")
    with pytest.raises(UnreadableImage, match=r"no.zip/none.tif: the header cannot be read"):
        open_raster(f"/vsizip/{scene.parent}/no.zip/none.tif")


@pytest.mark.parametrize("kind", ["zip", "http"])
def test_a_map_of_a_distant_file_is_done_until_that_changes(
    kind: str, archive: Path, server: str, scene: Path, tiny_model: Segmenter, tmp_path: Path
):
    source, held = (f"zip://{archive}!in/scene.tif", archive) if kind == "zip" else (f"{server}/scene.tif", scene)
    expected = predict(tiny_model, scene, tmp_path / "plain.tif").read_bytes()  # type: ignore[union-attr]
    made = tmp_path / "map.tif"
    predict(tiny_model, source, made)
    with open_raster(tmp_path / "plain.tif") as plain, open_raster(made) as far:
        np.testing.assert_array_equal(far.read(Box(0, 0, 70, 90))[0], plain.read(Box(0, 0, 70, 90))[0])
    assert len(expected) > 1000
    before = made.stat().st_mtime_ns
    predict(tiny_model, source, made, overwrite=False)
    assert made.stat().st_mtime_ns == before
    later = before + 5_000_000_000
    os.utime(held, ns=(later, later))
    with pytest.raises(OutputError, match="already exists"):
        predict(tiny_model, source, made, overwrite=False)


def test_a_vrt_is_read_when_allowed_and_its_parts_must_be_there(scene: Path, tiny_model: Segmenter, tmp_path: Path):
    vrt = tmp_path / "scene.vrt"
    rasterio.shutil.copy(scene, vrt, driver="VRT")
    with pytest.raises(UnreadableImage, match=r"It is a VRT, .* use --vrt"):
        predict(tiny_model, vrt)
    with open_raster(vrt, vrt=True) as raster:
        np.testing.assert_array_equal(raster.read(Box(0, 0, 70, 90))[0], VALUES)
        assert [Path(name).name for name, _, _ in raster.fingerprints] == ["scene.vrt", "scene.tif"]
    with pytest.raises(OutputError, match=r"scene.tif is the input itself"):
        predict(tiny_model, vrt, scene, vrt=True)
    scene.write_bytes(scene.read_bytes()[:6000])
    with pytest.raises(UnreadableImage, match=r"scene.vrt: a part of .* cannot be read \(scene.tif, band 1"):
        predict(tiny_model, vrt, vrt=True)
    scene.unlink()
    with pytest.raises(UnreadableImage, match=r"scene.vrt is made of .*scene.tif, which does not exist"):
        predict(tiny_model, vrt, vrt=True)
