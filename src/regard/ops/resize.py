"""Sizes: logits on the network's grid to logits on the image's, and logits to labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

PIXELS = 2**17  # pixels that are compared at once: their scores stay in the cache


def resize_logits(
    logits: Float[Tensor, "b k h w"], size: Sequence[int], *, align_corners: bool
) -> Float[Tensor, "b k H W"]:
    """Bilinear, to ``size`` = (height, width) in pixels."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=align_corners)


def most_likely(scores: Float[Tensor, "b k h w"]) -> Integer[Tensor, "b h w"]:
    """The class of the highest score, the first of equals, as ``argmax``; uint8 up to 256 classes.

    On CPU classes are compared plane by plane, several times faster than torch's reductions over the second axis.
    """
    if scores.device.type != "cpu" or not scores.numel():
        return scores.max(dim=1).indices.to(_label_type(scores))
    rows = max(1, PIXELS // (len(scores) * scores.shape[3]))
    return torch.cat([_leader(part) for part in scores.split(rows, dim=2)], dim=1)


def _leader(scores: Float[Tensor, "b k h w"]) -> Integer[Tensor, "b h w"]:
    best, labels = scores[:, 0].clone(), torch.zeros_like(scores[:, 0], dtype=_label_type(scores))
    for index, score in enumerate(scores[:, 1:].unbind(dim=1), start=1):
        higher = (score > best).to(labels.dtype).mul_(index)  # the highest index so far, so the maximum keeps it
        torch.maximum(labels, higher, out=labels)
        torch.maximum(best, score, out=best)
    return scores.max(dim=1).indices.to(labels.dtype) if bool(best.isnan().any()) else labels


def _label_type(scores: Float[Tensor, "b k h w"]) -> torch.dtype:
    return torch.uint8 if scores.shape[1] <= 256 else torch.int64
