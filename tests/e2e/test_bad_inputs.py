"""The commonest bad inputs: each is refused by name, in one line that says what we got, need and what to do."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import Affine
from safetensors.torch import save_file

import regard.cli as cli
from regard.checkpoints.create import create
from regard.checkpoints.file import load, save
from regard.checkpoints.foreign.convert import convert
from regard.datasets.folder import folder
from regard.errors import (
    BandMismatch,
    CheckpointError,
    ClassMismatch,
    ConfigError,
    DatasetError,
    OutputError,
    RegardError,
    SizeMismatch,
    StrideUnavailable,
    UnknownName,
    UnreadableImage,
)
from regard.evaluation.evaluate import evaluate
from regard.mapping.batch import predict_many
from regard.mapping.predict import predict
from regard.models import Segmenter
from regard.training.train import train
from support import COLOURS, NAMES, map_options, save_image, tiny, write_set, write_tif

PICTURE = np.random.default_rng(0).integers(0, 256, size=(40, 48, 3), dtype=np.uint8)
TRAINING: dict[str, Any] = {"steps": 2, "batch": 2, "crop": 32, "workers": 0, "progress": False}


class World:
    """A folder with good files; each case spoils one."""

    def __init__(self, root: Path, model: Segmenter, saved: Path) -> None:
        self.root, self.model, self.saved = root, model, saved

    @property
    def data(self) -> Path:
        """A good data folder, written when first asked for."""
        return self.root / "set" if (self.root / "set").is_dir() else write_set(self.root / "set")

    def put(self, name: str, content: bytes | str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def tif(
        self, name: str = "scene.tif", bands: int = 3, top: int = 200, dtype: str = "uint8", **profile: Any
    ) -> Path:
        values = np.random.default_rng(1).integers(0, top, size=(bands, 600, 600)).astype(dtype)
        return write_tif(self.root / name, values, **profile)

    def wide(self, width: int) -> Path:
        """Four rows of so many pixels, of which none is stored."""
        profile = {"width": width, "height": 4, "count": 3, "dtype": "uint8", "tiled": True, "sparse_ok": True}
        blocks = {"blockxsize": 8192, "blockysize": 16, "crs": "EPSG:32633", "transform": Affine(2, 0, 0, 0, -2, 0)}
        rasterio.open(self.root / "wide.tif", "w", driver="GTiff", bigtiff="yes", **profile, **blocks).close()
        return self.root / "wide.tif"

    def cut(self, path: Path, share: float) -> Path:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        return path

    def damaged(self, path: Path) -> Path:
        content = path.read_bytes()
        path.write_bytes(content[:200_000] + bytes(5000) + content[205_000:])
        return path

    def predict(self, source: Path, **settings: Any) -> object:
        return predict(self.model, source, **settings)

    def train(self, **settings: Any) -> object:
        return train(self.model, folder(self.data), self.root / "run", **(TRAINING | settings))

    def classes(self, text: str) -> object:
        (self.data / "classes.json").write_text(text)
        return folder(self.data)

    def listed(self, name: str, text: str) -> object:
        (self.data / name).write_text(text)
        return folder(self.data)

    def mask(self, values: Any) -> object:
        save_image(self.data / "masks" / "tile4.png", values)
        return evaluate(self.model, folder(self.data))

    def flipped(self) -> Path:
        """The model with one bit of one weight changed."""
        content = bytearray(self.saved.read_bytes())
        content[-100] ^= 1
        return self.put("flipped.safetensors", bytes(content))

    def foreign(self) -> Path:
        save_file({"conv.weight": torch.zeros(3, 3)}, self.root / "foreign.safetensors")
        return self.root / "foreign.safetensors"

    def without(self, part: str) -> Path:
        target = self.data / part
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        return self.data


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("exit 1",)


def huge_header() -> bytes:
    """A TIFF of 150 bytes that claims 2^30 x 64 pixels in one strip."""
    width, rows = 2**30, 64
    tags = [(256, 4, width), (257, 4, rows), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, rows), (279, 4, 100)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


VRT = (
    '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
    '<SourceFilename relativetoVRT="0">/etc/passwd</SourceFilename></VRTRasterBand></VRTDataset>'
)


class Case(NamedTuple):
    """What is done, the error it raises, and the names and numbers that its message must hold."""

    act: Callable[[World], object]
    error: type[RegardError]
    parts: tuple[str, ...]


def size_mismatch(world: World) -> object:
    return world.mask(np.zeros((40, 47)))


IMAGES = {
    "missing photograph": Case(lambda w: w.predict(w.root / "no.jpg"), UnreadableImage, ("no.jpg does not exist",)),
    "missing raster": Case(lambda w: w.predict(w.root / "no.tif"), UnreadableImage, ("no.tif does not exist",)),
    "folder for an image": Case(lambda w: w.predict(w.root), UnreadableImage, ("is a folder", "Give the path")),
    "truncated TIFF": Case(
        lambda w: w.predict(w.cut(w.tif(compress="deflate"), 0.5)), UnreadableImage, ("scene.tif", "Read error at scan")
    ),
    "GIF": Case(
        lambda w: w.predict(save_image(w.root / "a.gif", PICTURE)), UnreadableImage, ("a.gif is no", "save it as PNG")
    ),
    "model for an image": Case(
        lambda w: w.predict(w.saved), UnreadableImage, ("good.safetensors is no", "the model comes first")
    ),
    "black and white PNG": Case(
        lambda w: Image.fromarray(PICTURE[..., 0] > 99).save(w.root / "a.png") or w.predict(w.root / "a.png"),
        BandMismatch,
        ("a.png is black and white, one band of 1 bit", "3 (red, green, blue) of 8"),
    ),
    "black and white TIFF": Case(lambda w: w.predict(w.tif(top=2, nbits=1)), BandMismatch, ("scene.tif has 1 bit a",)),
    "grey TIFF": Case(
        lambda w: w.predict(w.tif(bands=1)),
        BandMismatch,
        ("scene.tif has 1 band", "gdal_translate -b 1 -b 1 -b 1 scene.tif"),
    ),
    "damaged TIFF block": Case(
        lambda w: w.predict(w.damaged(w.tif(compress="deflate"))), UnreadableImage, ("cannot be read", "Fetch")
    ),
    "truncated JPEG": Case(
        lambda w: w.predict(w.cut(save_image(w.root / "a.jpg", PICTURE), 0.5)), UnreadableImage, ("a.jpg", "truncated")
    ),
    "text named .png": Case(lambda w: w.predict(w.put("a.png", "hello")), UnreadableImage, ("a.png", "no image")),
    "text named .tif": Case(lambda w: w.predict(w.put("a.tif", "hello")), UnreadableImage, ("a.tif is no GeoTIFF",)),
    "empty photograph": Case(lambda w: w.predict(w.put("a.jpg", b"")), UnreadableImage, ("a.jpg",)),
    "empty raster": Case(lambda w: w.predict(w.put("a.tif", b"")), UnreadableImage, ("a.tif is empty", "Fetch")),
    "floats from 0 to 1 for a model of bytes": Case(
        lambda w: w.predict(write_tif(w.root / "f.tif", np.random.default_rng(1).random((3, 64, 64), np.float32))),
        BandMismatch,
        ("mostly fractions of 1", "0 to 255", "-scale 0 1 0 255"),
    ),
    "metres per pixel below 0": Case(
        lambda w: w.predict(w.tif(), gsd=-1.0), ConfigError, ("gsd -1 must be", "above 0")
    ),
    "VRT named .tif reads any file": Case(
        lambda w: w.predict(w.put("a.tif", VRT)), UnreadableImage, ("no GeoTIFF", "--vrt")
    ),
    "header of 64 GiB": Case(lambda w: w.predict(w.put("a.tif", huge_header())), UnreadableImage, ("64 GiB", "TILED")),
    "2^30 pixels wide, in blocks": Case(
        lambda w: w.predict(w.wide(2**30), out=w.root / "map.tif"),
        ConfigError,
        (
            "wide.tif, 1073741824 pixels wide, takes about",
            "2,000 are allowed",
            "gdal_translate -srcwin",
            "--max-memory",
        ),
    ),
    "complex numbers": Case(
        lambda w: w.predict(w.tif(dtype="complex64")), UnreadableImage, ("complex numbers (complex64)", "Convert")
    ),
    "too many bands": Case(
        lambda w: w.predict(w.tif(bands=5)),
        BandMismatch,
        ("scene.tif has 5 bands", "trained on 3 (red, green, blue)", "--bands 1,2,3"),
    ),
    "too few bands": Case(
        lambda w: w.predict(w.tif(bands=2)), BandMismatch, ("scene.tif has 2 bands", "3 (red, green, blue)")
    ),
    "photograph to a model of 4 bands": Case(
        lambda w: predict(
            tiny(in_channels=4, bands=("red", "green", "blue", "nir")), save_image(w.root / "a.jpg", PICTURE)
        ),
        BandMismatch,
        ("a.jpg is a photograph of 3 bands", "4 (red, green, blue, nir)"),
    ),
    "unknown band name": Case(
        lambda w: w.predict(w.tif(), bands=("red", "nir", "blue")),
        BandMismatch,
        ("no band 'nir'", "1 red, 2 green, 3 blue"),
    ),
    "16-bit image for an 8-bit model": Case(
        lambda w: w.predict(w.tif(top=4000, dtype="uint16")),
        BandMismatch,
        ("values from 0 to 3999", "8-bit", "Scale it"),
    ),
    "band number 0": Case(
        lambda w: w.predict(w.tif(), bands=(0, 1, 2)), BandMismatch, ("no band '0'", "1 red, 2 green, 3 blue")
    ),
}

LABELS = {
    "mask value without a class": Case(
        lambda w: w.mask(np.full((40, 48), 7)),
        ClassMismatch,
        ("tile4.png holds label 7 (1920 pixels)", "3 classes allow 0 to 2 and 255"),
    ),
    "masks of 0 and 255": Case(
        lambda w: [save_image(m, PICTURE[..., 0] % 2 * 255) for m in (w.data / "masks").iterdir()] and w.train(),
        ClassMismatch,
        ("only class 0 'red thing' and 255", "255 rewritten as 1"),
    ),
    "colour without a class": Case(
        lambda w: w.mask(np.full((40, 48, 3), 77)), ClassMismatch, ("colour (77, 77, 77)", "'palette' in classes.json")
    ),
    "mask of another size": Case(
        size_mismatch, SizeMismatch, ("tile4.png is 48 x 40 pixels, its mask tile4.png 47 x 40", "Export both")
    ),
    "mask that is no image": Case(
        lambda w: (w.data / "masks" / "tile4.png").write_text("x") and evaluate(w.model, folder(w.data)),
        UnreadableImage,
        ("tile4.png is broken or no image",),
    ),
    "classes of another model": Case(
        lambda w: evaluate(tiny(classes=("a", "b")), folder(w.data)),
        ClassMismatch,
        ("has 3 classes (red thing, green thing, blue thing); the model has 2 (a, b)",),
    ),
    "classes in another order": Case(
        lambda w: evaluate(w.model, folder(w.data, classes=(NAMES[1], NAMES[0], NAMES[2]))),
        ClassMismatch,
        ("'green thing' as class 0; the model has 'red thing'",),
    ),
    "split without labels": Case(
        lambda w: (
            [save_image(m, np.full((40, 48), 255)) for m in (w.data / "masks").iterdir()]
            and evaluate(w.model, folder(w.data))
        ),
        DatasetError,
        ("the split val has no labelled pixel",),
    ),
}

FOLDERS = {
    "no folder": Case(lambda w: folder(w.root / "nowhere"), DatasetError, ("nowhere is not a folder",)),
    "no images": Case(lambda w: folder(w.without("images")), DatasetError, ("has no images/",)),
    "no masks folder": Case(lambda w: folder(w.without("masks")), DatasetError, ("masks/ is missing",)),
    "no list": Case(
        lambda w: w.without("val.txt") and folder(w.without("train.txt")),
        DatasetError,
        ("there is no train.txt", "one per line"),
    ),
    "image without a mask": Case(
        lambda w: folder(w.without("masks/tile1.png")),
        DatasetError,
        ("image tile1.png (train) has no mask", "Add tile1.png"),
    ),
    "list names a missing image": Case(
        lambda w: w.listed("val.txt", "tile4\ntile99\n"),
        DatasetError,
        ("the split val lists tile99", "Correct the list"),
    ),
    "two images of one stem": Case(
        lambda w: save_image(w.data / "images" / "tile0.jpg", PICTURE) and folder(w.data),
        DatasetError,
        ("tile0.jpg and tile0.png", "Keep one"),
    ),
    "empty list": Case(lambda w: w.listed("val.txt", " \n"), DatasetError, ("val.txt is empty",)),
    "stem listed twice": Case(lambda w: w.listed("val.txt", "tile4\ntile4\n"), DatasetError, ("lists tile4 2 times",)),
    "image in train and val": Case(
        lambda w: w.listed("val.txt", "tile4\ntile0\n"), DatasetError, ("tile0 is in train and val", "inflated")
    ),
    "list that is no text": Case(
        lambda w: (w.data / "val.txt").write_bytes(b"\xff\xfe\x00") and folder(w.data),
        DatasetError,
        ("val.txt is not a list",),
    ),
    "no classes.json": Case(lambda w: folder(w.without("classes.json")), DatasetError, ("classes.json is missing",)),
    "classes.json is no JSON": Case(lambda w: w.classes("{names: }"), DatasetError, ("is not JSON", "list 'names'")),
    "classes.json without names": Case(lambda w: w.classes('{"labels": []}'), DatasetError, ("has no list 'names'",)),
    "class named twice": Case(
        lambda w: w.classes('{"names": ["road", "sea", "road"]}'),
        DatasetError,
        ("'road' stands twice", "Correct the file"),
    ),
    "one class": Case(lambda w: w.classes('{"names": ["road"]}'), DatasetError, ("got 1 class name; need at least 2",)),
    "palette too short": Case(
        lambda w: w.classes(json.dumps({"names": NAMES, "palette": COLOURS[:2].tolist()})),
        DatasetError,
        ("3 class names but 2 colours",),
    ),
    "colour above 255": Case(
        lambda w: w.classes('{"names": ["a", "b"], "palette": [[0, 0, 0], [0, 0, 300]]}'),
        DatasetError,
        ("(0, 0, 300)",),
    ),
    "ignore index is a class": Case(
        lambda w: w.classes('{"names": ["a", "b"], "ignore_index": 0}'), DatasetError, ("ignore_index 0", "'a'")
    ),
    "unknown split": Case(
        lambda w: evaluate(w.model, folder(w.data), split="valid"),
        UnknownName,
        ("no split 'valid'", "Did you mean 'val'"),
    ),
    "scene without mask": Case(
        lambda w: w.put("s/classes.json", '{"names": ["a", "b"]}') and w.tif("s/image.tif") and folder(w.root / "s"),
        DatasetError,
        ("mask.tif is missing",),
    ),
}

MODELS = {
    "unknown architecture": Case(
        lambda w: create("danet_orc", classes=NAMES), UnknownName, ("'danet_orc'", "Did you mean 'danet_ocr'")
    ),
    "unknown backbone": Case(
        lambda w: create("danet", classes=NAMES, backbone="resnet51"),
        UnknownName,
        ("no backbone 'resnet51'", "resnet50"),
    ),
    "unknown model": Case(lambda w: load("dubay-s"), UnknownName, ("no model 'dubay-s'",)),
    "missing model file": Case(lambda w: load(w.root / "no.safetensors"), CheckpointError, ("no.safetensors", "exist")),
    "HRNet with an output stride": Case(
        lambda w: create("ocrnet", classes=NAMES, backbone="hrnet_w18", output_stride=8),
        StrideUnavailable,
        ("hrnet_w18", "keeps stride 4", "output_stride=8", "output_stride=None"),
    ),
    "output stride 7": Case(lambda w: tiny(output_stride=7), StrideUnavailable, ("output_stride=7", "8, 16 and 32")),
    "one class for a model": Case(lambda w: create("danet", classes=["a"]), ClassMismatch, ("got 1 class name",)),
    "more bands than channels": Case(
        lambda w: create("danet", classes=NAMES, in_channels=4, bands=("a", "b")),
        BandMismatch,
        ("2 band names", "in_channels=4"),
    ),
    "unknown model setting": Case(lambda w: tiny(wide=3), ConfigError, ("danet_ocr", "wide", "Settings: backbone")),
    "impossible model setting": Case(lambda w: tiny(width="big"), ConfigError, ("width", "Settings")),
    "unknown training setting": Case(lambda w: w.train(lr=0.1), ConfigError, ("no setting 'lr'", "learning_rate")),
    "impossible training setting": Case(lambda w: w.train(batch=0), ConfigError, ("batch", "got 0")),
    "truncated safetensors": Case(
        lambda w: load(w.cut(Path(shutil.copy(w.saved, w.root / "m.safetensors")), 0.7)),
        CheckpointError,
        ("m.safetensors",),
    ),
    "flipped bit in a weight": Case(lambda w: load(w.flipped()), CheckpointError, ("flipped.safetensors", "SHA-256")),
    "safetensors without a card": Case(
        lambda w: load(w.foreign()), CheckpointError, ("foreign.safetensors has no card", "regard convert")
    ),
    "text named .safetensors": Case(
        lambda w: load(w.put("t.safetensors", "hello")), CheckpointError, ("t.safetensors is not a model of regard",)
    ),
    "checkpoint that runs code": Case(
        lambda w: convert(w.put("evil.pth", pickle.dumps({"w": Code()}, 2)), w.root / "x.safetensors"),
        CheckpointError,
        ("evil.pth", "would run code", "refused"),
    ),
    "checkpoint of no known family": Case(
        lambda w: convert(w.foreign(), w.root / "x.safetensors"), CheckpointError, ("no family", "conv.weight")
    ),
    "backbone weights of another network": Case(
        lambda w: tiny(pretrained=w.foreign()), CheckpointError, ("foreign.safetensors does not fit", "test_resnet")
    ),
    "model saved as .pth": Case(lambda w: save(w.model, w.root / "m.pth"), ConfigError, ("got m.pth", "m.safetensors")),
}

OUTPUTS = {
    "model into a file's inside": Case(
        lambda w: save(w.model, w.put("file", "x") / "m.safetensors"), OutputError, ("cannot write", "Choose a folder")
    ),
    "map into a file's inside": Case(
        lambda w: w.predict(w.tif(), out=w.put("file", "x") / "map.tif"), OutputError, ("cannot write to", "Choose")
    ),
    "map into a file as folder": Case(
        lambda w: predict_many(str(w.saved), [w.tif(), w.tif("b.tif")], map_options(w.put("maps", "x"))),
        OutputError,
        ("maps (it is a file, not a folder)",),
    ),
    "areas onto a folder": Case(
        lambda w: w.predict(w.tif(), out=w.root / "map.tif", areas=w.data), OutputError, ("set is a folder. Give the",)
    ),
    "map onto a folder": Case(
        lambda w: (w.root / "map.tif").mkdir() or w.predict(w.tif(), out=w.root / "map.tif"),
        OutputError,
        ("is a folder",),
    ),
    "run into a file's inside": Case(
        lambda w: train(w.model, folder(w.data), w.put("file", "x") / "run", **TRAINING),
        OutputError,
        ("cannot write to",),
    ),
    "labels as .jpg": Case(
        lambda w: w.predict(save_image(w.root / "a.png", PICTURE), out=w.root / "map.jpg"),
        ConfigError,
        (".png or .tif", "map.jpg"),
    ),
    "tile of no multiple": Case(lambda w: w.predict(w.tif(), tile=1000), ConfigError, ("tile 1000", "multiples of")),
    "overlap above half a tile": Case(
        lambda w: w.predict(w.tif(), tile=512, overlap=384), ConfigError, ("overlap 384", "at most 256")
    ),
    "scale 0": Case(lambda w: w.predict(w.tif(), scales=(0.0,)), ConfigError, ("scales",)),
}

CASES = {**IMAGES, **LABELS, **FOLDERS, **MODELS, **OUTPUTS}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Segmenter, Path]:
    model = tiny()
    return model, save(model, tmp_path_factory.mktemp("model") / "good.safetensors")


@pytest.fixture
def world(tmp_path: Path, saved: tuple[Segmenter, Path]) -> World:
    return World(tmp_path, *saved)


@pytest.mark.parametrize("name", CASES)
def test_is_refused_in_one_line(name: str, world: World):
    case = CASES[name]
    with pytest.raises(RegardError) as caught:
        case.act(world)
    text = str(caught.value)
    assert type(caught.value) is case.error, text
    assert "\n" not in text and len(text) < 600 and text.endswith((".", "none.", ")")), text
    assert all(part in text for part in case.parts), text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no library's error is shown


def test_photographs_of_a_series_are_read(world: World):
    """MPO, as telephones and stereo cameras write it, is a JPEG with more of them behind."""
    first = Image.fromarray(PICTURE)
    first.save(world.root / "a.jpg", format="MPO", save_all=True, append_images=[first])
    assert world.predict(world.root / "a.jpg").labels.shape == (40, 48)  # type: ignore[attr-defined]


def test_there_are_enough_cases():
    assert len(CASES) >= 40


def test_nothing_is_left_where_a_result_was_refused(world: World):
    with pytest.raises(UnreadableImage):
        world.predict(world.cut(world.tif(compress="deflate"), 0.5), out=world.root / "out" / "map.tif")
    assert not (world.root / "out").exists() or not list((world.root / "out").iterdir())


COMMANDS = {
    "missing image": ("predict", "MODEL", "no.tif", "-o", "map.tif"),
    "text as image": ("predict", "MODEL", "text.png", "-o", "map.png"),
    "no data": ("evaluate", "MODEL", "nowhere"),
    "foreign checkpoint": ("convert", "text.png", "out.safetensors"),
}


WRONG_USAGE = {
    "unknown model": ("explain", "dubay-s", "text.png", "--at", "1,1", "-o", "map.png"),
    "unknown split": ("evaluate", "MODEL", "set", "--split", "tset"),
    "tile of no multiple": ("predict", "MODEL", "set/images/tile0.png", "-o", "map.png", "--tile", "1000"),
    "image where the model belongs": ("predict", "text.png", "MODEL", "-o", "map.png"),
}


@pytest.mark.parametrize("name", [*COMMANDS, *WRONG_USAGE])
def test_the_command_says_it_in_one_line_and_by_its_code(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(world.root)
    world.put("text.png", "hello")
    assert world.data.is_dir()
    with pytest.raises(SystemExit) as stop:
        cli.main([str(world.saved) if word == "MODEL" else word for word in (COMMANDS | WRONG_USAGE)[name]])
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == (2 if name in WRONG_USAGE else 1)
    assert len(lines) == 1 and "Traceback" not in lines[0], lines
