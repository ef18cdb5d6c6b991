"""How far a model's confidence can be believed."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

BINS = 15
ONE = 2**24  # the unit of sums of confidence: whole numbers, which add up alike in any order


def reliability_counts(
    scores: Float[Tensor, "k h w"],
    truth: Integer[Tensor, "h w"],
    predicted: Integer[Tensor, "h w"],
    *,
    ignore_index: int = 255,
) -> Int[Tensor, "bins 3"]:
    """By confidence, in ``BINS`` equal bins from 0 to 1: pixels, pixels right, sum of confidence in units of 2⁻²⁴.

    Confidence is the largest softmax of the ``scores``. Pixels without label are left out. Counts of images add up.
    """
    known = truth != ignore_index
    sure = (scores.amax(dim=0) - scores.logsumexp(dim=0)).exp().nan_to_num().double()[known]
    units = (ONE * sure).round().clamp(0, ONE)
    place = (units * BINS).div(ONE, rounding_mode="floor").long().clamp(max=BINS - 1)
    sums = [None, (truth == predicted)[known].double(), units]
    return torch.stack([torch.bincount(place, weights, minlength=BINS).long() for weights in sums], dim=1)


def calibration_error(counts: Int[Tensor, "bins 3"]) -> float:
    """The expected calibration error: Σ over bins of its share of the pixels × |share right - mean confidence|, 0..1.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, equation 5.
    """
    pixels, right, units = counts.double().unbind(dim=1)
    return float((right - units / ONE).abs().sum() / pixels.sum().clamp(min=1))
