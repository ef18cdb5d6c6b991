"""Attention by blocks: the formula of ``attend`` without its map, forward and backward.

At most ``ROWS`` x ``KEYS`` energies exist at a time, so memory grows with the number of pixels, not with its square.
Where a query has more than ``KEYS`` keys, its mean over all of them is built from the means over blocks, each weighted
by its share of the total: the same sum, bracketed. The backward pass computes the blocks again from the logarithms of
the totals, so training keeps no map either.

Two operators are registered with torch, so that ``torch.compile`` calls them as they are and autograd knows both. (Not
by ``torch.library.custom_op``: its operators import PyTorch's compiler when they are called, 250 MB and 2 seconds.)

Source: Rabe and Staats, Self-attention Does Not Need O(n²) Memory, arXiv 2112.05682; Dao et al., FlashAttention,
arXiv 2205.14135, algorithms 1 and 4. Here the products of a block are left to the machine's matrix library (see
``products``): torch's own CPU kernel needs values as wide as keys, and builds the whole map where they are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from regard.ops.attention import attend_at_once, exact_type, has_kernel, lies_as_map, without_autocast
from regard.ops.products import multiply

ROWS = 1024
KEYS = 512


def attend_by_blocks(
    query: Float[Tensor, "b n d"], key: Float[Tensor, "b m d"], value: Float[Tensor, "b m c"], scale: float
) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n"]]:
    """What ``attend`` computes, and for each query the logarithm of the total of exp(energies)."""
    out, log_total = _outputs(query, key, value, scale)
    if has_kernel(query, key, value):
        from regard.ops import attention_triton

        attention_triton.attend(query, key, value, scale, out, log_total)
        return out, log_total
    width = _keys_at_once(query, key, value, scale)
    query, key = query.to(log_total.dtype) * scale, key.to(log_total.dtype).contiguous()
    with without_autocast(query.device):
        for image in range(len(query)):
            for rows in _blocks(query.shape[1], ROWS):
                log_total[image, rows] = _attend_rows(
                    query[image, rows].contiguous(), key[image], value[image], out[image, rows], width
                )
    return out, log_total


def _attend_rows(
    query: Float[Tensor, "r d"],
    key: Float[Tensor, "m d"],
    value: Float[Tensor, "m c"],
    out: Float[Tensor, "r c"],
    width: int,
) -> Float[Tensor, " r"]:
    """Fill ``out`` for a few queries, ``width`` keys at a time; return the logarithms of their totals.

    A block's largest weight is exp(0) / total, so its inverse is the total, which softmax itself does not return.
    """
    mean: Tensor | None = None
    for keys in _blocks(len(key), width):
        weights = multiply(query, key[keys].t())
        peak = weights.amax(dim=1)
        torch.softmax(weights, dim=1, out=weights)
        log_block = peak - weights.amax(dim=1).log()
        block_mean = multiply(weights.to(value.dtype), value[keys]).to(query.dtype)
        del weights  # before the next block makes its own
        if mean is None:
            mean, log_total = block_mean, log_block
        else:
            log_joined = torch.logaddexp(log_total, log_block)
            mean.mul_((log_total - log_joined).exp()[:, None])
            mean.addcmul_(block_mean, (log_block - log_joined).exp()[:, None])
            log_total = log_joined
    assert mean is not None
    out.copy_(mean)
    return log_total


def attend_backward_by_blocks(
    gradient: Float[Tensor, "b n c"],
    query: Float[Tensor, "b n d"],
    key: Float[Tensor, "b m d"],
    value: Float[Tensor, "b m c"],
    out: Float[Tensor, "b n c"],
    log_total: Float[Tensor, "b n"],
    scale: float,
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b m d"], Float[Tensor, "b m c"]]:
    """The gradients of query, key and value, given that of ``out``; summed in the precision of the energies."""
    inputs, exact = (query, key, value), log_total.dtype
    if has_kernel(query, key, value):
        from regard.ops import attention_triton

        return attention_triton.attend_backward(gradient, inputs, out, log_total, scale)
    sums = tuple(torch.zeros_like(tensor, dtype=exact) for tensor in inputs)
    query, key = query.to(exact), key.to(exact).contiguous()
    with without_autocast(query.device):
        for image in range(len(query)):
            for rows in _blocks(query.shape[1], ROWS):
                _add_gradients(
                    (gradient[image, rows], out[image, rows], log_total[image, rows]),
                    (query[image, rows], key[image], value[image]),
                    (sums[0][image, rows], sums[1][image], sums[2][image]),
                    scale,
                )
    return tuple(total.to(tensor.dtype) for total, tensor in zip(sums, inputs, strict=True))  # type: ignore[return-value]


def _add_gradients(
    outcome: tuple[Tensor, Tensor, Tensor],
    inputs: tuple[Tensor, Tensor, Tensor],
    sums: tuple[Tensor, Tensor, Tensor],
    scale: float,
) -> None:
    """What a few queries add to the gradients.

    With weights P = exp(E - log total) and the gradient G of their output: dV += PᵀG, dE = P · (GVᵀ - rowsum(G · out)),
    dQ += scale · dE K, dK += scale · dEᵀQ.
    """
    (gradient, out, log_total), (query, key, value), (d_query, d_key, d_value) = outcome, inputs, sums
    level = (gradient.to(query.dtype) * out.to(query.dtype)).sum(dim=1, keepdim=True)
    query, gradient = scale * query.contiguous(), gradient.to(value.dtype).contiguous()
    for keys in _blocks(len(key), KEYS):
        weights = multiply(query, key[keys].t()).sub_(log_total[:, None]).exp_()
        d_value[keys] += multiply(weights.t().to(value.dtype), gradient)
        slope = multiply(gradient, value[keys].contiguous().t()).to(query.dtype).sub_(level).mul_(weights)
        del weights  # before the next block makes its own
        d_query.add_(multiply(slope, key[keys]), alpha=scale)
        d_key[keys] += multiply(slope.t(), query)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output)


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, out, log_total = ctx.saved_tensors
    if torch.is_grad_enabled():  # someone will differentiate again
        return (*_differentiable_gradients(gradient, query, key, value, ctx.scale), None)
    return (*torch.ops.regard.attend_backward(gradient, query, key, value, out, log_total, ctx.scale), None)


def _differentiable_gradients(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor | None, ...]:
    """The gradients through the formula as written, map and all, so that they can be differentiated again."""
    inputs = (query, key, value)
    out = attend_at_once(*inputs, scale)
    found = iter(torch.autograd.grad(out, [x for x in inputs if x.requires_grad], gradient, create_graph=True))
    return tuple(next(found) if x.requires_grad else None for x in inputs)


def _outputs(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Room for the result, which lies in memory as the query does, and for the logarithms of the totals."""
    images, pixels, channels = len(query), query.shape[1], value.shape[2]
    if lies_as_map(query):
        out = value.new_empty(images, channels, pixels).transpose(1, 2)
    else:
        out = value.new_empty(images, pixels, channels)
    return out, query.new_empty(images, pixels, dtype=exact_type(query, key))


