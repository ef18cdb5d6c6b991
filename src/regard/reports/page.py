"""Reports: a run, scores or a class map as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from regard._version import __version__
from regard.assessment import change
from regard.assessment.result import Accuracy
from regard.card import Card
from regard.checkpoints.file import load, parse_card, read_header
from regard.datasets.labelled_data import LabelledData
from regard.errors import ClassMismatch, ConfigError, visible
from regard.evaluation.evaluate import Scores, check_classes, evaluate
from regard.files import check_writable, json_of, write_text
from regard.inference.scores import evaluating, views_of
from regard.models import Segmenter
from regard.options import Views
from regard.reports import gallery, tables
from regard.reports.charts import calibration, curves
from regard.reports.class_map import describe, points_map
from regard.training.record import Run, best_line, read_metrics, read_run

BEST = "best.safetensors"
SIZE_LIMIT = 5_000_000  # bytes
PAGES = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=PackageLoader("regard.reports"),
    finalize=lambda value: visible(value) if type(value) is str else value,  # names in foreign files
)  # fmt: skip
PAGES.globals["version"] = __version__


@dataclass
class Subject:
    """What the page shows: a run's run.json and metrics.jsonl, scores, what was saved with them, pictures."""

    facts: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    scores: Scores | None = None
    saved: Mapping[str, Any] = field(default_factory=dict)
    card: Card | None = None
    extremes: dict[str, list[gallery.Entry]] = field(default_factory=dict)
    same: bool = True  # whether pictures and scores come from one model and set


def report(
    source: Run | Scores | Accuracy | str | Path,
    path: str | Path,
    *,
    model: Segmenter | None = None,
    data: LabelledData | None = None,
    confidence: str | Path | None = None,
    pictures: Sequence[tuple[str, str | Path]] = (),
    title: str | None = None,
) -> Path:
    """Write one self-contained HTML file: no network, no scripts, no other files.

    Args:
        source: a run or its folder, scores or a JSON file of them, a class map (.tif), or the accuracy of a map.
        path: the HTML file.
        model: adds its card; with ``data`` it predicts the images. Default: a run's best checkpoint.
        data: adds the worst, best and least confident images of the split val, and 95 % confidence intervals.
        confidence: the confidence file that was written with a class map.
        pictures: captions and image files to add.
        title: heading of the page.

    Raises:
        TrainingError, ConfigError: ``source`` is none of these; ``data`` without a model; a page above 5 MB.
        ClassMismatch: the classes of ``source``, ``model`` and ``data`` differ.
        OutputError: ``path`` cannot be written.
    """
    if isinstance(source, Accuracy):
        return _accuracy(source, Path(path), title)
    target, added = Path(path), [gallery.picture(caption, Path(file)) for caption, file in pictures]
    origin = source if isinstance(source, Scores) else source.folder if isinstance(source, Run) else Path(source)
    is_map = isinstance(origin, Path) and origin.suffix.lower() in (".tif", ".tiff") and not origin.is_dir()
    class_map = origin if isinstance(origin, Path) and is_map else None
    if class_map is not None and (model is not None or data is not None):
        raise ConfigError("the report of a map shows its classes and areas alone. Omit model and data.")
    if confidence is not None and class_map is None:
        raise ConfigError("confidence belongs to a map (.tif). Give the map as source, or omit confidence.")
    check_writable(target)
    if class_map is not None:
        facts = describe(class_map, None if confidence is None else Path(confidence))
        facts["pictures"] += added
        html = PAGES.get_template("map.html.j2").render(facts, title=title)
    else:
        subject = Subject(scores=origin) if isinstance(origin, Scores) else _read(origin)
        if model is not None:
            subject.card = model.card
        if data is not None:
            _score(subject, model or _best_of(origin), data)
        html = _render(subject, title, added)
    size = len(html.encode())
    if size > SIZE_LIMIT:
        raise ConfigError(f"the report would have {size / 1e6:.1f} MB; it may have 5. Give fewer pictures.")
    return write_text(target, html)


def _accuracy(found: Accuracy, target: Path, title: str | None) -> Path:
    """The page about the accuracy of a map; its options are few: it needs nothing else."""
    facts = {"facts": found.as_dict(), "points": points_map(found), "nested": change.nested}
    html = PAGES.get_template("accuracy.html.j2").render(found=found, title=title, **facts)
    return write_text(target, html)


def _read(path: Path) -> Subject:
    """The subject of a file of scores or of a run's folder."""
    if path.is_file():
        try:
            found = json_of(path.read_text(encoding="utf-8"))
            scores = Scores.of(found)
            _check_ranges(found.get("intervals") or {}, {*scores.classes.names, "mean"})
            return Subject(scores=scores, saved=found)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise ConfigError(
                f"{path} holds no scores, or some that cannot be. Give the folder of a run, or a file of its scores."
            ) from None
    return _read_folder(path)


def _check_ranges(ranges: Mapping[str, Any], names: set[str]) -> None:
    """Raise a ValueError for intervals of other names, or that are none."""
    known = [(float(low), float(high)) for low, high in filter(None, ranges.values())]
    if (ranges and ranges.keys() != names) or not all(0 <= low <= high <= 1 for low, high in known):
        raise ValueError("intervals that cannot be")


def _read_folder(folder: Path) -> Subject:
    facts, classes = read_run(folder)
    metrics, weights = read_metrics(folder), folder / BEST
    card = parse_card(weights, read_header(weights)) if weights.is_file() else None
    best = best_line(metrics)
    scores = None if best is None else Scores.of({**best, "classes": classes.model_dump()})
    return Subject(facts, metrics, scores, saved=best or {}, card=card)


def _best_of(source: Scores | Path) -> Segmenter:
    """The best model of a run."""
    if isinstance(source, Scores) or not source.is_dir():
        raise ConfigError("got data but no model; the pictures need both. Give the model too, or omit the data.")
    return load(source / BEST)


def _score(subject: Subject, model: Segmenter, data: LabelledData) -> None:
    """Predict the split val for its pictures and, if the scores are of the same images, for the intervals."""
    check_classes(model, data)
    scores = subject.scores
    if scores is not None and scores.classes.names != data.classes.names:
        raise ClassMismatch(
            f"the scores have {len(scores.classes)} classes ({', '.join(scores.classes.names)}), {data.root.name} has "
            f"{len(data.classes)} ({', '.join(data.classes.names)}). Give the data that was scored."
        )
    window = views_of(Views(window=subject.saved.get("window")), model).window or 0
    with evaluating(model):
        found = evaluate(model, data, window=window)
        subject.extremes = gallery.extremes(model, data, "val", found, window=window)
    scores = scores or found
    subject.same = bool(np.abs(found.confusion - scores.confusion).sum() <= 0.02 * scores.confusion.sum())
    if subject.same:
        subject.scores, subject.saved = replace(found, confusion=scores.confusion, left_out=scores.left_out), {}


def _render(subject: Subject, title: str | None, pictures: list[gallery.Picture]) -> str:
    scores, saved = subject.scores, subject.saved
    ranges = saved.get("intervals") or (scores.intervals if scores else {})
    counted = scores.image_confusions if scores else None
    return PAGES.get_template("report.html.j2").render(
        **vars(subject),
        title=title,
        pictures=pictures,
        charts=curves(subject.metrics),
        diagram=None if scores is None or scores.bins is None else calibration(scores.bins),
        ranges=ranges,
        images=saved.get("images") if counted is None else len(counted),
        tables=tables,
        error_colours=gallery.ERROR_COLOURS,
        time=datetime.fromisoformat,
    )
