"""Scenes on Dask: as many machines as the scheduler has workers, each scene published once whoever dies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from regard.errors import ConfigError, MissingExtra
from regard.mapping.manifest import Receipt
from regard.mapping.task import Scene, failed, predict_scene

LOCAL = "local"
RETRIES = 10  # a scene whose worker died is given to another one
MS_BETWEEN_LOOKS = 5000  # at whether workers are missing


def run_on_cluster(scenes: Sequence[Scene], address: str, workers: int) -> Iterator[Receipt]:
    """The receipts of ``scenes``, as they come, from the workers of the scheduler at ``address``.

    The workers must see the same files. ``local`` starts a cluster of ``workers`` processes on this machine.

    Raises:
        MissingExtra: Dask's distributed is not installed.
        ConfigError: nothing answers at the address.
    """
    try:
        import dask
        from distributed import Client, LocalCluster, as_completed
        from tornado.ioloop import PeriodicCallback
    except ImportError:
        raise MissingExtra("distributed is not installed. Do: pip install 'regard[cluster]'.") from None
    with ExitStack() as stack:
        place: Any = address.removeprefix("dask://")
        if address == LOCAL:
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": RETRIES}))
            page = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}  # no fixed port
            place = LocalCluster(workers, threads_per_worker=1, host="127.0.0.1", **page)
            stack.enter_context(place)
            look = PeriodicCallback(partial(_revive, place, workers), MS_BETWEEN_LOOKS)
            place.loop.add_callback(look.start)
            stack.callback(place.loop.add_callback, look.stop)
        try:
            client = stack.enter_context(Client(place, timeout="20s"))
        except OSError as error:
            raise ConfigError(
                f"no Dask scheduler answers at {address} ({error}). Start it, or give its address."
            ) from None
        futures = client.map(predict_scene, scenes, pure=False, retries=RETRIES)
        given = {future.key: scene for future, scene in zip(futures, scenes, strict=True)}
        for future in as_completed(futures):
            lost = future.exception()  # its workers died again and again
            reason = f"{type(lost).__name__}: {' '.join(str(lost).split())[:160]}"
            yield failed(given[future.key], reason) if lost else future.result()
            future.release()


def _revive(cluster: Any, workers: int) -> None:
    """Start the workers anew that died while they started: Dask does that only for those that died later."""
    for name in [name for name, nanny in cluster.workers.items() if nanny.status.name in ("failed", "closed")]:
        del cluster.workers[name]
    if len(cluster.workers) < workers:
        cluster.scale(workers)
