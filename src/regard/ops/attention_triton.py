"""Attention on a GPU by Triton: the formula of ``attend`` without its map, for values wider than keys.

PyTorch's fastest kernels want values as wide as keys. Position attention has keys of 64 channels and values of 512, and
the sums of 128 queries over 512 channels exceed the registers of a multiprocessor. So the channels of the values are
split: each program sums some of them for a block of queries, and computes the energies, which are narrow, again.

The backward pass computes the weights again from the logarithms of the totals, as ``attention_blockwise`` does. The
gradients of queries and of keys are one kernel, because they are one sum with the two sides exchanged. Every number is
written by one program, which adds in a fixed order: equal inputs give equal bytes.

Energies, softmax and sums are in float32; weights are rounded to the values' precision, as in ``attend``. Factors of
float32 are multiplied in three parts of TF32, which loses nothing but the last bits, or in one part if
``torch.set_float32_matmul_precision`` allows it. **Not yet run on a GPU**: tests run the kernels in Triton's
interpreter and compile them for Hopper, and on a GPU they are used only where they reproduce the formula.

Source: Dao, FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from regard.ops.attention_kernels import mean_kernel, slope_kernel, value_kernel

LOG2E = 1.4426950408889634
MOST_KEY, MOST_VALUE = 128, 512  # channels
ERRORS = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # largest, relative, of a kernel that works


class Blocks(NamedTuple):
    """What a program holds: rows of its own side, rows of the other side at a time, channels of the values."""

    rows: int
    others: int
    channels: int
    warps: int
    stages: int


class Plan(NamedTuple):
    """The blocks of the three kernels."""

    mean: Blocks
    value: Blocks
    slope: Blocks


# By compiling for keys of 64 and values of 512 channels: the largest that fill Hopper's shared memory without spilling
# registers, and what fits Ampere and Ada.
HALF = (
    Plan(mean=Blocks(128, 64, 256, 8, 3), value=Blocks(128, 64, 256, 8, 3), slope=Blocks(128, 32, 512, 8, 2)),
    Plan(mean=Blocks(64, 32, 128, 4, 2), value=Blocks(64, 32, 128, 4, 2), slope=Blocks(64, 32, 128, 4, 2)),
)
SINGLE = (
    Plan(mean=Blocks(128, 64, 128, 8, 2), value=Blocks(128, 32, 128, 8, 2), slope=Blocks(64, 32, 64, 8, 2)),
    Plan(mean=Blocks(64, 32, 128, 8, 2), value=Blocks(64, 32, 128, 8, 2), slope=Blocks(64, 32, 32, 8, 2)),
)


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, out: Tensor, log_total: Tensor, plan: Plan | None = None
) -> None:
    """Fill ``out`` (b, n, c), dense by pixels or by channels, and ``log_total`` (b, n): see ``attend_by_blocks``."""
    (images, n, d), (_, m, c), blocks = query.shape, value.shape, (plan or plan_for(query, value)).mean
    tensors = (query.contiguous(), key.contiguous(), value.contiguous(), out, log_total)
    grid = (triton.cdiv(n, blocks.rows), triton.cdiv(c, _channels(blocks, c)), images)
    _launch(mean_kernel, grid, blocks, (d, c), (tensors, n, m, scale * LOG2E, not out.is_contiguous()))


def attend_backward(
    gradient: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    out: Tensor,
    log_total: Tensor,
    scale: float,
    plan: Plan | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, given that of ``out``."""
    level = (gradient.float() * out.float()).sum(dim=2)
    gradient = gradient.to(out.dtype).contiguous()
    query, key, value = (tensor.contiguous() for tensor in inputs)
    plan, scale = plan or plan_for(query, value), scale * LOG2E
    d_query, d_key, d_value = (torch.empty_like(tensor) for tensor in (query, key, value))
    (images, n, d), (_, m, c) = query.shape, value.shape
    grid = (triton.cdiv(m, plan.value.rows), triton.cdiv(c, _channels(plan.value, c)), images)
    tensors: tuple[Tensor, ...] = (query, key, gradient, log_total, d_value)
    _launch(value_kernel, grid, plan.value, (d, c), (tensors, n, m, scale))
    for by_key, mine, theirs, result in (
        (False, (query, gradient), (key, value), d_query),
        (True, (key, value), (query, gradient), d_key),
    ):
        rows, others = len(mine[0][0]), len(theirs[0][0])
        grid = (triton.cdiv(rows, plan.slope.rows), images, 1)
        tensors = (*mine, *theirs, log_total, level, result)
        _launch(slope_kernel, grid, plan.slope, (d, c), (tensors, rows, others, scale, by_key))
    return d_query, d_key, d_value


