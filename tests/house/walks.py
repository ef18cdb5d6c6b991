"""Walks through the source: which files and functions of regard one image passes on its way to labels.

    python tests/house/walks.py            every walk, file by file with its functions, in order
    python tests/house/walks.py scene      one of them
    python tests/house/walks.py --page     renew the tables of docs/architecture.md

A walk is traced on tiny inputs, with a model that is already loaded; imports are not counted.
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
import torch
from PIL import Image

import regard

SOURCE = Path(regard.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
FUNCTION = 1  # CO_OPTIMIZED: code of functions has it, code of modules and classes has not
NETWORKS = {"danet": "test_resnet", "ocrnet": "test_resnet", "danet_ocr": "test_resnet"}

Walk = dict[str, list[str]]  # file -> its functions, both in the order in which they are entered


def forward(architecture: str, _: Path) -> Walk:
    """One forward pass of a network: pixel values to logits."""
    model = network(architecture, NETWORKS[architecture])
    pixels = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        model(pixels)
        with traced() as walk:
            model(pixels)
    return walk


def photograph(folder: Path) -> Walk:
    """``predict`` of a photograph: a file to a `Segmentation`."""
    for name in ("first.png", "second.png"):
        Image.fromarray(values().transpose(1, 2, 0)).save(folder / name)
    model = network("danet_ocr", "test_resnet")
    regard.predict(model, folder / "first.png")  # imports what is imported late
    with traced() as walk:
        regard.predict(model, folder / "second.png")
    return walk


def scene(folder: Path) -> Walk:
    """``predict`` of a raster to a map: one GeoTIFF to another."""
    for name in ("first.tif", "second.tif"):
        write_scene(folder / name)
    model = network("danet_ocr", "test_resnet")
    regard.predict(model, folder / "first.tif", folder / "first_map.tif")
    with traced() as walk:
        regard.predict(model, folder / "second.tif", folder / "second_map.tif")
    return walk


WALKS: dict[str, Callable[[Path], Walk]] = {
    **{name: (lambda folder, name=name: forward(name, folder)) for name in NETWORKS},
    "photograph": photograph,
    "scene": scene,
}


@contextmanager
def traced() -> Iterator[Walk]:
    """Fill a walk with what is entered meanwhile, in every thread that starts meanwhile."""
    walk: Walk = {}

    def note(frame: types.FrameType, event: str, _: object) -> None:
        code, file = frame.f_code, Path(frame.f_code.co_filename)
        if event != "call" or not code.co_flags & FUNCTION or file.suffix != ".py" or SOURCE not in file.parents:
            return
        functions = walk.setdefault(file.relative_to(SOURCE).as_posix(), [])
        if "<" not in code.co_name and code.co_qualname not in functions:
            functions.append(code.co_qualname)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield walk
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def network(architecture: str, backbone: str) -> regard.Segmenter:
    """A network of real structure that runs in milliseconds."""
    return regard.create(architecture, backbone=backbone, classes=["a", "b", "c"], width=16).eval()


def values() -> np.ndarray:
    """Pixel values ``(3, 70, 90)``."""
    return np.random.default_rng(5).integers(0, 256, size=(3, 70, 90), dtype=np.uint8)


def write_scene(path: Path) -> None:
    """A small georeferenced RGB raster."""
    grid = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    with rasterio.open(path, "w", driver="GTiff", count=3, height=70, width=90, dtype="uint8", **grid) as raster:
        raster.write(values())


def take(name: str) -> Walk:
    """One walk, by name."""
    with tempfile.TemporaryDirectory() as folder:
        return WALKS[name](Path(folder))


def table(walk: Walk) -> str:
    """A walk as Markdown: each file with the first line of its docstring and its functions, in order of entry."""
    rows = ["| file | what it is | functions, in order |", "| --- | --- | --- |"]
    for file, functions in walk.items():
        text = ast.get_docstring(ast.parse((SOURCE / file).read_text())) or ""
        title = text.splitlines()[0].split(". ")[0].rstrip(".")
        rows.append(f"| `{file}` | {title} | {', '.join(f'`{name}`' for name in functions)} |")
    return "\n".join(rows)


def write_page() -> None:
    """Put the tables between the page's markers, ``<!-- walk NAME -->`` and ``<!-- end -->``."""
    text = PAGE.read_text()
    for name in re.findall("<!-- walk (.*?) -->", text):
        begin, end = f"<!-- walk {name} -->\n", "<!-- end -->"
        head, rest = text.split(begin)
        text = head + begin + table(take(name)) + "\n" + end + rest.split(end, 1)[1]
    PAGE.write_text(text)


def main() -> None:
    """Print the walks that are asked for, or all."""
    if sys.argv[1:] == ["--page"]:
        write_page()
        return
    for name in sys.argv[1:] or WALKS:
        walk = take(name)
        print(f"\n{name}: {len(walk)} files, {sum(map(len, walk.values()))} functions")
        for file, functions in walk.items():
            print(f"  {file:34} {', '.join(functions)}")


if __name__ == "__main__":
    main()
