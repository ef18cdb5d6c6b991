"""The map of a raster as files: made row by row of windows, resumed after a kill, published when complete."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from regard._version import __version__
from regard.errors import OutputError, UnreadableImage
from regard.files import refuse_to_replace, sweep, writing
from regard.io.cog_writer import BLOCK, RasterWriter, style_path
from regard.io.polygons import check_rules
from regard.io.raster import Raster
from regard.mapping.job import check_outputs, is_complete, model_tags, source_tags
from regard.mapping.journal import Journal, journal_folder, key_of
from regard.mapping.measures import bytes_needed, layer_of, planes_of
from regard.mapping.scene_check import check_scene
from regard.mapping.side_files import add_sides, missing_sides
from regard.mapping.stage import stage
from regard.memory import give_back_freed_memory
from regard.models import Segmenter
from regard.options import MapOptions

SAME_VALUES = ("batch", "max_memory")  # windows are scored alike whatever these are


@dataclass(frozen=True)
class RasterJob:
    """A raster to be mapped in windows.

    Raises:
        ConfigError: rules for polygons in metres, of a raster without a CRS; certain, of a model without a promise.
    """

    model: Segmenter
    raster: Raster
    options: MapOptions

    def __post_init__(self) -> None:
        if self.options.outputs.polygons is not None:
            check_rules(self.options.rules, self.raster, self.model.classes)

    def check(self) -> None:
        """Check before any work is done that the files can be written, and that none of another map is replaced.

        Raises:
            OutputError: one cannot; or exists (no ``overwrite``), or the map is complete but lacks another raster.
        """
        outputs = self.options.outputs
        check_outputs(outputs, [Path(name) for name, _, _ in self.raster.fingerprints])
        if self.options.overwrite or self.journal.is_begun():
            return
        if self.has_rasters():
            refuse_to_replace(missing_sides(outputs, self.options.rules))
            return
        lacking = [name for name, path in outputs.rasters.items() if not path.exists()]
        if lacking and self.has_rasters([self.labels]):
            raise OutputError(
                f"{self.labels.name} is complete, but {lacking[0]} cannot be derived from it: that takes the network "
                "again. Choose another name for the map, or use `--overwrite`."
            )
        refuse_to_replace(outputs.files)

    def is_done(self) -> bool:
        # a journal that is left is of a run that was killed while it cleared up
        return self.is_complete() and not self.journal.folder.exists()

    def run(self, *, progress: bool = True) -> Path:
        """The path of the map. What a killed run has finished is not computed again.

        Raises:
            UnreadableImage: the raster is damaged, or changed while it was read.
            OutputError: a file cannot be written, or is being made by another run.
        """
        if not self.options.overwrite and self.is_done():
            return self.labels
        if self.options.overwrite or not self.has_rasters():
            check_scene(self.model, self.raster, self.options.input)
            self._check_space()
        with self.journal, writing(self.labels.parent):
            for path in (*self.options.outputs.files, style_path(self.labels)):  # what a killed run left unfinished
                sweep(path)
            if not self.options.overwrite and self.is_complete():  # by a run that ended just before we had the lock
                return self.labels
            if not (self.options.overwrite or self.journal.done) and self.has_rasters():
                self._derive(progress)
                return self.labels
            stage(self.model, self.raster, self.options, self.journal, [*self.layers], progress=progress)
            self.journal.check_size(self.raster.size)
            give_back_freed_memory()  # what windows were computed in is of no use to what follows
            if key_of(self.identity()) != self.journal.key:
                files = [name for name, _, _ in self.raster.fingerprints if not name.startswith("/vsi")]
                gone = next((name for name in files if not Path(name).exists()), self.raster.source)
                raise UnreadableImage(f"{gone} was changed while it was read, or is gone. Run the same again.")
            if not _publish(self) and progress:
                print(
                    f"{self.labels.name} is empty: no pixel of {self.raster.source.name} holds data (nodata, mask, "
                    "alpha, NaN, area of interest)",
                    file=sys.stderr,
                )
            if (outputs := self.options.outputs).sides:
                add_sides(outputs, self.options.rules, outputs.sides, confidence=self.layers.get("confidence"))
        return self.labels

    def _derive(self, progress: bool) -> None:
        """Add the files that a complete map lacks."""
        outputs, rules = self.options.outputs, self.options.rules
        lacking = missing_sides(outputs, rules)
        add_sides(outputs, rules, lacking, confidence=outputs.confidence)
        if progress and outputs.polygons in lacking and outputs.confidence is None:
            print(
                f"{outputs.polygons} has no column confidence: {self.labels.name} was complete, made without. Name its "
                "confidence raster, or use --overwrite, to have it.",
                file=sys.stderr,
            )

    @property
    def labels(self) -> Path:
        assert self.options.outputs.out is not None
        return self.options.outputs.out

    @cached_property
    def journal(self) -> Journal:
        """The journal of this job, with the source as it is when it is first asked for."""
        planes = [plane for name in self.layers for plane in planes_of(name, len(self.model.classes.names))]
        return Journal(self.labels, self.identity(), planes)

    @property
    def layers(self) -> dict[str, Path]:
        """The rasters that are computed; the confidence that polygons need is hidden where it is not named."""
        outputs = self.options.outputs
        if outputs.polygons is None or outputs.confidence is not None:
            return outputs.rasters
        return {**outputs.rasters, "confidence": journal_folder(self.labels) / "confidence.tif"}

    @cached_property
    def model_tags(self) -> dict[str, str]:
        return model_tags(self.model)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides the map's values besides the pixels of the raster; as JSON."""
        options, area = self.options, self.raster.area
        return {
            "weights": [self.model_tags["regard_weights_sha256"], type(self.model).__name__, self.model.fast],
            "card": self.model.card.model_dump(mode="json"),
            "size": self.raster.size,
            "bands": self.raster.bands,
            "windows": [value for name, value in asdict(options.windows).items() if name not in SAME_VALUES],
            "views": asdict(options.views),
            "area": None if area is None else area.wkt,
            "nodata": self.raster.no_data,
            "place": [str(self.raster.crs and self.raster.crs.to_wkt()), *self.raster.transform[:6]],
            "elsewhere": [list(file) for file in self.raster.fingerprints if not isinstance(file[2], int)],
            "version": __version__,
            "certain": self.model.card.certain_from(options.outputs.certain),
        }

    def identity(self) -> dict[str, Any]:
        """All that decides the map's values: the settings, and the source as it is now."""
        return {**self.settings, "source": self.raster.fingerprints}

    @cached_property
    def tags(self) -> dict[str, str]:
        """The provenance tags of the rasters, which differ where their values would differ."""
        nodata = {} if self.raster.no_data is None else {"regard_nodata": f"{self.raster.no_data:g}"}
        context = {} if (extent := self.options.windows.context) == "window" else {"regard_context": extent}
        return {"regard_job": key_of(self.settings), **source_tags(self.raster), **nodata, **context}

    def has_rasters(self, wanted: Sequence[Path] | None = None) -> bool:
        """Whether the map's rasters, or those that are ``wanted``, are complete."""
        own = {name: text for name, text in self.tags.items() if name.startswith("regard_")}
        return is_complete(wanted or [*self.options.outputs.rasters.values()], own)

    def is_complete(self) -> bool:
        return self.has_rasters() and not missing_sides(self.options.outputs, self.options.rules)

    def _check_space(self) -> None:
        height, width = self.raster.size
        need = height * width * bytes_needed([*self.layers], len(self.model.classes.names))
        free = shutil.disk_usage(self.labels.parent).free
        if free < need:
            raise OutputError(
                f"{self.labels.parent} has {free / 2**20:,.0f} MiB free; the map of {width} x {height} pixels may need "
                f"{need / 2**20:,.0f} MiB. Make room, or choose another disk."
            )