def fits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether shapes and precisions are the kernels': equal precisions, values wider than keys, both not too wide."""
    (_, n, d), (_, m, c) = query.shape, value.shape
    same = query.dtype == key.dtype == value.dtype and value.dtype in ERRORS
    return same and d <= MOST_KEY and d < c <= MOST_VALUE and max(n, m) * c < 2**31


def plan_for(query: Tensor, value: Tensor) -> Plan:
    """The blocks that work on this device; the first ones where none does, or on a CPU."""
    found = working_plan(query.device, value.dtype, query.shape[2], value.shape[2]) if query.is_cuda else None
    return found or (SINGLE if value.dtype == torch.float32 else HALF)[0]


@lru_cache(maxsize=64)
def working_plan(device: torch.device, dtype: torch.dtype, key_width: int, value_width: int) -> Plan | None:
    """The first blocks with which the kernels run there and reproduce the formula, forward and backward; else None.

    Whatever keeps a kernel from running (no compiler, too little shared memory, an older Triton) is a None as well:
    attention then takes another way.
    """
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    for plan in SINGLE if dtype == torch.float32 else HALF:
        try:
            if _largest_error(device, dtype, (key_width, value_width), plan) < ERRORS[dtype]:
                return plan
        except torch.OutOfMemoryError:
            raise
        except Exception:  # of Triton, of its compiler, of the driver
            continue
    return None


@torch.inference_mode(False)
@torch.enable_grad()
def _largest_error(device: torch.device, dtype: torch.dtype, widths: tuple[int, int], plan: Plan) -> float:
    """Of the result and the gradients of a small image, against the formula in float64, relative to their largest."""
    draw = torch.Generator().manual_seed(0)
    sizes = ((150, widths[0]), (170, widths[0]), (170, widths[1]), (150, widths[1]))
    query, key, value, gradient = (
        torch.randn(2, *size, generator=draw, device="cpu").to(device, dtype) for size in sizes
    )
    scale = widths[0] ** -0.5
    out, log_total = torch.empty_like(gradient), torch.empty(2, 150, dtype=torch.float32, device=device)
    attend(query, key, value, scale, out, log_total, plan)
    found = (out, *attend_backward(gradient, (query, key, value), out, log_total, scale, plan))
    exact = [tensor.double().requires_grad_() for tensor in (query, key, value)]
    mean = (scale * exact[0] @ exact[1].mT).softmax(dim=2) @ exact[2]
    right = (mean.detach(), *torch.autograd.grad(mean, exact, gradient.double()))
    errors = [(mine - theirs).abs().max() / theirs.abs().max() for mine, theirs in zip(found, right, strict=True)]
    return float(torch.stack(errors).nan_to_num(nan=torch.inf).max())


def _launch(kernel: Any, grid: tuple[int, int, int], blocks: Blocks, widths: tuple[int, int], given: Any) -> None:
    """Run a kernel on the device of its tensors."""
    d, c = widths
    shape = (blocks.rows, blocks.others, _channels(blocks, c), _padded(d), _padded(c), d, c)
    with torch.cuda.device(given[0][0].device) if given[0][0].is_cuda else nullcontext():
        kernel[grid](*given, shape, _product(), num_warps=blocks.warps, num_stages=blocks.stages)


def _channels(blocks: Blocks, width: int) -> int:
    return min(blocks.channels, _padded(width))


def _padded(width: int) -> int:
    """Products want powers of two from 16."""
    return max(16, triton.next_power_of_2(width))


def _product() -> str:
    """How factors of float32 are multiplied."""
    try:
        exact = torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # someone set it by its newer name too
        exact = torch.backends.cuda.matmul.fp32_precision != "tf32"
    return "tf32x3" if exact else "tf32"
