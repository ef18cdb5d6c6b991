"""Whole images: photographs through Pillow, everything else through GDAL.

All readers raise UnreadableImage for a file that is missing, broken or of a kind that is not read, and BandMismatch
where its bands are not those expected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageOps

from regard.errors import BandMismatch, UnreadableImage
from regard.io.bands import band_number
from regard.io.gdal import not_georeferenced_is_fine, open_dataset
from regard.io.raster import Box, open_raster
from regard.io.raster import Pixels as Pixels
from regard.io.source import PHOTOGRAPH_FORMATS, PHOTOGRAPHS, Source, check_exists, is_photograph

PHOTOGRAPH_BANDS = ("red", "green", "blue")
RASTERS = (".tif", ".tiff", ".jp2")
PILLOWS = (OSError, ValueError, SyntaxError)  # what its readers raise for broken files


def read_image(
    source: str | Path | Source,
    *,
    bands: Sequence[int | str] | None = None,
    expected: Sequence[str] | None = None,
    box: Box | None = None,
) -> Pixels:
    """An image of any kind, upright, with the bands that a model expects; ``box`` cuts a part of it out."""
    source = Source.of(source)
    if is_photograph(source) and _is_file(source) and not is_deep(source):
        pixels = read_photograph(source, bands=bands, expected=expected)
        return pixels if box is None else Pixels(pixels.values[:, *slices(box)], pixels.valid[slices(box)])
    with open_raster(source, bands=bands, expected=expected) as raster:
        return raster.read(box or Box(0, 0, *raster.size))


def read_photograph(
    source: str | Path | Source, *, bands: Sequence[int | str] | None = None, expected: Sequence[str] | None = None
) -> Pixels:
    """An 8-bit image as red, green, blue (or one grey band if one is expected), turned upright by its EXIF tag.

    A grey photograph stands for all three, as sets of photographs hold some; a raster's single band may be anything.
    """
    source = Source.of(source)
    with _refusing(source):
        image = ImageOps.exif_transpose(open_photograph(source))
    if expected is not None and image.mode == "1":
        raise BandMismatch(
            f"{source.name} is black and white, one band of 1 bit; the model was trained on {len(expected)} "
            f"({', '.join(expected)}) of 8. Give the photograph that it was made from."
        )
    grey = expected is not None and len(expected) == 1
    with _refusing(source):
        values = np.asarray(image.convert("L" if grey else "RGB"))
    values = values[None] if grey else values.transpose(2, 0, 1)
    if bands:
        values = values[[band_number(source, band, PHOTOGRAPH_BANDS) - 1 for band in bands]]
    if expected is not None and len(expected) != len(values):
        raise BandMismatch(
            f"{source.name} is a photograph of 3 bands (red, green, blue); the model was trained on {len(expected)} "
            f"({', '.join(expected)}). Give a raster with these bands, or a model for photographs."
        )
    if "A" in image.getbands() or "transparency" in image.info:
        with _refusing(source):
            return Pixels(values, np.asarray(image.convert("RGBA").getchannel("A")) > 0)
    return Pixels(values, np.ones(values.shape[1:], dtype=bool))


def image_size(source: str | Path | Source, *, vrt: bool = False) -> tuple[int, int]:
    """Height and width, upright, without reading the pixels."""
    source = Source.of(source)
    if is_photograph(source) and _is_file(source):
        with open_photograph(source, load=False) as image, _refusing(source):
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # of a PNG it reads all
            return (image.width, image.height) if turned else (image.height, image.width)
    with open_raster(source, vrt=vrt) as raster:
        return raster.size


def image_bands(source: str | Path | Source, *, bands: Sequence[int | str] | None = None) -> tuple[str, ...]:
    """The names of the bands that :func:`read_image` gives: red, green, blue for photographs."""
    source = Source.of(source)
    if source.suffix in PHOTOGRAPHS and not (_is_file(source) and is_deep(source)):
        numbers = [band_number(source, band, PHOTOGRAPH_BANDS) for band in bands or PHOTOGRAPH_BANDS]
        return tuple(PHOTOGRAPH_BANDS[number - 1] for number in numbers)
    with open_raster(source, bands=bands) as raster:
        return raster.band_names


def open_photograph(source: str | Path | Source, *, load: bool = True) -> Image.Image:
    """An image by Pillow, as it is stored; above Pillow's limit of pixels it is refused."""
    source = Source.of(source)
    check_exists(source)
    with _refusing(source):
        image = Image.open(str(source), formats=PHOTOGRAPH_FORMATS)
        if load:
            with image:  # closes the file, keeps the pixels
                image.load()
        return image


@contextmanager
def _refusing(source: Source) -> Iterator[None]:
    """Turn what Pillow raises into UnreadableImage, in one line."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage(
            f"{source} has more pixels than a photograph may have. Convert it to GeoTIFF: gdal_translate."
        ) from None
    except PILLOWS as error:
        reason = " ".join(str(error).replace(str(source), source.name).split())[:120]
        raise UnreadableImage(f"{source} is broken or no image ({reason}). Fetch or export it again.") from None


def is_deep(source: str | Path | Source) -> bool:
    """Whether a PNG has more than 8 bits a channel, which Pillow reads for grey images only."""
    local = Source.of(source).local
    if local is None or local.suffix.lower() != ".png":
        return False
    with local.open("rb") as file:
        header = file.read(25)
    return header[:8] == b"\x89PNG\r\n\x1a\n" and len(header) == 25 and header[24] == 16


def is_lossy(path: Path, image: Image.Image) -> bool:
    """Whether an image that Pillow opened is compressed with loss: JPEG, and WebP with a chunk ``VP8``."""
    if image.format != "WEBP":
        return image.format in ("JPEG", "MPO")
    content = path.read_bytes()
    start = 12  # after RIFF, its length and WEBP
    while start + 8 <= len(content) and content[start : start + 4] not in (b"VP8 ", b"VP8L"):
        length = int.from_bytes(content[start + 4 : start + 8], "little")
        start += 8 + length + length % 2
    return content[start : start + 4] != b"VP8L"


def is_placed(source: str | Path | Source) -> bool:
    """Whether a photograph lies on a map: by a world file, or by the georeference in its ``.aux.xml``."""
    source = Source.of(source)
    file = source.local
    if source.suffix not in PHOTOGRAPHS or file is None or not os.path.isfile(file):
        return False
    letters = source.suffix[1:]
    worlds = [file.with_suffix(f".{name}") for name in (f"{letters[0]}{letters[-1]}w", f"{letters}w", "wld")]
    found = [path for path in (*worlds, *(path.with_suffix(path.suffix.upper()) for path in worlds)) if path.is_file()]
    if letters in ("webp", "bmp"):
        return bool(found)
    if not found and not file.with_name(f"{file.name}.aux.xml").is_file():
        return False
    with open_dataset(source) as dataset, not_georeferenced_is_fine():
        return dataset.crs is not None or not dataset.transform.is_identity


def read_small(source: str | Path | Source, width: int, *, nearest: bool = False) -> Shaped[np.ndarray, "c h w"]:
    """A raster shrunk to ``width`` pixels, for pictures."""
    with open_raster(source) as raster:
        height = max(1, round(raster.size[0] * width / raster.size[1]))
        return raster.read_scaled((height, width), nearest=nearest)


def _is_file(source: Source) -> bool:
    return source.local is not None and os.path.isfile(source.local)


def slices(box: Box) -> tuple[slice, slice]:
    """Rows and columns of a box."""
    return slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
