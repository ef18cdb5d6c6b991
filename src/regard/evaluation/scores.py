"""What follows from a confusion matrix: the field's scores, their means, and the intervals of these."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.classes import ClassMap
from regard.errors import ClassMismatch
from regard.files import write_text
from regard.ops import metrics as ops
from regard.ops.metrics import ONE, Interval, boundary_f1, calibration_error, intervals, whole_counts


@dataclass(frozen=True)
class Scores:
    """A confusion matrix (rows reference, columns predicted, in pixels) and what follows from it.

    A class that is neither in the labels nor in the predictions has the score None and counts in no mean, nor does one
    that is ``left_out``.

    Args:
        classes: The classes, in the order of rows and columns.
        confusion: Pixels (k, k).
        image_confusions: The matrix of each image (i, k, k); needed for intervals.
        boundary: The result of ``boundary_counts`` (k, 4), summed over images.
        left_out: Names of classes that count in no mean.
        reliability: The result of ``reliability_counts`` of each image (i, bins, 3).
    """

    classes: ClassMap
    confusion: np.ndarray
    image_confusions: np.ndarray | None = None
    boundary: np.ndarray | None = None
    left_out: tuple[str, ...] = ()
    reliability: np.ndarray | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Scores:
        """The scores that ``as_dict`` describes, without the counts of each image, which it does not keep."""
        reliability = None
        if bins := facts.get("reliability"):
            columns = [bins["pixels"], bins["right"], np.multiply(bins["confidence"], ONE)]
            reliability = whole_counts(np.floor(columns), (3, len(bins["pixels"]))).T[None]
        classes, left_out = ClassMap(**facts["classes"]), tuple(facts.get("left_out", ()))
        classes.check_left_out(left_out)
        confusion = whole_counts(facts["confusion"], (len(classes), len(classes)))
        return cls(classes, confusion, left_out=left_out, reliability=reliability)

    def by_image(self) -> list[Scores]:
        """The scores of each image, where they were kept."""
        counts = () if self.image_confusions is None else tuple(self.image_confusions)
        bins = [None] * len(counts) if self.reliability is None else self.reliability[:, None]
        return [Scores(self.classes, matrix, reliability=own) for matrix, own in zip(counts, bins, strict=True)]

    def without(self, *names: str) -> Scores:
        """The same scores with these classes left out of every mean over classes; their pixels still count.

        Raises:
            UnknownName, ConfigError: see :meth:`ClassMap.check_left_out`.
        """
        self.classes.check_left_out(names)
        return replace(self, left_out=names)

    def __add__(self, other: Scores) -> Scores:
        """The scores of the images of both: exact, since counts are integers.

        Raises:
            ClassMismatch: their classes differ.
        """
        if self.classes != other.classes:
            raise ClassMismatch("scores of different classes cannot be added. Add scores of one class list.")

        def joined(name: str, join: Callable[..., Any]) -> Any:
            pair = getattr(self, name), getattr(other, name)
            return None if any(part is None for part in pair) else join(pair)

        images, reliability = (joined(name, np.concatenate) for name in ("image_confusions", "reliability"))
        confusion = self.confusion + other.confusion
        return Scores(self.classes, confusion, images, joined("boundary", sum), self.left_out, reliability)

    @property
    def _frequency(self) -> Float[np.ndarray, " k"]:
        """Share of the labelled pixels that are of each class."""
        return self.confusion.sum(axis=1) / max(1, self.confusion.sum())

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
        """How many of a class's reference pixels were predicted as it, 0..1."""
        return self._by_class(ops.recall(self._counts))

    @property
    def precision(self) -> dict[str, float | None]:
        """How many of the pixels predicted as a class are of it, 0..1."""
        return self._by_class(ops.precision(self._counts))

    @property
    def miou(self) -> float:
        """Mean of the IoU over the classes that occur."""
        return self._mean(self.iou)

    @property
    def mean_f1(self) -> float:
        """Mean of the F1 over the classes that occur."""
        return self._mean(self.f1)

    @property
    def mean_accuracy(self) -> float:
        """Mean of the recall over the classes in the labels: the field's mAcc."""
        return self._mean(self.recall)

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of the IoU over the classes, weighted by class frequency."""
        return float(np.nan_to_num(ops.intersection_over_union(self._counts).numpy()) @ self._frequency)

    @property
    def boundary_f1(self) -> dict[str, float | None]:
        """F1 of the boundary pixels by class, 0..1; None for all if they were not counted."""
        if self.boundary is None:
            return dict.fromkeys(self.classes.names)
        return self._by_class(boundary_f1(torch.from_numpy(self.boundary)))

    @property
    def bins(self) -> Int[np.ndarray, "bins 3"] | None:
        """``reliability`` of all images together."""
        return None if self.reliability is None else self.reliability.sum(axis=0)

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error, 0..1: how far confidence is from accuracy; None if it was not counted."""
        return None if self.bins is None else calibration_error(torch.from_numpy(self.bins))

    @property
    def confidence(self) -> float | None:
        """Mean probability of the chosen class, 0..1; None if it was not counted."""
        return None if self.bins is None else float(self.bins[:, 2].sum() / ONE / max(1, self.bins[:, 0].sum()))

    @property
    def intervals(self) -> dict[str, Interval | None]:
        """95 % intervals of each class's IoU and, under ``mean``, of their mean: a bootstrap over images."""
        if self.image_confusions is None or len(self.image_confusions) < 2:
            return {}
        counted = [index for index, name in enumerate(self.classes.names) if name not in self.left_out]
        return dict(zip([*self.classes.names, "mean"], intervals(self.image_confusions, counted), strict=True))

    def _mean(self, values: dict[str, float | None]) -> float:
        present = [value for name, value in values.items() if value is not None and name not in self.left_out]
        return sum(present) / len(present) if present else 0.0

    @property
    def accuracy(self) -> float:
        """Pixel accuracy: share of the labelled pixels whose predicted class is the reference."""
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    def summary(self) -> dict[str, float]:
        """The three numbers on a model's card and in its curves."""
        return {"miou": self.miou, "accuracy": self.accuracy, "mean_f1": self.mean_f1}

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            **self.summary(),
            "mean_accuracy": self.mean_accuracy,
            "frequency_weighted_iou": self.frequency_weighted_iou,
            "left_out": list(self.left_out),
            "intervals": self.intervals,
            **({} if self.boundary is None else {"boundary_f1": self.boundary_f1}),
            **self._calibration(),
            "iou": self.iou,
            "f1": self.f1,
            "recall": self.recall,
            "precision": self.precision,
            "pixels": int(self.confusion.sum()),
            **({} if self.image_confusions is None else {"images": len(self.image_confusions)}),
            "classes": self.classes.model_dump(mode="json"),
            "confusion": self.confusion.tolist(),
        }

    def _calibration(self) -> dict[str, Any]:
        """By bin of confidence from 0 to 1: pixels, those that are right, and the sum of their confidence."""
        if self.bins is None:
            return {}
        pixels, right, units = self.bins.T
        bins = {"pixels": pixels.tolist(), "right": right.tolist(), "confidence": (units / ONE).tolist()}
        return {"calibration_error": self.calibration_error, "confidence": self.confidence, "reliability": bins}

    def save(self, path: str | Path) -> Path:
        """Write ``as_dict`` as JSON.

        Raises:
            OutputError: it cannot be written there.
        """
        return write_text(Path(path), json.dumps(self.as_dict(), indent=1) + "\n")

    def table(self) -> str:
        """Per class and on average, in per cent, as Markdown."""
        columns = (self._by_class(torch.from_numpy(self._frequency)), self.iou, self.f1, self.precision, self.recall)
        rows = [f"| {name} | {' | '.join(_cell(column[name]) for column in columns)} |" for name in self.classes.names]
        head = [
            "| class | class frequency | IoU | F1 | precision | recall |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        miou, mean_f1, accuracy = map(_cell, (self.miou, self.mean_f1, self.accuracy))
        mean = f"| **mean** | | **{miou}** | {mean_f1} | pixel accuracy | {accuracy} |"
        return "\n".join([*head, *rows, mean, "", self._further()])

    def _further(self) -> str:
        """The line below the table: the means without a column, and the interval of the mean IoU."""
        parts = [f"mean accuracy {_cell(self.mean_accuracy)}"]
        parts.append(f"frequency-weighted IoU {_cell(self.frequency_weighted_iou)}")
        interval = self.intervals.get("mean")
        if interval is not None and self.image_confusions is not None:
            low, high = map(_cell, interval)
            parts.append(f"mean IoU {low} to {high} (95 % over {len(self.image_confusions)} images)")
        if self.boundary is not None:
            parts.append(f"mean boundary F1 {_cell(self._mean(self.boundary_f1))}")
        if self.calibration_error is not None:
            parts.append(f"expected calibration error {_cell(self.calibration_error)}")
        if self.left_out:
            parts.append(f"left out of the means: {', '.join(self.left_out)}")
        return "; ".join(parts)


def _cell(value: float | None) -> str:
    """A share in per cent."""
    return "–" if value is None else f"{100 * value:.1f}"
