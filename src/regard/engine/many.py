"""Several sources to maps, with the figures that the command line prints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regard.checkpoints.file import load
from regard.data.image import PHOTOGRAPHS, image_size
from regard.data.raster_writer import check_writable
from regard.engine.memory import keep_freed_memory, peak_memory_mb
from regard.engine.predict import predict
from regard.errors import ConfigError, OutputError


def predict_many(
    model: str,
    sources: Sequence[Path],
    out: Path,
    *,
    confidence: Path | None = None,
    polygons: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Predict each source; the files written, megapixels a second (reading and writing included) and peak memory in MB.

    Raises:
        ConfigError: no source, or a confidence file for several.
        OutputError: ``out`` cannot be written, or is no folder though there are several sources.
    """
    if not sources:
        raise ConfigError("no source is given. Name at least one image: regard predict MODEL IMAGE -o OUT.")
    if (confidence or polygons) and len(sources) > 1:
        raise ConfigError(
            f"--confidence and --polygons name one file, but there are {len(sources)} sources. Predict them one by one."
        )
    targets = [_target(source, out, many=len(sources) > 1) for source in sources]
    sizes = [image_size(source) for source in sources]
    for target in targets:
        check_writable(target)
    network = load(model)
    keep_freed_memory()
    began = time.perf_counter()
    for source, target in zip(sources, targets, strict=True):
        predict(network, source, target, confidence=confidence, polygons=polygons, progress=True, **options)
    seconds = time.perf_counter() - began
    files = [*targets, *(file for file in (confidence, polygons) if file is not None)]
    pixels = sum(height * width for height, width in sizes)
    return {
        "files": [str(file) for file in files],
        "mpx_per_s": pixels / 1e6 / seconds,
        "seconds": seconds,
        "peak_memory_mb": peak_memory_mb(),
    }


def _target(source: Path, out: Path, *, many: bool) -> Path:
    suffix = ".png" if source.suffix.lower() in PHOTOGRAPHS else ".tif"
    if many and out.suffix:
        raise OutputError(f"several sources need a folder as output; got {out}. Name one: -o maps/.")
    return out / f"{source.stem}{suffix}" if many or out.is_dir() else out
