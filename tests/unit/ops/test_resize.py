"""Labels of the highest score against ``argmax``; sizes against interpolation pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regard.ops import resize
from regard.ops.resize import most_likely, resize_logits


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


def between(line: np.ndarray, length: int, align: bool) -> np.ndarray:
    """Linear interpolation of the last axis: by the distance of corners, or of pixels' centres."""
    old = line.shape[-1]
    step = (old - 1) / (length - 1) if align and length > 1 else old / length
    places = np.arange(length) * step if align else (np.arange(length) + 0.5) * step - 0.5
    places = places.clip(0, old - 1)
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, old - 1)
    return line[..., low] * (1 - (places - low)) + line[..., high] * (places - low)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("size", [(4, 9), (7, 6), (8, 12), (1, 2), (13, 5)])
def test_sizes_are_reached_bilinearly(size: tuple[int, int], align: bool):
    logits = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    rows = between(logits.numpy(), size[1], align)
    expected = between(rows.swapaxes(2, 3), size[0], align).swapaxes(2, 3)
    np.testing.assert_allclose(resize_logits(logits, size, align_corners=align).numpy(), expected, atol=1e-12)
