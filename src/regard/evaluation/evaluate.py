"""A model against labels: the field's scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor

from regard.classes import ClassMap
from regard.datasets.labelled_data import LabelledData, Pair, Sample
from regard.datasets.statistics import without_labels
from regard.distributed import distributed_map, rank_and_size
from regard.errors import ClassMismatch
from regard.evaluation.scores import Scores as Scores
from regard.inference.scores import evaluating, scores_of
from regard.models import Segmenter
from regard.ops.metrics import boundary_counts, confusion_matrix, reliability_counts
from regard.ops.resize import most_likely
from regard.options import Fusion, Views
from regard.progress import Progress


def evaluate(
    model: Segmenter,
    data: LabelledData,
    *,
    split: str = "val",
    scales: Sequence[float] = Views.scales,
    flip: bool = Views.flip,
    d4: bool = Views.d4,
    window: int | None = Views.window,
    fusion: Fusion = Views.fusion,
    boundary: int | None = None,
    progress: bool = True,
) -> Scores:
    """Predict every image of a split and compare it with its labels.

    Processes that run together (see ``process_group``) share the images, and each has all scores.

    Args:
        model: The network; it is set to eval mode and restored.
        data: Labelled data with the model's classes.
        split: ``train``, ``val`` or ``test``.
        scales: Test-time augmentation, see :class:`regard.options.Views`: resize by these factors,
        flip: add the horizontal mirror image,
        d4: add the image and its mirror image, each rotated by 0, 90, 180 and 270 degrees,
        window: slide windows of so many pixels instead of taking the image whole,
        fusion: how the scores of the views become one.
        boundary: Also count the boundary pixels that are at most so many pixels off.
        progress: Show progress on standard error.

    Raises:
        ClassMismatch: the model's classes are not the data's.
        DatasetError: the split has no labelled pixel.
        UnknownName, UnreadableImage, BandMismatch, SizeMismatch: see ``LabelledData``.
    """
    check_classes(model, data)
    classes, views = data.classes, Views(tuple(scales), flip, d4, window, fusion)

    def count(pair: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The confusion matrix of one image, its bins of confidence, and its boundary pixels."""
        sample = data.read(pair, expected=model.bands)
        scores, reference = scores_of(model, sample.pixels, views), torch.from_numpy(sample.labels)
        labels = most_likely(scores[None])[0]
        bins = reliability_counts(scores, reference.to(labels.device), labels, ignore_index=classes.ignore_index)
        predicted, edges = labels.cpu(), None
        bar.advance()
        if boundary is not None:
            of = {"classes": len(classes), "ignore_index": classes.ignore_index, "reach": boundary}
            edges = boundary_counts(reference, predicted.long(), **of).numpy()
        return count_errors(sample, predicted, classes), bins.cpu().numpy(), edges

    pairs, (rank, size) = data.split(split), rank_and_size()
    bar = Progress("evaluate", len(pairs[rank::size]), unit=" images", enabled=progress and rank == 0)
    with evaluating(model), bar:
        counts = distributed_map(count, pairs)
    confusions, bins, edges = zip(*counts, strict=True) if counts else ((), (), ())
    if not np.any(confusions):
        raise without_labels(data, split)
    summed = None if boundary is None else np.sum(edges, axis=0)
    return Scores(classes, np.sum(confusions, axis=0), np.stack(confusions), summed, reliability=np.stack(bins))


def count_errors(sample: Sample, predicted: Integer[Tensor, "h w"], classes: ClassMap) -> Int[np.ndarray, "k k"]:
    """The confusion matrix of one image: rows reference, columns predicted, in pixels."""
    reference, count = torch.from_numpy(sample.labels), len(classes)
    return confusion_matrix(reference, predicted, classes=count, ignore_index=classes.ignore_index).numpy()


def check_classes(model: Segmenter, data: LabelledData) -> None:
    """The model's classes and the data's are the same, in the same order.

    Raises:
        ClassMismatch: they are not; the message names the first difference.
    """
    ours, theirs = model.classes.names, data.classes.names
    if ours == theirs:
        return
    if len(ours) != len(theirs):
        difference = f"{len(theirs)} classes ({', '.join(theirs)}); the model has {len(ours)} ({', '.join(ours)})"
    else:
        index = next(i for i in range(len(ours)) if ours[i] != theirs[i])
        difference = f"{theirs[index]!r} as class {index}; the model has {ours[index]!r}"
    raise ClassMismatch(
        f"{data.root} has {difference}. Use data with the model's classes, or train a model on this data."
    )
