"""A photograph or a raster to its class map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from regard.errors import ConfigError
from regard.inference.segmentation import Segmentation, masked
from regard.inference.views import evaluating
from regard.io.area_of_interest import Area, area_of_interest
from regard.io.areas import ground_resolution
from regard.io.image import is_photograph
from regard.io.mosaic import mosaic
from regard.io.raster import Raster, open_raster
from regard.io.source import Source
from regard.mapping.blend import ALIGNMENT, Tiling, memory_beside, predict_rows
from regard.mapping.job import MapJob
from regard.mapping.outputs import Outputs, Patches
from regard.mapping.photograph import photograph_job
from regard.mapping.write import write_map
from regard.models import Segmenter

IN_MEMORY = 100_000_000  # pixels: larger results go to a file
LARGEST_TILE = 8192
MOST_MEMORY = 2000.0  # MB beside the model


def predict(
    model: Segmenter,
    source: str | Path | Source | Sequence[str | Path | Source],
    to: str | Path | None = None,
    *,
    confidence: str | Path | None = None,
    entropy: str | Path | None = None,
    polygons: str | Path | None = None,
    areas: str | Path | None = None,
    stac: str | Path | None = None,
    sieve: int = 0,
    minimum_area: float = 0.0,
    simplify: float = 0.0,
    bands: Sequence[int | str] | None = None,
    aoi: Area | None = None,
    gsd: float | None = None,
    vrt: bool = False,
    tile: int = 1024,
    overlap: int = 256,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    d4: bool = False,
    batch: int = 2,
    max_memory: float = MOST_MEMORY,
    overwrite: bool = True,
    progress: bool = False,
) -> Segmentation | Path:
    """The class map of an image.

    A photograph (of up to 89 million pixels) is looked at whole and gives a :class:`Segmentation`, also written to
    ``to`` if that is given. A raster is read in windows of ``tile`` pixels whose scores are blended over ``overlap``
    pixels; with ``to`` it becomes a cloud-optimised GeoTIFF on the same grid, of any size in bounded memory, and its
    path is returned; without, a :class:`Segmentation`. A run that was killed goes on where it stopped when it is called
    again.

    Beside the map, if named: ``confidence`` and ``entropy``, GeoTIFFs of the chosen class's probability and of the
    indecision over all classes; ``polygons``, a vector file (.gpkg, .geojson, .fgb, .parquet) with one polygon for each
    patch of a class; ``areas``, a CSV of the ground that each class covers; ``stac``, a STAC item (.json) of the map,
    its files and its model. A style for QGIS is always written. In the file of polygons, not in the map, patches below
    ``sieve`` pixels are given to their largest neighbour, borders are simplified by ``simplify`` metres, and polygons
    then below ``minimum_area`` m² are left out.

    ``aoi`` limits the map to bounds (west, south, east, north in the raster's CRS) or to a vector file's polygons.
    ``gsd`` shows the model the raster at that many metres per pixel (0: at those of its training images) while the map
    stays on the raster's grid; ``tile`` and ``overlap`` then count pixels of that size.
    Several sources on one grid are mapped as one scene; where they overlap, the last one that has data is seen.
    ``vrt`` allows a VRT as source, which may read any file of the machine. A raster whose map would take more than
    ``max_memory`` MB beside the model is refused: above a million pixels of width or so.
    ``overwrite=False`` keeps a map that is done already, and refuses to replace any other file.

    Raises:
        UnreadableImage, BandMismatch: the source cannot be read, or not with this model.
        ConfigError: impossible tile, overlap, scales, area or resolution, or a result or a map too large for memory.
        OutputError: the result cannot be written.
    """
    path = (
        mosaic(list(source), vrt=vrt)
        if isinstance(source, Sequence) and not isinstance(source, str)
        else Source.of(source)
    )
    view: dict[str, Any] = {"tile": tile, "overlap": overlap, "scales": scales, "flip": flip, "d4": d4, "batch": batch}
    extras = {"entropy": entropy, "polygons": polygons, "areas": areas, "stac": stac}
    patches = Patches(sieve, minimum_area, simplify)
    if polygons is None and patches != Patches():
        raise ConfigError(
            "sieve, minimum_area and simplify choose among polygons. Name their file: polygons='map.gpkg'."
        )
    with evaluating(model):
        if is_photograph(path):
            _need_a_map(path, **extras, aoi=aoi, gsd=gsd)
            photograph = photograph_job(model, path, to, confidence=confidence, bands=bands, **view)
            photograph.check(overwrite=overwrite)
            return photograph.run()
        limits: dict[str, Any] = {"aoi": aoi, "gsd": gsd, "vrt": vrt, "max_memory": max_memory}
        with opened(model, path, bands=bands, **limits, **view) as (raster, tiling):
            if to is None:
                _need_a_map(path, **extras, confidence=confidence)
                return _collect(model, raster, tiling)
            job = MapJob(model, raster, tiling, Outputs.of(to, confidence=confidence, **extras), patches)
            return write_map(job, overwrite=overwrite, progress=progress)


@contextmanager
def opened(
    model: Segmenter,
    source: str | Path | Source,
    *,
    bands: Sequence[int | str] | None = None,
    aoi: Area | None = None,
    gsd: float | None = None,
    vrt: bool = False,
    max_memory: float = MOST_MEMORY,
    **view: Any,
) -> Iterator[tuple[Raster, Tiling]]:
    """The raster, limited to the area of interest, and the windows in which the model shall see it.

    Raises:
        UnreadableImage, BandMismatch, ConfigError: see :func:`predict`.
    """
    tiling = Tiling.of(**view)
    with open_raster(source, bands=bands, expected=model.bands, vrt=vrt) as raster:
        raster.area = None if aoi is None else area_of_interest(aoi, raster)
        tiling = tiling if gsd is None else at_resolution(tiling, model, raster, gsd)
        _check_memory(memory_beside(model, raster, tiling) / 1e6, max_memory, raster)
        yield raster, tiling


def _check_memory(needed: float, most: float, raster: Raster) -> None:
    if needed > most:
        raise ConfigError(
            f"the map of {raster.source.name}, {raster.size[1]} pixels wide, takes about {needed:,.0f} MB beside the "
            f"model; {most:,.0f} are allowed. Cut it in two (gdal_translate -srcwin), or say --max-memory {needed:.0f}."
        )


def _need_a_map(source: Source, **wishes: object) -> None:
    wished = [name for name, value in wishes.items() if value is not None]
    if wished:
        raise ConfigError(
            f"{' and '.join(wished)}: only with the written map of a raster; {source.name} gives none. Give a GeoTIFF "
            "and name the map."
        )


def at_resolution(tiling: Tiling, model: Segmenter, raster: Raster, gsd: float) -> Tiling:
    """The tiling that shows the model ``gsd`` metres per pixel (0: those of its card).

    Raises:
        ConfigError: the raster's or the model's own resolution is not known, or they are too far apart.
    """
    if gsd < 0:
        raise ConfigError(f"gsd {gsd:g} must be metres per pixel above 0, or 0 for those of the training images.")
    wanted, own = gsd or model.card.ground_resolution, ground_resolution(raster)
    if own is None or not wanted:
        unknown = raster.source.name if own is None else "the model's card"
        raise ConfigError(f"{unknown} does not say how many metres a pixel has. Leave gsd out.")
    factor = own / wanted
    tile = ALIGNMENT * max(1, round(tiling.tile / factor / ALIGNMENT))
    if tile > LARGEST_TILE:
        raise ConfigError(
            f"{raster.source.name} has {own:.3g} m per pixel, so windows at {wanted:.3g} m would be {tile} pixels "
            f"wide; at most {LARGEST_TILE} are possible. Shrink the raster first (gdalwarp -tr), or a smaller tile."
        )
    overlap = min(tile // 2, ALIGNMENT * round(tiling.overlap / factor / ALIGNMENT)) // ALIGNMENT * ALIGNMENT
    return replace(tiling, tile=tile, overlap=overlap, scales=tuple(scale * factor for scale in tiling.scales))


def _collect(model: Segmenter, raster: Raster, tiling: Tiling) -> Segmentation:
    height, width = raster.size
    if height * width > IN_MEMORY:
        raise ConfigError(
            f"{raster.source.name} has {height * width / 1e6:.0f} Mpx, too many for memory. Name a file: to='map.tif'."
        )
    parts = list(predict_rows(model, raster, tiling))
    valid = np.concatenate([rows.valid for rows in parts])
    labels = masked(np.concatenate([rows.labels for rows in parts]), valid, model.classes.ignore_index)
    confidence = np.where(valid, np.concatenate([rows.measures["confidence"] for rows in parts]), 0)
    return Segmentation(labels, confidence, model.classes, None, raster.crs, raster.transform)
