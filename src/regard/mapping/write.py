"""The map of a raster as files: made part by part, gone on with after a kill, published when complete."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np

from regard.errors import OutputError, UnreadableImage
from regard.files import sweep
from regard.io.areas import class_areas, write_areas
from regard.io.cog_writer import BLOCK, RasterWriter, label_layer, measure_layer
from regard.io.polygons import write_polygons
from regard.io.qgis_style import style_path, write_style
from regard.mapping.blend import count_windows, predict_rows, window_rows
from regard.mapping.job import MapJob
from regard.mapping.journal import Journal
from regard.mapping.outputs import Outputs
from regard.mapping.stac import write_item
from regard.mapping.upsample import Rows
from regard.memory import give_back_freed_memory
from regard.progress import Progress

BYTES_A_PIXEL = {"labels": 0.15, "confidence": 1.5, "entropy": 1.5}  # parts, work file and copy, compressed


def write_map(job: MapJob, *, overwrite: bool = True, progress: bool = False) -> Path:
    """Make the map's files and return the path of the labels. What a killed run has finished is not done again.

    ``overwrite=False`` leaves a map alone that is done already, and refuses to replace any other file.

    Raises:
        UnreadableImage: the raster is damaged, or changed while it was read.
        OutputError: a file cannot be written, is there already, or is being made by another run.
    """
    outputs = job.outputs
    outputs.check([Path(name) for name, _, _ in job.raster.stamps])
    identity = job.identity()
    journal = Journal(outputs.labels, identity)
    if not overwrite:
        begun, done = journal.is_begun(), job.is_done()
        if done and not journal.folder.exists():  # else a run was killed while it cleared up
            return outputs.labels
        if not begun and not done:
            refuse_to_replace(outputs.files)
    _check_space(job)
    with journal:
        _sweep(outputs)
        if not overwrite and job.is_done():  # by a run that ended just before we had the lock
            return outputs.labels
        _predict(job, journal, progress)
        give_back_freed_memory()  # what windows were computed in is of no use to what follows
        if job.identity() != identity:
            raise UnreadableImage(f"{job.raster.source} was changed while it was read, or is gone. Run the same again.")
        if not _publish(job, journal) and progress:
            print(
                f"{outputs.labels.name} is empty: no pixel of {job.raster.source.name} holds data (nodata, mask, "
                "alpha, NaN, area of interest)",
                file=sys.stderr,
            )
        _add_tables(job)
    return outputs.labels


def _sweep(outputs: Outputs) -> None:
    """Delete what a killed run left unfinished beside the outputs; the journal's lock is held."""
    for path in [*outputs.files, style_path(outputs.labels)]:
        sweep(path)


def refuse_to_replace(files: Sequence[Path]) -> None:
    """Refuse to go on where one of the files is there.

    Raises:
        OutputError: it is.
    """
    there = [path for path in files if path.exists()]
    if there:
        raise OutputError(
            f"{there[0]} is there already, and not from this model, source, settings and wishes for other files. "
            "Choose another name, or say --overwrite."
        )


def _check_space(job: MapJob) -> None:
    height, width = job.raster.size
    need = height * width * sum(BYTES_A_PIXEL[name] for name in job.outputs.layers)
    folder = job.outputs.labels.parent
    free = shutil.disk_usage(folder).free
    if free < need:
        raise OutputError(
            f"{folder} has {free / 2**20:,.0f} MiB free; the map of {width} x {height} pixels may need "
            f"{need / 2**20:,.0f} MiB. Make room, or choose another disk."
        )


def _predict(job: MapJob, journal: Journal, progress: bool) -> None:
    """Add the parts that the journal does not have yet, one per row of windows."""
    model, raster, tiling = job.model, job.raster, job.tiling
    steps, windows = window_rows(raster.size, tiling, model.stride), count_windows(raster.size, tiling, model.stride)
    first = journal.done
    if first == steps:
        return
    measures = [name for name in job.outputs.layers if name != "labels"]
    nodata = label_layer(model.classes, {}).nodata
    with Progress("window", windows, start=windows // steps * first, enabled=progress) as bar:
        if first:
            bar.note(f"{job.outputs.labels.name}: {first} of {steps} rows of windows were done before; going on")
        advance = _with_speed(bar, raster.size[0] * raster.size[1] / 1e6 / windows)
        rows = predict_rows(model, raster, tiling, first=first, measures=measures, advance=advance)
        for _, group in groupby(rows, attrgetter("row")):
            journal.keep(map(partial(_as_stored, nodata), group))


def _with_speed(bar: Progress, megapixels: float) -> Callable[[int], None]:
    return lambda count: bar.advance(count, facts=f"{megapixels * bar.rate(count):.2f} Mpx/s")


def _as_stored(nodata: int, rows: Rows) -> dict[str, np.ndarray]:
    """The layers of some rows in the integers that they are written in."""
    labels = rows.labels.astype(np.uint8 if nodata < 256 else np.uint16, copy=False)
    np.copyto(labels, nodata, where=~rows.valid)
    return {"labels": labels, **{name: as_bytes(share, rows.valid) for name, share in rows.measures.items()}}


def _publish(job: MapJob, journal: Journal) -> bool:
    """Each layer as a cloud-optimised GeoTIFF, the labels last: where they are, all the rasters are.

    Whether the map has any label.
    """
    mapped = False
    raster, tags = job.raster, {**job.tags, **job.marks}
    place = {"crs": raster.crs, "transform": raster.transform if raster.is_georeferenced else None}
    for name, path in reversed(job.outputs.layers.items()):
        layer = label_layer(job.model.classes, tags) if name == "labels" else measure_layer(name, tags)
        with RasterWriter(path, layer, raster.size, **place, scratch=_same_disk(journal.folder, path)) as writer:
            mapped = _fill(writer, journal.rows(name, BLOCK))  # the labels' at last
    return mapped


def _fill(writer: RasterWriter, parts: Iterable[np.ndarray]) -> bool:
    """Write a layer from top to bottom; whether any of it holds data."""
    mapped = False
    for number, rows in enumerate(parts):
        writer.write(number * BLOCK, rows)
        mapped = mapped or bool((rows != writer.layer.nodata).any())
    return mapped


def _same_disk(folder: Path, path: Path) -> Path | None:
    return folder if os.stat(folder).st_dev == os.stat(path.parent).st_dev else None


def _add_tables(job: MapJob) -> None:
    """What is made from the finished map: QGIS's style, polygons, areas and the catalog's item."""
    outputs, classes = job.outputs, job.model.classes
    write_style(outputs.labels, classes)
    if outputs.polygons is not None:
        rules = asdict(job.patches) | {"simplify": job.patches.pixels_to_simplify(job.raster)}
        sure = outputs.layers["confidence"]
        write_polygons(outputs.labels, outputs.polygons, classes=classes, confidence=sure, when=job.when, **rules)
    if outputs.areas is not None:
        write_areas(class_areas(outputs.labels, classes), outputs.areas)
    if outputs.stac is not None:
        write_item(job.raster, job.model, outputs, outputs.stac, weights=job.tags["regard_weights_sha256"])


def as_bytes(share: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """0..1 in steps of 1/255; 0 where there is no data, at least 1 elsewhere."""
    return np.where(valid, np.clip(np.rint(share * 255), 1, 255), 0).astype(np.uint8)
