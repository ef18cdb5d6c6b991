"""A scene held against the model's card before its first window: what is refused, and what a user should know."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from regard.errors import SceneWarning
from regard.inference.values import BYTE, CELL, Values, check_values
from regard.io.ground import ground_resolution
from regard.io.raster import Raster
from regard.io.window_reader import sampled, stored_range
from regard.models import Segmenter
from regard.options import Input

APART = 2.0  # times that a scene's resolution may differ from the training images'
PLAIN = 0.01  # share of a scene that is one black or white area without being marked as no data


def check_scene(model: Segmenter, raster: Raster, given: Input = Input()) -> None:
    """Look at the whole scene, sparsely and by the statistics in its file, and warn of what does not suit the model.

    Warns:
        SceneWarning: its resolution is far from that of the training images and ``gsd`` is not given; its own colours
            contradict the order of the bands; a large black or white area is not marked as no data.

    Raises:
        BandMismatch: see :func:`regard.inference.values.check_values`.
        UnreadableImage: a block of the file is damaged.
    """
    name, scaling = raster.source.name, model.scaling
    values = Values.of(sampled(raster), scaling.divisor)
    for value in stored_range(raster) or ():
        if value != raster.no_data and values.pixels:
            values.low, values.high = min(values.low, value), max(values.high, value)
    check_values(values, scaling, name)
    of_model = *_resolution(model, raster, given), *_colours(model, raster)
    for text in (*of_model, *_depth(model, raster, values), *_plain(raster, values)):
        warnings.warn(text, SceneWarning, stacklevel=2)


def _resolution(model: Segmenter, raster: Raster, given: Input) -> Iterator[str]:
    trained = model.card.ground_resolution
    own = ground_resolution(raster) if trained and given.gsd is None else None
    if own and trained and not 1 / APART <= own / trained <= APART:
        yield (
            f"{raster.source.name} has {own:.3g} m per pixel, the model was trained at {trained:.3g} m. Use --gsd 0 to "
            "show it the scene at that resolution."
        )


def _colours(model: Segmenter, raster: Raster) -> Iterator[str]:
    """Where the file gives the chosen bands the model's names as colours, in another order."""
    bands, wanted = raster.file_bands, [band.lower() for band in model.bands]
    colours = [bands[number - 1].colour for number in raster.bands]
    if colours != wanted and sorted(colours) == sorted(wanted):
        better = ",".join(str(raster.bands[colours.index(band)]) for band in wanted)
        yield (
            f"bands {', '.join(map(str, raster.bands))} of {raster.source.name} are {', '.join(colours)} by the file's "
            f"own colours; the model takes {', '.join(wanted)}. Use --bands {better}, or correct the colours "
            "(gdal_edit.py -colorinterp_1)."
        )


def _depth(model: Segmenter, raster: Raster, values: Values) -> Iterator[str]:
    kind = raster.dtypes[raster.bands[0] - 1]
    if model.scaling.divisor == BYTE and kind == "uint16" and values.pixels:
        yield (
            f"{raster.source.name} stores 16 bits a band, and its values as far as seen go to {values.high:g}: taken "
            "as an 8-bit image. If other scenes of its kind are brighter, scale all alike (gdal_translate -scale)."
        )


def _plain(raster: Raster, values: Values) -> Iterator[str]:
    for value, cells in values.plain.items():
        if cells and cells >= PLAIN * values.cells:
            yield (
                f"about {100 * cells / values.cells:.0f} % of {raster.source.name} is {value:g} in all bands over "
                f"squares of {CELL} pixels and more, and counts as data. If it is none, use --nodata {value:g}."
            )
