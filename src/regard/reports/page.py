"""A run or its scores as one HTML file that needs nothing else: no network, no scripts, no other files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from regard._version import __version__
from regard.card import Card
from regard.checkpoints.file import parse_card, read_header
from regard.classes import ClassMap
from regard.data.output import check_writable, write_text
from regard.data.sample import LabelledData
from regard.engine.evaluate import Scores, check_classes
from regard.engine.record import read_metrics, read_run
from regard.engine.train import Run
from regard.errors import ClassMismatch, ConfigError
from regard.models import Segmenter
from regard.reports import gallery, tables
from regard.reports.charts import curves

SIZE_LIMIT = 5_000_000  # bytes
PAGES = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=PackageLoader("regard.reports")
)


@dataclass
class Subject:
    """What the page is about: a run's run.json and metrics.jsonl, scores with the confusion of each image, pictures."""

    facts: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    scores: Scores | None = None
    images: np.ndarray | None = None
    card: Card | None = None
    extremes: dict[str, list[gallery.Entry]] = field(default_factory=dict)


def report(
    source: Run | Scores | str | Path,
    path: str | Path,
    *,
    model: Segmenter | None = None,
    data: LabelledData | None = None,
    pictures: Sequence[tuple[str, str | Path]] = (),
    title: str | None = None,
) -> Path:
    """Write one HTML file about ``source``: a run, its folder, scores, or a JSON file of them.

    ``model`` and ``data`` together add the images of the split val that went worst and best, and 95 % intervals;
    ``model`` alone adds its card. ``pictures`` are captions and image files.

    Raises:
        TrainingError, ConfigError: ``source`` is none of these; ``data`` without ``model``; a page above 5 MB.
        ClassMismatch: the classes of ``source``, ``model`` and ``data`` differ.
        OutputError: ``path`` cannot be written.
    """
    subject, target = _read(source), Path(path)
    check_writable(target)
    if model is not None:
        subject.card = model.card
    if data is not None:
        _look(subject, model, data)
    html = _render(subject, title, [gallery.picture(caption, Path(file)) for caption, file in pictures])
    size = len(html.encode())
    if size > SIZE_LIMIT:
        raise ConfigError(f"the report would have {size / 1e6:.1f} MB; it may have 5. Give fewer pictures.")
    return write_text(target, html)


def _read(source: Run | Scores | str | Path) -> Subject:
    """The subject behind any kind of source: the place to teach the report a new kind."""
    if isinstance(source, Scores):
        return Subject(scores=source, images=source.image_confusions)
    path = source.folder if isinstance(source, Run) else Path(source)
    return Subject(scores=_read_scores(path)) if path.is_file() else _read_folder(path)


def _read_scores(path: Path) -> Scores:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Scores(ClassMap(**found["classes"]), np.array(found["confusion"], dtype=np.int64))
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} holds no scores. Give the folder of a run, or a JSON file of its scores.") from None


def _read_folder(folder: Path) -> Subject:
    facts, classes = read_run(folder)
    metrics, weights = read_metrics(folder), folder / "best.safetensors"
    card = parse_card(weights, read_header(weights)) if weights.is_file() else None
    scored = [line for line in metrics if "miou" in line]
    if not scored:
        return Subject(facts, metrics, card=card)
    best = max(scored, key=lambda line: (line["miou"], line["step"]))
    return Subject(facts, metrics, Scores(classes, np.array(best["confusion"], dtype=np.int64)), card=card)


def _look(subject: Subject, model: Segmenter | None, data: LabelledData) -> None:
    """Predict the split val again for its pictures and, if the scores are of the same images, for the intervals."""
    if model is None:
        raise ConfigError("got data but no model; the pictures need both. Give the model too, or leave the data out.")
    check_classes(model, data)
    scores = subject.scores
    if scores is not None and scores.classes.names != data.classes.names:
        raise ClassMismatch(
            f"the scores have {len(scores.classes)} classes ({', '.join(scores.classes.names)}), {data.root.name} has "
            f"{len(data.classes)} ({', '.join(data.classes.names)}). Give the data that was scored."
        )
    was_training = model.training
    scored = gallery.score_images(model.eval(), data, "val")
    subject.extremes = gallery.extremes(model, data, scored)
    model.train(was_training)
    images = np.array([one.confusion for _, one in scored])
    total = images.sum(axis=0)
    subject.scores = scores = scores or Scores(data.classes, total)
    if subject.images is None and np.abs(total - scores.confusion).sum() <= 0.02 * scores.confusion.sum():
        subject.images = images


def _render(subject: Subject, title: str | None, pictures: list[gallery.Picture]) -> str:
    return PAGES.get_template("report.html.j2").render(
        **vars(subject),
        title=title,
        pictures=pictures,
        charts=curves(subject.metrics),
        ranges=None if subject.images is None else tables.intervals(subject.images),
        tables=tables,
        error_colours=gallery.ERROR_COLOURS,
        version=__version__,
        time=datetime.fromisoformat,
    )
