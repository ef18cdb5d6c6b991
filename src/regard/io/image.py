"""Whole images: photographs through Pillow, everything else through GDAL."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image, ImageOps, UnidentifiedImageError

from regard.errors import BandMismatch, UnreadableImage
from regard.io.raster import Box, open_raster

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
        return pixels if box is None else Pixels(pixels.values[:, *slices(box)], pixels.valid[slices(box)])
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
    image = ImageOps.exif_transpose(open_photograph(path))
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


def image_size(path: Path, *, vrt: bool = False) -> tuple[int, int]:
    """Height and width, upright, without reading the pixels.

    Raises:
        UnreadableImage: missing, broken or of a kind that is not read.
    """
    if is_photograph(path) and path.is_file():
        with open_photograph(path, load=False) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    with open_raster(path, vrt=vrt) as raster:
        return raster.size


def image_bands(path: Path, *, bands: Sequence[int | str] | None = None) -> tuple[str, ...]:
    """The names of the bands that :func:`read_image` gives: red, green, blue for photographs.

    Raises:
        UnreadableImage, BandMismatch: see :func:`read_image`.
    """
    if path.suffix.lower() in PHOTOGRAPHS and not (path.is_file() and is_deep(path)):
        return tuple(PHOTOGRAPH_BANDS[_channel(path, band)] for band in bands or PHOTOGRAPH_BANDS)
    with open_raster(path, bands=bands) as raster:
        return raster.band_names


def open_photograph(path: Path, *, load: bool = True) -> Image.Image:
    """An image by Pillow, as it is stored.

    Raises:
        UnreadableImage: missing, broken, above Pillow's limit of pixels, or of a kind that is not read.
    """
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


def slices(box: Box) -> tuple[slice, slice]:
    """Rows and columns of a box."""
    return slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
