"""Accuracies and their standard errors equal those of R's package survey on 100 random samples."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regard.assessment.estimate import Accuracies, Estimate, LabelledSample, estimate

FIXTURE = json.loads(gzip.decompress((Path(__file__).parent / "data" / "survey.json.gz").read_bytes()))
CASES = list(zip(FIXTURE["designs"], FIXTURE["results"], strict=True))


def sample_of(design: dict[str, Any]) -> LabelledSample:
    numbers = {name: np.array(design[name], float) for name in ("size", "area")}
    labels = {name: np.array(design[name], int) for name in ("stratum", "mapped", "reference", "pixels")}
    return LabelledSample(**labels, **numbers)


def assert_equal(found: Estimate, expected: list[Any]) -> None:
    """Values and standard errors to 1e-9; where R has none, there is none."""
    wanted = np.array(expected, float).reshape(-1, 2)
    assert np.stack([found.value, found.se], axis=1) == pytest.approx(wanted, abs=1e-9, nan_ok=True)


@pytest.fixture(scope="module")
def estimates() -> list[Accuracies]:
    return [estimate(sample_of(design), design["classes"]) for design, _ in CASES]


@pytest.mark.parametrize("name", ["overall", "users", "producers", "f1", "iou", "share"])
def test_figures_of_the_map(estimates: list[Accuracies], name: str) -> None:
    for found, (_, results) in zip(estimates, CASES, strict=True):
        assert_equal(getattr(found, name), results[name])


def test_the_overall_accuracy_of_a_sub_area() -> None:
    for design, results in CASES:
        within = np.array(design["within"], bool)
        assert_equal(estimate(sample_of(design), design["classes"], within).overall, results["part"])


def test_the_fixture_has_samples_of_every_kind() -> None:
    assert len(CASES) == 100
    assert {design["classes"] for design, _ in CASES} == {2, 3, 4}
    assert {len(design["area"]) for design, _ in CASES} == {1, 2, 3, 4, 5}
    assert 0.2 < np.mean([design["area"] != design["pixels"] for design, _ in CASES]) < 0.8
