"""The field's scores against mmsegmentation's formulas and torchmetrics, on random and degenerate counts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification as reference

from regard.classes import ClassMap
from regard.errors import ClassMismatch, ConfigError, UnknownName
from regard.evaluation.evaluate import Scores, evaluate
from regard.models import Segmenter
from regard.ops.metrics import confusion_matrix

NAMES = ("road", "roof", "tree", "car")


def mmseg(truth: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float]:
    """IoUMetric of mmsegmentation 1.2.2 in its own terms: histograms of intersection, prediction and label."""
    predicted, truth = predicted[truth != 255], truth[truth != 255]
    bins = np.arange(classes + 1) - 0.5
    both = np.histogram(predicted[predicted == truth], bins)[0].astype(float)
    called, true = np.histogram(predicted, bins)[0], np.histogram(truth, bins)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        iou, recall = both / (called + true - both), both / true
        return {"mIoU": np.nanmean(iou), "mAcc": np.nanmean(recall), "aAcc": both.sum() / true.sum()}


def cases() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(8)
    random = [(rng.integers(4, size=(9, 9)), rng.integers(4, size=(9, 9))) for _ in range(6)]
    random += [(rng.choice([0, 2, 255], size=(9, 9)), rng.choice([0, 2], size=(9, 9))) for _ in range(3)]  # absent both
    random += [(rng.choice([0, 2], size=(9, 9)), rng.integers(4, size=(9, 9)))]  # called, never true
    random += [(rng.integers(4, size=(9, 9)), np.full((9, 9), 1))]  # one answer
    random += [(np.full((9, 9), 3), np.full((9, 9), 3)), (np.full((9, 9), 3), np.full((9, 9), 0))]
    return random


@pytest.mark.parametrize(("truth", "predicted"), cases())
def test_means_are_mmsegs_and_torchmetrics(truth: np.ndarray, predicted: np.ndarray):
    counts = confusion_matrix(torch.from_numpy(truth), torch.from_numpy(predicted), classes=4)
    scores, expected = Scores(ClassMap.of(NAMES), counts.numpy()), mmseg(truth, predicted, 4)
    assert scores.miou == pytest.approx(expected["mIoU"], abs=1e-6)
    assert scores.mean_accuracy == pytest.approx(expected["mAcc"], abs=1e-6)
    assert scores.accuracy == pytest.approx(expected["aAcc"], abs=1e-6)
    settings = {"num_classes": 4, "ignore_index": 255}
    both = torch.from_numpy(predicted), torch.from_numpy(truth)
    assert scores.miou == pytest.approx(float(reference.multiclass_jaccard_index(*both, **settings)), abs=1e-6)
    weighted = float(reference.multiclass_jaccard_index(*both, average="weighted", **settings))
    assert scores.frequency_weighted_iou == pytest.approx(weighted, abs=1e-6)


def test_classes_left_out_of_the_means():
    scores = Scores(ClassMap.of(NAMES), np.diag([8, 2, 0, 5]) + np.eye(4, k=1, dtype=int))
    iou = scores.iou
    fewer = scores.without("roof", "tree")
    assert fewer.miou == pytest.approx((iou["road"] + iou["car"]) / 2) and fewer.iou == iou
    assert fewer.accuracy == scores.accuracy and "left out of the means: roof, tree" in fewer.table()
    with pytest.raises(UnknownName, match="Did you mean 'roof'"):
        scores.without("rooof")


def test_one_class_is_kept_in_the_means():
    scores = Scores(ClassMap.of(["a", "b"]), np.eye(2, dtype=np.int64), np.eye(2, dtype=np.int64)[None], None)
    with pytest.raises(ConfigError, match="Keep one"):
        scores.without("b", "a")


def test_scores_of_parts_add_up_to_the_scores_of_all():
    rng = np.random.default_rng(2)
    images = rng.integers(30, size=(8, 4, 4))
    edges = rng.integers(9, size=(8, 4, 4))
    classes = ClassMap.of(NAMES)
    bins = rng.integers(2**40, size=(8, 15, 3))
    slices = np.s_[:3, 3:, :]
    *parts, whole = (
        Scores(classes, images[s].sum(axis=0), images[s], edges[s].sum(axis=0), reliability=bins[s]) for s in slices
    )
    total = parts[0] + parts[1]
    assert total.as_dict() == whole.as_dict() and set(total.intervals) == {*NAMES, "mean"}
    low, high = total.intervals["mean"]
    assert low < total.miou < high
    assert total.without("car").intervals["mean"] != (low, high)
    assert (parts[0] + Scores(classes, images[0])).intervals == {}
    for names in (NAMES[:2], NAMES[::-1]):
        with pytest.raises(ClassMismatch):
            parts[0] + Scores(ClassMap.of(names), np.eye(len(names), dtype=int))


def test_evaluation_keeps_the_images_and_the_boundaries(toy, tiny_model: Segmenter):
    scores = evaluate(tiny_model, toy, boundary=2)
    assert scores.image_confusions.shape == (2, 3, 3)
    assert np.array_equal(scores.image_confusions.sum(axis=0), scores.confusion)
    assert all(value is None or 0 <= value <= 1 for value in scores.boundary_f1.values())
    assert scores.boundary[:, 3].sum() > 0 and "mean boundary F1" in scores.table()
    assert not math.isnan(scores.frequency_weighted_iou)


def test_evaluation_says_how_far_confidence_can_be_believed(toy, tiny_model: Segmenter):
    scores = evaluate(tiny_model, toy)
    assert scores.bins[:, 0].sum() == scores.confusion.sum() and scores.bins[:, 1].sum() == np.trace(scores.confusion)
    assert 0 < scores.calibration_error < 1 and 1 / 3 <= scores.confidence <= 1  # of three classes
    assert abs(scores.confidence - scores.accuracy) <= scores.calibration_error + 1e-12
    facts = json.loads(json.dumps(scores.as_dict()))
    assert facts["calibration_error"] == scores.calibration_error and facts["images"] == 2
    again = Scores.of(facts)
    np.testing.assert_array_equal(again.bins, scores.bins)
    np.testing.assert_array_equal(again.confusion, scores.confusion)
    images = scores.by_image()
    assert len(images) == 2 and sum(images[1:], images[0]).bins.tolist() == scores.bins.tolist()
    assert "expected calibration error" in scores.table()
    plain = Scores(scores.classes, scores.confusion)
    assert plain.calibration_error is plain.confidence is None and "reliability" not in plain.as_dict()
