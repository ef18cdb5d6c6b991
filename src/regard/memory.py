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


def keep_freed_memory(*, shared_arena: bool = False) -> bool:
    """Tell glibc to reuse freed memory instead of giving it back to the system after each large tensor.

    Every forward pass asks for the same large tensors again; fresh pages cost more time than the arithmetic on some
    machines (2 to 7 times a training step's on a virtual one). ``shared_arena``: all threads share one malloc arena;
    else each keeps its own. False where the C library is not glibc.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = [(M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, 2**26), *[(M_ARENA_MAX, 1)] * shared_arena]
    return all(mallopt(option, value) for option, value in settings)


def peak_memory_mb() -> float:
    """The most memory this process has held, in MB; 0 where the system does not tell (Windows)."""
    if resource is None:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
