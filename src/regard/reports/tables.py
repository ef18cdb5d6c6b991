"""Scores in forms that people read: the confusion matrix in shares, the pairs most confused."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from regard.evaluation.evaluate import Scores
from regard.ops.metrics import DRAWS

__all__ = ["DRAWS", "matrix", "pairs", "reading"]  # what the page's template calls
MATRIX_LIMIT = 20
Counts = Int[np.ndarray, "k k"]
Pair = tuple[str, str, float, float]  # a true class, what it was called, shares of the class and of all mistakes
Row = tuple[str, int, list[float | None]]  # a true class, its own column, its shares by what it was called


def matrix(scores: Scores, limit: int = MATRIX_LIMIT) -> tuple[list[str], list[Row]]:
    """Column names and rows of all classes; beyond ``limit``, of those in most mistakes and a column of others."""
    names, shares, kept = scores.classes.names, _row_shares(scores.confusion), _kept(scores, limit)
    cells, columns = shares[:, kept], [names[label] for label in kept]
    if len(kept) < len(names):
        cells, columns = np.column_stack([cells, shares.sum(axis=1) - cells.sum(axis=1)]), [*columns, "all others"]
    empty: list[float | None] = [None] * len(columns)
    sizes = scores.confusion.sum(axis=1)
    return columns, [(names[k], place, cells[k].tolist() if sizes[k] else empty) for place, k in enumerate(kept)]


def pairs(scores: Scores, count: int = 10) -> list[Pair]:
    """The mistakes with the most pixels, largest first."""
    mistakes = _mistakes(scores.confusion)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    return [_pair(scores, int(index)) for index in order if mistakes.flat[index]]


def reading(scores: Scores) -> str:
    """One sentence that reads the cell of the matrix with the largest share of a class that was called another."""
    shares, seen = _mistakes(_row_shares(scores.confusion)), np.zeros(scores.confusion.shape, dtype=bool)
    seen[np.ix_(kept := _kept(scores), kept)] = True
    if not shares.any():
        return "Every labelled pixel got its true class."
    true, called, share, _ = _pair(scores, int(np.where(seen, shares, 0).argmax()))
    percent = f"{100 * share:.0f}"
    return (
        f"For example, {percent} in the row {true} under {called}: of the pixels that are {true}, {percent} % were "
        f"called {called}."
    )


def _kept(scores: Scores, limit: int = MATRIX_LIMIT) -> list[int]:
    """The classes that take part in most mistakes, in their own order."""
    mistakes = _mistakes(scores.confusion)
    return sorted(np.argsort(-(mistakes.sum(axis=0) + mistakes.sum(axis=1)), kind="stable")[:limit].tolist())


def _pair(scores: Scores, index: int) -> Pair:
    names, mistakes = scores.classes.names, _mistakes(scores.confusion)
    true, called = divmod(index, len(names))
    share = _row_shares(scores.confusion)[true, called]
    return names[true], names[called], float(share), float(mistakes[true, called] / max(1, mistakes.sum()))


def _mistakes(table: np.ndarray) -> np.ndarray:
    return np.where(np.eye(len(table), dtype=bool), 0, table)


def _row_shares(counts: Counts) -> Float[np.ndarray, "k k"]:
    return counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