def _keys_at_once(query: Tensor, key: Tensor, value: Tensor, scale: float) -> int:
    """Keys per block; all of them if an energy or a value may be infinite, as only a whole row then adds up right."""
    query_reach, key_reach, value_reach = (_reach(tensor) for tensor in (query, key, value))
    largest_energy = query_reach * key_reach * query.shape[2] * abs(scale)
    regular = largest_energy < torch.finfo(exact_type(query, key)).max and math.isfinite(value_reach)
    return min(KEYS, key.shape[1]) if regular else key.shape[1]


def _reach(tensor: Tensor) -> float:
    """The largest absolute value; NaN if there is one."""
    low, high = (tensor.mT if lies_as_map(tensor) else tensor).aminmax()  # many times faster in memory order
    return float(torch.maximum(-low, high))


def _blocks(length: int, most: int) -> Iterator[slice]:
    """Slices of about equal size, none longer than ``most``."""
    size = math.ceil(length / math.ceil(length / most))
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


torch.library.define("regard::attend", "(Tensor query, Tensor key, Tensor value, float scale) -> (Tensor, Tensor)")
torch.library.impl("regard::attend", "default", attend_by_blocks)
torch.library.define(
    "regard::attend_backward",
    "(Tensor gradient, Tensor query, Tensor key, Tensor value, Tensor out, Tensor log_total, float scale)"
    " -> (Tensor, Tensor, Tensor)",
)
torch.library.impl("regard::attend_backward", "default", attend_backward_by_blocks)
torch.library.register_fake("regard::attend", _outputs)
torch.library.register_autograd("regard::attend", _backward, setup_context=_keep)


@torch.library.register_fake("regard::attend_backward")
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
