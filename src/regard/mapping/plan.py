"""Whether a map depends on its windows, and what making it would cost."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regard.errors import ConfigError
from regard.inference.compute import DEFAULT_COMPUTE, Compute
from regard.inference.views import class_scores, scaling_of
from regard.io.image import is_photograph
from regard.io.raster import Box, Raster, open_raster
from regard.io.source import Source
from regard.io.window_reader import padded
from regard.mapping.blend import ALIGNMENT, Tiling, count_windows, memory_beside, plan_axis, window_rows
from regard.mapping.outputs import Outputs
from regard.mapping.predict import opened
from regard.mapping.task import network
from regard.mapping.write import BYTES_A_PIXEL
from regard.models import Segmenter
from regard.ops.normalise import prepare
from regard.ops.resize import most_likely


def one_raster(sources: Sequence[Source]) -> Source:
    """The raster to look at before or after it is mapped.

    Raises:
        ConfigError: there are several, or it is a photograph, which is looked at whole.
    """
    if len(sources) != 1 or is_photograph(sources[0]):
        what = f"{len(sources)} sources" if len(sources) != 1 else f"{sources[0].name}, a photograph, seen in one piece"
        raise ConfigError(f"--dry-run and --verify look at one raster that is mapped in windows; got {what}.")
    return sources[0]


def verify_map(
    model: str,
    source: str | Path | Source,
    labels: Path,
    *,
    compute: Compute = DEFAULT_COMPUTE,
    windows: int = 8,
    seed: int = 0,
    **view: Any,
) -> dict[str, float | int]:
    """Compute some places again, each in one window half as large again around it (at most the scene), and compare.

    This tells how far the map is a matter of where windows fell: ``changed_percent`` of the pixels get another label.
    """
    loaded = network(model, compute)
    with opened(loaded, source, **view) as (raster, tiling), open_raster(labels, bands=[1]) as made:
        larger, middle = (ALIGNMENT * round(part * tiling.tile / ALIGNMENT) for part in (1.5, 0.5))
        rng = np.random.default_rng(seed)
        changed = compared = 0
        for _ in range(windows):
            places = [ALIGNMENT * rng.integers(max(0, length - middle) // ALIGNMENT + 1) for length in raster.size]
            core = Box(int(places[0]), int(places[1]), *(min(middle, length) for length in raster.size))
            again, valid = _labels_again(loaded, raster, core, larger, tiling)
            stored, _ = made.read(core)
            changed += int(((again != stored[0]) & valid).sum())
            compared += int(valid.sum())
    return {"windows": windows, "pixels": compared, "changed_percent": 100 * changed / max(1, compared)}


def _labels_again(
    model: Segmenter, raster: Raster, core: Box, larger: int, tiling: Tiling
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of ``core`` from one window of up to ``larger`` pixels around it."""
    top, height = _around(core.top, core.height, larger, raster.size[0])
    left, width = _around(core.left, core.width, larger, raster.size[1])
    pixels, valid = padded(raster, Box(top, left, height, width))
    image = prepare(pixels, valid, scaling_of(model))[None].to(next(model.parameters()).device)
    with torch.inference_mode():
        found = most_likely(class_scores(model, image, **tiling.views))[0].cpu().numpy()
    part = np.s_[core.top - top : core.top - top + core.height, core.left - left : core.left - left + core.width]
    return found[part], valid[part]


def _around(begin: int, length: int, larger: int, whole: int) -> tuple[int, int]:
    """Begin and length of the window of up to ``larger`` pixels with these in its middle, as far as edges allow."""
    whole = -(-whole // ALIGNMENT) * ALIGNMENT
    side = min(larger, whole)
    return min(max(0, begin - (side - length) // 2 // ALIGNMENT * ALIGNMENT), whole - side), side


def plan(
    model: str, source: str | Path | Source, outputs: Outputs, *, compute: Compute = DEFAULT_COMPUTE, **view: Any
) -> dict[str, Any]:
    """What a map takes: windows, memory beside the model, disk, and minutes, by the time of one window."""
    loaded = network(model, compute)
    with opened(loaded, source, **view) as (raster, tiling):
        height, width = raster.size
        windows = count_windows(raster.size, tiling, loaded.stride)
        rows, columns = (plan_axis(length, tiling, loaded.stride) for length in raster.size)
        window = rows.window * loaded.stride, columns.window * loaded.stride
        name = f"{len(raster.stamps) - 1} files as one" if Source.of(source).document is not None else source
        seconds = _seconds_a_window(loaded, *window, tiling)
        return {
            "source": f"{name} ({width} x {height}, {len(raster.bands)} bands)",
            "windows": windows,
            "restart_points": window_rows(raster.size, tiling, loaded.stride),
            "memory_beside_the_model_mb": round(memory_beside(loaded, raster, tiling) / 1e6),
            "disk_mb": math.ceil(height * width * sum(BYTES_A_PIXEL[name] for name in outputs.layers) / 1e6),
            "minutes": round(windows * seconds / 60, 2),
        }


def _seconds_a_window(model: Segmenter, height: int, width: int, tiling: Tiling) -> float:
    image = torch.zeros(1, len(model.bands), height, width, device=next(model.parameters()).device)
    class_scores(model, image, **tiling.views)
    began = time.perf_counter()
    class_scores(model, image, **tiling.views)
    return time.perf_counter() - began
