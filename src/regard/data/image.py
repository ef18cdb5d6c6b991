"""Whole images and masks: photographs through Pillow, everything else through GDAL."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped
from PIL import Image, ImageOps, UnidentifiedImageError

from regard.classes import ClassMap
from regard.data.raster import Box, open_raster
from regard.errors import BandMismatch, ClassMismatch, UnreadableImage

PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
PHOTOGRAPH_BANDS = ("red", "green", "blue")
PHOTOGRAPH_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # JPEG stands for its series (MPO) too
RASTERS = (".tif", ".tiff", ".jp2")


class Pixels(NamedTuple):
    """An image as read: its values, and where it has any."""

    values: Shaped[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"]


def read_image(
    path: Path,
    *,
    bands: Sequence[int | str] | None = None,
    expected: Sequence[str] | None = None,
    box: Box | None = None,
) -> Pixels:
    """An image of any kind, upright, with the bands that a model expects; ``box`` cuts a part of it out.

    Raises:
        UnreadableImage: missing, broken or of a kind that is not read.
        BandMismatch: its bands are not those expected.
    """
    if is_photograph(path) and path.is_file() and not is_deep(path):
        pixels = read_photograph(path, bands=bands, expected=expected)
        return pixels if box is None else Pixels(pixels.values[:, *_slices(box)], pixels.valid[_slices(box)])
    with open_raster(path, bands=bands, expected=expected) as raster:
        return Pixels(*raster.read(box or Box(0, 0, *raster.size)))


def is_photograph(path: Path) -> bool:
    """Whether an image is looked at whole: of a photograph's kind, and not above the pixels that Pillow takes at once.

    Larger ones are read in windows, as rasters are.
    """
    if path.suffix.lower() not in PHOTOGRAPHS:
        return False
    with warnings.catch_warnings(), suppress(OSError, ValueError, SyntaxError):  # what else is wrong, reading tells
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            Image.open(path, formats=PHOTOGRAPH_FORMATS).close()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return False
    return True


def read_photograph(
    path: Path, *, bands: Sequence[int | str] | None = None, expected: Sequence[str] | None = None
) -> Pixels:
    """An 8-bit image as red, green, blue (or one grey band if one is expected), turned upright by its EXIF tag.

    A grey photograph stands for all three, as sets of photographs hold some; a raster's single band may be anything.

    Raises:
        UnreadableImage, BandMismatch: see :func:`read_image`.
    """
    image = ImageOps.exif_transpose(_open(path))
    if expected is not None and image.mode == "1":
        raise BandMismatch(
            f"{path.name} is black and white, one band of 1 bit; the model was trained on {len(expected)} "
            f"({', '.join(expected)}) of 8. Give the photograph that it was made from."
        )
    alpha = (
        np.asarray(image.convert("RGBA").getchannel("A"))
        if "A" in image.getbands() or "transparency" in image.info
        else None
    )
    grey = expected is not None and len(expected) == 1
    values = np.asarray(image.convert("L" if grey else "RGB"))
    values = values[None] if grey else values.transpose(2, 0, 1)
    if bands:
        values = values[[_channel(path, band) for band in bands]]
    if expected is not None and len(expected) != len(values):
        raise BandMismatch(
            f"{path.name} is a photograph of 3 bands (red, green, blue); the model was trained on {len(expected)} "
            f"({', '.join(expected)}). Give a raster with these bands, or a model for photographs."
        )
    valid = np.ones(values.shape[1:], dtype=bool) if alpha is None else alpha > 0
    return Pixels(values, valid)


def _channel(path: Path, band: int | str) -> int:
    text = str(band)
    if text in PHOTOGRAPH_BANDS:
        return PHOTOGRAPH_BANDS.index(text)
    if text in ("1", "2", "3"):
        return int(text) - 1
    raise BandMismatch(f"{path.name} has no band {text!r}; it has 1 red, 2 green, 3 blue. Choose among them.")


def read_mask(path: Path, classes: ClassMap, *, box: Box | None = None) -> Int[np.ndarray, "h w"]:
    """Labels 0..k-1 and the ignore index, from an index mask (grey, palette) or a colour mask in the classes' colours.

    Raises:
        UnreadableImage: the mask cannot be read.
        ClassMismatch: it holds a value or a colour that no class has.
    """
    values = mask_values(path, box)
    return labels_of_colours(path, values, classes) if values.ndim == 3 else labels_of(path, values, classes)


def labels_of(path: Path, values: Shaped[np.ndarray, "h w"], classes: ClassMap) -> Int[np.ndarray, "h w"]:
    """The labels that a mask's values stand for.

    Raises:
        ClassMismatch: a value that no class has.
    """
    if np.issubdtype(values.dtype, np.floating):
        values = np.where(np.isnan(values), classes.ignore_index, values)
    values = translate(path, values, classes)
    found = np.unique(values)
    unknown = found[(found != classes.ignore_index) & ((found < 0) | (found >= len(classes)) | (found % 1 != 0))]
    if unknown.size:
        hint = " A 0/255 mask needs 255 rewritten as 1." if found.tolist() == [0, 255] else ""
        count = np.count_nonzero(values == unknown[0])
        raise ClassMismatch(
            f"{path} holds label {unknown[0]} ({count} pixels); {len(classes)} classes allow 0 to {len(classes) - 1} "
            f"and {classes.ignore_index} for no class. Correct the mask or classes.json.{hint}"
        )
    return values.astype(np.int64)


def mask_values(path: Path, box: Box | None) -> Shaped[np.ndarray, ...]:
    """A mask as it is stored: values ``(h, w)``, or colours ``(h, w, 3)``.

    Raises:
        UnreadableImage: the mask cannot be read.
        ClassMismatch: it has two bands.
    """
    if path.suffix.lower() in RASTERS or (path.is_file() and is_deep(path)):
        with open_raster(path) as raster:
            values, _ = raster.read(box or Box(0, 0, *raster.size))
        if len(values) == 2:
            raise ClassMismatch(
                f"{path} has 2 bands; a mask has 1 (labels) or 3 (colours). Keep the band of the labels."
            )
        return values[0] if len(values) == 1 else values[:3].transpose(1, 2, 0)
    image = _open(path)
    image = image.getchannel(0) if image.mode in ("LA", "PA") else image
    values = np.asarray(image if image.mode in ("L", "P", "I", "1") else image.convert("RGB"))
    values = values.astype(np.uint8) if values.dtype == bool else values
    return values if box is None else values[_slices(box)]


def translate(path: Path, values: Shaped[np.ndarray, "h w"], classes: ClassMap) -> Shaped[np.ndarray, "h w"]:
    """Labels for the values that a mask stores, where the classes say which these are.

    Raises:
        ClassMismatch: a value that is of no class and not ignored.
    """
    if classes.stored is None:
        return values
    labels = {value: label for label, value in enumerate(classes.stored)}
    labels |= dict.fromkeys((*classes.stored_ignored, classes.ignore_index), classes.ignore_index)
    present, places = np.unique(values, return_inverse=True)
    unknown = [value for value in present.tolist() if value not in labels]
    if unknown:
        raise ClassMismatch(
            f"{path} holds value {unknown[0]}; the classes are stored as "
            f"{', '.join(map(str, classes.stored[:8]))}, ... and {classes.ignore_index} is no class. "
            "Correct the mask, or 'stored' in classes.json."
        )
    return np.array([labels[value] for value in present.tolist()])[places].reshape(values.shape)


def labels_of_colours(path: Path, values: Shaped[np.ndarray, "h w 3"], classes: ClassMap) -> Int[np.ndarray, "h w"]:
    """The labels that colours stand for; black and white that are no class's stand for none.

    Raises:
        ClassMismatch: a colour that no class has.
    """
    codes = values.astype(np.int64) @ np.array([65536, 256, 1])
    labels = np.full(codes.shape, -1, dtype=np.int64)
    for label, (red, green, blue) in enumerate(classes.palette):
        labels[codes == red * 65536 + green * 256 + blue] = label
    labels[(labels < 0) & ((codes == 0) | (codes == 0xFFFFFF))] = classes.ignore_index
    if (labels < 0).any():
        colour = tuple(int(channel) for channel in values[labels < 0][0])
        raise ClassMismatch(
            f"{path} holds colour {colour} ({np.count_nonzero(labels < 0)} pixels without a class); no class has it. "
            "Add it to 'palette' in classes.json, or paint unlabelled pixels black."
        )
    return labels


def image_size(path: Path, *, vrt: bool = False) -> tuple[int, int]:
    """Height and width, upright, without reading the pixels.

    Raises:
        UnreadableImage: missing, broken or of a kind that is not read.
    """
    if is_photograph(path) and path.is_file():
        with _open(path, load=False) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    with open_raster(path, vrt=vrt) as raster:
        return raster.size


def image_bands(path: Path, *, bands: Sequence[int | str] | None = None) -> tuple[str, ...]:
    """The names of the bands that :func:`read_image` gives: red, green, blue for photographs.

    Raises:
        UnreadableImage, BandMismatch: see :func:`read_image`.
    """
    if path.suffix.lower() in PHOTOGRAPHS:
        return tuple(PHOTOGRAPH_BANDS[_channel(path, band)] for band in bands or PHOTOGRAPH_BANDS)
    with open_raster(path, bands=bands) as raster:
        return raster.band_names


def _open(path: Path, *, load: bool = True) -> Image.Image:
    if not path.is_file():
        raise UnreadableImage(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}. Give the path of an image."
        )
    try:
        image = Image.open(path, formats=PHOTOGRAPH_FORMATS)
        if load:
            with image:  # closes the file, keeps the pixels
                image.load()
        return image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage(
            f"{path} has more pixels than a photograph may have. Convert it to GeoTIFF: gdal_translate."
        ) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        reason = " ".join(str(error).replace(str(path), path.name).split())[:120]
        raise UnreadableImage(f"{path} is broken or no image ({reason}). Fetch or export it again.") from None


def is_deep(path: Path) -> bool:
    """Whether a PNG has more than 8 bits a channel, which Pillow reads for grey images only."""
    if path.suffix.lower() != ".png":
        return False
    with path.open("rb") as file:
        header = file.read(25)
    return header[:8] == b"\x89PNG\r\n\x1a\n" and len(header) == 25 and header[24] == 16


def _slices(box: Box) -> tuple[slice, slice]:
    return slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
