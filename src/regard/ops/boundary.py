"""How well the boundaries of the classes were found."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

Labels = Int[Tensor, "h w"]


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
