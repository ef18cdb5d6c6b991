"""Sizes: logits on the network's grid to logits and labels on the image's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

STRIP = 2**21  # floats that are enlarged at once, where only labels are wanted
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


def labels_at_size(
    logits: Float[Tensor, "b k h w"], size: Sequence[int], *, align_corners: bool
) -> Integer[Tensor, "b H W"]:
    """``most_likely(resize_logits(logits, size))`` without ever holding all classes at full size.

    The same labels bit for bit, of contiguous logits: others are made so first, which may round differently.
    Enlarging by a power of two goes strip by strip, any other ratio class by class.
    """
    logits, size = logits.contiguous(), (size[0], size[1])
    images, classes = logits.shape[:2]
    factor = _power_of_two(logits.shape[2], size[0], align_corners)
    if factor and logits.numel():
        labels = torch.empty((images, *size), dtype=_label_type(logits), device=logits.device)
        for rows, strip in _strips(logits, size, factor, align_corners):
            labels[:, rows] = most_likely(strip)
        return labels
    if images * classes * prod(size) <= STRIP or classes <= 3 or not bool(logits.isfinite().all()):
        return most_likely(resize_logits(logits, size, align_corners=align_corners))
    return _compare(resize_logits(plane, size, align_corners=align_corners)[:, 0] for plane in logits.split(1, dim=1))[
        0
    ]


def _leader(scores: Float[Tensor, "b k h w"]) -> Integer[Tensor, "b h w"]:
    labels, best = _compare(scores.unbind(dim=1))
    return scores.max(dim=1).indices.to(_label_type(scores)) if bool(best.isnan().any()) else labels


def _compare(planes: Iterable[Float[Tensor, "b h w"]]) -> tuple[Integer[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """The first plane that is highest at each pixel, and its score; any label where a score is NaN."""
    labels = best = None
    for index, score in enumerate(planes):
        if best is None or labels is None:
            best, labels = score.clone(), torch.zeros_like(score, dtype=torch.uint8)
            continue
        if index == 256:
            labels = labels.long()
        higher = (score > best).to(labels.dtype).mul_(index)  # the highest index so far, so the maximum keeps it
        torch.maximum(labels, higher, out=labels)
        torch.maximum(best, score, out=best)
    assert labels is not None and best is not None
    return labels, best


def _label_type(scores: Float[Tensor, "b k h w"]) -> torch.dtype:
    return torch.uint8 if scores.shape[1] <= 256 else torch.int64


def _power_of_two(low: int, high: int, align_corners: bool) -> int:
    """How many times larger, if that is a power of two: then the place between two rows has no rounding. Else 0."""
    steps, fine = (low - 1, high - 1) if align_corners else (low, high)
    if steps < 1 or fine < steps or fine % steps:
        return 0
    factor = fine // steps
    return factor if factor & (factor - 1) == 0 else 0


def _strips(
    logits: Float[Tensor, "b k h w"], size: tuple[int, int], factor: int, align_corners: bool
) -> Iterator[tuple[slice, Float[Tensor, "b k _ W"]]]:
    """Rows of the enlarged logits, some at a time, with their place.

    Neighbouring strips share one row of ``logits``; what lies between the middles of a strip's first and last row is
    what it would be in the whole. Strips are tall enough for torch to choose the same kernel: height + width > 128.
    """
    last, middle = logits.shape[2] - 1, 0 if align_corners else factor // 2
    step = max(1, STRIP // (prod(logits.shape[:2]) * size[1] * factor) - 1, -(-(129 - size[1]) // factor))
    for top in range(0, max(1, last), step):
        bottom = min(top + step, last)
        first = max(0, bottom - step)
        fine = factor * (bottom - first) + (1 if align_corners else factor)
        strip = resize_logits(logits[:, :, first : bottom + 1], (fine, size[1]), align_corners=align_corners)
        begin = factor * top + middle if top else 0
        end = factor * bottom + middle if bottom < last else size[0]
        yield slice(begin, end), strip[:, :, begin - factor * first : end - factor * first]
