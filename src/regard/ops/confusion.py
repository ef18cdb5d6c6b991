"""The confusion matrix and the scores that follow from it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from regard.errors import ClassMismatch

BYTE = 256
CHUNK = 2**18  # pixels that are counted at once: their codes stay in the cache


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
    """Per class: pixels right, over pixels that are or were called this class; NaN where there are none."""
    right, true, called = _sums(confusion)
    return right / (true + called - right)


def f1(confusion: Int[Tensor, "k k"]) -> Float[Tensor, " k"]:
    """Per class: the harmonic mean of precision and recall; NaN where the class is neither present nor called."""
    right, true, called = _sums(confusion)
    return 2 * right / (true + called)


def recall(confusion: Int[Tensor, "k k"]) -> Float[Tensor, " k"]:
    """Per class: the share of its pixels that were found; NaN where it is absent."""
    right, true, _ = _sums(confusion)
    return right / true


def precision(confusion: Int[Tensor, "k k"]) -> Float[Tensor, " k"]:
    """Per class: the share of the pixels called so that are; NaN where none was called so."""
    right, _, called = _sums(confusion)
    return right / called


def _sums(confusion: Int[Tensor, "k k"]) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"], Float[Tensor, " k"]]:
    counts = confusion.double()
    return counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
