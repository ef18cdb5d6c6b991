"""Statistics of training data: mean and standard deviation by band, class frequency, class weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from regard.card import Scaling
from regard.datasets.labelled_data import LabelledData, Pair
from regard.errors import ClassMismatch, DatasetError, RegardError
from regard.io.ground import ground_resolution
from regard.io.image import is_placed
from regard.io.raster import open_raster
from regard.io.source import PHOTOGRAPHS, Source
from regard.progress import Progress

IMAGES, RESOLUTIONS = 64, 16  # images at most that are measured
Read = TypeVar("Read")


def divisor_of(dtype: np.dtype) -> float:
    """The divisor of raw values: 255 for 8-bit, 65535 for unsigned 16-bit, 1 for all others."""
    return {"uint8": 255.0, "uint16": 65535.0}.get(dtype.name, 1.0)


def measured_resolution(data: LabelledData) -> float | None:
    """Metres per pixel of the training images: the median of up to 16 that are georeferenced; None without any."""
    files = sorted({pair.image for pair in data.split("train")})
    placed = [path for path in files if Source.of(path).suffix not in PHOTOGRAPHS or is_placed(path)]
    found = []
    for index in np.linspace(0, len(placed) - 1, min(RESOLUTIONS, len(placed))).astype(int):
        with suppress(RegardError), open_raster(placed[index]) as raster:
            found.append(ground_resolution(raster))
    known = [metres for metres in found if metres]
    return float(f"{np.median(known):.4g}") if known else None


def is_8_bit(data: LabelledData) -> bool:
    """Whether the first training image that can be read has 8 bits a band, as photographs have."""
    images = filter(None, _usable(lambda pair: pair.read_image(data.bands, None), data.split("train"), True))
    return next((image.values.dtype == np.uint8 for image in images), True)


def measure(data: LabelledData, bands: Sequence[str], *, images: int = IMAGES, skip: bool = False) -> Scaling:
    """Mean and standard deviation over the valid pixels of up to ``images`` training images, evenly spread.

    ``skip`` leaves out those that cannot be read. No valid pixel, or a constant band, is a DatasetError.
    """
    pairs = data.split("train")
    picked = [pairs[index] for index in np.linspace(0, len(pairs) - 1, min(images, len(pairs))).astype(int)]
    count, total, squares, divisor = 0, np.zeros(len(bands)), np.zeros(len(bands)), 1.0
    for sample in filter(None, _usable(partial(data.read, expected=bands), picked, skip)):
        divisor = divisor_of(sample.image.dtype)
        values = sample.image[:, sample.valid].astype(np.float64) / divisor
        count += values.shape[1]
        total += values.sum(axis=1)
        squares += (values**2).sum(axis=1)
    if not count:
        raise DatasetError(f"{data.root}: no training image has a valid pixel. Check nodata and masks.")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    constant = np.flatnonzero(std <= 1e-6 * abs(mean))  # what rounding leaves of zero
    if constant.size:
        raise DatasetError(
            f"{data.root}: band {bands[constant[0]]} is constant ({mean[constant[0]]:.3g}). Leave it out with --bands."
        )
    return Scaling(tuple(mean.tolist()), tuple(std.tolist()), divisor)


def _usable(read: Callable[[Pair], Read], pairs: Sequence[Pair], skip: bool) -> Iterator[Read | None]:
    """The result of ``read`` for each pair; None where it raises and ``skip`` is set."""
    for pair in pairs:
        try:
            yield read(pair)
        except RegardError:
            if not skip:
                raise
            yield None


def class_pixels(data: LabelledData, *, skip: bool = False) -> Int[np.ndarray, "i k"]:
    """The pixels of each class in the mask of each training image; ``skip`` counts unreadable masks as empty."""
    counts = []
    for labels in _usable(lambda pair: pair.read_labels(data.classes), data.split("train"), skip):
        known = np.empty(0, int) if labels is None else labels[labels != data.classes.ignore_index]
        counts.append(np.bincount(known, minlength=len(data.classes)))
    return np.stack(counts)


def balanced_weights(pixels: Int[np.ndarray, "i k"]) -> tuple[float, ...]:
    """Class weights 1 / ln(1.02 + class frequency), scaled to a mean of 1.

    Source: Paszke et al. 2016 (ENet), section 5.2: bounded for rare classes, unlike the inverse frequency.
    """
    shares = pixels.sum(axis=0) / max(1, pixels.sum())
    weights = 1 / np.log(1.02 + shares)
    return tuple((weights / weights.mean()).tolist())


def check_labels(data: LabelledData, *, skip: bool = False) -> None:
    """Read the training masks until two classes are found; a ClassMismatch if they hold one or none.

    ``skip`` passes over masks that cannot be read.
    """
    ignore, found = data.classes.ignore_index, set[int]()
    for labels in _usable(lambda pair: pair.read_labels(data.classes), data.split("train"), skip):
        found |= set() if labels is None else set(np.unique(labels).tolist())
        if len(found - {ignore}) > 1:
            return
    named = [f"class {label} {data.classes.names[label]!r}" for label in sorted(found - {ignore})]
    void = [f"{ignore} (no class)"] if ignore in found else []
    hint = " A 0/255 mask needs 255 rewritten as 1." if found == {0, 255} else ""
    raise ClassMismatch(
        f"{data.root}: the training masks hold only {' and '.join(named + void) or 'nothing'}; two classes are needed. "
        f"Correct the masks.{hint}"
    )


def check_val(data: LabelledData, bands: Sequence[str], *, progress: bool = True) -> None:
    """Read every image and mask of the split val, if there is one, as each evaluation will.

    Raises:
        DatasetError: no pixel of it is labelled.
        UnreadableImage, BandMismatch, ClassMismatch, SizeMismatch: see ``LabelledData.read``.
    """
    pairs, labelled = data.splits.get("val", ()), False
    with Progress("check val", len(pairs), unit=" images", enabled=progress) as bar:
        for pair in pairs:
            labels = data.read(pair, expected=bands).labels
            labelled |= bool((labels != data.classes.ignore_index).any())
            bar.advance()
    if pairs and not labelled:
        raise without_labels(data, "val")


def without_labels(data: LabelledData, split: str) -> DatasetError:
    """The error for a split that cannot be scored."""
    return DatasetError(
        f"{data.root}: the split {split} has no labelled pixel; nothing can be scored. Label its images, or choose "
        "another split."
    )
