"""The confusion matrix and the scores that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from regard.errors import ClassMismatch

BYTE = 256
CHUNK = 2**18  # pixels that are counted at once: their codes stay in the cache
DRAWS = 1000  # of the bootstrap
BINS = 15  # of confidence
ONE = 2**24  # the unit of sums of confidence: whole numbers, which add up alike in any order
Interval = tuple[float, float]
Labels = Int[Tensor, "h w"]


def confusion_matrix(
    truth: Integer[Tensor, "*size"], predicted: Integer[Tensor, "*size"], *, classes: int, ignore_index: int = 255
) -> Int[Tensor, "k k"]:
    """Counts of pixels, rows by true class, columns by predicted class; ``ignore_index`` in the truth is left out.

    Raises:
        ClassMismatch: a label outside 0..classes-1 that is not the ignore index.
    """
    if classes <= BYTE and _are_bytes(truth) and _are_bytes(predicted):
        counts = _count_bytes(truth, predicted)
        if 0 <= ignore_index < BYTE:
            counts[ignore_index] = 0
        if not counts[classes:].any() and not counts[:, classes:].any():
            return counts[:classes, :classes].clone()
    return _count_any(truth, predicted, classes, ignore_index)


def _are_bytes(labels: Integer[Tensor, "*size"]) -> bool:
    if labels.dtype == torch.uint8 or not labels.numel():
        return True
    low, high = labels.aminmax()
    return int(low) >= 0 and int(high) < BYTE


def _count_bytes(truth: Integer[Tensor, "*size"], predicted: Integer[Tensor, "*size"]) -> Int[Tensor, "256 256"]:
    """All pairs of two bytes, ignored ones too: one pass over codes, no pixel is picked out."""
    counts = torch.zeros(BYTE * BYTE, dtype=torch.int64, device=truth.device)
    for true, guessed in zip(truth.flatten().split(CHUNK), predicted.flatten().split(CHUNK), strict=True):
        wide = true if true.element_size() > 2 else true.int()
        counts += torch.bincount(torch.add(guessed, wide, alpha=BYTE), minlength=BYTE * BYTE)
    return counts.reshape(BYTE, BYTE)


def _count_any(
    truth: Integer[Tensor, "*size"], predicted: Integer[Tensor, "*size"], classes: int, ignore_index: int
) -> Int[Tensor, "k k"]:
    """Labels of any size, checked; several times slower."""
    counted = truth != ignore_index
    true, guessed = truth[counted].long(), predicted[counted].long()
    for name, labels in (("truth", true), ("prediction", guessed)):
        if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
            raise ClassMismatch(
                f"the {name} holds labels {int(labels.min())} to {int(labels.max())}; {classes} classes allow 0 to "
                f"{classes - 1}. Correct the labels."
            )
    return torch.bincount(true * classes + guessed, minlength=classes * classes).reshape(classes, classes)


def intersection_over_union(confusion: Int[Tensor, "k k"]) -> Float[Tensor, " k"]:
    """Per class: correct pixels, over pixels of the class in reference or prediction; NaN where there are none."""
    right, true, called = _sums(confusion)
    return right / (true + called - right)


def f1(confusion: Int[Tensor, "k k"]) -> Float[Tensor, " k"]:
    """Per class: the harmonic mean of precision and recall; NaN where the class is neither present nor called."""
    right, true, called = _sums(confusion)
    return 2 * right / (true + called)


def recall(confusion: Int[Tensor, "k k"]) -> Float[Tensor, " k"]:
    """Per class: correct pixels, over pixels of the class in the reference; NaN where there are none."""
    right, true, _ = _sums(confusion)
    return right / true


def precision(confusion: Int[Tensor, "k k"]) -> Float[Tensor, " k"]:
    """Per class: correct pixels, over pixels predicted as the class; NaN where there are none."""
    right, _, called = _sums(confusion)
    return right / called


def _sums(confusion: Int[Tensor, "k k"]) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"], Float[Tensor, " k"]]:
    counts = confusion.double()
    return counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)


def intervals(images: Int[np.ndarray, "i k k"], counted: Sequence[int] | None = None) -> list[Interval | None]:
    """95 % intervals of each class's IoU and, last, of the mean of those ``counted``; None for an absent class.

    A bootstrap over images: as many as there are, drawn with replacement, are added up ``DRAWS`` times.
    """
    count = len(images)
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    right = times @ images.diagonal(axis1=1, axis2=2)
    either = times @ (images.sum(axis=1) + images.sum(axis=2)) - right
    seen, iou = either > 0, right / np.maximum(1, either)
    kept = slice(None) if counted is None else list(counted)
    mean = iou[:, kept].sum(axis=1) / np.maximum(1, seen[:, kept].sum(axis=1))
    iou[~seen & seen.any(axis=0)] = np.nan  # a draw without the class says nothing about it
    low, high = np.nanpercentile(np.column_stack([iou, mean]), (2.5, 97.5), axis=0)
    occurs = [*seen.any(axis=0), True]
    return [(float(a), float(b)) if there else None for a, b, there in zip(low, high, occurs, strict=True)]


def boundary_counts(
    truth: Labels, predicted: Labels, *, classes: int, ignore_index: int = 255, reach: int = 3
) -> Int[Tensor, "k 4"]:
    """By class: predicted boundary pixels near a true one of the class, predicted ones, true ones found, true ones.

    A boundary pixel has a neighbour (of 4) of another class; pixels without label are no neighbours, and predictions
    there are left out. Near: at most ``reach`` pixels down or across. Counts of images add up.

    Source: Csurka et al. 2013, with a square in place of a disc.
    """
    none = -1
    known = truth != ignore_index
    true, called = truth.where(known, none), predicted.where(known, none)
    edges = [labels.where(_is_edge(labels, none), none) for labels in (called, true)]
    counts = []
    for mine, other in (edges, edges[::-1]):
        for chosen in (mine[_near(mine, other, reach, none)], mine[mine != none]):
            counts.append(torch.bincount(chosen, minlength=classes))
    return torch.stack(counts, dim=1)


def boundary_f1(counts: Int[Tensor, "k 4"]) -> Float[Tensor, " k"]:
    """By class: the harmonic mean of the shares of predicted and of true boundary that were near; NaN without any."""
    near, called, found, true = counts.double().unbind(dim=1)
    precision, recall = near / called, found / true
    both = 2 * precision * recall / (precision + recall)
    return torch.where((called + true) == 0, torch.nan, both.nan_to_num(0.0))


def _is_edge(labels: Labels, none: int) -> Bool[Tensor, "h w"]:
    down = (labels[1:] != labels[:-1]) & (labels[1:] != none) & (labels[:-1] != none)
    across = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] != none) & (labels[:, :-1] != none)
    return F.pad(down, (0, 0, 1, 0)) | F.pad(down, (0, 0, 0, 1)) | F.pad(across, (1, 0)) | F.pad(across, (0, 1))


def _near(mine: Labels, other: Labels, reach: int, none: int) -> Bool[Tensor, "h w"]:
    """Where a pixel of ``mine`` has one of the same label in ``other`` within ``reach``."""
    height, width = mine.shape
    wide = F.pad(other, (reach,) * 4, value=none)
    found = torch.zeros_like(mine, dtype=torch.bool)
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            found |= wide[row : row + height, column : column + width] == mine
    return found & (mine != none)


def reliability_counts(
    scores: Float[Tensor, "k h w"],
    truth: Integer[Tensor, "h w"],
    predicted: Integer[Tensor, "h w"],
    *,
    ignore_index: int = 255,
) -> Int[Tensor, "bins 3"]:
    """By confidence, in ``BINS`` equal bins from 0 to 1: pixels, correct pixels, sum of confidence in units of 2⁻²⁴.

    Confidence is the largest softmax of the ``scores``. Pixels without label are left out. Counts of images add up.
    """
    known = truth != ignore_index
    confidence = (scores.amax(dim=0) - scores.logsumexp(dim=0)).exp().nan_to_num().double()[known]
    units = (ONE * confidence).round().clamp(0, ONE)
    place = (units * BINS).div(ONE, rounding_mode="floor").long().clamp(max=BINS - 1)
    sums = [None, (truth == predicted)[known].double(), units]
    return torch.stack([torch.bincount(place, weights, minlength=BINS).long() for weights in sums], dim=1)


def calibration_error(counts: Int[Tensor, "bins 3"]) -> float:
    """The expected calibration error: Σ over bins of pixels in the bin / pixels × |accuracy - mean confidence|, 0..1.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, equation 5.
    """
    pixels, right, units = counts.double().unbind(dim=1)
    return float((right - units / ONE).abs().sum() / pixels.sum().clamp(min=1))


def whole_counts(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of pixels; a ValueError if they are no whole numbers from 0 on, or not as many."""
    found = np.array(values, float)
    if found.shape != shape or not ((found >= 0) & (found < 2**53) & (found == np.floor(found))).all():
        raise ValueError("numbers of pixels that cannot be")
    return found.astype(np.int64)
