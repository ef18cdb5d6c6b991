"""One source to be mapped: which files may be written, when they are complete, and the job of a photograph."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from regard._version import __version__
from regard.errors import OutputError, SceneWarning, UnreadableImage
from regard.files import check_targets, digest, refuse_to_replace
from regard.inference.scores import scores_of
from regard.inference.segmentation import Segmentation, masked
from regard.io.cog_writer import RasterWriter, measure_layer, names_path, style_path
from regard.io.image import is_placed, read_image
from regard.io.polygons import MODIFIED_TAG
from regard.io.raster import Raster, open_raster
from regard.io.source import Source, is_photograph
from regard.mapping.journal import key_of
from regard.mapping.measures import as_bytes
from regard.mapping.side_files import check_sides
from regard.models import Segmenter
from regard.options import MapOptions, Outputs


def is_scene(source: Source, out: Path | None) -> bool:
    """Whether a source is mapped in windows, on its own grid: a raster; and a JPEG or PNG that lies on a map, unless
    ``out`` is a picture.

    Warns:
        SceneWarning: the place of a photograph on the map is left out.
    """
    if not is_photograph(source):
        return True
    if not is_placed(source):
        return False
    readable = source.suffix not in (".webp", ".bmp")
    if readable and (out is None or out.suffix.lower() != ".png"):
        return True
    advice = (
        f"name the map {out.stem}.tif" if readable and out else f"use gdal_translate {source.name} {source.stem}.tif"
    )
    warnings.warn(
        f"the place of {source.name} on the map is left out of its class map. To keep it, {advice}.",
        SceneWarning,
        stacklevel=2,
    )
    return False


@dataclass(frozen=True)
class PhotographJob:
    """A photograph, which is scored whole: its labels in memory, and as files where they are named."""

    model: Segmenter
    source: Source
    options: MapOptions

    def check(self) -> None:
        """Check before any work is done that the files can be written.

        Raises:
            OutputError: they cannot; or one is the source itself, or exists and is not of this job (no ``overwrite``).
        """
        files = self.options.outputs.files
        if not files:
            return
        check_targets(files, [Path(self.source.fingerprint()[0])])
        if not self.options.overwrite:
            refuse_to_replace([path for path in files if not self._is_mine(path)])

    def is_done(self) -> bool:
        """Whether all files are complete already: of the same model, source and options."""
        files = self.options.outputs.files
        return bool(files) and all(map(self._is_mine, files))

    def _is_mine(self, path: Path) -> bool:
        return is_complete([path], {"regard_job": self.tags["regard_job"]})

    def run(self, *, progress: bool = True) -> Segmentation:
        """The labels; computed in memory, and no file is touched, where the files are complete already."""
        kept = not self.options.overwrite and self.is_done()
        pixels = read_image(self.source, bands=self.options.input.bands, expected=self.model.bands)
        best, labels = (
            found.cpu().numpy() for found in scores_of(self.model, pixels, self.options.views).softmax(dim=0).max(dim=0)
        )
        classes = self.model.classes
        result = Segmentation(masked(labels, pixels.valid, classes.ignore_index), best, classes, self.source)
        if not kept:
            self._write(result, pixels.valid)
        return result

    def _write(self, result: Segmentation, valid: np.ndarray) -> None:
        outputs = self.options.outputs
        if outputs.out is not None:
            result.save(outputs.out, tags=self.tags)
        if outputs.confidence is not None:
            layer = measure_layer("confidence", self.tags)
            with RasterWriter(outputs.confidence, layer, result.labels.shape) as writer:
                writer.write(0, as_bytes(result.confidence, valid))

    @cached_property
    def tags(self) -> dict[str, str]:
        """The provenance tags of the files; ``regard_job`` stands for all that decides their values."""
        tags = model_tags(self.model)
        facts = {
            "model": [tags, type(self.model).__name__, self.model.fast],
            "file": self.source.fingerprint()[1:],
            "bands": self.options.input.bands,
            "views": asdict(self.options.views),
            "version": __version__,
        }
        return {**tags, "regard_job": key_of(facts)}


def is_complete(rasters: Sequence[Path], tags: Mapping[str, str]) -> bool:
    """Whether the rasters of a map are complete already, so that they are kept: all exist and have these tags."""
    return all(path.is_file() and tags.items() <= tags_in(path).items() for path in rasters)


def tags_in(path: Path) -> dict[str, str]:
    """The tags of a GeoTIFF or a PNG; none where it cannot be read."""
    with suppress(UnreadableImage), open_raster(path) as raster:
        return raster.tags()
    return {}


def model_tags(model: Segmenter) -> dict[str, str]:
    """The provenance tags that a model gives its maps."""
    card = model.card
    return {
        "TIFFTAG_SOFTWARE": f"regard {__version__}",
        "regard_model": card.architecture,
        "regard_card": card.model_dump_json(),
        "regard_parameters": str(sum(parameter.numel() for parameter in model.parameters())),
        "regard_weights_sha256": model.saved_sha256 or digest(model.state_dict()),
    }


def source_tags(raster: Raster) -> dict[str, str]:
    """The tags that tell when a scene was taken and its files were modified, as far as that is known."""
    modified = [when for _, _, when in raster.fingerprints if isinstance(when, int)]  # nanoseconds since 1970
    taken = {name: text for name, text in raster.tags().items() if name == "TIFFTAG_DATETIME"}
    when = [datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat() for nanoseconds in modified]
    return {**taken, **({MODIFIED_TAG: max(when)} if when else {})}


def check_outputs(outputs: Outputs, sources: Sequence[Path]) -> None:
    """Check before any work is done that all files of a raster's map can be written.

    Raises:
        OutputError: a folder cannot be written to, a name has the wrong suffix, is the input's or stands twice.
        ConfigError, MissingExtra: the suffix of the polygons is not a vector format, or needs pyarrow.
    """
    for path in outputs.rasters.values():
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise OutputError(f"the map of a raster is a GeoTIFF; got {path.name}. Name it {path.stem}.tif.")
    if outputs.sides:
        check_sides(outputs)
    hidden = [] if outputs.out is None else [style_path(outputs.out), names_path(outputs.out)]
    check_targets([*outputs.files, *hidden], sources)
