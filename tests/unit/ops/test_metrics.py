"""Scores against torchmetrics and against counting pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional import classification as reference

from regard.errors import ClassMismatch
from regard.ops import metrics as confusion
from regard.ops.metrics import confusion_matrix, f1, intersection_over_union, intervals, precision, recall
from regard.ops.resize import most_likely, resize_logits


def labels_of(rng: np.random.Generator, classes: int, *, ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    """Random truth and prediction that use only some of the classes."""
    some = rng.choice(classes, size=rng.integers(1, classes + 1), replace=False)
    truth, predicted = rng.choice(some, size=(2, 9, 11)), rng.choice(classes, size=(2, 9, 11))
    truth[rng.random(truth.shape) < ignored] = 255
    return torch.from_numpy(truth), torch.from_numpy(predicted)


@given(classes=st.integers(2, 9), ignored=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 10_000))
def test_counts_equal_the_loop(classes: int, ignored: float, seed: int):
    truth, predicted = labels_of(np.random.default_rng(seed), classes, ignored=ignored)
    expected = torch.zeros(classes, classes, dtype=torch.int64)
    for true, guess in zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        if true != 255:
            expected[true, guess] += 1
    assert torch.equal(confusion_matrix(truth, predicted, classes=classes), expected)


@pytest.mark.parametrize("types", [("uint8", "uint8"), ("int16", "uint8"), ("uint8", "int64"), ("int32", "int16")])
def test_labels_of_any_type_are_counted_in_chunks(types: tuple[str, str], monkeypatch: pytest.MonkeyPatch):
    truth, predicted = labels_of(np.random.default_rng(7), 5)
    expected = reference.multiclass_confusion_matrix(predicted, truth, num_classes=5, ignore_index=255)
    monkeypatch.setattr(confusion, "CHUNK", 50)
    narrow = (labels.to(getattr(torch, name)) for labels, name in zip((truth, predicted), types, strict=True))
    assert torch.equal(confusion_matrix(*narrow, classes=5), expected)


SCORES = {
    "iou": (intersection_over_union, reference.multiclass_jaccard_index),
    "f1": (f1, reference.multiclass_f1_score),
    "recall": (recall, reference.multiclass_recall),
    "precision": (precision, reference.multiclass_precision),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", SCORES)
def test_scores_equal_torchmetrics_and_are_nan_where_it_says_nothing(name: str, seed: int):
    ours, theirs = SCORES[name]
    classes = 2 + seed
    truth, predicted = labels_of(np.random.default_rng(seed), classes)
    values = ours(confusion_matrix(truth, predicted, classes=classes))
    expected = theirs(predicted, truth, num_classes=classes, ignore_index=255, average="none")
    counted = truth != 255
    present = torch.bincount(truth[counted], minlength=classes) > 0
    called = torch.bincount(predicted[counted], minlength=classes) > 0
    says = {"iou": present | called, "f1": present | called, "recall": present, "precision": called}[name]
    assert torch.equal(values.isnan(), ~says)
    torch.testing.assert_close(values[says].float(), expected[says])


def test_two_classes_by_hand():
    counts = torch.tensor([[6, 2], [1, 3]])
    torch.testing.assert_close(intersection_over_union(counts), torch.tensor([6 / 9, 3 / 6]).double())
    torch.testing.assert_close(f1(counts), torch.tensor([12 / 15, 6 / 9]).double())
    torch.testing.assert_close(recall(counts), torch.tensor([6 / 8, 3 / 4]).double())
    torch.testing.assert_close(precision(counts), torch.tensor([6 / 7, 3 / 5]).double())


def test_counts_of_billions_do_not_lose_pixels():
    counts = torch.tensor([[2**40, 1], [0, 2**40]])
    assert float(intersection_over_union(counts)[0]) < 1.0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_small_integers_do_not_overflow(dtype: torch.dtype):
    truth = torch.full((1, 10), 20, dtype=dtype)
    assert confusion_matrix(truth, truth, classes=21)[20, 20] == 10


@pytest.mark.parametrize(("truth", "predicted", "which"), [(3, 0, "truth"), (-1, 0, "truth"), (0, 3, "prediction")])
def test_a_label_outside_the_classes_is_refused(truth: int, predicted: int, which: str):
    with pytest.raises(ClassMismatch, match=rf"the {which} holds labels .* 3 classes allow 0 to 2"):
        confusion_matrix(torch.tensor([[truth]]), torch.tensor([[predicted]]), classes=3)


@pytest.mark.parametrize("predicted", [torch.uint8, torch.int64])
def test_the_ignore_index_may_not_be_predicted(predicted: torch.dtype):
    truth = torch.tensor([[0, 1]], dtype=torch.uint8)
    with pytest.raises(ClassMismatch, match="the prediction holds labels 1 to 255"):
        confusion_matrix(truth, torch.tensor([[255, 1]], dtype=predicted), classes=3)


@pytest.mark.parametrize("which", ["truth", "prediction"])
def test_the_first_label_beyond_a_byte_is_refused(which: str):
    labels = {"truth": torch.zeros(1, 2, dtype=torch.int64), "prediction": torch.zeros(1, 2, dtype=torch.int64)}
    labels[which][0, 1] = 256
    with pytest.raises(ClassMismatch, match=f"the {which} holds labels 0 to 256"):
        confusion_matrix(labels["truth"], labels["prediction"], classes=256)


@pytest.mark.parametrize(("classes", "ignored"), [(256, -1), (300, -1), (300, 299), (4, 1000)])
def test_any_ignore_index_is_left_out_alone(classes: int, ignored: int):
    rng = np.random.default_rng(classes)
    truth, predicted = (torch.from_numpy(rng.integers(classes, size=(40, 50))) for _ in range(2))
    truth[3:9] = ignored
    counted = (truth != ignored).flatten()
    pairs = truth.flatten()[counted] * classes + predicted.flatten()[counted]
    expected = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    assert torch.equal(confusion_matrix(truth, predicted, classes=classes, ignore_index=ignored), expected)


def test_an_ignore_index_that_is_no_label_ignores_nothing():
    labels = torch.tensor([[255, 7, 255]], dtype=torch.uint8)
    counts = confusion_matrix(labels, labels, classes=256, ignore_index=-1)
    assert (int(counts[255, 255]), int(counts[7, 7]), int(counts.sum())) == (2, 1, 3)


def drawn(images: np.ndarray, counted: list[int] | None) -> list[tuple[float, float] | None]:
    """The bootstrap one draw at a time, over the same draws."""
    count, classes = len(images), images.shape[1]
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=1000)
    rows: list[list[float]] = []
    for draw in times:
        total = sum(number * image for number, image in zip(draw, images, strict=True))
        iou = [
            total[k, k] / either if (either := total[k].sum() + total[:, k].sum() - total[k, k]) else float("nan")
            for k in range(classes)
        ]
        rows.append([*iou, float(np.nanmean([iou[k] for k in (counted or range(classes))]))])
    columns = [column[~np.isnan(column)] for column in np.array(rows).T]
    return [(np.quantile(one, 0.025), np.quantile(one, 0.975)) if len(one) else None for one in columns]


@pytest.mark.parametrize("counted", [None, [0, 3]])
def test_intervals_equal_the_bootstrap_draw_by_draw(counted: list[int] | None):
    rng = np.random.default_rng(4)
    images = rng.integers(0, 30, size=(6, 4, 4))
    images[:, 1], images[:, :, 1] = 0, 0  # a class that no image has
    images[1:, 2], images[1:, :, 2] = 0, 0  # and one of a single image, which a third of the draws miss
    found = intervals(images, counted)
    expected = drawn(images, counted)
    assert [one is None for one in found] == [one is None for one in expected] == [False, True, False, False, False]
    for mine, wanted in zip(found, expected, strict=True):
        assert mine is None or mine == pytest.approx(wanted)


def test_most_likely_is_argmax_and_the_first_of_equals():
    scores = torch.randn(2, 7, 5, 6)
    assert torch.equal(most_likely(scores).long(), scores.argmax(dim=1))


@pytest.mark.parametrize("align", [True, False])
def test_resize_keeps_a_plane_and_returns_the_same_tensor_at_its_own_size(align: bool):
    plane = torch.linspace(0, 1, 5)[None, None, :, None] + torch.linspace(0, 2, 7)[None, None, None]
    assert resize_logits(plane, (5, 7), align_corners=align) is plane
    larger = resize_logits(plane, (9, 13), align_corners=align)
    assert larger.shape == (1, 1, 9, 13)
    steps = larger[0, 0, :, 6].diff()
    if align:  # corners on corners: a plane stays a plane
        torch.testing.assert_close(steps, torch.full((8,), 1 / 8))
        torch.testing.assert_close(larger[0, 0, [0, -1], [0, -1]], plane[0, 0, [0, -1], [0, -1]])
    else:
        torch.testing.assert_close(steps[2:-2], torch.full((4,), 5 / 9 / 4))
