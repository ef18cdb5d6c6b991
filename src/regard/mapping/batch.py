"""One or many sources to maps, in this process, in several, or on a cluster."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from regard.errors import ConfigError, OutputError, ScenesFailed
from regard.files import check_writable
from regard.inference.compute import DEFAULT_COMPUTE, Compute
from regard.io.image import is_photograph
from regard.io.source import Source
from regard.mapping.manifest import Receipt, is_list, listed, write_receipts
from regard.mapping.outputs import SIDE_FILES
from regard.mapping.task import Scene, predict_scene, run_scene
from regard.memory import peak_memory_mb

MAPS = (".tif", ".tiff", ".png")
MOST_NAMED = 5  # failed scenes in a message


def predict_many(
    model: str,
    sources: Sequence[str | Path | Source],
    out: Path,
    *,
    workers: int = 1,
    shard: str | None = None,
    cluster: str | None = None,
    compute: Compute = DEFAULT_COMPUTE,
    **options: Any,
) -> dict[str, Any]:
    """Predict each source; the files written, megapixels a second (with reading and writing, and with loading the model
    where there are many) and peak memory in MB.

    ``sources`` may be patterns (``tiles/*.tif``) and manifests (see :func:`~.manifest.listed`). ``workers`` processes
    share them; ``cluster`` gives them to Dask's scheduler at that address (``local``: one on this machine); ``shard``
    ``i/n`` takes every n-th source from the i-th on, counted from 1, for array jobs. Of many sources, those that fail
    are named at the end, the others are done, and ``out/receipts.jsonl`` tells of each.

    Raises:
        ConfigError: no source, no worker, an impossible shard, or a side file for several sources.
        OutputError: ``out`` cannot be written, or is no folder though there are several sources.
        ScenesFailed: some of several sources could not be predicted. Of a single source, its own error.
    """
    if workers < 1:
        raise ConfigError(f"got {workers} workers; need one at least.")
    named = [name for name in SIDE_FILES if options.get(name) is not None]
    found = listed(sources)
    several = len(found) > 1
    if named and several:
        raise ConfigError(f"--{named[0]} names one file, but there are {len(found)} sources. Predict them one by one.")
    many = several or (any(map(is_list, sources)) and out.suffix.lower() not in MAPS)
    scenes = [
        Scene(model, source, target or _target(source, out, many=many), options, compute)
        for source, target in found.items()
    ]
    _check_apart(scenes)
    for scene in scenes:
        check_writable(scene.target)
    chosen = scenes if shard is None else scenes[_share(shard)]
    began = time.perf_counter()
    if not many:
        receipts = [run_scene(scene, progress=True) for scene in chosen]
        return _summary(receipts, sum((receipt.seconds for receipt in receipts), 0.0))
    receipts, told = [], out / f"receipts{_suffix(shard)}.jsonl"
    check_writable(told)
    try:
        receipts.extend(_run(chosen, workers, cluster))
    finally:
        write_receipts(told, receipts)
    return {**_summary(receipts, time.perf_counter() - began, told), "receipts": str(told)}


def _check_apart(scenes: Sequence[Scene]) -> None:
    made_of: dict[Path, Source] = {}
    for scene in scenes:
        other = made_of.setdefault(scene.target.resolve(), scene.source)
        if other != scene.source:
            raise OutputError(
                f"{other} and {scene.source} would both become {scene.target}. Predict them into two folders, or name "
                "another target in the manifest."
            )


def _share(shard: str) -> slice:
    first, _, count = shard.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise ConfigError(f"got shard {shard!r}; need i/n with i from 1 to n, such as 3/8.")
    return slice(int(first) - 1, None, int(count))


def _suffix(shard: str | None) -> str:
    return "" if shard is None else f"-{shard.replace('/', '-of-')}"


def _run(scenes: Sequence[Scene], workers: int, cluster: str | None) -> Iterator[Receipt]:
    if cluster is not None:
        from regard.mapping.cluster import run_on_cluster

        yield from run_on_cluster(scenes, cluster, workers)
    elif workers > 1:
        threads = max(1, (os.cpu_count() or 1) // workers)
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(workers, context, partial(_set_threads, threads)) as pool:
                yield from pool.map(predict_scene, scenes)
        except BrokenProcessPool:
            raise ScenesFailed(
                "a worker process was killed, perhaps for want of memory; the maps that were finished are there. Run "
                f"the same again, with fewer --workers than {workers}."
            ) from None
    else:
        yield from map(predict_scene, scenes)


def _set_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def _summary(receipts: Sequence[Receipt], seconds: float, told: Path | None = None) -> dict[str, Any]:
    lost = [receipt for receipt in receipts if receipt.failed]
    if lost:
        listed = " ".join(f"{receipt.source}: {receipt.failed}" for receipt in lost[:MOST_NAMED])
        more = f" And {len(lost) - MOST_NAMED} more, see {told}." if len(lost) > MOST_NAMED else ""
        raise ScenesFailed(
            f"{len(lost)} of {len(receipts)} sources failed, the others are done; the same command tries these "
            f"again. {listed}{more}"
        )
    return {
        "files": [file for receipt in receipts for file in receipt.files],
        "mpx_per_s": sum(receipt.pixels for receipt in receipts) / 1e6 / max(seconds, 1e-9),
        "seconds": seconds,
        "peak_memory_mb": max((receipt.peak_memory_mb for receipt in receipts), default=peak_memory_mb()),
    }


def _target(source: Source, out: Path, *, many: bool) -> Path:
    suffix = ".png" if is_photograph(source) else ".tif"
    if many and out.suffix:
        raise OutputError(f"several sources need a folder as output; got {out}. Name one: -o maps/.")
    return out / f"{source.stem}{suffix}" if many or out.is_dir() else out
