"""A photograph or a raster to its class map: `predict`, and the job that a source and its options make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from regard.errors import ConfigError, RegardError
from regard.inference.scores import evaluating, views_of
from regard.inference.segmentation import Segmentation, masked
from regard.io.ground import ground_resolution
from regard.io.mosaic import mosaic as mosaic_of
from regard.io.raster import Raster, open_raster
from regard.io.source import Source
from regard.mapping.blend import Hooks, memory_needed, predict_rows, windows_of
from regard.mapping.job import PhotographJob, is_scene
from regard.mapping.scene_check import check_scene
from regard.mapping.scene_context import in_context
from regard.mapping.sources import check_failures, targets_of
from regard.mapping.write import RasterJob
from regard.models import Segmenter
from regard.options import ALIGNMENT, Extent, Input, MapOptions, Outputs, PolygonRules, Views, Windows

IN_MEMORY = 100_000_000  # pixels: larger results go to a file
LARGEST_TILE = 8192


def predict(
    model: Segmenter,
    source: str | Path | Source | Sequence[str | Path | Source],
    out: str | Path | None = None,
    *,
    confidence: str | Path | None = None,
    entropy: str | Path | None = None,
    probabilities: str | Path | None = None,
    margin: str | Path | None = None,
    certain: float | None = None,
    polygons: str | Path | None = None,
    areas: str | Path | None = None,
    stac: str | Path | None = None,
    preview: str | Path | None = None,
    sieve: int = PolygonRules.sieve,
    simplify: float = PolygonRules.simplify,
    only: Sequence[str] = PolygonRules.only,
    minimum_hole: float = PolygonRules.minimum_hole,
    regularise: Sequence[str] = PolygonRules.regularise,
    minimum_area: float = PolygonRules.minimum_area,
    bands: Sequence[int | str] | None = None,
    aoi: Sequence[float] | str | Path | None = None,
    gsd: float | None = None,
    nodata: float | None = None,
    vrt: bool = Input.vrt,
    tile: int = Windows.tile,
    overlap: int = Windows.overlap,
    scales: Sequence[float] = Views.scales,
    flip: bool = False,
    d4: bool = False,
    batch: int = Windows.batch,
    max_memory: float = Windows.max_memory,
    context: Extent = Windows.context,
    mosaic: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Segmentation | Path | list[Segmentation | Path]:
    """Predict the class map of an image.

    A photograph (up to 89 million pixels) is scored whole and gives a :class:`Segmentation`, also written to ``out`` if
    that is given. A raster is read in windows, whose scores are blended where they overlap; with ``out`` it becomes a
    cloud-optimised GeoTIFF on the same grid, of any size in bounded memory, and its path is returned; without, a
    :class:`Segmentation`. A run that was killed resumes when it is called again.

    Several sources give a list of maps, in the folder ``out`` if that is given; an error at the end names those that
    failed. With ``mosaic`` they are one scene on one grid; the last one that has data is used. Without ``overwrite`` a
    complete map is kept, files that it lacks besides its rasters are derived from it, and any other file is refused.

    The other options are those of :mod:`regard.options`: files in ``Outputs``, ``sieve`` and others in
    ``PolygonRules``, ``bands`` to ``vrt`` in ``Input``, ``tile`` to ``context`` in ``Windows``, others in ``Views``.

    Raises:
        UnreadableImage, BandMismatch: the source cannot be read, or not with this model.
        ConfigError: an impossible option, or a result or a map too large for memory.
        OutputError: the result cannot be written, or exists and is another one.
        ScenesFailed: some of several sources could not be predicted.
    """
    options = MapOptions(
        Outputs.of(out, confidence, entropy, probabilities, margin, certain, polygons, areas, stac, preview),
        Input(None if bands is None else tuple(bands), aoi, gsd, nodata, vrt),
        Windows(tile, overlap, batch, max_memory, context),
        Views(tuple(scales), flip, d4),
        PolygonRules(sieve, simplify, tuple(only), minimum_hole, tuple(regularise), minimum_area),
        overwrite,
    )
    if isinstance(source, str | Path | Source):
        return predict_one(model, Source.of(source), options, progress=progress)
    if mosaic:
        return predict_one(model, mosaic_of(source, vrt=vrt), options, progress=progress)
    return _predict_each(model, targets_of(source, options.outputs, several=True), options, progress)


def _predict_each(
    model: Segmenter, targets: Mapping[Source, Path | None], options: MapOptions, progress: bool
) -> list[Segmentation | Path]:
    maps, failed = [], {}
    for source, target in targets.items():
        try:
            maps.append(predict_one(model, source, options.to(target), progress=progress))
        except RegardError as error:
            if len(targets) == 1:
                raise
            failed[str(source)] = f"{type(error).__name__}: {error}"
    check_failures(failed, len(targets))
    return maps


def predict_one(model: Segmenter, source: Source, options: MapOptions, *, progress: bool = True) -> Segmentation | Path:
    """The map of one source; see :func:`predict`."""
    with opened(model, source, options) as job:
        job.check()
        return job.run(progress=progress)


@contextmanager
def opened(model: Segmenter, source: Source, options: MapOptions) -> Iterator[PhotographJob | RasterJob | InMemoryJob]:
    """The job that a source and its options make; meanwhile the model is in eval mode."""
    with evaluating(model):
        if not is_scene(source, options.outputs.out):
            limits = [name for name in ("aoi", "gsd", "nodata") if getattr(options.input, name) is not None]
            _need_a_map(source, [*limits, *(name for name in options.outputs.extra if name != "confidence")])
            yield PhotographJob(model, source, replace(options, views=views_of(options.views, model)))
        else:
            with opened_raster(model, source, options) as (raster, fitted):
                yield (InMemoryJob if options.outputs.out is None else RasterJob)(model, raster, fitted)


@contextmanager
def opened_raster(model: Segmenter, source: Source, options: MapOptions) -> Iterator[tuple[Raster, MapOptions]]:
    """The raster, limited to the area of interest, and the options with the windows and scales for its resolution."""
    given = options.input
    with open_raster(source, bands=given.bands, expected=model.bands, vrt=given.vrt) as raster:
        _check_grid(raster, options)
        raster.no_data = given.nodata
        if given.aoi is not None:
            raster.area = _area(given.aoi, raster)
        if given.gsd is None:
            fitted = replace(options, windows=windows_of(options.windows, model))
        else:
            fitted = at_resolution(options, model, raster)
        needed, most = memory_needed(model, raster, fitted) / 1e6, fitted.windows.max_memory
        if needed > most:
            raise ConfigError(
                f"the map of {source.name}, {raster.size[1]} pixels wide, takes about {needed:,.0f} MB besides the "
                f"model; {most:,.0f} are allowed. Cut it in two (gdal_translate -srcwin), or use --max-memory "
                f"{needed:.0f}."
            )
        yield raster, fitted


def _area(wanted: Sequence[float] | str | Path, raster: Raster) -> Any:
    from regard.io.vectors import area_of_interest  # with a GDAL of its own: 43 MB

    return area_of_interest(wanted, raster)


def _need_a_map(source: Source, names: Sequence[str]) -> None:
    if names:
        raise ConfigError(
            f"{' and '.join(names)}: only with the written map of a raster; {source.name} gives none. Give a GeoTIFF "
            "and name the map."
        )


def _check_grid(raster: Raster, options: MapOptions) -> None:
    """Refuse what needs a grid of ground where ground control points or RPCs place the raster instead.

    Raises:
        ConfigError: an area of interest, a resolution, polygons, areas or a STAC item is asked for.
    """
    points, _, rpcs = raster.control
    if raster.is_georeferenced or not (points or rpcs):
        return
    asked = [name for name in ("aoi", "gsd") if getattr(options.input, name) is not None]
    asked += [name for name in ("polygons", "areas", "stac") if name in options.outputs.extra]
    if asked:
        how, flag = (f"{len(points)} ground control points", "") if points else ("RPCs", "-rpc ")
        raise ConfigError(
            f"{raster.source.name} is placed by {how}, which its map gets too, and not by a grid, which "
            f"{' and '.join(asked)} {'need' if len(asked) > 1 else 'needs'}. Warp it first: gdalwarp {flag}-t_srs "
            f"EPSG:4326 {raster.source.name} {raster.source.stem}_warped.tif."
        )


def at_resolution(options: MapOptions, model: Segmenter, raster: Raster) -> MapOptions:
    """The windows and scales that give the model ``gsd`` metres per pixel (0: those of its card).

    Raises:
        ConfigError: the raster's or the model's own resolution is not known, or they are too far apart.
    """
    wanted, own = options.input.gsd or model.card.ground_resolution, ground_resolution(raster)
    if own is None or not wanted:
        lacking = f"{raster.source.name} does not say how many metres a pixel has. Omit gsd, or give it a CRS"
        if own is not None:
            lacking = (
                "gsd 0: the model's card does not say how many metres a pixel of its training images has. Omit gsd"
            )
            lacking += ", or give the metres"
        raise ConfigError(f"{lacking}.")
    factor, windows = own / wanted, windows_of(options.windows, model)
    tile = ALIGNMENT * max(1, round(windows.tile / factor / ALIGNMENT))
    if tile > LARGEST_TILE:
        raise ConfigError(
            f"{raster.source.name} has {own:.3g} m per pixel, so windows at {wanted:.3g} m would be {tile} pixels "
            f"wide; at most {LARGEST_TILE} are possible. Shrink the raster first (gdalwarp -tr), or a smaller tile."
        )
    overlap = min(tile // 2, ALIGNMENT * round(windows.overlap / factor / ALIGNMENT)) // ALIGNMENT * ALIGNMENT
    scales = tuple(scale * factor for scale in options.views.scales)
    return replace(
        options,
        windows=replace(windows, tile=tile, overlap=overlap),
        views=replace(options.views, scales=scales),
    )


@dataclass(frozen=True)
class InMemoryJob:
    """A raster to be mapped in windows, without files."""

    model: Segmenter
    raster: Raster
    options: MapOptions

    def check(self) -> None:
        _need_a_map(self.raster.source, self.options.outputs.extra)

    def is_done(self) -> bool:
        return False

    def run(self, *, progress: bool = True) -> Segmentation:
        """The labels in memory.

        Raises:
            ConfigError: more than 100 million pixels.
        """
        model, raster, options = self.model, self.raster, self.options
        if (pixels := raster.size[0] * raster.size[1]) > IN_MEMORY:
            raise ConfigError(
                f"{raster.source.name} has {pixels / 1e6:.0f} Mpx, too many for memory. Name a file: out='map.tif'."
            )
        check_scene(model, raster, options.input)
        with in_context(model, raster, options, progress=progress) as context:
            chunks = [*predict_rows(model, raster, options.windows, options.views, hooks=Hooks(context.look_at))]
        valid = np.concatenate([rows.valid for rows in chunks])
        labels = masked(np.concatenate([rows.labels for rows in chunks]), valid, model.classes.ignore_index)
        confidence = np.where(valid, np.concatenate([rows.measures["confidence"] for rows in chunks]), 0)
        return Segmentation(labels, confidence, model.classes, None, raster.crs, raster.transform)
