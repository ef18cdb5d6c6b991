"""Labels at full size, strip by strip or class by class, against the plain order; bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.ops import resize
from regard.ops.resize import labels_at_size, most_likely, resize_logits


def plainly(logits: torch.Tensor, size: tuple[int, int], align: bool) -> torch.Tensor:
    full = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=align)
    return full.argmax(dim=1)


@given(
    low=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20)),
    factor=st.sampled_from([1, 2, 4, 8]),
    width=st.integers(1, 150),
    align=st.booleans(),
    ties=st.booleans(),
    strip=st.sampled_from([1, 3_000, 2**21]),
    seed=st.integers(0, 10_000),
)
def test_powers_of_two_by_strips(
    low: tuple[int, int, int, int], factor: int, width: int, align: bool, ties: bool, strip: int, seed: int
):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=low)).float()
    logits = logits.round() if ties else logits
    size = (factor * (low[2] - 1) + 1 if align else factor * low[2], width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resize, "STRIP", strip)
        assert torch.equal(labels_at_size(logits, size, align_corners=align).long(), plainly(logits, size, align))


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize(("classes", "size"), [(3, (90, 70)), (7, (131, 147)), (19, (203, 67)), (5, (40, 33))])
def test_other_ratios_by_classes(classes: int, size: tuple[int, int], align: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resize, "STRIP", 30_000)
    logits = torch.randn(2, classes, 17, 23)
    assert torch.equal(labels_at_size(logits, size, align_corners=align).long(), plainly(logits, size, align))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("size", [(160, 168), (150, 161)])
def test_what_is_not_finite_counts_as_in_argmax(number: float, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resize, "STRIP", 1)
    logits = torch.randn(1, 6, 20, 21)
    logits[torch.rand(logits.shape) < 0.02] = number
    assert torch.equal(labels_at_size(logits, size, align_corners=False).long(), plainly(logits, size, False))


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


def test_all_classes_are_never_held_at_full_size(monkeypatch: pytest.MonkeyPatch):
    sizes = []

    def counting(logits: torch.Tensor, size: tuple[int, int], *, align_corners: bool) -> torch.Tensor:
        made = resize_logits(logits, size, align_corners=align_corners)
        sizes.append(made.numel())
        return made

    monkeypatch.setattr(resize, "resize_logits", counting)
    for size in ((1024, 512), (1000, 500)):
        labels_at_size(torch.randn(1, 12, 128, 64), size, align_corners=False)
    assert max(sizes) <= resize.STRIP < 12 * 1000 * 500


def test_no_image_gives_no_labels():
    assert labels_at_size(torch.randn(0, 3, 4, 4), (8, 8), align_corners=False).shape == (0, 8, 8)
