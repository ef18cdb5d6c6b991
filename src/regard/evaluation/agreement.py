"""How far a faster way to compute leaves a model's labels alone, on real images."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from regard.checkpoints.file import bundled, find_model, load
from regard.datasets.labelled_data import LabelledData
from regard.evaluation.evaluate import check_classes
from regard.evaluation.scores import Scores
from regard.inference.runtimes import RUNTIMES
from regard.inference.views import class_scores, scaling_of
from regard.ops.metrics import confusion_matrix
from regard.ops.normalise import prepare
from regard.ops.resize import most_likely

WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "fast": {"fast": True},
    "auto": {"precision": "auto"},
}


class Agreement(NamedTuple):
    """``equal``: share of the pixels whose label is float32's; ``faster``: than float32, by processor time."""

    way: str
    equal: float
    miou: float
    faster: float

    @property
    def line(self) -> str:
        return (
            f"{self.way:8} {100 * self.equal:7.3f} % of the labels as in float32, "
            f"mIoU {100 * self.miou:.2f}, {self.faster:.2f} times as fast"
        )


@torch.inference_mode()
def agreement(model: str | Path, data: LabelledData, *, split: str = "val") -> list[Agreement]:
    """Whole images in float32, with ``fast=True`` and with ``precision="auto"``, in turn; exported files without fast.

    Raises:
        ClassMismatch: the model's classes are not the data's.
        UnknownName, CheckpointError, UnreadableImage, BandMismatch: see :func:`regard.load` and ``LabelledData``.
    """
    exported = find_model(model).suffix in RUNTIMES
    networks = {way: load(model, **how) for way, how in WAYS.items() if not (exported and "fast" in how)}
    plain, count = networks["float32"], len(data.classes)
    check_classes(plain, data)
    counts = {way: np.zeros((count, count), dtype=np.int64) for way in networks}
    seconds: dict[str, list[float]] = {way: [] for way in networks}
    equal, pixels = dict.fromkeys(networks, 0), 0
    for pair in data.split(split):
        sample = data.read(pair, expected=plain.bands)
        image, truth = prepare(sample.image, sample.valid, scaling_of(plain))[None], torch.from_numpy(sample.labels)
        labels = {}
        for way, network in networks.items():
            began = time.process_time()
            labels[way] = most_likely(class_scores(network, image))[0]
            seconds[way].append(time.process_time() - began)
            matrix = confusion_matrix(truth, labels[way], classes=count, ignore_index=data.classes.ignore_index)
            counts[way] += matrix.numpy()
            equal[way] += int((labels[way] == labels["float32"]).sum())
        pixels += truth.numel()
    return [
        Agreement(way, equal[way] / pixels, _miou(data, counts[way]), _ratio(seconds["float32"], seconds[way]))
        for way in networks
    ]


def bundled_images() -> Path:
    """The tiles of Dubai that come with regard."""
    return bundled()["dubai-s"].parent / "city"


def _miou(data: LabelledData, counts: np.ndarray) -> float:
    return Scores(data.classes, counts, counts[None], None).miou


def _ratio(slow: list[float], fast: list[float]) -> float:
    return median(theirs / ours for theirs, ours in zip(slow, fast, strict=True))
