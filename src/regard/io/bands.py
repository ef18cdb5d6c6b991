"""Which bands of a raster are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rasterio.enums import ColorInterp

from regard.errors import BandMismatch
from regard.io.source import Source

SPECTRAL = {
    **{name: name for name in ("coastal", "blue", "green", "yellow", "red", "rededge", "nir", "swir", "tir", "pan")},
    **{"nearinfrared": "nir", "infrared": "nir", "shortwaveinfrared": "swir", "thermal": "tir", "panchromatic": "pan"},
}


class Band(NamedTuple):
    """What a file says of one band."""

    dtype: str
    colour: str
    description: str
    nodata: float | None
    bits: int = 8
    is_negative: bool = False  # 0 is white


def bands_of(dataset: Any) -> tuple[Band, ...]:
    """What a file says of its bands."""
    colours = [colour.name for colour in dataset.colorinterp]
    descriptions = [text or "" for text in dataset.descriptions]
    bits = [int(dataset.tags(number, ns="IMAGE_STRUCTURE").get("NBITS", 8)) for number in dataset.indexes]
    negative = [dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"] * dataset.count
    return tuple(map(Band, dataset.dtypes, colours, descriptions, dataset.nodatavals, bits, negative))


def choose_bands(
    source: Source, dataset: Any, bands: Sequence[int | str] | None, expected: Sequence[str] | None
) -> tuple[int, ...]:
    """Numbers (from 1) of the bands to read: those given; else all but alpha, in the model's order if their names or
    their colours are the model's.

    Raises:
        BandMismatch: they are more or fewer than the model's, or their names say other colours.
    """
    names = band_names(dataset)
    if bands:
        chosen = tuple(band_number(source, band, names) for band in bands)
    else:
        chosen = tuple(i + 1 for i, kind in enumerate(dataset.colorinterp) if kind != ColorInterp.alpha)
        chosen = _in_order(source, dataset, chosen, expected or ())
    if expected and len(chosen) != len(expected):
        listed = ", ".join(f"{number + 1} {name}" for number, name in enumerate(names))
        raise BandMismatch(
            f"{source.name} has {len(chosen)} band{'s' * (len(chosen) > 1)} ({listed}); the model was trained on "
            f"{len(expected)} ({', '.join(expected)}). {_advice(source, dataset, expected)}"
        )
    return chosen


def _in_order(source: Source, dataset: Any, chosen: tuple[int, ...], expected: Sequence[str]) -> tuple[int, ...]:
    """The bands in the model's order, where their names or else their colours tell it."""
    names, colours = band_names(dataset), [kind.name for kind in dataset.colorinterp]
    spectra, wanted = list(map(spectral, names)), list(map(spectral, expected))
    held = [spectra[number - 1] for number in chosen]
    is_named = all(dataset.descriptions) and {*held, *wanted} <= {*SPECTRAL.values()}
    if is_named and len(held) == len(wanted) and sorted(held) != sorted(wanted):
        raise BandMismatch(
            f"{source.name} has the bands {', '.join(names)}; the model was trained on {', '.join(expected)}. Give an "
            f"image of these, or, if its bands are named wrongly, --bands {','.join(map(str, chosen))}."
        )
    for given, order in ((names, expected), (spectra, wanted), (colours, expected)):
        if sorted(given[number - 1] for number in chosen) == sorted(order) and len(set(order)) == len(order):
            return tuple(given.index(band) + 1 for band in order)
    return chosen


def spectral(name: str) -> str:
    """The part of the spectrum that a band's name says, as ``nir`` of "Band 8 (Near infrared)"; else the name."""
    words, found = re.findall("[a-z]+", name.casefold()), set[str]()
    for length in (3, 2, 1):
        for first in range(len(words) - length + 1):
            if (phrase := "".join(words[first : first + length])) in SPECTRAL:
                found.add(SPECTRAL[phrase])
                words[first : first + length] = [""] * length
    return found.pop() if len(found) == 1 else name.casefold()


def _advice(source: Source, dataset: Any, expected: Sequence[str]) -> str:
    """Which bands to ask for: those whose names hold the model's band names, else the first ones; how to make them of
    a single one.
    """
    names = band_names(dataset)
    if len(names) == 1 and tuple(expected) == ("red", "green", "blue"):
        how = "-expand rgb" if dataset.colorinterp[0] == ColorInterp.palette else "-b 1 -b 1 -b 1"
        return f"If the band is a picture, make three of it: gdal_translate {how} {source.name} {source.stem}_rgb.tif."
    if len(names) < len(expected):
        return "Give an image with these bands."
    words = [name.lower().split() for name in names]
    alike = [number for band in expected for number, held in enumerate(words, 1) if band.lower() in held]
    numbers = alike if len(alike) == len(expected) else range(1, len(expected) + 1)
    return f"Choose them with --bands {','.join(map(str, numbers))}."


def band_names(dataset: Any) -> list[str]:
    """The bands' descriptions, or their colours, or band_1, band_2, ..."""
    fallback = [kind.name if kind.value > 2 else f"band_{i + 1}" for i, kind in enumerate(dataset.colorinterp)]
    return [text or other for text, other in zip(dataset.descriptions, fallback, strict=True)]


def band_number(source: Source, band: int | str, names: Sequence[str]) -> int:
    """The number (from 1) of a band that is given by its number or its name."""
    text = str(band)
    if text in names:
        return names.index(text) + 1
    if text.isdigit() and 1 <= int(text) <= len(names):
        return int(text)
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
    raise BandMismatch(f"{source.name} has no band {text!r}; it has {numbered}. Choose among them.")


def check_bits(source: Source, bands: Sequence[Band]) -> None:
    """Refuse black-and-white and other coarse pictures, whose values would all be dark, and negatives.

    Raises:
        BandMismatch: less than 8 bits a band, or 0 is white.
    """
    bits = bands[0].bits
    if bits < 8:
        raise BandMismatch(
            f"{source.name} has {bits} bit{'s' * (bits > 1)} a band; a photograph or scene has 8 or more. Give the "
            "image that it was made from."
        )
    if bands[0].is_negative:
        raise BandMismatch(
            f"{source.name} stores white as 0 (MINISWHITE); models take images in which 0 is black. Turn its values: "
            f"gdal_translate -co PHOTOMETRIC=MINISBLACK -scale 0 255 255 0 {source.name} {source.stem}_positive.tif."
        )
