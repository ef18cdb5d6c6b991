"""Files with random bytes changed, cut or repeated: read, or refused with one of our errors; nothing else, ever."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from regard.checkpoints.file import load, save
from regard.classes import ClassMap
from regard.datasets.mask import read_mask
from regard.errors import RegardError
from regard.io.image import image_size, read_image
from regard.io.raster import open_raster
from support import COLOURS, NAMES, save_image, tiny, write_tif

CLASSES = ClassMap(names=NAMES, palette=tuple((int(r), int(g), int(b)) for r, g, b in COLOURS))
EXAMPLES = int(os.environ.get("REGARD_EXAMPLES", "30"))
PICTURE = np.random.default_rng(0).integers(0, 256, size=(20, 30, 3), dtype=np.uint8)


def look(path: Path) -> None:
    read_image(path)
    image_size(path)
    if path.suffix == ".tif":
        with open_raster(path) as raster:
            assert raster.is_georeferenced in (True, False)


def model_file(path: Path) -> Path:
    return save(tiny(width=8), path)


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "photo.jpg": (lambda path: save_image(path, PICTURE), look),
    "photo.png": (lambda path: save_image(path, PICTURE), look),
    "photo.webp": (lambda path: save_image(path, PICTURE), look),
    "photo.bmp": (lambda path: save_image(path, PICTURE), look),
    "plain.tif": (lambda path: write_tif(path, PICTURE.transpose(2, 0, 1)), look),
    "packed.tif": (lambda path: write_tif(path, PICTURE.transpose(2, 0, 1), compress="deflate", tiled=True), look),
    "mask.png": (lambda path: save_image(path, PICTURE[..., 0] % 3), lambda path: read_mask(path, CLASSES)),
    "mask.tif": (lambda path: write_tif(path, PICTURE[None, ..., 0] % 3), lambda path: read_mask(path, CLASSES)),
    "classes.json": (lambda path: path.write_text(json.dumps({"names": NAMES})) and path, ClassMap.read),
    "model.safetensors": (model_file, load),
}


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with a few changed, most in the header; or cut; or with a part repeated."""
    kind, spoiled = rng.integers(4), bytearray(content)
    if kind == 0:
        return content[: rng.integers(len(content))]
    if kind == 1:
        begin = rng.integers(len(content))
        return content[:begin] + content[max(0, begin - 50) :]
    end = len(content) if kind == 2 else min(len(content), 400)
    for place in rng.integers(end, size=rng.integers(1, 9)):
        spoiled[place] = rng.integers(256)
    return bytes(spoiled)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(kind: str, tmp_path: Path):
    write, read = KINDS[kind]
    content = write(tmp_path / kind).read_bytes()
    rng, refused = np.random.default_rng(11), 0
    for _ in range(EXAMPLES // 10 if kind == "model.safetensors" else EXAMPLES):
        (tmp_path / kind).write_bytes(damaged(content, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(tmp_path / kind)
        except RegardError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert refused > 0
