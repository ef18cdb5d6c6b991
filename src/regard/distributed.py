"""Work shared by the processes of a distributed run: those of a training, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import distributed, nn

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def process_group() -> Iterator[bool]:
    """Join the process group that torchrun set up, if it did; whether this is the process of rank 0."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield True
        return
    distributed.init_process_group("gloo")
    try:
        yield distributed.get_rank() == 0
    finally:
        distributed.destroy_process_group()


def distributed_map(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``work`` of each item, in order, in every process; the process of rank i mod n computes item i.

    Raises:
        Exception: what ``work`` raised in any process is raised in every process.
    """
    rank, size = rank_and_size()
    if size == 1:
        return [work(item) for item in items]
    results: list[R] = []
    fault = None
    try:
        results = [work(item) for item in items[rank::size]]
    except Exception as error:  # the other processes wait for this one, whatever it is
        fault = error
    gathered: list[Any] = [None] * size
    distributed.all_gather_object(gathered, (results, fault))
    for _, raised in gathered:
        if raised is not None:
            raise raised
    return [gathered[number % size][0][number // size] for number in range(len(items))]


def share_buffers(model: nn.Module) -> None:
    """Give every process the batch statistics of rank 0; without SyncBatchNorm each process gathers its own."""
    if rank_and_size()[1] > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def rank_and_size() -> tuple[int, int]:
    """The rank of this process, and the number of processes."""
    initialized = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if initialized else (0, 1)
