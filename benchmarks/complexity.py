"""The OCR paper's complexity table (its section 3.4), for regard's blocks.

    python -m benchmarks complexity

Input 1 x 2048 x 128 x 128, the 3 x 3 reduction included, classifiers not. Parameters and operations are counted on
meta tensors, two operations a multiplication; memory is the peak of all tensors alive in a forward pass at once, beyond
the weights and the input, which does not depend on the machine.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import parser
from regard.blocks import ASPP, ChannelAttention, ObjectContext, PositionAttention, QueryGrid, conv_bn_relu


class Row(NamedTuple):
    """Parameters in millions, memory in MB, operations in 10^9."""

    name: str
    parameters: float
    memory: float
    operations: float
    paper: str


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every tensor made inside that is still alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.seen:
            return
        self.seen.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


class Dual(nn.Module):
    """DANet's two branches and their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Sequential(conv_bn_relu(2048, 512, 3), PositionAttention(512), conv_bn_relu(512, 512, 3))
        self.channel = nn.Sequential(conv_bn_relu(2048, 512, 3), ChannelAttention(), conv_bn_relu(512, 512, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.position(x) + self.channel(x)


class Objects(nn.Module):
    """OCR over given regions, with one query for ``scale`` x ``scale`` pixels."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        self.pixels = conv_bn_relu(2048, 512, 3)
        self.context = ObjectContext(512, 256, queries=QueryGrid(scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.context(self.pixels(x), x[:, :19])


HEADS = {
    "ASPP": (lambda: ASPP(2048, 256, project=256), "15.5 M, 284 MB, 492"),
    "DANet (position and channel attention)": (Dual, "24.4 M, 2339 MB, 1110"),
    "OCR": (Objects, "10.5 M, 202 MB, 340"),
    "OCR, scale 2": (partial(Objects, 2), "-"),
    "OCR, scale 4": (partial(Objects, 4), "-"),
}


def count_attention(query, key, value, *_, out_shape=None, **__) -> int:
    """Operations of attention by blocks, which torch's counter does not know: two products of n x m."""
    (batch, queries, inner), (_, keys, outer) = query, value
    return 2 * batch * queries * keys * (inner + outer)


def counter() -> FlopCounterMode:
    """Torch's counter, which also knows our operator."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.regard.attend: count_attention})


def rows() -> Iterator[Row]:
    """The table, a row at a time."""
    for name, (make, paper) in HEADS.items():
        with torch.device("meta"):
            head = make().eval()
            x = torch.empty(1, 2048, 128, 128)
        with torch.inference_mode(), counter() as counted:
            head(x)
        with torch.inference_mode(), LiveBytes() as live:
            head(x)
        count = sum(parameter.numel() for parameter in head.parameters())
        yield Row(name, count / 1e6, live.peak / 1e6, counted.get_total_flops() / 1e9, paper)


def table() -> str:
    """The rows as Markdown."""
    lines = [
        "| head | parameters (M) | memory (MB) | GFLOP | the paper's (M, MB, GFLOP) |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {r.name} | {r.parameters:.2f} | {r.memory:.0f} | {r.operations:.1f} | {r.paper} |" for r in rows()]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    parser("complexity", __doc__).parse_args(arguments)
    print(table())
