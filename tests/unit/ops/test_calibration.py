"""Calibration against torchmetrics, and against counting pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from regard.ops.metrics import BINS, ONE, calibration_error, reliability_counts


def random(seed: int, classes: int = 5, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, their labels, and a truth that is the label about as often as not; a tenth is not labelled."""
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(spread * rng.standard_normal((classes, 23, 31), dtype=np.float32))
    predicted = scores.argmax(dim=0)
    other = torch.from_numpy(rng.integers(classes, size=(23, 31)))
    truth = torch.where(torch.from_numpy(rng.random((23, 31)) < 0.5), predicted, other)
    truth[torch.from_numpy(rng.random((23, 31)) < 0.1)] = 255
    return scores, truth, predicted


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.1, 2.0, 8.0])
def test_the_error_is_torchmetrics(seed: int, spread: float):
    reference = MulticlassCalibrationError(num_classes=5, n_bins=BINS, norm="l1", ignore_index=255)
    total = torch.zeros(BINS, 3, dtype=torch.int64)
    for part in range(3):
        scores, truth, predicted = random(10 * seed + part, spread=spread)
        total += reliability_counts(scores, truth, predicted)
        reference.update(scores[None].softmax(dim=1), truth[None])
    assert calibration_error(total) == pytest.approx(float(reference.compute()), abs=2e-6)


def test_bins_equal_the_loop_and_their_sums_the_confusion():
    scores, truth, predicted = random(3)
    expected = np.zeros((BINS, 3))
    sure = scores.double().softmax(dim=0).amax(dim=0)
    for true, called, share in zip(truth.flatten(), predicted.flatten(), sure.flatten(), strict=True):
        if true != 255:
            expected[int(share * BINS)] += (1, true == called, share)
    counts = reliability_counts(scores, truth, predicted).numpy()
    np.testing.assert_array_equal(counts[:, :2], expected[:, :2])
    np.testing.assert_allclose(counts[:, 2] / ONE, expected[:, 2], rtol=1e-6)


def test_certainty_fills_the_last_bin_and_a_broken_score_the_first():
    scores = torch.zeros(2, 1, 3)
    scores[0, 0, 0], scores[:, 0, 1] = 200, torch.nan
    truth = torch.tensor([[0, 0, 255]])
    counts = reliability_counts(scores, truth, torch.zeros(1, 3, dtype=torch.int64))
    assert counts[-1].tolist() == [1, 1, ONE] and counts[0].tolist() == [1, 1, 0] and counts.sum(dim=0)[0] == 2


def test_the_error_by_hand_and_of_nothing():
    counts = torch.zeros(BINS, 3, dtype=torch.int64)
    assert calibration_error(counts) == 0
    counts[8], counts[14] = torch.tensor([4, 1, int(2.25 * ONE)]), torch.tensor([6, 6, 6 * ONE])
    assert calibration_error(counts) == pytest.approx(1.25 / 10)


def test_the_bins_are_those_of_the_paper():
    scores = torch.tensor([[[0.0, 0.0]], [[0.15, 0.25]]])  # 0.537 and 0.562: one on each side of 8/15 and of 9/15
    counts = reliability_counts(scores, torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.int64))
    assert len(counts) == 15 and counts[:, 0].nonzero().flatten().tolist() == [8]
    confidence = scores.softmax(dim=0)[1].double().flatten()
    assert calibration_error(counts) == pytest.approx(float((1 - confidence).mean()), abs=1e-6)
