"""Promises of errors: kept on other blocks of ground, and none where too little is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from regard.assessment.certainty import _student, promises, upper_bound


def blocks(seed: int, count: int = 60, pixels: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, right, and block of pixels that are right with a chance that differs from block to block."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.4, 1, (count, pixels))
    chance = np.clip(confidence + rng.normal(0, 0.06, (count, 1)), 0, 1)
    right = rng.random((count, pixels)) < chance
    return confidence.ravel(), right.ravel(), np.repeat(np.arange(count), pixels)


# Of Student's distribution, 95 %, as printed in tables.
@pytest.mark.parametrize(("freedom", "printed"), [(10, 1.812), (15, 1.753), (30, 1.697), (120, 1.658)])
def test_students_quantile(freedom: int, printed: float) -> None:
    assert _student(freedom) == pytest.approx(printed, abs=6e-4)


def test_the_bound_is_that_of_a_loop_over_the_blocks() -> None:
    _, right, block = blocks(0, 12, 50)
    shares = [float(np.mean(~right[block == number])) for number in range(12)]
    shares.append(max(shares))
    mean = sum(shares) / 13
    error = (sum((share - mean) ** 2 for share in shares) / 12 / 13) ** 0.5
    assert upper_bound(right, block, np.ones(len(block))) == pytest.approx(
        mean + _student(12) * (2 * error**2) ** 0.5, rel=1e-12
    )


def test_a_promise_is_kept_on_other_blocks_in_nine_of_ten_draws() -> None:
    kept = []
    for seed in range(40):
        found = promises(*blocks(seed), np.ones(60 * 200))
        level = min(promise.confidence for promise in found if promise.error <= 0.2)
        confidence, right, _ = blocks(seed + 1000, 400)
        kept.append(np.mean(~right[confidence >= level]) <= 0.2)
    assert np.mean(kept) >= 0.9


def test_lower_thresholds_promise_no_smaller_error() -> None:
    found = promises(*blocks(1), np.ones(60 * 200))
    assert all(a.confidence > b.confidence and a.error <= b.error for a, b in pairwise(found))


def test_few_blocks_promise_nothing() -> None:
    assert upper_bound(np.ones(90, bool), np.arange(90) % 9, np.ones(90)) == 1.0
