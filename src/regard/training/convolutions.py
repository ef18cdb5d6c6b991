"""Convolutions in training as a CPU computes them fastest, forward and backward.

* On one thread PyTorch computes 1x1 convolutions by a path of its own, with MKL. A 1x1 convolution is one product of
  matrices (see ``ops.products``), and so are its two gradients.
* oneDNN has no fast kernels for the gradients of dilated depthwise convolutions. With dilation d, such a convolution is
  the same without dilation on each of the d² phases of the map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.inference.fast_conv import is_dilated_depthwise, joined, phases
from regard.ops.products import multiply


def faster_forwards(model: nn.Module) -> dict[nn.Module, Callable[[Tensor], Tensor]]:
    """Another forward for each convolution that has a faster way; for maps that lie in memory channels last."""
    forwards: dict[nn.Module, Callable[[Tensor], Tensor]] = {}
    for module in model.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            if _is_pointwise(module):
                forwards[module] = _as_product(module)
            elif is_dilated_depthwise(module):
                forwards[module] = _by_phases(module)
    return forwards


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1


def _as_product(conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    def forward(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        pixels = x.permute(0, 2, 3, 1)
        out: Tensor = _Product.apply(pixels.flatten(0, 2), conv.weight.flatten(1))
        return (out if conv.bias is None else out + conv.bias).view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)

    return forward


class _Product(torch.autograd.Function):
    """Rows · weightᵀ, and its gradients, by ``multiply``."""

    @staticmethod
    def forward(ctx: Any, rows: Float[Tensor, "n i"], weight: Float[Tensor, "o i"]) -> Float[Tensor, "n o"]:
        ctx.save_for_backward(rows, weight)
        return multiply(rows, weight.t())

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "n o"]) -> tuple[Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        need_rows, need_weight = ctx.needs_input_grad
        return multiply(gradient, weight) if need_rows else None, multiply(gradient.t(), rows) if need_weight else None


def _by_phases(conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    return lambda x: _Phased.apply(x, conv.weight, conv.bias, conv.dilation[0])


class _Phased(torch.autograd.Function):
    """A dilated depthwise convolution and its gradients; the phases are made again in the backward pass, not kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "b c h w"], weight: Float[Tensor, "o 1 k k"], bias: Tensor | None, step: int
    ) -> Float[Tensor, "b o h w"]:
        ctx.save_for_backward(x, weight)
        ctx.step, ctx.has_bias = step, bias is not None
        parts = F.conv2d(phases(x, step), weight, bias, padding=weight.shape[-1] // 2, groups=x.shape[1])
        return joined(parts, step, x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "b o h w"]) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        bias_sizes, padding = ([len(weight)] if ctx.has_bias else None), [weight.shape[-1] // 2] * 2
        parts = phases(gradient, ctx.step), phases(x, ctx.step), weight
        settings = (bias_sizes, [1, 1], padding, [1, 1], False, [0, 0], x.shape[1], ctx.needs_input_grad[:3])
        for_parts, for_weight, for_bias = torch.ops.aten.convolution_backward(*parts, *settings)
        return None if for_parts is None else joined(for_parts, ctx.step, x.shape), for_weight, for_bias, None
