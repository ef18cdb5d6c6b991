"""A photograph or a raster to its class map."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from regard._version import __version__
from regard.data.augment import prepare
from regard.data.image import PHOTOGRAPHS, read_image
from regard.data.polygons import write_polygons
from regard.data.raster import Raster, open_raster
from regard.data.raster_writer import RasterWriter, check_writable, confidence_layer, label_layer
from regard.data.vector_file import check_vector_target
from regard.engine.infer import class_scores, scaling_of
from regard.engine.progress import Progress
from regard.engine.scene import Rows, Tiling, count_windows, predict_rows
from regard.engine.segmentation import Segmentation
from regard.errors import ConfigError, OutputError
from regard.models import Segmenter
from regard.models.weights import digest

IN_MEMORY = 100_000_000  # pixels: larger results go to a file


def predict(
    model: Segmenter,
    source: str | Path,
    to: str | Path | None = None,
    *,
    confidence: str | Path | None = None,
    polygons: str | Path | None = None,
    bands: Sequence[int | str] | None = None,
    tile: int = 1024,
    overlap: int = 256,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    batch: int = 2,
    progress: bool = False,
) -> Segmentation | Path:
    """The class map of an image.

    A photograph is looked at whole and gives a :class:`Segmentation`, also written to ``to`` if that is given. A raster
    is read in windows of ``tile`` pixels whose scores are blended over ``overlap`` pixels; with ``to`` it becomes a
    cloud-optimised GeoTIFF on the same grid, of any height in bounded memory, and its path is returned; without, a
    :class:`Segmentation`. ``confidence`` names a second GeoTIFF, of the chosen class's probability; ``polygons`` a
    vector file (.gpkg, .geojson, .fgb, .parquet) with one polygon for each patch of a class, made from the written map.

    Raises:
        UnreadableImage, BandMismatch: the source cannot be read, or not with this model.
        ConfigError: impossible tile, overlap or scales, or a result too large for memory.
        OutputError: the result cannot be written.
    """
    path, was_training = Path(source), model.training
    tiling = Tiling(tile, overlap, tuple(scales), flip, batch).checked()
    model.eval()
    try:
        if polygons is not None and (to is None or path.suffix.lower() in PHOTOGRAPHS):
            raise ConfigError(
                f"polygons are made from the written map of a raster; {path.name} gives none. Name both outputs."
            )
        if path.suffix.lower() in PHOTOGRAPHS:
            return _predict_photograph(model, path, to, confidence, tiling, bands)
        with open_raster(path, bands=bands, expected=model.bands) as raster:
            if to is None:
                return _collect(model, raster, tiling)
            if polygons is not None:
                check_vector_target(Path(polygons))
            path = _write(model, raster, tiling, Path(to), confidence, progress)
            if polygons is not None:
                sure = None if confidence is None else Path(confidence)
                write_polygons(path, Path(polygons), classes=model.classes, confidence=sure)
            return path
    finally:
        model.train(was_training)


def _predict_photograph(
    model: Segmenter,
    path: Path,
    to: str | Path | None,
    confidence: str | Path | None,
    tiling: Tiling,
    bands: Sequence[int | str] | None,
) -> Segmentation:
    for target in (to, confidence):
        if target is not None:
            check_writable(Path(target))
    pixels = read_image(path, bands=bands, expected=model.bands)
    image = prepare(pixels.values, pixels.valid, scaling_of(model))[None].to(next(model.parameters()).device)
    best, labels = class_scores(model, image, scales=tiling.scales, flip=tiling.flip).softmax(dim=1).max(dim=1)
    masked = _masked(labels[0].cpu().numpy(), pixels.valid, model.classes.ignore_index)
    result = Segmentation(masked, best[0].cpu().numpy(), model.classes, path)
    if to is not None:
        result.save(to)
    if confidence is not None:
        with RasterWriter(Path(confidence), confidence_layer(tags_of(model)), masked.shape) as writer:
            writer.write(0, as_bytes(result.confidence, pixels.valid))
    return result


def _collect(model: Segmenter, raster: Raster, tiling: Tiling) -> Segmentation:
    height, width = raster.size
    if height * width > IN_MEMORY:
        raise ConfigError(
            f"{raster.path.name} has {height * width / 1e6:.0f} Mpx, too many for memory. Name a file: to='map.tif'."
        )
    parts = [rows for rows in predict_rows(model, raster, tiling) if isinstance(rows, Rows)]
    valid = np.concatenate([rows.valid for rows in parts])
    labels = _masked(np.concatenate([rows.labels for rows in parts]), valid, model.classes.ignore_index)
    confidence = np.where(valid, np.concatenate([rows.confidence for rows in parts]), 0)
    return Segmentation(labels, confidence, model.classes, None, raster.crs, raster.transform)


def _write(
    model: Segmenter, raster: Raster, tiling: Tiling, to: Path, confidence: str | Path | None, progress: bool
) -> Path:
    if to.resolve() == raster.path.resolve():
        raise OutputError(f"{to} is the input itself. Choose another name for the map.")
    if to.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"the map of a raster is a GeoTIFF; got {to.name}. Name it {to.stem}.tif.")
    tags = tags_of(model)
    layer = label_layer(model.classes, tags)
    place = {"crs": raster.crs, "transform": raster.transform if raster.is_georeferenced else None}
    bar = Progress("window", count_windows(raster.size, tiling, model.stride), silent=not progress)
    with ExitStack() as stack:
        stack.enter_context(bar)
        sure = None
        if confidence is not None:
            sure = stack.enter_context(RasterWriter(Path(confidence), confidence_layer(tags), raster.size, **place))
        labels = stack.enter_context(RasterWriter(to, layer, raster.size, **place))
        for rows in predict_rows(model, raster, tiling):
            if not isinstance(rows, Rows):
                bar.advance(rows)
                continue
            labels.write(rows.top, np.where(rows.valid, rows.labels, layer.nodata).astype(layer.dtype))
            if sure is not None:
                sure.write(rows.top, as_bytes(rows.confidence, rows.valid))
    return to


def _masked(labels: np.ndarray, valid: np.ndarray, ignore_index: int) -> np.ndarray:
    """Labels with the ignore index where there is no data: uint8, or int32 where that does not hold it."""
    return np.where(valid, labels, ignore_index).astype(np.uint8 if 0 <= ignore_index < 256 else np.int32)


def as_bytes(confidence: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """0..1 in steps of 1/255; 0 where there is no data, at least 1 elsewhere."""
    return np.where(valid, np.clip(np.rint(confidence * 255), 1, 255), 0).astype(np.uint8)


def tags_of(model: Segmenter) -> dict[str, str]:
    """What a map says of the model that made it."""
    card = model.card
    return {
        "TIFFTAG_SOFTWARE": f"regard {__version__}",
        "regard_model": card.architecture,
        "regard_card": card.model_dump_json(),
        "regard_weights_sha256": digest(model.state_dict()),
    }
