"""Probabilities that hold: one temperature by which a model's scores are divided, fitted on labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.assessment.certainty import Promise, promises
from regard.datasets.labelled_data import LabelledData, Pair
from regard.datasets.statistics import without_labels
from regard.errors import DatasetError, counted
from regard.evaluation.evaluate import check_classes
from regard.inference.scores import evaluating, scores_of, views_of
from regard.models import Segmenter
from regard.ops.metrics import calibration_error, reliability_counts
from regard.options import Views
from regard.progress import Progress

PIXELS = 4096  # of an image, drawn at random among those with a label
FOLDS = 5  # each is judged by what the others were fitted to
MANY, CELLS = 20, 4  # fewer images are cut into 4 x 4 blocks each
HOTTEST = 20.0  # temperatures lie between its inverse and this
STEPS = 100


class Scored(NamedTuple):
    """Pixels with their scores before any temperature, their labels, and the block of ground that each lies in.

    ``weight``: how many labelled pixels of its image each stands for.
    """

    scores: Float[Tensor, "n k"]
    labels: Int[Tensor, " n"]
    block: Int[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]


class Reliability(NamedTuple):
    """How far probabilities hold: expected calibration error, Brier score (the sum over classes), log loss."""

    calibration_error: float
    brier: float
    log_loss: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """A model whose card has its temperature, and how far its probabilities held before and hold now.

    ``before`` and ``after`` are of blocks of ground that the temperature was not fitted to.
    """

    model: Segmenter
    temperature: float
    before: Reliability
    after: Reliability
    pixels: int
    blocks: int
    promises: tuple[Promise, ...]

    def as_dict(self) -> dict[str, Any]:
        """All figures, as JSON has them."""
        facts = {name: value for name, value in vars(self).items() if name in ("temperature", "pixels", "blocks")}
        reliable = {"before": self.before._asdict(), "after": self.after._asdict()}
        return facts | reliable | {"certain": [promise._asdict() for promise in self.promises]}

    def table(self) -> str:
        """What became better, as a Markdown table."""
        lines = ["| on blocks that were held out | before | after |", "| --- | ---: | ---: |"]
        names = ("calibration error", "Brier score", "log loss")
        rows = zip(names, self.before, self.after, strict=True)
        return "\n".join([*lines, *(f"| {name} | {old:.4f} | {new:.4f} |" for name, old, new in rows)])

    def heading(self) -> str:
        """The temperature and what it rests on, in a sentence."""
        return f"temperature {self.temperature:.3f}, from {self.pixels:,} pixels in {counted(self.blocks, 'block')}"


def calibrate(model: Segmenter, data: LabelledData, *, split: str = "val", progress: bool = True) -> Calibration:
    """Fit the temperature of a model to labelled images, seen as its card says; the result's ``model`` has it.

    Scores over a temperature above 1 are less certain; the most likely class stays the same. All probabilities use the
    temperature of the card: maps, the viewer, scores, exports. The model that is given stays as it is.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2.

    Raises:
        ClassMismatch: the model's classes are not the data's.
        DatasetError: the split has no labelled pixel, or they all lie in one block of ground.
        UnknownName, UnreadableImage, BandMismatch, SizeMismatch: see ``LabelledData``.
    """
    check_classes(model, data)
    pairs = data.split(split)
    bar = Progress("calibrate", len(pairs), unit=" images", enabled=progress)
    with bar:
        scored = scored_pixels(model, data, pairs, bar)
    if not len(scored.labels):
        raise without_labels(data, split)
    return _calibrated(model, scored, split)


def scored_pixels(model: Segmenter, data: LabelledData, pairs: Sequence[Pair], bar: Progress | None = None) -> Scored:
    """Some labelled pixels of some images, with their scores before any temperature; blocks are numbered from 0."""
    plain = model.with_card(model.card.model_copy(update={"temperature": 1.0, "certain": ()}))
    with evaluating(plain):
        parts = [*_scored(plain, data, pairs, bar)]
    block, weight = np.concatenate([part.block for part in parts]), np.concatenate([part.weight for part in parts])
    scores, labels = torch.cat([part.scores for part in parts]), torch.cat([part.labels for part in parts])
    return Scored(scores, labels, np.unique(block, return_inverse=True)[1], weight)


def _calibrated(model: Segmenter, scored: Scored, split: str) -> Calibration:
    blocks = int(scored.block.max()) + 1
    if blocks < 2:
        raise DatasetError(f"all labels of {split} lie in one block of ground; need 2 or more. Label more of it.")
    held_out = torch.ones(len(scored.labels), dtype=torch.float64)
    fold = np.random.default_rng(0).permutation(blocks)[scored.block] % min(FOLDS, blocks)
    for number in range(fold.max() + 1):
        rest = torch.from_numpy(fold != number)
        held_out[~rest] = fitted(scored.scores[rest], scored.labels[rest])
    before = reliability(scored.scores, scored.labels)
    after = reliability(scored.scores / held_out[:, None], scored.labels)
    temperature = fitted(scored.scores, scored.labels)
    kept = promises(*_judged(scored, held_out), scored.block, scored.weight)
    update = {"temperature": temperature, "certain": tuple((promise.confidence, promise.error) for promise in kept)}
    better = model.with_card(model.card.model_copy(update=update))
    return Calibration(better, temperature, before, after, len(scored.labels), blocks, kept)


def _judged(scored: Scored, temperature: Tensor) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The confidence of each pixel, and whether its class is right."""
    best = (scored.scores / temperature[:, None]).softmax(dim=1).max(dim=1)
    return best.values.numpy(), (best.indices == scored.labels).numpy()


