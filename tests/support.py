"""Small models, data sets and scenes, made on the fly."""

from __future__ import annotations

import json
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from PIL import Image
from rasterio.transform import Affine
from torch import nn

from regard.checkpoints.create import create
from regard.models import MODELS, Segmenter
from regard.options import Input, MapOptions, Outputs, PolygonRules, Views, Windows

NAMES = ("red thing", "green thing", "blue thing")
COLOURS = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)], dtype=np.uint8)


def tiny(architecture: str = "danet_ocr", **settings: Any) -> Segmenter:
    """A network of real structure that runs in milliseconds, the same at every call; it answers differently by place.

    Its batch norms take their statistics from one batch of noise: fresh ones make every answer nearly constant.
    """
    torch.manual_seed(3)
    defaults = {"backbone": "test_resnet", "classes": NAMES, "width": 16, "output_stride": 16}
    model = create(architecture, **(defaults | settings)).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(2, len(model.bands), 64, 64))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def own_architectures() -> set[str]:
    """The networks of regard itself; a study, imported, adds its own."""
    return {name for name, network in MODELS.items() if network.__module__.startswith("regard.")}


def write_set(root: Path, *, count: int = 6, size: tuple[int, int] = (40, 48), seed: int = 0) -> Path:
    """A folder of ``count`` images of coloured rectangles that a network learns in seconds; the last two are val."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    (root / "classes.json").write_text(json.dumps({"names": NAMES, "palette": COLOURS.tolist()}))
    stems = [f"tile{index}" for index in range(count)]
    for stem in stems:
        labels = np.full(size, rng.integers(3), dtype=np.uint8)
        top, left = rng.integers(4, size[0] // 2), rng.integers(4, size[1] // 2)
        labels[top : top + size[0] // 2, left : left + size[1] // 2] = rng.integers(3)
        noise = rng.integers(-20, 20, size=(*size, 3))
        save_image(root / "images" / f"{stem}.png", (COLOURS[labels] + noise).clip(0, 255))
        labels[:2] = 255
        save_image(root / "masks" / f"{stem}.png", labels)
    (root / "train.txt").write_text("\n".join(stems[:-2]) + "\n")
    (root / "val.txt").write_text("\n".join(stems[-2:]) + "\n")
    return root


def save_image(path: Path, values: Any, **options: Any) -> Path:
    """8-bit values ``(h, w)`` or ``(h, w, c)`` as an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values).astype(np.uint8)).save(path, **options)
    return path


def write_tif(path: Path, values: np.ndarray, **profile: Any) -> Path:
    """A GeoTIFF of ``(c, h, w)`` values, 10 m per pixel in UTM zone 33 north."""
    count, height, width = values.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    defaults = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000), "dtype": values.dtype}
    settings = {"driver": "GTiff", "count": count, "height": height, "width": width} | defaults | profile
    settings = {name: value for name, value in settings.items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **settings) as raster:
            raster.write(values)
    return path


def map_options(out: Path | None = None, *, overwrite: bool = False, **flat: Any) -> MapOptions:
    """`MapOptions` from the flat options of `regard.predict`."""

    def taken(kind: Any) -> Any:
        return kind(**{one.name: flat.pop(one.name) for one in fields(kind) if one.name in flat})

    kinds = (Outputs, Input, Windows, Views, PolygonRules)
    flat["out"] = out
    options = MapOptions(*map(taken, kinds), overwrite)
    assert not flat, flat
    return options
