"""Memory of the process: its peak, and glibc's reuse of freed memory."""

from __future__ import annotations

import ctypes
import sys

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8  # malloc.h of glibc
NEVER = 2**31 - 1


def keep_freed_memory(*, one_heap: bool = False) -> bool:
    """Tell glibc to reuse freed memory instead of giving it back to the system after each large tensor.

    Every forward pass asks for the same large tensors again; fresh pages cost more time than the arithmetic on some
    machines (2 to 7 times a training step's on a virtual one). ``one_heap``: all threads share what is kept; else each
    keeps its own. False where the C library is not glibc.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wishes = [(M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, 2**26), *[(M_ARENA_MAX, 1)] * one_heap]
    return all(mallopt(option, value) for option, value in wishes)


def give_back_freed_memory() -> None:
    """Give the system what is freed, also between what is in use; nothing where the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def peak_memory_mb() -> float:
    """The most memory this process has held, in MB; 0 where the system does not tell (Windows)."""
    if resource is None:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
