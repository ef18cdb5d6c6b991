"""What a map would cost (``--dry-run``), and whether it depends on its windows (``--verify``)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from regard.errors import ConfigError
from regard.inference.scores import scores_of
from regard.io.image import Pixels, slices
from regard.io.raster import Box, Raster, open_raster
from regard.io.source import Source
from regard.io.window_reader import padded
from regard.mapping.batch import network
from regard.mapping.blend import axes, memory_needed
from regard.mapping.job import is_scene
from regard.mapping.measures import bytes_needed
from regard.mapping.predict import opened_raster
from regard.mapping.scene_check import check_scene
from regard.mapping.scene_context import WindowContext, in_context, passes_over
from regard.mapping.write import RasterJob
from regard.models import Segmenter
from regard.ops.resize import most_likely
from regard.options import ALIGNMENT, Compute, MapOptions, Views


def one_raster(sources: Sequence[Source]) -> Source:
    """The raster that is planned or verified.

    Raises:
        ConfigError: there are several, or it is a photograph, which is not tiled.
    """
    if len(sources) != 1 or not is_scene(sources[0], None):
        got = f"{len(sources)} sources" if len(sources) != 1 else f"{sources[0].name}, a photograph, which is not tiled"
        raise ConfigError(f"--dry-run and --verify take one raster, which is mapped in windows; got {got}.")
    return sources[0]


def verify_map(
    model: str, source: Source, options: MapOptions, compute: Compute = Compute(), *, boxes: int = 8
) -> dict[str, float | int]:
    """Compute some boxes of a map again, each in one window half as large again around it (at most the scene).

    This measures how far the map depends on where windows lie: ``changed_percent`` of the pixels get another label.
    """
    assert options.outputs.out is not None
    loaded = network(model, compute)
    with (
        opened_raster(loaded, source, options) as (raster, fitted),
        open_raster(options.outputs.out, bands=[1]) as map_,
        in_context(loaded, raster, fitted) as context,
    ):
        larger, middle = (ALIGNMENT * round(part * fitted.windows.tile / ALIGNMENT) for part in (1.5, 0.5))
        rng = np.random.default_rng(0)
        changed = compared = 0
        for _ in range(boxes):
            corner = [ALIGNMENT * rng.integers(max(0, length - middle) // ALIGNMENT + 1) for length in raster.size]
            core = Box(int(corner[0]), int(corner[1]), *(min(middle, length) for length in raster.size))
            again, valid = _labels_again(loaded, raster, core, larger, fitted.views, context)
            stored, _ = map_.read(core)
            changed += int(((again != stored[0]) & valid).sum())
            compared += int(valid.sum())
    return {"windows": boxes, "pixels": compared, "changed_percent": 100 * changed / max(1, compared)}


def _labels_again(
    model: Segmenter, raster: Raster, core: Box, larger: int, views: Views, context: WindowContext
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and valid mask of ``core`` from one window of up to ``larger`` pixels around it."""
    top, height = _around(core.top, core.height, larger, raster.size[0])
    left, width = _around(core.left, core.width, larger, raster.size[1])
    pixels = padded(raster, window := Box(top, left, height, width))
    cut = slices(core._replace(top=core.top - top, left=core.left - left))
    if not pixels.valid.any():
        return np.zeros_like(pixels.valid[cut], np.uint8), pixels.valid[cut]
    context.look_at_box(window, pixels)
    with torch.inference_mode():
        labels = most_likely(scores_of(model, pixels, views)[None])[0].cpu().numpy()
    return labels[cut], pixels.valid[cut]


def _around(begin: int, length: int, larger: int, whole: int) -> tuple[int, int]:
    """Begin and length of the window of up to ``larger`` pixels with these in its middle, as far as edges allow."""
    whole = -(-whole // ALIGNMENT) * ALIGNMENT
    side = min(larger, whole)
    return min(max(0, begin - (side - length) // 2 // ALIGNMENT * ALIGNMENT), whole - side), side


def plan(model: str, source: Source, options: MapOptions, compute: Compute = Compute()) -> dict[str, Any]:
    """What a map takes: windows, memory besides the model, disk, and minutes, by the time of one window.

    A scene that would be refused is refused (see :func:`~regard.mapping.scene_check.check_scene`).
    """
    loaded = network(model, compute)
    with opened_raster(loaded, source, options) as (raster, fitted):
        check_scene(loaded, raster, options.input)
        (height, width), stride = raster.size, loaded.stride
        rows, columns = axes(raster.size, fitted.windows, stride)
        windows = len(rows.begins) * len(columns.begins)
        name = f"{len(raster.fingerprints) - 1} files as one" if source.document is not None else source
        seconds = _seconds_a_window(loaded, rows.window * stride, columns.window * stride, fitted.views)
        seconds *= passes_over(loaded, fitted)  # at most: those before the last one compute a part of the network
        layers = [*RasterJob(loaded, raster, fitted).layers]
        return {
            "source": f"{name} ({width} x {height}, {len(raster.bands)} bands)",
            "windows": windows,
            "tile": fitted.windows.tile,
            "restart_points": len(rows.begins),
            "memory_beside_the_model_mb": round(memory_needed(loaded, raster, fitted) / 1e6),
            "disk_mb": math.ceil(height * width * bytes_needed(layers, len(loaded.classes)) / 1e6),
            "minutes": round(windows * seconds / 60, 2),
        }


def _seconds_a_window(model: Segmenter, height: int, width: int, views: Views) -> float:
    window = Pixels(np.zeros((len(model.bands), height, width), np.uint8), np.ones((height, width), bool))
    scores_of(model, window, views)
    began = time.perf_counter()
    scores_of(model, window, views)
    return time.perf_counter() - began