def _publish(job: RasterJob) -> bool:
    """Each layer as a cloud-optimised GeoTIFF, the labels last: where they are, all the rasters and their style are.

    Whether the map has any label.
    """
    mapped = False
    raster, folder = job.raster, job.journal.folder
    tags = {**job.model_tags, **job.tags}
    grid = {"crs": raster.crs, "transform": raster.transform if raster.is_georeferenced else None}
    for name, path in reversed(job.layers.items()):
        layer = layer_of(name, job.model.classes, tags)
        same_disk = os.stat(folder).st_dev == os.stat(path.parent).st_dev
        with RasterWriter(path, layer, raster.size, **grid, scratch=folder if same_disk else None) as writer:
            writer.place_by(*raster.control)
            for band, plane in enumerate(planes_of(name, len(job.model.classes.names)), start=1):
                mapped = _fill(writer, job.journal.rows(plane, BLOCK), band)  # the labels' at last
    return mapped


def _fill(writer: RasterWriter, parts: Iterable[np.ndarray], band: int) -> bool:
    """Write a band from top to bottom; whether any of it holds data."""
    mapped = False
    for number, rows in enumerate(parts):
        writer.write(number * BLOCK, rows, band)
        mapped = mapped or bool((rows != writer.layer.nodata).any())
    return mapped
