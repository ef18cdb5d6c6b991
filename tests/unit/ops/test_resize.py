"""Labels of the highest score against ``argmax``."""

from __future__ import annotations

import pytest
import torch

from regard.ops import resize
from regard.ops.resize import most_likely


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_counts_as_in_argmax(number: float):
    scores = torch.randn(1, 6, 20, 21)
    scores[torch.rand(scores.shape) < 0.02] = number
    assert torch.equal(most_likely(scores).long(), scores.argmax(dim=1))


@pytest.mark.parametrize("classes", [1, 2, 255, 256, 257, 300])
def test_labels_take_a_byte_while_they_fit(classes: int):
    scores = torch.randn(2, classes, 5, 7).round(decimals=1)
    labels = most_likely(scores)
    assert labels.dtype == (torch.uint8 if classes <= 256 else torch.int64)
    assert torch.equal(labels.long(), scores.argmax(dim=1))


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch):
    scores = torch.randn(2, 4, 33, 10)
    monkeypatch.setattr(resize, "PIXELS", 60)
    assert torch.equal(most_likely(scores).long(), scores.argmax(dim=1))


def test_no_image_gives_no_labels():
    assert most_likely(torch.randn(0, 3, 8, 8)).shape == (0, 8, 8)
