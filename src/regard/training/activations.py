"""The memory of a training step: what the backbone keeps for the backward pass, and how to keep less of it.

Of 4.4 GB for 8 crops of 256 x 256 pixels (danet_ocr on tf_efficientnet_lite0, stride 8, CPU) 1.0 GB are the libraries
and 3.0 GB what autograd keeps: 2.15 GB in the backbone, mostly the wide dilated blocks, three copies each (the inputs
of norm, activation and convolution); 0.7 GB in the heads, and 0.08 GB in the losses. Attention keeps 0.06 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def with_forwards(replaced: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Within the ``with`` block modules compute by another function than their class's ``forward``."""
    for module, forward in replaced.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in replaced:
            del module.forward  # the class's own again


@contextmanager
def lean(backbone: nn.Module, *, recompute: bool) -> Iterator[None]:
    """Within the ``with`` block the backbone trains in less memory; gradients and statistics are equal to the bit.

    In-place ReLU6 keeps its result, which the next convolution keeps anyway, and no copy of its input. With
    ``recompute`` each residual block keeps its input alone and is computed again in the backward pass.
    """
    replaced: dict[nn.Module, Callable[..., Any]] = {}
    for module in backbone.modules():
        if isinstance(module, nn.ReLU6) and module.inplace:
            replaced[module] = _ReLU6.apply
    if recompute:
        replaced |= {block: _recomputed(block) for block in residual_blocks(backbone)}
    with with_forwards(replaced):
        yield


class _ReLU6(torch.autograd.Function):
    """ReLU6 in place by its result: torch's own copies the input first, though the result tells its gradient too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.mark_dirty(values.clamp_(0, 6))
        ctx.save_for_backward(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ops.aten.hardtanh_backward(gradient, ctx.saved_tensors[0], 0, 6)


def residual_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The innermost members of its sequences that hold two convolutions or more."""
    blocks: list[nn.Module] = []
    for sequence in (module for module in backbone.modules() if isinstance(module, nn.Sequential)):
        blocks += [block for block in sequence if sum(isinstance(part, nn.Conv2d) for part in block.modules()) > 1]
    return [block for block in blocks if not any(part in blocks for part in block.modules() if part is not block)]


def _recomputed(block: nn.Module) -> Callable[..., Any]:
    """The block's forward pass, done again in the backward pass; its batch norms gather their statistics once."""
    original = block.forward

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _on_copies(block)

    def forward(*inputs: Any) -> Any:
        return checkpoint(original, *inputs, use_reentrant=False, context_fn=contexts)

    return forward


@contextmanager
def _on_copies(block: nn.Module) -> Iterator[None]:
    """Let the batch norms of a block gather their statistics in copies."""
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm)]
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers.update({name: value.clone() for name, value in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
