"""The parts of ``python -m benchmarks gpu`` as they run on a GPU, where there is none: its calls are stood in for.

python tests/unit/benchmarks/pretended_gpu.py       rows at toy size, as lines of JSON
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from benchmarks.gpu_measure import TOY
from benchmarks.gpu_parts import PARTS
from regard.ops import attention, attention_triton

SIZE = replace(TOY, device="cuda", pixels=(32,), scenes=(("dubai-s", 128, "auto"),))


class OnCpu(TorchFunctionMode):
    """What is asked of the GPU is done on the CPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*(here(arg) for arg in args), **{name: here(value) for name, value in (kwargs or {}).items()})


def here(value: Any) -> Any:
    is_cuda = value == "cuda" if isinstance(value, str) else isinstance(value, torch.device) and value.type == "cuda"
    return "cpu" if is_cuda else value


class Event:
    """A CUDA event; time passes by a millisecond at each."""

    now = 0.0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.now += 1
        self.at = Event.now

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: Event) -> float:
        return later.at - self.at


def pretend() -> None:
    calls = {"Event": Event, "synchronize": lambda: None, "reset_peak_memory_stats": lambda: None}
    calls |= {"memory_allocated": lambda: 1_000_000_000, "max_memory_allocated": lambda: 3_500_000_000}
    calls |= {"get_device_properties": lambda _: SimpleNamespace(name="NVIDIA Pretence", total_memory=80_000_000_000)}
    calls |= {"is_bf16_supported": lambda: True, "empty_cache": lambda: None}
    for name, call in calls.items():
        assert hasattr(torch.cuda, name)
        setattr(torch.cuda, name, call)
    attention.has_kernel = attention_triton.fits
    move = nn.Module.to
    nn.Module.to = lambda self, *given, **named: move(self, *(here(value) for value in given), **named)


def rows() -> Iterator[dict[str, Any]]:
    for name in ("machine", "attention, regard", "training step", "scene", "study"):
        for row in PARTS[name](SIZE):
            yield {"part": name} | row


if __name__ == "__main__":
    pretend()
    with OnCpu():
        for row in rows():
            print(json.dumps(row), flush=True)
