"""Losses over logits of any number of outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def cross_entropy(
    logits: Float[Tensor, "b k h w"], labels: Int[Tensor, "b h w"], *, ignore_index: int = 255
) -> Float[Tensor, ""]:
    """The mean over labelled pixels of -log softmax(logits)[label], in nats; 0 where no pixel is labelled."""
    summed = F.cross_entropy(logits.float(), labels, ignore_index=ignore_index, reduction="sum")
    return summed / (labels != ignore_index).sum().clamp(min=1)


def weighted_sum(
    outputs: Mapping[str, Float[Tensor, "b k h w"]],
    labels: Int[Tensor, "b h w"],
    weights: Mapping[str, float],
    *,
    ignore_index: int = 255,
) -> dict[str, Float[Tensor, ""]]:
    """The cross entropy of every output, and under ``"loss"`` their sum, each times its weight."""
    losses = {name: cross_entropy(logits, labels, ignore_index=ignore_index) for name, logits in outputs.items()}
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    return {"loss": total, **losses}
