"""Tables of the report: the row-normalised confusion matrix and the most confused pairs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from regard.evaluation.evaluate import Scores
from regard.ops.metrics import DRAWS

__all__ = ["DRAWS", "matrix", "pairs", "reading"]  # what the page's template calls
MATRIX_LIMIT = 20
Counts = Int[np.ndarray, "k k"]
Pair = tuple[str, str, float, float]  # reference, predicted, shares of the reference class and of all errors
Row = tuple[str, int, list[float | None]]  # reference, the column of the diagonal, shares by predicted class


def matrix(scores: Scores, limit: int = MATRIX_LIMIT) -> tuple[list[str], list[Row]]:
    """Column names and rows; beyond ``limit`` classes, those with the most errors and a column of all others."""
    names, shares, kept = scores.classes.names, _row_shares(scores.confusion), _kept(scores, limit)
    cells, columns = shares[:, kept], [names[label] for label in kept]
    if len(kept) < len(names):
        cells, columns = np.column_stack([cells, shares.sum(axis=1) - cells.sum(axis=1)]), [*columns, "all others"]
    empty: list[float | None] = [None] * len(columns)
    sizes = scores.confusion.sum(axis=1)
    return columns, [(names[k], place, cells[k].tolist() if sizes[k] else empty) for place, k in enumerate(kept)]


def pairs(scores: Scores, count: int = 10) -> list[Pair]:
    """The confusions with the most pixels, largest first."""
    names, errors, shares = scores.classes.names, _errors(scores.confusion), _row_shares(scores.confusion)
    order = np.argsort(-errors, axis=None, kind="stable")[:count]
    places = [divmod(int(index), len(names)) for index in order if errors.flat[index]]
    return [(names[i], names[j], float(shares[i, j]), float(errors[i, j] / errors.sum())) for i, j in places]


def reading(scores: Scores) -> str:
    """One sentence about the largest off-diagonal share of the matrix."""
    names, shares, kept = scores.classes.names, _errors(_row_shares(scores.confusion)), _kept(scores)
    if not scores.confusion.any():
        return "No pixel is labelled."
    if not shares.any():
        return "Every labelled pixel is predicted correctly."
    row, column = (kept[place] for place in divmod(int(shares[np.ix_(kept, kept)].argmax()), len(kept)))
    share = f"{100 * shares[row, column]:.0f} % of the reference pixels of {names[row]}"
    return f"For example, {share} are predicted as {names[column]}."


def _kept(scores: Scores, limit: int = MATRIX_LIMIT) -> list[int]:
    """The classes with the most errors, in their own order."""
    errors = _errors(scores.confusion)
    return sorted(np.argsort(-(errors.sum(axis=0) + errors.sum(axis=1)), kind="stable")[:limit].tolist())


def _errors(table: np.ndarray) -> np.ndarray:
    return np.where(np.eye(len(table), dtype=bool), 0, table)


def _row_shares(counts: Counts) -> Float[np.ndarray, "k k"]:
    return counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