def _scored(model: Segmenter, data: LabelledData, pairs: Sequence[Pair], bar: Progress | None) -> Iterator[Scored]:
    """Some pixels of each image. Of many images each is a block; of few, their parts are."""
    views = views_of(Views(), model)
    cells = 1 if len(pairs) >= MANY else CELLS
    for number, pair in enumerate(pairs):
        sample = data.read(pair, expected=model.bands)
        scores = scores_of(model, sample.pixels, views).cpu()
        known = np.flatnonzero(sample.labels != data.classes.ignore_index)
        drawn = np.random.default_rng([0, number]).permutation(known)[:PIXELS]
        rows, columns = np.divmod(drawn, sample.labels.shape[1])
        cell = [place * cells // length for place, length in zip((rows, columns), sample.labels.shape, strict=True)]
        block = (number * cells + cell[0]) * cells + cell[1]
        labels = torch.from_numpy(sample.labels[rows, columns].astype(np.int64))
        weight = np.full(len(drawn), len(known) / max(1, len(drawn)))
        if bar is not None:
            bar.advance()
        yield Scored(scores[:, rows, columns].T.double(), labels, block, weight)


def fitted(scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """The temperature of the least log loss, by Newton's method on its inverse, in which the loss is convex."""
    inverse = 1.0
    own = scores.gather(1, labels[:, None])[:, 0]
    for _ in range(STEPS):
        shares = (inverse * scores).softmax(dim=1)
        mean = (shares * scores).sum(dim=1)
        slope = float((mean - own).mean())
        curve = float(((shares * scores.square()).sum(dim=1) - mean.square()).mean())
        wanted = inverse - slope / max(curve, 1e-12)
        step = float(np.clip(wanted, max(inverse / 2, 1 / HOTTEST), min(inverse * 2, HOTTEST)))
        if abs(step - inverse) <= 1e-10 * inverse:
            break
        inverse = step
    return 1 / inverse


def reliability(scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Reliability:
    """Calibration error, Brier score and log loss of the softmax of some scores."""
    shares, picked = scores.softmax(dim=1), scores.argmax(dim=1)
    counts = reliability_counts(scores.T[..., None], labels[:, None], picked[:, None], ignore_index=-1)
    truth = torch.nn.functional.one_hot(labels, scores.shape[1])
    loss = torch.nn.functional.cross_entropy(scores, labels)
    return Reliability(calibration_error(counts), float((shares - truth).square().sum(dim=1).mean()), float(loss))
