"""Pictures inside the page: the images that went best and worst, and any others, made small."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image

from regard.card import RGB
from regard.classes import ClassMap
from regard.data.augment import prepare
from regard.data.image import read_image, read_mask, read_photograph
from regard.data.sample import LabelledData, Pair, Sample
from regard.engine.evaluate import Scores
from regard.engine.infer import class_scores, scaling_of
from regard.engine.segmentation import NO_DATA_COLOUR, paint
from regard.errors import DatasetError, RegardError
from regard.models import Segmenter
from regard.ops.confusion import confusion_matrix
from regard.ops.resize import most_likely

SIDE, WIDE = 320, 1280  # pixels: pictures of the gallery, others
EACH = 4
ERROR_COLOURS = {"right": (196, 208, 222), "wrong": (217, 115, 13), "no label": NO_DATA_COLOUR}
Scored = tuple[Pair, Scores]
Picture = tuple[str, str, str]  # what it is, what it shows in words, and the picture itself as a data address
Entry = tuple[str, Scores, list[Picture]]  # an image's name and scores; image, label, prediction, error


def score_images(model: Segmenter, data: LabelledData, split: str) -> list[Scored]:
    """Every image of a split that has labels, with its own scores.

    Raises:
        DatasetError: no image has.
    """
    scored, ignore = [], data.classes.ignore_index
    for pair in data.split(split):
        sample = data.read(pair, expected=model.bands)
        truth, predicted = torch.from_numpy(sample.labels), torch.from_numpy(_predict(model, sample))
        counts = confusion_matrix(truth, predicted, classes=len(data.classes), ignore_index=ignore)
        scored += [(pair, Scores(data.classes, counts.numpy()))] if counts.sum() else []
    if not scored:
        raise DatasetError(
            f"{data.root}: the split {split} has no labelled pixel. Label an image, or leave the data out."
        )
    return scored


def extremes(model: Segmenter, data: LabelledData, scored: Sequence[Scored]) -> dict[str, list[Entry]]:
    """The images with the lowest and the highest mean IoU, at most ``EACH`` of both and none twice."""
    order = sorted(scored, key=lambda item: (item[1].miou, item[0].name))
    half = min(EACH, (len(order) + 1) // 2)
    chosen = {"Worst": order[:half], "Best": order[half:][-EACH:][::-1]}
    return {title: [_entry(model, data, *item) for item in items] for title, items in chosen.items() if items}


def picture(caption: str, path: Path) -> Picture:
    """A picture file, made small enough for a page.

    Raises:
        UnreadableImage: it cannot be read.
    """
    return caption, caption, _uri(read_photograph(path).values.transpose(1, 2, 0), "JPEG", WIDE)


def labelled(pair: Pair, classes: ClassMap | None) -> list[Picture]:
    """An image and its mask side by side, as far as they can be read."""
    pictures = []
    with contextlib.suppress(RegardError):
        values, valid = read_image(pair.image, box=pair.box)
        bands = RGB if len(values) == 3 else tuple(str(index) for index in range(len(values)))
        shown = _photograph(Sample(values, np.zeros(valid.shape, dtype=np.int64), valid, pair.name), bands)
        pictures.append(("image", f"{pair.name}: image", _uri(shown, "JPEG")))
    with contextlib.suppress(RegardError):
        if classes is not None:
            labels = read_mask(pair.mask, classes, box=pair.box)
            words = _spoken(labels, classes) if (labels != classes.ignore_index).any() else "nothing"
            pictures.append(("label", f"{pair.name}: label: {words}", _uri(paint(labels, classes))))
    return pictures


def _entry(model: Segmenter, data: LabelledData, pair: Pair, scores: Scores) -> Entry:
    sample, classes = data.read(pair, expected=model.bands), data.classes
    predicted = _predict(model, sample)
    kinds = np.where(sample.labels == classes.ignore_index, 2, sample.labels != predicted)
    error = np.array(list(ERROR_COLOURS.values()), dtype=np.uint8)[kinds.astype(int)]
    wrong = f"{100 * (1 - scores.accuracy):.0f} % of the labelled pixels are wrong"
    pictures = [
        ("image", f"{pair.name}: image", _uri(_photograph(sample, model.bands), "JPEG")),
        ("label", f"{pair.name}: label: {_spoken(sample.labels, classes)}", _uri(paint(sample.labels, classes))),
        ("prediction", f"{pair.name}: prediction: {_spoken(predicted, classes)}", _uri(paint(predicted, classes))),
        ("error", f"{pair.name}: error: {wrong}", _uri(error)),
    ]
    return pair.name, scores, pictures


def _predict(model: Segmenter, sample: Sample) -> Int[np.ndarray, "h w"]:
    image = prepare(sample.image, sample.valid, scaling_of(model))[None]
    scores = class_scores(model, image.to(next(model.parameters()).device))
    return most_likely(scores)[0].cpu().numpy().astype(np.int64)


def _photograph(sample: Sample, bands: Sequence[str]) -> np.ndarray:
    """Red, green, blue (else the first bands) in 8 bits; other values between their 2nd and 98th percentile."""
    chosen = [bands.index(name) for name in RGB] if set(RGB) <= set(bands) else [0, 1, 2]
    values = sample.image[[band if band < len(bands) else 0 for band in chosen]].transpose(1, 2, 0)
    if values.dtype != np.uint8 and sample.valid.any():
        low, high = np.percentile(values[sample.valid], (2, 98), axis=0)
        stretched = (np.nan_to_num(values) - low) / np.maximum(high - low, 1e-9)
        values = (255 * stretched.clip(0, 1)).astype(np.uint8)
    return values


def _uri(pixels: np.ndarray, kind: str = "PNG", side: int = SIDE) -> str:
    """8-bit colours ``(h, w, 3)`` as a data address, at most ``side`` pixels long; labels (PNG) keep their colours."""
    image, buffer = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    image.thumbnail((side, side), Image.Resampling.NEAREST if kind == "PNG" else Image.Resampling.LANCZOS)
    image.save(buffer, kind, optimize=True)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _spoken(labels: Int[np.ndarray, "h w"], classes: ClassMap) -> str:
    """The three largest classes of a map, in words."""
    counts = np.bincount(labels[labels != classes.ignore_index], minlength=len(classes))
    largest = [label for label in np.argsort(-counts, kind="stable")[:3] if counts[label]]
    return ", ".join(f"{classes.names[label]} {100 * counts[label] / counts.sum():.0f} %" for label in largest)
