"""Many sources to maps: in this process, in several, or on a cluster. One scene is the unit of work."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from regard.checkpoints.file import load_to_predict
from regard.errors import ConfigError, MissingExtra, OutputBusy, RegardError, ScenesFailed, SceneWarning, one_line
from regard.files import check_writable, write_text
from regard.io.image import image_size
from regard.io.source import Source
from regard.mapping.predict import opened
from regard.mapping.sources import are_several, check_failures, targets_of
from regard.memory import peak_memory_mb, reuse_memory
from regard.models import Segmenter
from regard.options import Compute, MapOptions, Sharing

LOCAL = "local"
RETRIES = 10  # a scene whose worker died is given to another one
CHECK_WORKERS_MS = 5000  # how often dead workers of a local cluster are looked for
RETRY_SECONDS = 0.5  # between two tries of a map that another run is making


@dataclass(frozen=True)
class Scene:
    """One source to be mapped to ``options.outputs.out``. To run it twice is the same as once."""

    model: str
    source: Source
    options: MapOptions
    compute: Compute = Compute()


@dataclass(frozen=True)
class SceneResult:
    """What became of a scene: its files, or the reason why there are none."""

    source: str
    target: str
    files: list[str]
    pixels: int
    seconds: float
    peak_memory_mb: float
    failed: str = ""
    warnings: tuple[str, ...] = ()


def predict_many(
    model: str,
    sources: Sequence[str | Path | Source],
    options: MapOptions,
    *,
    compute: Compute = Compute(),
    sharing: Sharing = Sharing(),
    progress: bool = True,
) -> dict[str, Any]:
    """Map each source; the files written, megapixels a second (with reading and writing, and with loading the model
    where there are many) and peak memory in MB.

    ``sources`` may be patterns (``tiles/*.tif``) and manifests (see :func:`~.sources.listed`). Of many sources, those
    that fail are named at the end, the others are done, and ``results.jsonl`` next to the maps lists each of them.

    Raises:
        UnreadableImage, ConfigError, OutputError: see :func:`~.sources.targets_of`.
        ScenesFailed: some of several sources could not be predicted. Of a single source, its own error.
    """
    out = options.outputs.out or Path()
    targets = targets_of(sources, options.outputs)
    scenes = [Scene(model, source, options.to(target), compute) for source, target in targets.items()]
    for target in targets.values():
        check_writable(target or out)
    chosen, began = scenes[sharing.part], time.perf_counter()
    if not are_several(sources, targets, out):
        results = [run_scene(scene, progress=progress) for scene in chosen]
        return _summary(results, sum((result.seconds for result in results), 0.0))
    suffix = f"-{sharing.shard.replace('/', '-of-')}" if sharing.shard else ""
    results, written = [], out / f"results{suffix}.jsonl"
    check_writable(written)
    try:
        for result in _run(chosen, sharing):
            results.append(result)
            for text in result.warnings:
                warnings.warn(text, SceneWarning, stacklevel=2)
    finally:
        write_text(written, "".join(json.dumps(asdict(result)) + "\n" for result in results))
    return {**_summary(results, time.perf_counter() - began, written), "results": str(written)}


def _run(scenes: Sequence[Scene], sharing: Sharing) -> Iterator[SceneResult]:
    if sharing.cluster is not None:
        yield from run_on_cluster(scenes, sharing.cluster, sharing.workers)
    elif sharing.workers > 1:
        threads = max(1, (os.cpu_count() or 1) // sharing.workers)
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(sharing.workers, context, torch.set_num_threads, (threads,)) as pool:
                yield from pool.map(predict_scene, scenes)
        except BrokenProcessPool:
            raise ScenesFailed(
                "a worker process was killed, perhaps because memory ran out; the maps that were finished are kept. "
                f"Run the same again, with fewer --workers than {sharing.workers}."
            ) from None
    else:
        yield from map(predict_scene, scenes)


def run_on_cluster(scenes: Sequence[Scene], address: str, workers: int) -> Iterator[SceneResult]:
    """The results of ``scenes``, in the order in which they are finished, from the Dask scheduler at ``address``.

    Its workers must see the same files; what a dying worker held is given to another. ``local`` starts a cluster of
    ``workers`` processes on this machine.

    Raises:
        MissingExtra: Dask's distributed is not installed.
        ConfigError: no scheduler answers at the address.
        ScenesFailed: the scheduler was lost.
    """
    try:
        import dask
        from distributed import Client, LocalCluster, as_completed
        from tornado.ioloop import PeriodicCallback
    except ImportError:
        raise MissingExtra("distributed is not installed. Do: pip install 'regard[cluster]'.") from None
    with ExitStack() as stack:
        scheduler: Any = address.removeprefix("dask://")
        if address == LOCAL:
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": RETRIES}))
            page = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}  # no fixed port
            scheduler = LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", **page)
            stack.callback(_close, scheduler)
            revive = PeriodicCallback(partial(_revive, scheduler, workers), CHECK_WORKERS_MS)
            scheduler.loop.add_callback(revive.start)
            stack.callback(scheduler.loop.add_callback, revive.stop)
        try:
            client = stack.enter_context(Client(scheduler, timeout="20s"))
        except OSError as error:
            raise ConfigError(
                f"no Dask scheduler answers at {address} ({error}). Start it, or give its address."
            ) from None
        futures = client.map(predict_scene, scenes, pure=False, retries=RETRIES)
        given = {future.key: scene for future, scene in zip(futures, scenes, strict=True)}
        for future in as_completed(futures):
            if future.cancelled():  # as all are when the connection to the scheduler is lost
                raise ScenesFailed(
                    f"the Dask scheduler at {address} was lost; the maps that were finished are kept. Start it, then "
                    "run the same again."
                )
            fault = future.exception()  # its workers died again and again
            scene = given[future.key]
            yield future.result() if fault is None else failed(scene, one_line(fault, 160, kind=True))
            future.release()


def _close(cluster: Any) -> None:
    """Stop its workers. One that takes too long ends with this process; the maps are finished before."""
    with suppress(TimeoutError):
        cluster.close()


def _revive(cluster: Any, workers: int) -> None:
    """Restart the workers that died while they started: Dask does that only for those that died later."""
    for name in [name for name, nanny in cluster.workers.items() if nanny.status.name in ("failed", "closed")]:
        del cluster.workers[name]
    if len(cluster.workers) < workers:
        cluster.scale(workers)


def predict_scene(scene: Scene) -> SceneResult:
    """Map one source; its error, if any, stands in the result.

    Where another run is making the map, its end is waited for: Dask may give a scene to a second worker meanwhile.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SceneWarning)
            while True:
                with suppress(OutputBusy):
                    result = run_scene(scene)
                    break
                time.sleep(RETRY_SECONDS)
    except RegardError as error:
        return failed(scene, f"{type(error).__name__}: {error}")
    return replace(result, warnings=tuple(str(each.message) for each in caught if each.category is SceneWarning))


def run_scene(scene: Scene, *, progress: bool = False) -> SceneResult:
    """Map one source, and raise its error."""
    height, width = image_size(scene.source, vrt=scene.options.input.vrt)
    model = network(scene.model, scene.compute)
    began = time.perf_counter()
    with opened(model, scene.source, scene.options) as job:
        job.check()
        if scene.options.overwrite or not job.is_done():
            job.run(progress=progress)
    outputs, seconds = scene.options.outputs, time.perf_counter() - began
    files = [str(path) for path in outputs.files]
    return SceneResult(str(scene.source), str(outputs.out), files, height * width, seconds, peak_memory_mb())


def failed(scene: Scene, reason: str) -> SceneResult:
    """The result of a scene that has no map, with the reason."""
    return SceneResult(str(scene.source), str(scene.options.outputs.out), [], 0, 0.0, peak_memory_mb(), reason)


@cache
def network(name: str, compute: Compute = Compute()) -> Segmenter:
    """The model, loaded once in each process."""
    reuse_memory()
    return load_to_predict(name, compute)


def _summary(results: Sequence[SceneResult], seconds: float, written: Path | None = None) -> dict[str, Any]:
    check_failures({result.source: result.failed for result in results if result.failed}, len(results), written)
    return {
        "files": [file for result in results for file in result.files],
        "mpx_per_s": sum(result.pixels for result in results) / 1e6 / max(seconds, 1e-9),
        "seconds": seconds,
        "peak_memory_mb": max((result.peak_memory_mb for result in results), default=peak_memory_mb()),
    }
