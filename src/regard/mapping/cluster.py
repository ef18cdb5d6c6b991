"""Work on Dask: as many machines as the scheduler has workers; what a dying worker held is given to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

from regard.errors import ConfigError, MissingExtra

LOCAL = "local"
RETRIES = 10  # an item whose worker died is given to another one
CHECK_WORKERS_MS = 5000  # how often dead workers of a local cluster are looked for
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_cluster(
    function: Callable[[Item], Result], items: Sequence[Item], address: str, workers: int
) -> Iterator[tuple[Item, Result | BaseException]]:
    """Each item with its result, in the order in which they are finished, from the scheduler at ``address``.

    The workers must see the same files. ``local`` starts a cluster of ``workers`` processes on this machine. Where the
    workers died again and again, or ``function`` raised, the result is the error.

    Raises:
        MissingExtra: Dask's distributed is not installed.
        ConfigError: no scheduler answers at the address.
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
            scheduler = LocalCluster(workers, threads_per_worker=1, host="127.0.0.1", **page)
            stack.enter_context(scheduler)
            revive = PeriodicCallback(partial(_revive, scheduler, workers), CHECK_WORKERS_MS)
            scheduler.loop.add_callback(revive.start)
            stack.callback(scheduler.loop.add_callback, revive.stop)
        try:
            client = stack.enter_context(Client(scheduler, timeout="20s"))
        except OSError as error:
            raise ConfigError(
                f"no Dask scheduler answers at {address} ({error}). Start it, or give its address."
            ) from None
        futures = client.map(function, items, pure=False, retries=RETRIES)
        given = {future.key: item for future, item in zip(futures, items, strict=True)}
        for future in as_completed(futures):
            yield given[future.key], future.exception() or future.result()
            future.release()


def _revive(cluster: Any, workers: int) -> None:
    """Restart the workers that died while they started: Dask does that only for those that died later."""
    for name in [name for name, nanny in cluster.workers.items() if nanny.status.name in ("failed", "closed")]:
        del cluster.workers[name]
    if len(cluster.workers) < workers:
        cluster.scale(workers)
