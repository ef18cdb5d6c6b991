"""One scene to be mapped, and how it is run: the unit of work of batches, shards and clusters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from regard.checkpoints.file import load
from regard.errors import OutputBusy, RegardError
from regard.inference.compute import DEFAULT_COMPUTE, Compute
from regard.io.image import image_size, is_photograph
from regard.io.source import Source
from regard.mapping.manifest import Receipt
from regard.mapping.outputs import SIDE_FILES, Outputs
from regard.mapping.photograph import photograph_job
from regard.mapping.predict import predict
from regard.memory import keep_freed_memory, peak_memory_mb
from regard.models import Segmenter

SECONDS_BETWEEN_LOOKS = 0.5  # at whether another run has ended


OF_PHOTOGRAPHS = ("confidence", "bands", "scales", "flip", "d4")  # options that decide their maps


@dataclass(frozen=True)
class Scene:
    """One source to be mapped. To run it twice is the same as once: a map that is done is left alone."""

    model: str
    source: Source
    target: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    compute: Compute = DEFAULT_COMPUTE

    @property
    def files(self) -> list[str]:
        """What it writes."""
        sides = {name: self.options.get(name) for name in SIDE_FILES}
        return [str(path) for path in Outputs.of(self.target, **sides).files]


def predict_scene(scene: Scene) -> Receipt:
    """Map one source; what is wrong with it stands in the receipt.

    Where another run is at it, its end is waited for: Dask may give a scene to a second worker meanwhile.
    """
    try:
        while True:
            with suppress(OutputBusy):
                return run_scene(scene)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    except RegardError as error:
        return failed(scene, f"{type(error).__name__}: {error}")


def failed(scene: Scene, reason: str) -> Receipt:
    """The receipt of a scene that has no map, with why."""
    return Receipt(str(scene.source), str(scene.target), [], 0, 0.0, peak_memory_mb(), reason)


def run_scene(scene: Scene, *, progress: bool = False) -> Receipt:
    """Map one source, and raise what is wrong with it."""
    height, width = image_size(scene.source, vrt=bool(scene.options.get("vrt")))
    model = network(scene.model, scene.compute)
    began = time.perf_counter()
    if not _is_done_photograph(model, scene):
        predict(model, scene.source, scene.target, progress=progress, **scene.options)
    seconds = time.perf_counter() - began
    return Receipt(str(scene.source), str(scene.target), scene.files, height * width, seconds, peak_memory_mb())


def _is_done_photograph(model: Segmenter, scene: Scene) -> bool:
    if scene.options.get("overwrite", True) or not is_photograph(scene.source):
        return False
    options = {name: value for name, value in scene.options.items() if name in OF_PHOTOGRAPHS}
    return photograph_job(model, scene.source, scene.target, **options).is_done()


@cache
def network(name: str, compute: Compute = DEFAULT_COMPUTE) -> Segmenter:
    """The model, loaded once in each process."""
    keep_freed_memory()
    return load(name, **asdict(compute))
