"""Scenes on Dask: as many machines as the scheduler has workers, each scene published once whoever dies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from regard.engine.many import Receipt, Scene, predict_scene
from regard.errors import ConfigError, MissingExtra

LOCAL = "local"
RETRIES = 10  # a scene whose worker died is given to another one


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
    except ImportError:
        raise MissingExtra("distributed is not installed. Do: pip install 'regard[cluster]'.") from None
    with ExitStack() as stack:
        place: Any = address.removeprefix("dask://")
        if address == LOCAL:
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": RETRIES}))
            place = LocalCluster(workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
            stack.enter_context(place)
        try:
            client = stack.enter_context(Client(place, timeout="20s"))
        except OSError as error:
            raise ConfigError(
                f"no Dask scheduler answers at {address} ({error}). Start it, or give its address."
            ) from None
        futures = client.map(predict_scene, scenes, pure=False, retries=RETRIES)
        for future, receipt in as_completed(futures, with_results=True):
            yield receipt
            future.release()
