"""A photograph, looked at whole: its labels in memory and, where they are wished, as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from regard._version import __version__
from regard.inference.segmentation import Segmentation, masked
from regard.inference.views import class_scores, scaling_of
from regard.io.cog_writer import RasterWriter, measure_layer
from regard.io.image import read_image
from regard.io.source import Source
from regard.mapping.blend import Tiling
from regard.mapping.job import tags_in, tags_of
from regard.mapping.journal import key_of
from regard.mapping.outputs import check_targets
from regard.mapping.write import as_bytes, refuse_to_replace
from regard.models import Segmenter
from regard.ops.normalise import prepare


@dataclass(frozen=True)
class PhotographJob:
    """One photograph to be predicted: by which model, how, and into which files."""

    model: Segmenter
    source: Source
    tiling: Tiling
    bands: Sequence[int | str] | None = None
    to: Path | None = None
    confidence: Path | None = None

    @property
    def files(self) -> list[Path]:
        """Every file that is asked for."""
        return [path for path in (self.to, self.confidence) if path is not None]

    @cached_property
    def tags(self) -> dict[str, str]:
        """What the files say of their model and, as ``regard_job``, of all that decides their values."""
        tags, size = tags_of(self.model), self.source.stamp()[1]
        facts = {"model": tags, "size": size, "bands": self.bands, "views": self.tiling.views, "version": __version__}
        return {**tags, "regard_job": key_of(facts)}

    def is_done(self) -> bool:
        """Whether every file is there already, made with these settings and later than the photograph."""
        changed = self.source.stamp()[2]
        return bool(self.files) and all(
            path.is_file()
            and (not isinstance(changed, int) or path.stat().st_mtime_ns >= changed)
            and tags_in(path).get("regard_job") == self.tags["regard_job"]
            for path in self.files
        )

    def check(self, *, overwrite: bool) -> None:
        """Find out before any work is done whether the files can be written.

        Raises:
            OutputError: no, or one is the photograph itself, or is there already and something else.
        """
        check_targets(self.files, [Path(self.source.stamp()[0])])
        if not overwrite and not self.is_done():
            refuse_to_replace(self.files)

    def run(self) -> Segmentation:
        """Look at the photograph and write the files.

        Raises:
            UnreadableImage, BandMismatch: it cannot be read, or not with this model.
            OutputError: a file cannot be written.
        """
        pixels = read_image(self.source, bands=self.bands, expected=self.model.bands)
        image = prepare(pixels.values, pixels.valid, scaling_of(self.model))[None]
        scores = class_scores(self.model, image.to(next(self.model.parameters()).device), **self.tiling.views)
        best, labels = (found[0].cpu().numpy() for found in scores.softmax(dim=1).max(dim=1))
        classes = self.model.classes
        result = Segmentation(masked(labels, pixels.valid, classes.ignore_index), best, classes, self.source)
        if self.to is not None:
            result.save(self.to, tags=self.tags)
        if self.confidence is not None:
            layer = measure_layer("confidence", self.tags)
            with RasterWriter(self.confidence, layer, result.labels.shape) as writer:
                writer.write(0, as_bytes(result.confidence, pixels.valid))
        return result


def photograph_job(
    model: Segmenter,
    source: str | Path | Source,
    to: str | Path | None,
    *,
    confidence: str | Path | None = None,
    bands: Sequence[int | str] | None = None,
    **view: Any,
) -> PhotographJob:
    """A job from names and a view."""
    files = (None if path is None else Path(path) for path in (to, confidence))
    return PhotographJob(model, Source.of(source), Tiling.of(**view), bands, *files)
