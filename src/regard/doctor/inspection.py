"""One image and its mask: their own faults, and the facts that the comparison with other images needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from PIL import Image

from regard.classes import ClassMap
from regard.datasets.folder import Finding, Grade
from regard.datasets.labelled_data import Pair, check_size
from regard.datasets.mask import checked_labels, grey, label_values, labels_of_colours, mask_values
from regard.errors import ClassMismatch, RegardError, SizeMismatch
from regard.io.image import is_deep
from regard.io.raster import Box, apply, open_raster
from regard.io.source import PHOTOGRAPHS, is_photograph

THIN, SMOOTH = 4, 0.2  # pixels, share of the runs of a mask
HASH_SIDE = 16  # pixels of the small picture whose gradients are the image's hash
GRID_SIDE = 128  # cells of the longer side in the grid of what is labelled


class PixelFormat(NamedTuple):
    """Number of bands and type of the values, as the file has them."""

    bands: int
    dtype: str
    photograph: bool


class Ground(NamedTuple):
    """Coordinate system, affine transform and size (height, width) of a georeferenced image."""

    crs: Any
    transform: Any
    size: tuple[int, int]


@dataclass
class Inspection:
    """The findings about one pair and its facts; those that could not be read are None.

    ``values`` are the raw values of an index mask and the pixels of each, ``counts`` the pixels of each class,
    ``picture`` the image in 16 x 16 grey pixels, ``labelled`` which cells of a coarse grid have a label.
    """

    pair: Pair
    split: str
    findings: list[Finding] = field(default_factory=list)
    digest: str | None = None
    format: PixelFormat | None = None
    ground: Ground | None = None
    values: dict[float, int] = field(default_factory=dict)
    counts: Int[np.ndarray, " k"] | None = None
    picture: Float[np.ndarray, "16 16"] | None = None
    labelled: Bool[np.ndarray, "h w"] | None = None

    @property
    def name(self) -> str:
        return self.pair.title

    def add(self, grade: Grade, kind: str, message: str) -> None:
        """Add a finding about this pair."""
        self.findings.append(Finding(grade, kind, message, (self.name,)))


def inspect(pair: Pair, split: str, classes: ClassMap | None) -> Inspection:
    """Read a pair and check it; faults of the data are findings, not exceptions."""
    found = Inspection(pair, split)
    labels = _check_mask(found, classes)
    try:
        image, valid = pair.read_image(None, None)
        found.format = _pixel_format(pair.image)
        found.ground = None if pair.polygons is not None else _ground(pair.image, pair.box)
    except RegardError as error:
        found.add("error", "unreadable", str(error))
        return found
    if pair.box is None:
        found.digest = hashlib.sha256(pair.image.read_bytes()).hexdigest()
    _check_grids(found)
    _check_contrast(found, image, valid)
    if labels is None or classes is None:
        return found
    try:
        check_size(pair, image.shape[1:], labels.shape)
    except SizeMismatch as error:
        found.add("error", "size", str(error))
        return found
    known = valid & (labels != classes.ignore_index)
    found.counts = np.bincount(labels[known], minlength=len(classes))
    if not known.any():
        found.add("warning", "no label", f"{found.name} has no labelled pixel. Label it, or take it off the list.")
    cell = max(1, max(known.shape) // GRID_SIDE)
    found.labelled = known[cell // 2 :: cell, cell // 2 :: cell]
    if pair.box is None and known.any():  # windows of one scene are apart by their boxes
        grey = Image.fromarray(np.nan_to_num(image).mean(axis=0, dtype=np.float32))
        found.picture = np.asarray(grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BOX))
    return found


def _check_mask(found: Inspection, classes: ClassMap | None) -> Int[np.ndarray, "h w"] | None:
    """The labels of a pair; None, with a finding, where they cannot be read."""
    path = found.pair.mask
    try:
        if found.pair.polygons is not None:
            return None if classes is None else found.pair.read_labels(classes)
        values = mask_values(path, found.pair.box)
        if classes is None:
            return None
        if values.ndim == 3:
            labels = labels_of_colours(path, values, classes)
            found.values = _counted(values[..., 0]) if grey(values) else {}
            return labels
        values = label_values(path, values, classes)
        found.values = _counted(values)
        labels = checked_labels(path, values, classes)
    except RegardError as error:
        found.add("error", "labels" if isinstance(error, ClassMismatch) else "unreadable", str(error))
        return None
    if _is_smoothed(labels):
        message = "has strips of other classes between classes, as smooth resizing makes them"
        found.add("warning", "labels", f"{path.name} {message}. Resize by nearest neighbour.")
    return labels


def _counted(values: Shaped[np.ndarray, "h w"]) -> dict[float, int]:
    present, pixels = np.unique(values, return_counts=True)
    return dict(zip(map(float, present), pixels.tolist(), strict=True))


def _is_smoothed(labels: Int[np.ndarray, "h w"]) -> bool:
    """Whether many runs of one label, down and across, are thin and lie between a lower and a higher label."""
    return all(_thin_steps(line) > SMOOTH for line in (labels.ravel(), labels.T.ravel()))


def _thin_steps(line: Int[np.ndarray, " n"]) -> float:
    starts = np.r_[0, np.flatnonzero(np.diff(line)) + 1]
    steps, lengths = np.sign(np.diff(line[starts])), np.diff(starts)
    between = (steps[1:] * steps[:-1] > 0) & (lengths[1:] <= THIN)
    return np.count_nonzero(between) / len(starts)


def _pixel_format(path: Path) -> PixelFormat:
    if is_photograph(path) and not is_deep(path):
        with Image.open(path) as image:
            return PixelFormat(3 if image.mode == "P" else len(image.getbands()), "uint8", True)
    with open_raster(path) as raster:
        return PixelFormat(len(raster.bands), raster.dtypes[0], False)


def _ground(path: Path, box: Box | None) -> Ground | None:
    """The place of an image, or of a box of it, where the file is georeferenced."""
    if path.suffix.lower() in PHOTOGRAPHS:
        return None
    with open_raster(path) as raster:
        if not raster.is_georeferenced:
            return None
        top, left, height, width = box or Box(0, 0, *raster.size)
        east, north = apply(raster.transform, left, top)
        a, b, _, d, e, _ = raster.transform[:6]
        return Ground(raster.crs, type(raster.transform)(a, b, east, d, e, north), (height, width))


def _check_grids(found: Inspection) -> None:
    """Image and mask must lie on one grid."""
    try:
        mask = _ground(found.pair.mask, found.pair.box)
    except RegardError:
        return
    image, name = found.ground, found.pair.image.name
    if mask is None or image is None:
        return
    if image.crs != mask.crs:
        message = f"{name} is in {image.crs}, its mask in {mask.crs}. Warp the mask to the image's grid."
        found.add("error", "coordinates", message)
    elif not image.transform.almost_equals(mask.transform, 1e-3 * abs(image.transform.a)):
        right, down = [round(x, 1) for x in apply(~image.transform, mask.transform.c, mask.transform.f)]
        message = f"the mask of {name} lies {down} pixels below and {right} right of it, or has other pixels"
        found.add("error", "coordinates", f"{message}. Warp it to the image's grid: gdalwarp.")


def _check_contrast(found: Inspection, image: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"]) -> None:
    name = found.name
    if not valid.any():
        found.add("warning", "blank", f"{name} has no valid pixel (nodata everywhere). Take it off the list.")
        return
    values = image[:, valid]
    if (values.max(axis=1) == values.min(axis=1)).all():
        message = f"{name} is blank: every pixel is {values[:, 0].tolist()}. Take it off the list."
        found.add("warning", "blank", message)
    elif values.dtype == np.uint8 and values[:, ::16].std(axis=1).max() < 1:
        found.add("warning", "blank", f"{name} is nearly blank (grey levels vary by less than 1). Please check it.")
