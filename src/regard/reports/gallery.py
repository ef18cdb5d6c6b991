"""Pictures of the report: the worst, best and least confident images of a split, and pictures given by the user."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image

from regard.card import RGB
from regard.classes import ClassMap
from regard.datasets.labelled_data import LabelledData, Pair
from regard.errors import RegardError
from regard.evaluation.evaluate import Scores
from regard.inference.pictures import NO_DATA_COLOUR, colourise, data_uri, heat, visible
from regard.inference.scores import scores_of
from regard.io.image import read_photograph
from regard.mapping.measures import confidence
from regard.models import Segmenter
from regard.ops.resize import most_likely
from regard.options import Views

SIDE, WIDE = 320, 1280  # pixels: pictures of the gallery, others
EACH = 4
ERROR_COLOURS = {"correct": (196, 208, 222), "misclassified": (217, 115, 13), "no label": NO_DATA_COLOUR}
Picture = tuple[str, str, str]  # title, alt text, data address
Entry = tuple[str, Scores, list[Picture]]  # an image's name and scores; image, label, prediction, error, confidence


def extremes(
    model: Segmenter, data: LabelledData, split: str, scores: Scores, *, window: int | None = None
) -> dict[str, list[Entry]]:
    """The ``EACH`` images of a split with the lowest and the highest mean IoU and with the lowest confidence.

    No image is pictured twice. ``window`` is the sliding window of the scores.
    """
    scored = [item for item in zip(data.split(split), scores.by_image(), strict=True) if item[1].confusion.any()]
    order = sorted(scored, key=lambda item: (item[1].miou, item[0].name))
    half = min(EACH, (len(order) + 1) // 2)
    chosen = {"Worst": order[:half], "Best": order[half:][-EACH:][::-1]}
    doubtful = sorted(scored, key=lambda item: (item[1].confidence, item[0].name))[:EACH]
    shown = {title: [_entry(model, data, *item, window) for item in items] for title, items in chosen.items() if items}
    pictured = {name for entries in shown.values() for name, _, _ in entries}
    shown["Least confident"] = [
        (pair.name, single, []) if pair.name in pictured else _entry(model, data, pair, single, window)
        for pair, single in doubtful
    ]
    return shown


def picture(caption: str, path: Path) -> Picture:
    """A picture file, resized for the page; transparency is kept.

    Raises:
        UnreadableImage: it cannot be read.
    """
    pixels = read_photograph(path)
    if pixels.valid.all():
        return caption, caption, embedded(pixels.values.transpose(1, 2, 0), "JPEG", WIDE)
    with Image.open(path) as image:
        return caption, caption, embedded(np.asarray(image.convert("RGBA")), "WEBP", WIDE)


def labelled(pair: Pair, classes: ClassMap | None) -> list[Picture]:
    """An image and its mask, as far as they can be read."""
    pictures = []
    with contextlib.suppress(RegardError):
        values, valid = pair.read_image(None, None)
        bands = RGB if len(values) == 3 else tuple(str(index) for index in range(len(values)))
        pictures.append(_picture(pair, "image", visible(values, valid, bands), kind="JPEG"))
    with contextlib.suppress(RegardError):
        if classes is not None:
            labels = pair.read_labels(classes)
            pictures.append(_picture(pair, "label", colourise(labels, classes), summary(labels, classes)))
    return pictures


def _entry(model: Segmenter, data: LabelledData, pair: Pair, scored: Scores, window: int | None) -> Entry:
    sample, classes = data.read(pair, expected=model.bands), data.classes
    scores = scores_of(model, sample.pixels, Views(window=window)).cpu()
    predicted = most_likely(scores[None])[0].numpy().astype(np.int64)
    probability = confidence(scores.softmax(dim=0)).numpy()
    outcome = np.where(sample.labels == classes.ignore_index, 2, sample.labels != predicted)
    errors = np.array(list(ERROR_COLOURS.values()), dtype=np.uint8)[outcome.astype(int)]
    wrong = f"{100 * (1 - scored.accuracy):.0f} % of the labelled pixels are misclassified"
    mean = f"{100 * probability.mean():.0f} % on average"
    pictures = [
        _picture(pair, "image", visible(*sample.pixels, model.bands), kind="JPEG"),
        _picture(pair, "label", colourise(sample.labels, classes), summary(sample.labels, classes)),
        _picture(pair, "prediction", colourise(predicted, classes), summary(predicted, classes)),
        _picture(pair, "errors", errors, wrong),
        _picture(pair, "confidence", heat(probability), mean, kind="JPEG"),
    ]
    return pair.name, scored, pictures


def _picture(pair: Pair, title: str, pixels: np.ndarray, words: str = "", *, kind: str = "PNG") -> Picture:
    alt = ": ".join([pair.name, title, *([words] if words else [])])
    return title, alt, embedded(pixels, kind)


def embedded(pixels: np.ndarray, kind: str = "PNG", side: int = SIDE) -> str:
    """8-bit colours (h, w, 3 or 4) as a data address, resized to ``side`` pixels; labels (PNG) keep their colours."""
    image, buffer = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    image.thumbnail((side, side), Image.Resampling.NEAREST if kind == "PNG" else Image.Resampling.LANCZOS)
    image.save(buffer, kind, optimize=True)
    return data_uri(buffer.getvalue(), kind.lower())


def summary(labels: Int[np.ndarray, "h w"], classes: ClassMap) -> str:
    """Alt text of a map: its three most frequent classes."""
    counts = np.bincount(labels[labels != classes.ignore_index], minlength=len(classes))
    largest = [label for label in np.argsort(-counts, kind="stable")[:3] if counts[label]]
    shares = [f"{classes.names[label]} {100 * counts[label] / counts.sum():.0f} %" for label in largest]
    return ", ".join(shares) or "nothing"
