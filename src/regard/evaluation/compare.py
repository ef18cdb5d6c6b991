"""The faster ways to compute a model, compared with float32 on labelled images."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from regard.checkpoints.file import bundled, find, load
from regard.datasets.labelled_data import LabelledData
from regard.evaluation.evaluate import check_classes, count_errors
from regard.evaluation.scores import Scores
from regard.inference.runtimes import RUNTIMES
from regard.inference.scores import scores_of
from regard.ops.resize import most_likely

WAYS: dict[str, dict[str, Any]] = {"float32": {}, "fast": {"fast": True}, "auto": {"precision": "auto"}}


class Agreement(NamedTuple):
    """``equal``: how many pixels, of 1, have the label of float32; ``faster``: than float32, by processor time."""

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


def compare(model: str | Path, data: LabelledData, *, split: str = "val") -> list[Agreement]:
    """Score whole images in float32, with ``fast=True`` and with ``precision="auto"``, interleaved.

    Exported files have no ``fast``.

    Raises:
        ClassMismatch: the model's classes are not the data's.
        UnknownName, CheckpointError, UnreadableImage, BandMismatch: see :func:`regard.load` and ``LabelledData``.
    """
    exported = find(model).suffix in RUNTIMES
    networks = {way: load(model, **settings) for way, settings in WAYS.items() if not (exported and way == "fast")}
    check_classes(networks["float32"], data)
    confusions: dict[str, list[np.ndarray]] = {way: [] for way in networks}
    seconds: dict[str, list[float]] = {way: [] for way in networks}
    equal, pixels = dict.fromkeys(networks, 0), 0
    for pair in data.split(split):
        sample = data.read(pair, expected=networks["float32"].bands)
        labels: dict[str, torch.Tensor] = {}
        for way, network in networks.items():
            started = time.process_time()
            labels[way] = most_likely(scores_of(network, sample.pixels)[None])[0].cpu()
            seconds[way].append(time.process_time() - started)
            confusions[way].append(count_errors(sample, labels[way], data.classes))
            equal[way] += int((labels[way] == labels["float32"]).sum())
        pixels += sample.labels.size
    miou = {way: Scores(data.classes, np.sum(counts, axis=0)).miou for way, counts in confusions.items()}
    faster = {way: median(np.divide(seconds["float32"], times).tolist()) for way, times in seconds.items()}
    return [Agreement(way, equal[way] / pixels, miou[way], faster[way]) for way in networks]


def bundled_images() -> Path:
    """The tiles of Dubai that come with regard."""
    return bundled()["dubai-s"].parent / "city"
