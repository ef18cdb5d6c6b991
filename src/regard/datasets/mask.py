"""Pixels of a mask to labels: from class indices, or by the colours of the palette in ``regard.classes.ClassMap``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from regard.classes import ClassMap
from regard.errors import ClassMismatch, counted
from regard.io.image import RASTERS, is_deep, is_lossy, open_photograph, slices
from regard.io.raster import Box, open_raster
from regard.io.source import is_photograph

CODE = 1 << 32, 1 << 16, 1  # of a colour, as one number


def read_mask(path: Path, classes: ClassMap, *, box: Box | None = None) -> Int[np.ndarray, "h w"]:
    """Labels 0..k-1 and the ignore index of a mask file.

    An index mask (grey, or with a palette of its own, which is not read) holds the labels; in a colour mask each pixel
    has the colour of its class in ``classes.palette``.

    Raises:
        UnreadableImage: the mask cannot be read.
        ClassMismatch: it holds a value or a colour that no class has, or is compressed with loss.
    """
    values = mask_values(path, box)
    return labels_of_colours(path, values, classes) if values.ndim == 3 else labels_of(path, values, classes)


def mask_values(path: Path, box: Box | None) -> Shaped[np.ndarray, "..."]:
    """A mask as it is stored: values ``(h, w)``, or colours ``(h, w, 3)``.

    Two bands, or a file that is compressed with loss (JPEG, WebP, ...), are a ClassMismatch.
    """
    if path.suffix.lower() in RASTERS or (path.is_file() and (is_deep(path) or not is_photograph(path))):
        with open_raster(path) as raster:
            _check_lossless(path, raster.is_lossy)
            values, _ = raster.read(box or Box(0, 0, *raster.size))
        if len(values) == 2:
            need = "a mask has 1 (labels) or 3 (colours)"
            raise ClassMismatch(f"{path} has 2 bands; {need}. Keep the band of the labels.")
        return values[0] if len(values) == 1 else values[:3].transpose(1, 2, 0)
    image = open_photograph(path)
    _check_lossless(path, is_lossy(path, image))
    image = image.getchannel(0) if image.mode in ("LA", "PA") else image
    values = np.asarray(image if image.mode in ("L", "P", "I", "1") else image.convert("RGB"))
    values = values.astype(np.uint8) if values.dtype == bool else values
    return values if box is None else values[slices(box)]


def _check_lossless(path: Path, lossy: bool) -> None:
    if lossy:
        raise ClassMismatch(
            f"{path} is compressed with loss, which changes labels at borders. Export the mask again, as PNG or as a "
            "GeoTIFF without loss (DEFLATE): converting this file brings nothing back."
        )


def labels_of(path: Path, values: Shaped[np.ndarray, "h w"], classes: ClassMap) -> Int[np.ndarray, "h w"]:
    """The labels that the values of an index mask stand for; a value of no class is a ClassMismatch."""
    return checked_labels(path, label_values(path, values, classes), classes)


def label_values(path: Path, values: Shaped[np.ndarray, "h w"], classes: ClassMap) -> Shaped[np.ndarray, "h w"]:
    """The values of an index mask with NaN as the ignore index and, where the classes have ``stored``, as labels.

    A value that is neither stored nor ignored is a ClassMismatch.
    """
    if np.issubdtype(values.dtype, np.floating):
        values = np.where(np.isnan(values), classes.ignore_index, values)
    if classes.stored is None:
        return values
    labels = {value: label for label, value in enumerate(classes.stored)}
    labels |= dict.fromkeys((*classes.stored_ignored, classes.ignore_index), classes.ignore_index)
    present, indices = np.unique(values, return_inverse=True)
    unknown = [value for value in present.tolist() if value not in labels]
    if unknown:
        raise ClassMismatch(
            f"{path} holds value {unknown[0]}; the classes are stored as "
            f"{', '.join(map(str, classes.stored[:8]))}, ... and {classes.ignore_index} means no class. "
            "Correct the mask, or 'stored' in classes.json."
        )
    return np.array([labels[value] for value in present.tolist()])[indices].reshape(values.shape)


def checked_labels(path: Path, values: Shaped[np.ndarray, "h w"], classes: ClassMap) -> Int[np.ndarray, "h w"]:
    """The values as integer labels; one that is neither a label nor the ignore index is a ClassMismatch."""
    present, pixels = np.unique(values, return_counts=True)
    count, ignore = len(classes), classes.ignore_index
    wrong = (present != ignore) & ((present < 0) | (present >= count) | (present % 1 != 0))
    if not wrong.any():
        return values.astype(np.int64)
    hint, found = "Correct the mask or classes.json.", set(present.tolist())
    if found - {0, ignore} == {count} or (present[wrong].tolist() == [count] and 0 not in found):
        hint = "The labels seem to begin at 1: subtract 1."
    elif wrong.sum() > 20:
        hint = "It was resized smoothly, or compressed with loss before: export it as PNG, by nearest neighbour."
    elif found <= {0, 255}:
        hint = "A 0/255 mask needs 255 rewritten as 1."
    shown = ", ".join(f"{value:g}" for value in present[wrong][:5]) + (", ..." if wrong.sum() > 5 else "")
    raise ClassMismatch(
        f"{path} holds label{'s' if wrong.sum() > 1 else ''} {shown} ({counted(int(pixels[wrong].sum()), 'pixel')}); "
        f"{count} classes allow 0 to {count - 1} and {ignore} for no class. {hint}"
    )


def labels_of_colours(path: Path, values: Shaped[np.ndarray, "h w 3"], classes: ClassMap) -> Int[np.ndarray, "h w"]:
    """The labels that colours stand for; black and white mean no class unless a class has them.

    Any other colour that no class has is a ClassMismatch; so are three equal bands that hold labels or 0 and 255, and a
    palette with one colour for two classes.
    """
    twice = classes.colour_twice()
    if twice:
        raise ClassMismatch(f"{path} has the colours of classes, but in 'palette' {twice}. Give each class its own.")
    labels = matches(values, classes)
    _check_bands_differ(path, values, labels, len(classes))
    labels[(labels < 0) & ((values == 0).all(axis=2) | (values == 255).all(axis=2))] = classes.ignore_index
    missing = labels < 0
    if missing.any():
        colour = tuple(int(channel) for channel in values[missing][0])
        raise ClassMismatch(
            f"{path} holds colour {colour} ({counted(int(missing.sum()), 'pixel')} without a class); no class has it. "
            "Add it to 'palette' in classes.json, or make unlabelled pixels black."
        )
    return labels


def _check_bands_differ(
    path: Path, values: Shaped[np.ndarray, "h w 3"], labels: Int[np.ndarray, "h w"], count: int
) -> None:
    """Refuse a mask of three equal bands: the labels of ``count`` classes, or 0 and 255, saved as a colour image."""
    missing = values[labels < 0]
    if not missing.size or not grey(values):
        return
    found = np.unique(missing[:, 0]).tolist()
    if found == [0, 255] and missing.size == values.size:
        hint = "A 0/255 mask needs 255 rewritten as 1, in one band."
    elif set(found) - {0, 255} and set(found) <= {*range(count), 255}:
        hint = "If they hold labels, keep one band: gdal_translate -b 1."
    else:
        return
    shown = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
    raise ClassMismatch(f"{path} has three equal bands, with the values {shown} that no class has as colour. {hint}")


def grey(values: Shaped[np.ndarray, "h w 3"]) -> bool:
    """Whether three bands are equal."""
    return bool((values == values[..., :1]).all())


def matches(values: Shaped[np.ndarray, "h w 3"], classes: ClassMap) -> Int[np.ndarray, "h w"]:
    """The label of the class that has each colour (the last one of several); -1 where none has."""
    labels = np.full(values.shape[:2], -1)
    codes = values.astype(np.int64) @ CODE  # of 16-bit colours too
    for label, code in enumerate(np.array(classes.palette) @ CODE):
        labels[codes == code] = label
    return labels
