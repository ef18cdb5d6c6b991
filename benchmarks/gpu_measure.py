"""How large the parts of ``python -m benchmarks gpu`` are, and the time and memory of one call on a device."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large everything is; ``seconds`` are spent on each measurement after the first call."""

    device: str
    half: torch.dtype
    key: int  # channels
    value: int
    pixels: tuple[int, ...]
    precisions: tuple[str, ...]
    product: int
    image: tuple[int, int]
    backbone: str
    width: int
    batch: int
    scenes: tuple[tuple[str, int, str], ...]  # model, side, precision
    windows: Mapping[str, int]
    arms: tuple[str, ...]
    seeds: int
    steps: int | None
    seconds: float


FULL = Size(
    device="cuda",
    half=torch.bfloat16,
    key=64,  # DANet's
    value=512,
    pixels=(4096, 16384, 32768, 65536),
    precisions=("bfloat16", "float32", "float32 as TF32"),
    product=8192,
    image=(1024, 2048),
    backbone="resnet50",
    width=512,
    batch=2,
    scenes=(
        ("dubai-s", 4096, "auto"),
        ("dubai-s", 20_000, "auto"),
        ("danet-r50", 4096, "float32"),
        ("dubai-s", 20_000, "float32"),
    ),
    windows={"batch": 8, "max_memory": 8000},
    arms=("danet", "ocrnet", "fusion", "serial-right", "serial", "serial-wd1"),
    seeds=3,
    steps=None,
    seconds=0.2,
)
# Triton's interpreter does not know bfloat16.
TOY = Size(
    device="cpu",
    half=torch.float16,
    key=16,
    value=32,
    pixels=(96,),
    precisions=("float16", "float32"),
    product=64,
    image=(64, 64),
    backbone="test_resnet",
    width=16,
    batch=2,
    scenes=(("dubai-s", 128, "float32"),),
    windows={"tile": 64, "overlap": 32},
    arms=("danet",),
    seeds=1,
    steps=1,
    seconds=0.0,
)


def measured(work: Callable[[], Tensor], size: Size) -> Row:
    """Milliseconds and peak memory of one call, and ``value``, its result; or ``result``: why there is none."""
    try:
        value = work()
        return {"ms": round(milliseconds(work, size), 4), "GB": peak_memory_gb(work, size), "value": value}
    except torch.OutOfMemoryError:
        release()
        return {"result": "out of memory"}
    except Exception as error:
        if size.device == "cuda":
            torch.cuda.synchronize()  # if the device is lost this fails, and so do all that follow: end the part
            release()
        return {"result": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:150]}"}


def release() -> None:
    """Give back what a failed call held."""
    gc.collect()
    torch.cuda.empty_cache()


def milliseconds(work: Callable[[], object], size: Size) -> float:
    """The median over calls, at least 3 and at most 50 on a GPU, by the device's clock."""
    times: list[float] = []
    least = 3 if size.device == "cuda" else 1
    end = time.perf_counter() + size.seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < 50):
        if size.device == "cuda":
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            work()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop))
        else:
            began = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - began))
    return median(times)


def peak_memory_gb(work: Callable[[], object], size: Size) -> float | None:
    """Peak memory of the device above what it held before, in GB; None on a CPU."""
    if size.device != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return round((torch.cuda.max_memory_allocated() - before) / 1e9, 3)
