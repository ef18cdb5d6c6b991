"""The kernels of ``attention_triton``, in Triton's language.

All matrices but the result are contiguous. ``blocks`` are rows of a program's own side, rows of the other side at a
time, channels of the values at a time, the widths of keys and of values, padded to powers of two and as they are.
``exact`` is how factors of float32 are multiplied. ``scale`` includes log2 e: exponentials are powers of two.

Compiled once for all numbers of rows, so that what was checked at one size is what runs at another.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _block(matrix: tl.tensor, rows: tl.tensor, columns: tl.tensor, shape: tl.tuple) -> tl.tensor:
    """A block of a contiguous matrix; zeros outside its shape."""
    inside = (rows < shape[0])[:, None] & (columns < shape[1])[None, :]
    return tl.load(matrix + rows[:, None] * shape[1] + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _store(matrix: tl.tensor, rows: tl.tensor, columns: tl.tensor, place: tl.tuple, block: tl.tensor) -> None:
    """Write a block into a matrix; ``place``: its height, width and both strides."""
    inside = (rows < place[0])[:, None] & (columns < place[1])[None, :]
    tl.store(matrix + rows[:, None] * place[2] + columns[None, :] * place[3], block, mask=inside)


@triton.jit(do_not_specialize=["n", "m"])
def mean_kernel(
    tensors: tl.tuple,
    n: tl.tensor,
    m: tl.tensor,
    scale: tl.tensor,
    as_map: tl.constexpr,
    blocks: tl.constexpr,
    exact: tl.constexpr,
) -> None:
    """A block of the result and the logarithms of its totals: one pass over m keys.

    The result is stored by pixels, or by channels (``as_map``).
    """
    query, key, value, out, log_total = tensors
    d, c = blocks[5], blocks[6]
    image = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * blocks[0] + tl.arange(0, blocks[0])
    inner, outer = tl.arange(0, blocks[3]), tl.program_id(1) * blocks[2] + tl.arange(0, blocks[2])
    queries = _block(query + image * n * d, rows, inner, (n, d))
    peak = tl.full((blocks[0],), float("-inf"), tl.float32)
    total = tl.full((blocks[0],), 0.0, tl.float32)
    mean = tl.full((blocks[0], blocks[2]), 0.0, tl.float32)
    for start in range(0, m, blocks[1]):
        others = start + tl.arange(0, blocks[1])
        keys = _block(key + image * m * d, others, inner, (m, d))
        energies = tl.dot(queries, tl.trans(keys), input_precision=exact) * scale
        energies = tl.where((others < m)[None, :], energies, float("-inf"))
        higher = tl.maximum(peak, tl.max(energies, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)  # no key yet: not -inf - -inf
        weights, shrunk = tl.exp2(energies - level[:, None]), tl.exp2(peak - level)
        total = total * shrunk + tl.sum(weights, 1)
        values = _block(value + image * m * c, others, outer, (m, c))
        mean = mean * shrunk[:, None] + tl.dot(weights.to(values.dtype), values, input_precision=exact)
        peak = higher
    if as_map:
        _store(out + image * n * c, rows, outer, (n, c, 1, n), mean / total[:, None])
    else:
        _store(out + image * n * c, rows, outer, (n, c, c, 1), mean / total[:, None])
    tl.store(log_total + image * n + rows, (peak + tl.log2(total)) * LN2, mask=rows < n)


@triton.jit(do_not_specialize=["n", "m"])
def value_kernel(
    tensors: tl.tuple, n: tl.tensor, m: tl.tensor, scale: tl.tensor, blocks: tl.constexpr, exact: tl.constexpr
) -> None:
    """A block of the values' gradient: the outputs' gradients, weighted as their queries weighted these keys."""
    query, key, gradient, log_total, d_value = tensors
    d, c = blocks[5], blocks[6]
    image = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * blocks[0] + tl.arange(0, blocks[0])
    inner, outer = tl.arange(0, blocks[3]), tl.program_id(1) * blocks[2] + tl.arange(0, blocks[2])
    keys = _block(key + image * m * d, rows, inner, (m, d))
    total = tl.full((blocks[0], blocks[2]), 0.0, tl.float32)
    for start in range(0, n, blocks[1]):
        others = start + tl.arange(0, blocks[1])
        queries = _block(query + image * n * d, others, inner, (n, d))
        energies = tl.dot(keys, tl.trans(queries), input_precision=exact) * scale
        logs = tl.load(log_total + image * n + others, mask=others < n, other=float("inf")) * LOG2E
        weights = tl.exp2(energies - logs[None, :])
        gradients = _block(gradient + image * n * c, others, outer, (n, c))
        total += tl.dot(weights.to(gradients.dtype), gradients, input_precision=exact)
    _store(d_value + image * m * c, rows, outer, (m, c, c, 1), total)


@triton.jit(do_not_specialize=["n", "m"])
def slope_kernel(
    tensors: tl.tuple,
    n: tl.tensor,
    m: tl.tensor,
    scale: tl.tensor,
    by_key: tl.constexpr,
    blocks: tl.constexpr,
    exact: tl.constexpr,
) -> None:
    """A block of the queries' gradient, or of the keys' (``by_key``), each the sum of energies' gradients x other side.

    n are the rows of the side whose gradient this is, m those of the other.
    With weights P, and G the gradient of the output: the energies' gradient is P · (G valueᵀ - rowsum(G · out)).
    """
    narrow, wide, other_narrow, other_wide, log_total, level, result = tensors
    d, c = blocks[5], blocks[6]
    image = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * blocks[0] + tl.arange(0, blocks[0])
    inner, channels = tl.arange(0, blocks[3]), tl.arange(0, blocks[2])
    mine = _block(narrow + image * n * d, rows, inner, (n, d))
    if blocks[2] == blocks[4]:  # all channels at a time: read once
        mine_wide = _block(wide + image * n * c, rows, channels, (n, c))
    if not by_key:
        logs = tl.load(log_total + image * n + rows, mask=rows < n, other=float("inf"))[:, None]
        levels = tl.load(level + image * n + rows, mask=rows < n, other=0.0)[:, None]
    total = tl.full((blocks[0], blocks[3]), 0.0, tl.float32)
    for start in range(0, m, blocks[1]):
        others = start + tl.arange(0, blocks[1])
        theirs = _block(other_narrow + image * m * d, others, inner, (m, d))
        if by_key:
            logs = tl.load(log_total + image * m + others, mask=others < m, other=float("inf"))[None, :]
            levels = tl.load(level + image * m + others, mask=others < m, other=0.0)[None, :]
        energies = tl.dot(mine, tl.trans(theirs), input_precision=exact) * scale
        energies = tl.where((others < m)[None, :], energies, float("-inf"))
        if blocks[2] == blocks[4]:
            theirs_wide = _block(other_wide + image * m * c, others, channels, (m, c))
            slope = tl.dot(mine_wide, tl.trans(theirs_wide), input_precision=exact)
        else:
            slope = tl.full((blocks[0], blocks[1]), 0.0, tl.float32)
            for first in range(0, blocks[4], blocks[2]):
                mine_wide = _block(wide + image * n * c, rows, first + channels, (n, c))
                theirs_wide = _block(other_wide + image * m * c, others, first + channels, (m, c))
                slope += tl.dot(mine_wide, tl.trans(theirs_wide), input_precision=exact)
        slope = (slope - levels) * tl.exp2(energies - logs * LOG2E)
        total += tl.dot(slope.to(theirs.dtype), theirs, input_precision=exact)
    _store(result + image * n * d, rows, inner, (n, d, d, 1), total * (scale * LN2))
