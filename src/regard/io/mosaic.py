"""Several files on one grid as one raster: a VRT in GDAL's memory, which reads of each file what is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from regard.errors import BandMismatch, UnreadableImage
from regard.io.bands import Band, check_bits
from regard.io.gdal import XML
from regard.io.raster import Box, open_raster
from regard.io.source import Source

MOSAICS = "/vsimem/regard-mosaic/"  # names of mosaics; their VRTs lie nowhere
TOLERANCE = 0.1  # pixels that a corner may be off the first file's grid


class Tile(NamedTuple):
    """One file of a mosaic; ``empty`` tells how it marks pixels without data: nodata, alpha, mask or nothing."""

    source: Source
    size: tuple[int, int]
    crs: Any
    transform: Any
    bands: tuple[Band, ...]
    empty: str
    block: tuple[int, int]

    @property
    def path(self) -> str:
        """Where GDAL finds the file, from any folder."""
        local = self.source.local
        return self.source.gdal_name if local is None else str(local.absolute())


def mosaic(files: Sequence[str | Path | Source], *, vrt: bool = False) -> Source:
    """Several files as one source, a VRT that lies in no file and that :func:`~regard.io.raster.open_raster` opens.

    Gaps are no data; where files overlap, the last one that has data is seen, as with ``gdalbuildvrt``.

    Raises:
        UnreadableImage: a file cannot be read, is rotated, or off the first one's grid by over a tenth of a pixel.
        BandMismatch: bands, data types or what marks missing data differ from the first file's.
    """
    tiles = [_tile(Source.of(file), vrt) for file in files]
    for tile in tiles:
        _check_alike(tiles[0], tile)
    places = [_place(tiles[0], tile) for tile in tiles]
    document = _document(tiles, places)
    return Source(f"{MOSAICS}{hashlib.sha256(document.encode()).hexdigest()[:16]}/mosaic.vrt", document)


def _tile(source: Source, vrt: bool) -> Tile:
    with open_raster(source, vrt=vrt) as raster:
        check_bits(source, raster.file_bands)
        place = raster.size, raster.crs, raster.transform
        ways = " and ".join(raster.missing_data) or "nothing"
        if len(raster.missing_data) > 1:
            raise BandMismatch(
                f"{source} marks missing data by {ways}; a file of a mosaic does so by one of them. Make it so: "
                f"gdalwarp -dstalpha {source.name} one.tif, or gdal_edit.py -unsetnodata."
            )
        return Tile(source, *place, raster.file_bands, ways, raster.block_shape)


def _check_alike(first: Tile, other: Tile) -> None:
    if other.transform.is_identity or other.transform.b or other.transform.d:
        reason = "has no geotransform" if other.transform.is_identity else "has a rotated geotransform"
        raise UnreadableImage(
            f"{other.source} {reason}; files of a mosaic lie north up on the grid of the first, {first.source}. "
            "Bring it there: gdalwarp."
        )
    if other.crs != first.crs:
        raise UnreadableImage(
            f"{other.source} is in {_named(other.crs)}, {first.source} in {_named(first.crs)}; a mosaic has one. Bring "
            "all to one: gdalwarp -t_srs."
        )
    kinds = {first.empty, other.empty}
    if len(first.bands) != len(other.bands):
        reason = f"has {len(other.bands)} bands, {first.source} {len(first.bands)}"
    elif [str(band) for band in first.bands] != [str(band) for band in other.bands]:  # as text: NaN is not itself
        one, two = next(pair for pair in zip(other.bands, first.bands, strict=True) if str(pair[0]) != str(pair[1]))
        reason = f"has a band of {_told(one)}, {first.source} of {_told(two)}"
    elif len(kinds) == 2 and kinds != {"mask", "nothing"}:
        reason = f"marks missing data by {other.empty}, {first.source} by {first.empty}"
    else:
        return
    raise BandMismatch(f"{other.source} {reason}; files of a mosaic are alike. Make them so: gdal_translate.")


def _named(crs: Any) -> str:
    return "no CRS" if crs is None else crs.to_string()[:60]


def _told(band: Band) -> str:
    nodata = "" if band.nodata is None else f", nodata {band.nodata:g}"
    return f"{band.dtype} ({band.description or band.colour}{nodata})"


def _place(first: Tile, other: Tile) -> Box:
    """Where a file lies, in pixels from the first one's corner."""
    height, width = other.size
    grid, own = first.transform, other.transform
    columns = [(own.c + column * own.a - grid.c) / grid.a for column in (0, width)]
    rows = [(own.f + row * own.e - grid.f) / grid.e for row in (0, height)]
    left, top = round(columns[0]), round(rows[0])
    corners = columns[0] - left, columns[1] - left - width, rows[0] - top, rows[1] - top - height
    shift = max(map(abs, corners))
    if shift > TOLERANCE:
        ours, theirs = ((abs(tile.transform.a), abs(tile.transform.e)) for tile in (first, other))
        sizes = f"its pixels are {theirs[0]:g} x {theirs[1]:g}, those of {first.source} {ours[0]:g} x {ours[1]:g}"
        raise UnreadableImage(
            f"{other.source} is {shift:.2g} pixels off the grid of {first.source} ({sizes}); a mosaic has one "
            f"grid, to {TOLERANCE:g} of a pixel. Bring it there: gdalwarp -tr -tap."
        )
    return Box(top, left, height, width)


def _document(tiles: Sequence[Tile], places: Sequence[Box]) -> str:
    """The VRT of files at their places."""
    left, top = min(box.left for box in places), min(box.top for box in places)
    inside = [box._replace(top=box.top - top, left=box.left - left) for box in places]
    a, b, c, d, e, f = tiles[0].transform[:6]
    return XML.get_template("mosaic.vrt.j2").render(
        first=tiles[0],
        width=max(box.left + box.width for box in inside),
        height=max(box.top + box.height for box in inside),
        transform=(c + left * a, a, b, f + top * e, d, e),
        placed=list(zip(tiles, inside, strict=True)),
    )
