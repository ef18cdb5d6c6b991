"""One image and its mask, looked at once: what is wrong with them, and what the whole data set must know of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from PIL import Image

from regard.classes import ClassMap
from regard.datasets.labelled_data import Pair
from regard.datasets.mask import labels_of_colours, mask_values, translate
from regard.doctor.inventory import Finding, Grade
from regard.doctor.landmarks import Landmarks, landmarks
from regard.doctor.registration import SIDE, Small
from regard.errors import ClassMismatch, RegardError
from regard.io.image import PHOTOGRAPHS, is_deep, is_photograph
from regard.io.raster import Box, apply, open_raster

BANDS = {"1": 1, "L": 1, "P": 3, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I": 1, "I;16": 1, "F": 1}
THIN, SMOOTH = 4, 0.2  # pixels, share of the runs of a mask
SHRINK = 2  # pixels to one of the picture in which landmarks are sought
LEAST_SIDE = 64  # of that picture, in its pixels


class Kind(NamedTuple):
    """Number of bands and type of the values, as the file has them."""

    bands: int
    dtype: str
    photograph: bool


@dataclass
class Inspection:
    """What one pair is; parts that could not be read are None."""

    pair: Pair
    split: str
    findings: list[Finding] = field(default_factory=list)
    digest: str | None = None
    kind: Kind | None = None
    size: tuple[int, int] = (0, 0)
    ground: tuple[Any, Any, tuple[int, int]] | None = None  # coordinate system, transform, size
    values: dict[float, int] = field(default_factory=dict)  # raw values of an index mask: pixels of each
    counts: Int[np.ndarray, " k"] | None = None
    marks: Landmarks | None = None
    small: Small | None = None

    @property
    def name(self) -> str:
        """What findings call it: the image's file name; a window of a scene by its own name."""
        return self.pair.image.name if self.pair.box is None else self.pair.name

    def note(self, grade: Grade, kind: str, message: str) -> None:
        """Add a finding about this pair."""
        self.findings.append(Finding(grade, kind, message, (self.name,)))


def inspect(pair: Pair, split: str, classes: ClassMap | None) -> Inspection:
    """Read a pair and look at it; nothing is raised for a fault of the data."""
    found = Inspection(pair, split)
    labels = _look_at_mask(found, classes)
    try:
        image, valid = pair.read_image(None, None)
        found.kind = _kind(pair.image)
        found.ground = None if pair.drawn is not None else _ground(pair.image, pair.box)
    except RegardError as error:
        found.note("error", "unreadable", str(error))
        return found
    if pair.box is None:
        found.digest = hashlib.sha256(pair.image.read_bytes()).hexdigest()
    found.size = image.shape[1], image.shape[2]
    _look_at_ground(found)
    _look_at_image(found, image, valid)
    if labels is None or classes is None:
        return found
    if labels.shape != image.shape[1:]:
        _note_size(found, image.shape[1:], labels.shape)
        return found
    labels = np.where(valid, labels, classes.ignore_index)
    known = labels != classes.ignore_index
    found.counts = np.bincount(labels[known], minlength=len(classes))
    if not known.any():
        found.note("warning", "no label", f"{found.name} has no labelled pixel. Label it, or take it off the list.")
    _measure(found, image, np.where(known, labels, -1), known)
    return found


def _look_at_mask(found: Inspection, classes: ClassMap | None) -> Int[np.ndarray, "h w"] | None:
    path = found.pair.mask
    if found.pair.drawn is not None:
        return None if classes is None else found.pair.read_labels(classes)
    try:
        values = mask_values(path, found.pair.box)
        if classes is None:
            return None
        if values.ndim == 3:
            return labels_of_colours(path, values, classes)
    except ClassMismatch as error:
        found.note("error", "labels", str(error))
        return None
    except RegardError as error:
        found.note("error", "unreadable", str(error))
        return None
    if np.issubdtype(values.dtype, np.floating):
        values = np.where(np.isnan(values), classes.ignore_index, values)
    try:
        values = translate(path, values, classes)
    except ClassMismatch as error:
        found.note("error", "labels", str(error))
        return None
    present, pixels = np.unique(values, return_counts=True)
    found.values = dict(zip(map(float, present), pixels.tolist(), strict=True))
    wrong = [value for value in found.values if not _allowed(value, classes)]
    if wrong:
        found.note("error", "labels", _about_values(path, found.values, wrong, classes))
        return None
    labels = values.astype(np.int64)
    if _is_smoothed(labels):
        what = (
            "has strips of other classes between classes, as smooth resizing makes them. Resize by nearest neighbour."
        )
        found.note("warning", "labels", f"{path.name} {what}")
    return labels


def _is_smoothed(labels: Int[np.ndarray, "h w"]) -> bool:
    """Whether many runs of one label, down and across, are thin and lie between a lower and a higher label."""
    return all(_thin_steps(line) > SMOOTH for line in (labels.ravel(), labels.T.ravel()))


def _thin_steps(line: Int[np.ndarray, " n"]) -> float:
    starts = np.r_[0, np.flatnonzero(np.diff(line)) + 1]
    steps, lengths = np.sign(np.diff(line[starts])), np.diff(starts)
    between = (steps[1:] * steps[:-1] > 0) & (lengths[1:] <= THIN)
    return np.count_nonzero(between) / len(starts)


def _allowed(value: float, classes: ClassMap) -> bool:
    return value == classes.ignore_index or (value % 1 == 0 and 0 <= value < len(classes))


