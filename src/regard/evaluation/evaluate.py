"""A model against labels: the field's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor

from regard.classes import ClassMap
from regard.datasets.labelled_data import LabelledData, Pair, Sample
from regard.datasets.statistics import without_labels
from regard.distributed import distributed_map, rank_and_size
from regard.evaluation.matching import check_same, matched, merged
from regard.evaluation.scores import Scores as Scores
from regard.inference.scores import evaluating, scores_of, views_of
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
    map: Mapping[str, str] | None = None,
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
        window: slide windows of so many pixels; 0 takes the image whole. By default as the model's card says that it
            was scored, else whole,
        fusion: how the scores of the views become one.
        map: The data's class that each class of the model is, ``*`` for the rest: ``{"house": "roof", "*": "other"}``.
        boundary: Also count the boundary pixels that are at most so many pixels off.
        progress: Show progress on standard error.

    Raises:
        ClassMismatch: the model's classes are not the data's, or not mapped to them.
        DatasetError: the split has no labelled pixel.
        UnknownName, UnreadableImage, BandMismatch, SizeMismatch: see ``LabelledData``.
    """
    classes, table = data.classes, matched(model.classes, data.classes, map, str(data.root))
    views = views_of(Views(tuple(scales), flip, d4, window, fusion), model)

    def count(pair: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The confusion matrix of one image, its bins of confidence, and its boundary pixels."""
        sample = data.read(pair, expected=model.bands)
        scores, reference = scores_of(model, sample.pixels, views), torch.from_numpy(sample.labels)
        labels = most_likely(scores[None])[0]
        if map is not None:  # the label is that of the model's most likely class, as in a map whose classes are renamed
            labels, scores = table.to(labels.device)[labels.long()], merged(scores, table, len(classes))
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
    """The model's classes and the data's are the same, in the same order; a ClassMismatch if not."""
    check_same(model.classes, data.classes, str(data.root))
