"""A model against labels: the field's scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from regard.datasets.labelled_data import LabelledData, Pair
from regard.distributed import spread
from regard.errors import ClassMismatch, DatasetError
from regard.evaluation.scores import Scores as Scores
from regard.inference.views import Averaging, class_scores, evaluating, scaling_of
from regard.models import Segmenter
from regard.ops.metrics import boundary_counts, confusion_matrix, reliability_counts
from regard.ops.normalise import prepare
from regard.ops.resize import most_likely


def evaluate(
    model: Segmenter,
    data: LabelledData,
    *,
    split: str = "val",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: int | None = None,
    averaging: Averaging = "softmax",
    boundary: int | None = None,
) -> Scores:
    """Predict every image of a split and compare with its labels.

    ``scales`` and ``flip`` average several views as ``averaging`` says; ``window`` slides a square of that many pixels
    instead of taking the image whole: see ``class_scores``. ``boundary`` also counts the boundary pixels that are at
    most so many pixels off. Processes that run together (see ``joined``) share the images, and each has all scores.

    Raises:
        ClassMismatch: the model's classes are not the data's.
        DatasetError: the split has no labelled pixel.
        UnknownName, UnreadableImage, BandMismatch, SizeMismatch: see ``LabelledData``.
    """
    check_classes(model, data)
    count, ignore = len(data.classes), data.classes.ignore_index
    views = {"scales": scales, "flip": flip, "window": window, "averaging": averaging}
    device = next(model.parameters()).device

    def look(pair: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """One image's confusion matrix, bins of confidence, and boundary pixels."""
        sample = data.read(pair, expected=model.bands)
        image = prepare(sample.image, sample.valid, scaling_of(model))[None].to(device)
        found, truth = class_scores(model, image, **views), torch.from_numpy(sample.labels)  # type: ignore[arg-type]
        labels = most_likely(found)[0]
        bins = reliability_counts(found[0], truth.to(device), labels, ignore_index=ignore).cpu().numpy()
        predicted, of = labels.cpu(), {"classes": count, "ignore_index": ignore}
        confusion = confusion_matrix(truth, predicted, **of).numpy()
        if boundary is None:
            return confusion, bins, None
        return confusion, bins, boundary_counts(truth, predicted.long(), **of, reach=boundary).numpy()

    with evaluating(model):
        counts = spread(look, data.split(split))
    confusions = np.stack([one for one, _, _ in counts]) if counts else np.zeros((0, count, count), dtype=np.int64)
    if not confusions.any():
        raise DatasetError(
            f"{data.root}: the split {split} has no labelled pixel; nothing can be scored. Choose another split."
        )
    edges = None if boundary is None else np.sum([one for _, _, one in counts if one is not None], axis=0)
    bins = np.stack([one for _, one, _ in counts])
    return Scores(data.classes, confusions.sum(axis=0), confusions, edges, reliability=bins)


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
