"""Labels that a model doubts, the most doubtful first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.classes import ClassMap
from regard.datasets.labelled_data import LabelledData, Pair
from regard.doctor.audit import Examination, sort_findings
from regard.doctor.inventory import Finding
from regard.errors import RegardError
from regard.evaluation.evaluate import check_classes
from regard.inference.views import class_scores, evaluating, scaling_of
from regard.models import Segmenter
from regard.ops.losses import cross_entropy
from regard.ops.normalise import prepare

SURE = 0.9  # probability
SHOWN = 10
OUTLIER = 4.0  # robust standard deviations of the logarithm of the loss


class Doubt(NamedTuple):
    """One image: its mean loss in nats, and how its largest sure contradiction reads."""

    name: str
    loss: float
    words: str


def with_suspects(examined: Examination, model: Segmenter) -> Examination:
    """The examination, with the images of highest mean loss: as warnings those far above the others, else as notes.

    Raises:
        ClassMismatch: the model's classes are not the data's.
    """
    if examined.classes is None:
        return examined
    data = LabelledData(examined.root, examined.classes, {})
    check_classes(model, data)
    found = _find_suspects(model, data, examined.pairs)
    return replace(examined, findings=sort_findings([*examined.findings, *found]))


def _find_suspects(model: Segmenter, data: LabelledData, pairs: Iterable[Pair]) -> list[Finding]:
    with evaluating(model):
        doubts = [doubt for pair in pairs if (doubt := _doubt(model, data, pair)) is not None]
    doubts.sort(key=lambda doubt: -doubt.loss)
    logs = np.log([max(doubt.loss, 1e-3) for doubt in doubts] or [0.0])
    spread = 1.4826 * np.median(np.abs(logs - np.median(logs)))
    limit = np.exp(np.median(logs) + OUTLIER * max(float(spread), 0.2))
    return [_finding(doubt, bool(doubt.loss > limit)) for doubt in doubts[:SHOWN]]


def _finding(doubt: Doubt, outlier: bool) -> Finding:
    what = f"{doubt.name}: loss {doubt.loss:.2f}{doubt.words}."
    if outlier:
        return Finding("warning", "doubtful labels", f"{what} Far above the other images: look at it.", (doubt.name,))
    return Finding("note", "highest loss", what, (doubt.name,))


@torch.inference_mode()
def _doubt(model: Segmenter, data: LabelledData, pair: Pair) -> Doubt | None:
    try:
        sample = data.read(pair, expected=model.bands)
    except RegardError:
        return None  # the examination has said so
    labels = torch.from_numpy(sample.labels)[None]
    known = labels != data.classes.ignore_index
    if not known.any():
        return None
    image = prepare(sample.image, sample.valid, scaling_of(model))[None]
    logits = class_scores(model, image.to(next(model.parameters()).device)).cpu()
    loss = cross_entropy(logits, labels, ignore_index=data.classes.ignore_index)
    return Doubt(pair.image.name, float(loss), _contradiction(logits.softmax(dim=1)[0], labels[0], data.classes))


def _contradiction(probabilities: Float[Tensor, "k h w"], labels: Int[Tensor, "h w"], classes: ClassMap) -> str:
    """The pair of classes that most pixels are labelled and surely predicted as, in words."""
    highest, predicted = probabilities.max(dim=0)
    known = labels != classes.ignore_index
    wrong = (predicted != labels) & (highest > SURE) & known
    if not wrong.any():
        return ""
    pairs = torch.bincount(labels[wrong] * len(classes) + predicted[wrong], minlength=len(classes) ** 2)
    label, said = divmod(int(pairs.argmax()), len(classes))
    share = 100 * int(pairs.max()) / int(known.sum())
    return f"; {share:.0f} % of it is labelled {classes.names[label]} where the model is sure of {classes.names[said]}"
