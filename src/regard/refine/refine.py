"""A model corrected with a few labels on a scene: scored on held-out ground before and after, and written."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regard.checkpoints.file import save
from regard.errors import ConfigError, SceneWarning
from regard.files import check_targets, refuse_to_replace
from regard.io.source import Source
from regard.models import Segmenter
from regard.models.refined import Refined
from regard.options import Input, Windows
from regard.refine.labels import Labels, class_names, read_labels
from regard.refine.options import Choice, Inputs, RefineOptions
from regard.refine.session import session
from regard.refine.trials import Trial


@dataclass(frozen=True, eq=False)
class Refinement:
    """A refined model, the trial of its kind of head on held-out blocks, and what it learned from."""

    model: Refined
    trial: Trial
    labels: Labels

    def as_dict(self) -> dict[str, Any]:
        """All figures, as JSON has them."""
        return {"head": self.trial.kind.title, **self.trial.as_dict(), "learned": self.model.card.refined_with[-1]}

    def heading(self) -> str:
        """What was fitted to what, in a sentence."""
        objects = len(np.unique(self.labels.objects))
        return f"{self.trial.kind.title}, from {objects:,} objects, {len(self.labels.rows):,} pixels"

    def table(self) -> str:
        """Before and after, on held-out blocks, as a Markdown table."""
        return self.trial.table(self.labels.counts(self.model.classes))


def refine(
    model: Segmenter | None,
    scene: str | Path | Source,
    labels: str | Path,
    out: str | Path | None = None,
    *,
    column: str = RefineOptions.column,
    add_class: Sequence[str] = RefineOptions.add_class,
    classes: Sequence[str] = RefineOptions.classes,
    head: Choice = RefineOptions.head,
    inputs: Inputs | None = RefineOptions.inputs,
    squares: Sequence[int] = RefineOptions.squares,
    keep: float = RefineOptions.keep,
    seed: int = RefineOptions.seed,
    cache: str | Path | None = RefineOptions.cache,
    budget: float = RefineOptions.budget,
    bands: Sequence[int | str] | None = None,
    nodata: float | None = None,
    vrt: bool = Input.vrt,
    tile: int = Windows.tile,
    overlap: int = Windows.overlap,
    overwrite: bool = False,
) -> Refinement:
    """Correct a model with a few labels on a scene: points, lines or polygons in a vector file.

    The network stays as it is; a light head behind it is fitted again, and the result is an ordinary model, written to
    ``out`` if that is given. It is scored on blocks of ground that were held out, before and after. Without a ``model``
    the head gets the bands of the scene alone, and the classes are those of the labels. The options are those of
    ``RefineOptions``, ``Input`` and ``Windows``.

    Warns:
        SceneWarning: it got worse on held-out blocks, or could not be scored; and see ``check_scene``.

    Raises:
        UnreadableImage, BandMismatch: a file cannot be read, or the scene not with this model.
        ConfigError: an impossible option; a file without a CRS; no label on the scene.
        ClassMismatch: a label's class is not one of the model's, and not added.
        OutputError: ``out`` exists (no ``overwrite``), or cannot be written.
    """
    where = None if cache is None else Path(cache)
    settings = (tuple(add_class), tuple(classes), head, inputs, tuple(squares), keep, seed, where, budget)
    options = RefineOptions(column, *settings)
    if out is not None:
        if Path(out).suffix != ".safetensors":
            raise ConfigError(f"a model is one .safetensors file; got {Path(out).name}. Name it so.")
        check_targets([Path(out)], [Path(labels), *filter(None, [Source.of(scene).local])])
        if not overwrite:
            refuse_to_replace([Path(out)], "")
    names = options.classes or (class_names(labels, options.column) if model is None else ())
    given = Input(None if bands is None else tuple(bands), nodata=nodata, vrt=vrt)
    with session(model, scene, options, Windows(tile, overlap), given, names=names) as opened:
        read = read_labels(labels, opened.raster, opened.classes, options.column, options.seed)
        trials = [opened.trial(read, kind) for kind in opened.kinds]
        best = max(trials, key=lambda trial: trial.worth)
        found = Refinement(opened.fit(read, best.kind), best, read)
    for text in best.doubts():
        warnings.warn(text, SceneWarning, stacklevel=2)
    if out is not None:
        save(found.model, out)
    return found
