"""Time and memory of two ways to compute the same thing."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regard.errors import RegardError
from regard.ops.products import multiply

Work = Callable[[], Tensor]


@contextmanager
def steady(threads: int) -> Iterator[None]:
    """A number of threads, and numbers too small for float32's full precision set to zero: they slow CPUs down."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def compare(reference: Work, ours: Work, *, pairs: int) -> dict[str, float]:
    """Processor time of both, interleaved, in ms; how many times faster ours is: median, least, most over pairs."""
    reference(), ours()
    times = [(spent(reference), spent(ours)) for _ in range(pairs)]
    ratios = [theirs / mine for theirs, mine in times]
    return {
        "reference ms": round(1e3 * statistics.median(theirs for theirs, _ in times), 2),
        "ours ms": round(1e3 * statistics.median(mine for _, mine in times), 2),
        "faster": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "most": round(max(ratios), 2),
    }


def spent(work: Work) -> float:
    """Processor time of one call, all threads together, in seconds: what others do at the time does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def difference(result: Tensor, exact: Tensor) -> float:
    """The largest absolute difference, relative to the largest value of ``exact``."""
    return float((result.double() - exact.double()).abs().max() / exact.double().abs().max())


def extra_memory_mb(what: str, name: str, size: int, side: str) -> float | None:
    """Peak memory above its inputs of one side of a case, in MB, in a process of its own; None where not on Linux."""
    if sys.platform != "linux":
        return None
    return float(in_fresh_process(what, "--sizes", size, "--peak", name, side))


def in_fresh_process(*arguments: object) -> str:
    """The last line that ``python -m benchmarks ARGUMENTS`` prints in a process of its own.

    Raises:
        RegardError: the process failed, out of memory most likely.
    """
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1:] or [f"signal {-ran.returncode}"]
        raise RegardError(f"{' '.join(command[3:])} failed ({last[0]}). Try a smaller size.")
    return (ran.stdout.strip().splitlines() or [""])[-1]


def peak_above_now_mb(work: Work) -> float:
    """How far one call raises this process's resident memory at most, in MB; Linux."""
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def machine(threads: int) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def product_rate(rows: int, inner: int, columns: int, dtype: torch.dtype) -> float:
    """Additions and multiplications per second of the fastest matrix product of any library here, best of five.

    PyTorch's ``mm`` (MKL in float32), oneDNN as :func:`regard.ops.products.multiply` reaches it, NumPy's OpenBLAS.
    """
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype)
    ways: list[Callable[[], Any]] = [lambda: torch.mm(left, right, out=out), lambda: multiply(left, right)]
    if dtype == torch.float32 and torch.get_num_threads() == 1:  # NumPy has threads of its own
        ways.append(lambda: np.matmul(left.numpy(), right.numpy(), out=out.numpy()))
    for way in ways:
        way()
    return 2 * rows * inner * columns / min(spent(way) for way in ways for _ in range(5))
