"""Labels that a model doubts, the most doubtful first."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.classes import ClassMap
from regard.datasets.folder import Finding
from regard.datasets.labelled_data import LabelledData, Pair
from regard.doctor.audit import Audit, sort_findings
from regard.errors import RegardError
from regard.evaluation.evaluate import check_classes
from regard.inference.scores import evaluating, scores_of
from regard.models import Segmenter
from regard.ops.losses import cross_entropy
from regard.progress import Progress

CONFIDENT = 0.9  # probability
SHOWN = 10
OUTLIER = 4.0  # robust standard deviations of the logarithm of the loss


class Suspect(NamedTuple):
    """An image or window: its mean loss in nats, and the largest confident contradiction of its labels in words."""

    pair: Pair
    loss: float
    contradiction: str


def with_suspects(audit: Audit, model: Segmenter, *, progress: bool = True) -> Audit:
    """The audit with the images of highest mean loss: as warnings those far above the others, else as notes.

    Raises:
        ClassMismatch: the model's classes are not the data's.
    """
    if audit.classes is None:
        return audit
    data = LabelledData(audit.root, audit.classes, {})
    check_classes(model, data)
    suspects = []
    with evaluating(model), Progress("score", len(audit.pairs), unit=" images", enabled=progress) as bar:
        for pair in audit.pairs:
            suspects.append(_suspect(model, data, pair))
            bar.advance()
    found = _most_doubtful([suspect for suspect in suspects if suspect is not None])
    return replace(audit, findings=sort_findings([*audit.findings, *found]))


def _most_doubtful(suspects: list[Suspect]) -> list[Finding]:
    suspects = sorted(suspects, key=lambda suspect: -suspect.loss)
    logs = np.log([max(suspect.loss, 1e-3) for suspect in suspects] or [0.0])
    spread = 1.4826 * np.median(np.abs(logs - np.median(logs)))
    limit = np.exp(np.median(logs) + OUTLIER * max(float(spread), 0.2))
    return [_finding(suspect, limit) for suspect in suspects[:SHOWN]]


def _finding(suspect: Suspect, limit: float) -> Finding:
    name, box = suspect.pair.title, suspect.pair.box
    place = f" (from row {box.top}, column {box.left})" if box else ""
    message, files = f"{name}{place}: loss {suspect.loss:.2f}{suspect.contradiction}.", (name,)
    if suspect.loss > limit:
        return Finding("warning", "doubtful labels", f"{message} Far above the other images: please check.", files)
    return Finding("note", "highest loss", message, files)


def _suspect(model: Segmenter, data: LabelledData, pair: Pair) -> Suspect | None:
    try:
        sample = data.read(pair, expected=model.bands)
    except RegardError:
        return None  # the audit has a finding about it
    ignore, labels = data.classes.ignore_index, torch.from_numpy(sample.labels)
    if not (labels != ignore).any():
        return None
    with torch.inference_mode():
        scores = scores_of(model, sample.pixels).cpu()
        loss = cross_entropy(scores[None], labels[None], ignore_index=ignore)
        return Suspect(pair, float(loss), _contradiction(scores.softmax(dim=0), labels, data.classes))


def _contradiction(probabilities: Float[Tensor, "k h w"], labels: Int[Tensor, "h w"], classes: ClassMap) -> str:
    """The pair of classes that most pixels are labelled and confidently predicted as, in words."""
    highest, predicted = probabilities.max(dim=0)
    known = labels != classes.ignore_index
    wrong = (predicted != labels) & (highest > CONFIDENT) & known
    if not wrong.any():
        return ""
    pairs = torch.bincount(labels[wrong] * len(classes) + predicted[wrong], minlength=len(classes) ** 2)
    label, other = divmod(int(pairs.argmax()), len(classes))
    share = 100 * int(pairs.max()) / int(known.sum())
    names = classes.names
    return f"; {share:.0f} % of it is labelled {names[label]} where the model is confident of {names[other]}"
