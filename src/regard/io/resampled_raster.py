"""A raster as it looks at another resolution: GDAL's warper, on a grid over the same ground."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from regard.errors import BandMismatch, ConfigError
from regard.io.areas import ground_resolution
from regard.io.raster import Raster


@contextmanager
def at_gsd(raster: Raster, gsd: float | None) -> Iterator[Raster]:
    """The raster in as many pixels as make ``gsd`` metres of one, or just as it is without ``gsd``.

    The grid covers the scene's ground exactly, so a pixel may be off ``gsd`` by half a pixel over the scene's length.
    Values are interpolated, and averaged with the triangle of the larger pixels where there are fewer, as ``--gsd`` of
    ``regard predict`` shows a scene to a network; ground of no data has no share in them.

    Raises:
        ConfigError: the raster does not say how large its pixels are.
        BandMismatch: a band marked as alpha was asked for, which the warper takes for the mask.
    """
    if gsd is None:
        yield raster
        return
    own, name = ground_resolution(raster), raster.source.name
    if own is None:
        raise ConfigError(f"{name} does not say how many metres a pixel has. Leave gsd out, or give it a CRS.")
    if raster.reads_alpha:
        raise BandMismatch(
            f"{name} has a band marked as alpha among those asked for, which gsd takes for the mask. Mark it anew: "
            "gdal_edit.py -colorinterp_4 undefined."
        )
    height, width = (max(1, round(length * own / gsd)) for length in raster.size)
    with raster.resampled((height, width)) as resampled:
        yield resampled
