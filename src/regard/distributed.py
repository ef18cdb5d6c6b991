"""Work that is spread over the processes that run together: those of a training, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import distributed, nn

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def joined() -> Iterator[bool]:
    """Join the processes that torchrun started, if it did; whether this is the first of them."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield True
        return
    distributed.init_process_group("gloo")
    try:
        yield distributed.get_rank() == 0
    finally:
        distributed.destroy_process_group()


def spread(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """What ``work`` makes of each item: item i in process i mod n; every process gets all of it, in order.

    Raises:
        Exception: what ``work`` raised, in every process.
    """
    rank, size = processes()
    if size == 1:
        return [work(item) for item in items]
    mine: list[R] = []
    fault = None
    try:
        mine = [work(item) for item in items[rank::size]]
    except Exception as error:  # the other processes wait for this one, whatever it is
        fault = error
    parts: list[Any] = [None] * size
    distributed.all_gather_object(parts, (mine, fault))
    for _, its in parts:
        if its is not None:
            raise its
    return [parts[number % size][0][number // size] for number in range(len(items))]


def share_buffers(model: nn.Module) -> None:
    """Give every process the first one's batch statistics, of which each gathers its own without SyncBatchNorm."""
    if processes()[1] > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def processes() -> tuple[int, int]:
    """The number of this process, and of how many that run together."""
    together = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
