"""Memory of the process: its peak, glibc's reuse of freed memory, and a compiler that predictions do not need."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8  # malloc.h of glibc
NEVER = 2**31 - 1
LARGE = 2**26  # bytes: smaller blocks are kept, since even huge pages take time
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ASKED = "THP_MEM_ALLOC_ENABLE"  # PyTorch reads it at its first tensor: ask for huge pages for tensors from 2 MB on


def keep_freed_memory(*, shared_arena: bool = False) -> bool:
    """Tell glibc to reuse freed memory instead of giving it back to the system after each large tensor.

    Every forward pass asks for the same large tensors again; fresh pages cost more time than the arithmetic on some
    machines (2 to 7 times a training step's on a virtual one). ``shared_arena``: all threads share one malloc arena;
    else each keeps its own. False where the C library is not glibc.
    """
    return _keep((M_MMAP_MAX, 0), *[(M_ARENA_MAX, 1)] * shared_arena)


def ask_for_huge_pages() -> None:
    """Let PyTorch take large tensors in huge pages where the system has them; nothing once PyTorch is imported."""
    if "torch" not in sys.modules and _has_huge_pages():
        os.environ[ASKED] = "1"


def reuse_memory() -> None:
    """Set glibc for predictions: small blocks are kept; large ones too, unless huge pages make fresh ones cheap.

    Kept blocks of many sizes lie in each other's way. A window of 1024 x 1024 pixels of a bundled model held 430 MB
    with all kept, 330 MB with those from 64 MB on fresh, at the same speed, and 190 MB from 8 MB on, 10 % slower.
    """
    if os.environ.get(ASKED) == "1" and _has_huge_pages():
        _keep((M_MMAP_THRESHOLD, LARGE))
    else:
        keep_freed_memory()


def _keep(*settings: tuple[int, int]) -> bool:
    """Give no freed memory back from the end of the heap, and set more; False where the C library is not glibc."""
    mallopt = _glibc("mallopt")
    wanted = (*settings, (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, 2**26))
    return mallopt is not None and all(mallopt(option, value) for option, value in wanted)


def _has_huge_pages() -> bool:
    try:
        return "[never]" not in HUGE_PAGES.read_text()
    except OSError:
        return False


def give_back_freed_memory() -> None:
    """Give the system what is freed, also between what is in use; nothing where the C library is not glibc."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Any:
    """A function of the C library, or None where it has none of this name: where it is not glibc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def peak_memory_mb() -> float:
    """The most memory this process has held, in MB; 0 where the system does not tell (Windows)."""
    if resource is None:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def import_timm_without_compiler() -> None:
    """Import timm, but not PyTorch's compiler, which timm imports although it is not used: 150 MB and 1.6 seconds.

    For the commands that predict: a program that compiles networks must not trace a function of timm that is marked to
    be left out (``torch.compiler.disable``), and that mark is not made here.
    """
    import torch

    if "torch._dynamo" in sys.modules or "timm" in sys.modules:
        return
    load = importlib.import_module
    utils = {"is_compile_supported": lambda device: load("torch._dynamo.utils").is_compile_supported(device)}
    sys.modules["torch._dynamo.utils"] = _StandIn("torch._dynamo.utils", utils)
    compiler = _StandIn("torch._dynamo", {"disable": lambda function, *_, **__: function})
    sys.modules["torch._dynamo"] = torch._dynamo = compiler
    try:
        load("timm")
    finally:
        _forget_stand_ins()


class _StandIn(ModuleType):
    """A module that becomes the true one when it is asked for more than it has."""

    def __init__(self, name: str, content: dict[str, Any]) -> None:
        super().__init__(name)
        vars(self).update(content)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _forget_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _forget_stand_ins() -> None:
    import torch

    for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
        del sys.modules[name]
    if isinstance(vars(torch).get("_dynamo"), _StandIn):
        del torch._dynamo
