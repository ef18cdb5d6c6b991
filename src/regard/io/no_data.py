"""Which pixels of a raster hold data: by its alpha band, its mask, its values for no data, and a value given for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from rasterio.enums import ColorInterp, MaskFlags

LIGHTEST = 255  # of a picture: 0 and 255 in one band alone may be a dark or a bright pixel


def missing_data(dataset: Any) -> tuple[str, ...]:
    """Every way in which a file marks pixels without data, of ``alpha``, ``mask`` and ``nodata``; GDAL heeds one."""
    flags = dataset.mask_flag_enums[0]
    found = {
        "alpha": ColorInterp.alpha in dataset.colorinterp,
        "mask": MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
        "nodata": any(value is not None for value in dataset.nodatavals),
    }
    return tuple(name for name, is_marked in found.items() if is_marked)


def marked_valid(dataset: Any, ways: Sequence[str], **where: Any) -> Bool[np.ndarray, "h w"]:
    """Which pixels all ``ways`` of a file call data; ``where`` is what rasterio's ``read`` takes.

    A pixel has no data by nodata where every band but alpha holds its value.
    """
    if len(ways) < 2:
        return dataset.dataset_mask(**where) > 0
    alpha = [number for number, colour in enumerate(dataset.colorinterp, 1) if colour == ColorInterp.alpha]
    found = []
    if "alpha" in ways:
        found.append(dataset.read(alpha[0], **where) > 0)
    if "mask" in ways:
        found.append(dataset.read_masks(1, **where) > 0)
    if "nodata" in ways:
        bands = [number for number in dataset.indexes if number not in alpha]
        values = (dataset.read(number, **where) for number in bands)
        found.append(~all_nodata(values, [dataset.nodatavals[number - 1] for number in bands]))
    return np.logical_and.reduce(found)


def all_nodata(bands: Iterable[Shaped[np.ndarray, "h w"]], nodata: Sequence[float | None]) -> Bool[np.ndarray, "h w"]:
    """Where every band holds its value for no data: one band alone may be dark there."""
    return np.logical_and.reduce([equal(values, value) for values, value in zip(bands, nodata, strict=True)])


def measured(
    pixels: Shaped[np.ndarray, "c h w"], nodata: Sequence[float | None], given: float | None
) -> Bool[np.ndarray, "h w"]:
    """Which pixels have a value in every band: finite, and not a nodata that no picture holds (below 0, above 255),
    nor, in all bands together, the value that is ``given`` for no data.
    """
    valid = np.ones(pixels.shape[1:], bool)
    if np.issubdtype(pixels.dtype, np.floating):
        valid &= np.isfinite(pixels).all(axis=0)
    for values, value in zip(pixels, nodata, strict=True):
        valid &= ~equal(values, value if _no_picture(value) else None)
    if given is not None:
        alike = np.stack([equal(values, given) for values in pixels])
        valid &= ~(alike.any(axis=0) if _no_picture(given) else alike.all(axis=0))
    return valid


def _no_picture(value: float | None) -> bool:
    return value is not None and not 0 <= value <= LIGHTEST


def equal(values: Shaped[np.ndarray, "h w"], nodata: float | None) -> Bool[np.ndarray, "h w"]:
    """Where ``values`` are ``nodata``, in the precision that they are stored in; nowhere without one."""
    if nodata is None:
        return np.zeros(values.shape, bool)
    if np.issubdtype(values.dtype, np.floating):
        return np.isnan(values) if math.isnan(nodata) else values == values.dtype.type(nodata)
    return values == nodata
