"""A model against labels: the field's scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.classes import ClassMap
from regard.data.augment import prepare
from regard.data.sample import LabelledData
from regard.engine.infer import class_scores, scaling_of
from regard.errors import ClassMismatch, DatasetError
from regard.models import Segmenter
from regard.ops import confusion as ops
from regard.ops.resize import most_likely


@dataclass(frozen=True)
class Scores:
    """A confusion matrix (rows true, columns predicted, in pixels) and what follows from it.

    A class that is neither in the labels nor in the predictions has the score None and counts in no mean.
    """

    classes: ClassMap
    confusion: np.ndarray

    @cached_property
    def _counts(self) -> Int[Tensor, "k k"]:
        return torch.from_numpy(self.confusion)

    def _by_class(self, values: Float[Tensor, " k"]) -> dict[str, float | None]:
        return {
            name: None if np.isnan(value) else value
            for name, value in zip(self.classes.names, values.tolist(), strict=True)
        }

    @property
    def iou(self) -> dict[str, float | None]:
        """Intersection over union by class, 0..1."""
        return self._by_class(ops.intersection_over_union(self._counts))

    @property
    def f1(self) -> dict[str, float | None]:
        """F1 (Dice) by class, 0..1."""
        return self._by_class(ops.f1(self._counts))

    @property
    def recall(self) -> dict[str, float | None]:
        """Share of a class's pixels that were found, 0..1."""
        return self._by_class(ops.recall(self._counts))

    @property
    def precision(self) -> dict[str, float | None]:
        """Share of the pixels called a class that are of it, 0..1."""
        return self._by_class(ops.precision(self._counts))

    @property
    def miou(self) -> float:
        """Mean of the IoU over the classes that occur."""
        return _mean(self.iou)

    @property
    def mean_f1(self) -> float:
        """Mean of the F1 over the classes that occur."""
        return _mean(self.f1)

    @property
    def accuracy(self) -> float:
        """Share of the labelled pixels that are right."""
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "miou": self.miou,
            "accuracy": self.accuracy,
            "mean_f1": self.mean_f1,
            "iou": self.iou,
            "f1": self.f1,
            "recall": self.recall,
            "precision": self.precision,
            "pixels": int(self.confusion.sum()),
            "classes": self.classes.model_dump(mode="json"),
            "confusion": self.confusion.tolist(),
        }

    def save(self, path: str | Path) -> Path:
        """Write ``as_dict`` as JSON."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
        return target

    def table(self) -> str:
        """Per class and on average, in per cent, as Markdown."""
        share = self.confusion.sum(axis=1) / max(1, self.confusion.sum())
        rows = [
            f"| {name} | {100 * share[index]:.1f} | {_cell(self.iou[name])} | {_cell(self.f1[name])} | "
            f"{_cell(self.precision[name])} | {_cell(self.recall[name])} |"
            for index, name in enumerate(self.classes.names)
        ]
        head = [
            "| class | share of pixels | IoU | F1 | precision | recall |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        miou, mean_f1, accuracy = (f"{100 * value:.1f}" for value in (self.miou, self.mean_f1, self.accuracy))
        mean = f"| **mean** | | **{miou}** | {mean_f1} | accuracy | {accuracy} |"
        return "\n".join([*head, *rows, mean])


def _mean(values: dict[str, float | None]) -> float:
    present = [value for value in values.values() if value is not None]
    return sum(present) / len(present) if present else 0.0


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def evaluate(
    model: Segmenter,
    data: LabelledData,
    *,
    split: str = "val",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: int | None = None,
) -> Scores:
    """Predict every image of a split and compare with its labels.

    ``scales`` and ``flip`` average the class probabilities of several views; ``window`` slides a square of that many
    pixels instead of taking the image whole.

    Raises:
        ClassMismatch: the model's classes are not the data's.
        DatasetError: the split has no labelled pixel.
        UnknownName, UnreadableImage, BandMismatch, SizeMismatch: see ``LabelledData``.
    """
    check_classes(model, data)
    was_training = model.training
    model.eval()
    total = torch.zeros(len(data.classes), len(data.classes), dtype=torch.int64)
    device = next(model.parameters()).device
    for pair in data.split(split):
        sample = data.read(pair, expected=model.bands)
        image = prepare(sample.image, sample.valid, scaling_of(model))[None].to(device)
        predicted = most_likely(class_scores(model, image, scales=scales, flip=flip, window=window))[0].cpu()
        truth = torch.from_numpy(sample.labels)
        total += ops.confusion_matrix(
            truth, predicted, classes=len(data.classes), ignore_index=data.classes.ignore_index
        )
    model.train(was_training)
    if not total.sum():
        raise DatasetError(
            f"{data.root}: the split {split} has no labelled pixel; nothing can be scored. Choose another split."
        )
    return Scores(data.classes, total.numpy())


def check_classes(model: Segmenter, data: LabelledData) -> None:
    """The model's classes and the data's are the same, in the same order.

    Raises:
        ClassMismatch: they are not; the message names the first difference.
    """
    ours, theirs = model.classes.names, data.classes.names
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        what = f"{len(theirs)} classes ({', '.join(theirs)}); the model has {len(ours)} ({', '.join(ours)})"
    else:
        index = next(i for i in range(len(ours)) if ours[i] != theirs[i])
        what = f"{theirs[index]!r} as class {index}; the model has {ours[index]!r}"
    raise ClassMismatch(f"{data.root} has {what}. Use data with the model's classes, or train a model on this data.")