def _about_values(path: Path, values: dict[float, int], wrong: list[float], classes: ClassMap) -> str:
    pixels = sum(values[value] for value in wrong)
    shown = ", ".join(f"{value:g}" for value in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
    hint = "Correct the mask or classes.json."
    if set(values) - {0, classes.ignore_index} == {len(classes)} or (wrong == [len(classes)] and 0 not in values):
        hint = "The labels seem to begin at 1: subtract 1."
    elif path.suffix.lower() in (".jpg", ".jpeg") or len(wrong) > 20:
        hint = "It was compressed with loss or resized smoothly: export it as PNG, resized by nearest neighbour."
    elif set(values) <= {0, 255}:
        hint = "A 0/255 mask needs 255 rewritten as 1."
    return (
        f"{path.name} holds {shown} ({pixels} pixels); {len(classes)} classes allow 0 to {len(classes) - 1} and "
        f"{classes.ignore_index} for no class. {hint}"
    )


def _kind(path: Path) -> Kind:
    if is_photograph(path) and not is_deep(path):
        with Image.open(path) as image:
            return Kind(BANDS.get(image.mode, len(image.getbands())), "uint8", True)
    with open_raster(path) as raster:
        return Kind(len(raster.bands), raster.dataset.dtypes[0], False)


def _ground(path: Path, box: Box | None) -> tuple[Any, Any, tuple[int, int]] | None:
    """Coordinate system, transform and size, where the file has a place on Earth."""
    if path.suffix.lower() in PHOTOGRAPHS:
        return None
    with open_raster(path) as raster:
        if not raster.is_georeferenced:
            return None
        top, left, height, width = box or Box(0, 0, *raster.size)
        east, north = apply(raster.transform, left, top)
        a, b, _, d, e, _ = raster.transform[:6]
        return raster.crs, type(raster.transform)(a, b, east, d, e, north), (height, width)


def _look_at_ground(found: Inspection) -> None:
    """Image and mask must lie on one grid."""
    try:
        mask = _ground(found.pair.mask, found.pair.box)
    except RegardError:
        return
    if mask is None or found.ground is None:
        return
    (crs, transform, _), (its_crs, its_transform, _) = found.ground, mask
    if crs != its_crs:
        what = f"{found.pair.image.name} is in {crs}, its mask in {its_crs}. Warp the mask to the image's grid."
        found.note("error", "coordinates", what)
    elif not transform.almost_equals(its_transform, 1e-3 * abs(transform.a)):
        down, right = [round(x, 1) for x in apply(~transform, its_transform.c, its_transform.f)[::-1]]
        what = f"the mask of {found.pair.image.name} lies {down} pixels below and {right} right of it, or has other "
        found.note("error", "coordinates", what + "pixels. Warp it to the image's grid: gdalwarp.")


def _look_at_image(found: Inspection, image: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"]) -> None:
    name = found.name
    if not valid.any():
        found.note("warning", "blank", f"{name} has no valid pixel (nodata everywhere). Take it off the list.")
        return
    values = image[:, valid]
    spread = values.max(axis=1).astype(float) - values.min(axis=1)
    if not spread.any():
        found.note(
            "warning", "blank", f"{name} is blank: every pixel is {values[:, 0].tolist()}. Take it off the list."
        )
    elif values.dtype == np.uint8 and values[:, ::16].std(axis=1).max() < 1:
        found.note("warning", "blank", f"{name} is nearly blank (grey levels vary by less than 1). Look at it.")


def _note_size(found: Inspection, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    turned = " They are turned against each other." if mask == image[::-1] else ""
    what = f"{found.pair.image.name} is {image[1]} x {image[0]} pixels, its mask {mask[1]} x {mask[0]}.{turned}"
    found.note("error", "size", f"{what} Export both at one size.")


def _measure(
    found: Inspection,
    image: Shaped[np.ndarray, "c h w"],
    labels: Int[np.ndarray, "h w"],
    known: Bool[np.ndarray, "h w"],
) -> None:
    """The landmarks and the small version, from bands in grey levels."""
    bands = np.nan_to_num(image[:8]).astype(np.float32)
    if image.dtype != np.uint8:
        low, high = np.percentile(bands[:, ::4, ::4], (2, 98), axis=(1, 2), keepdims=True)
        bands = (255 * (bands - low) / np.maximum(high - low, 1e-9)).clip(0, 255)
    grey = _means(bands.mean(axis=0)[None], SHRINK)[0]
    if min(grey.shape) >= LEAST_SIDE:
        found.marks = landmarks(grey, known[1::SHRINK, 1::SHRINK])
    cell = max(1, max(labels.shape) // SIDE)
    means, squares = _means(bands, cell), _means(bands.mean(axis=0)[None] ** 2, cell)
    rough = np.sqrt(np.maximum(squares - means.mean(axis=0) ** 2, 0))
    features = np.concatenate([means, rough]).transpose(1, 2, 0)
    middles = labels[cell // 2 :: cell, cell // 2 :: cell][: features.shape[0], : features.shape[1]]
    found.small = Small(features.astype(np.float16), middles.astype(np.int16))


def _means(values: Float[np.ndarray, "c h w"], cell: int) -> Float[np.ndarray, "c H W"]:
    """Means of whole cells of ``cell`` by ``cell`` pixels."""
    return F.avg_pool2d(torch.from_numpy(values)[None], cell)[0].numpy()
