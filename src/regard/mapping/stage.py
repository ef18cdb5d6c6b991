"""The rows of a map's windows, computed and kept in the journal: what a killed run has finished is not done again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter

import numpy as np

from regard.io.cog_writer import label_layer
from regard.io.raster import Raster
from regard.mapping.blend import Hooks, Rows, axes, predict_rows
from regard.mapping.journal import CONTEXT, Journal
from regard.mapping.measures import measured_for, planes_stored
from regard.mapping.scene_context import in_context
from regard.models import Segmenter
from regard.options import MapOptions
from regard.progress import Progress


def stage(
    model: Segmenter, raster: Raster, options: MapOptions, journal: Journal, layers: Sequence[str], *, progress: bool
) -> None:
    """Add the rows of windows that the journal does not have yet, with ``layers``, the labels first."""
    windows = options.windows
    rows, columns = (len(axis.begins) for axis in axes(raster.size, windows, model.stride))
    if (first := journal.done) == rows:
        return
    nodata, certain_from = label_layer(model.classes, {}).nodata, model.card.certain_from(options.outputs.certain)
    megapixels = raster.size[0] * raster.size[1] / 1e6 / (rows * columns)
    with (
        in_context(model, raster, options, kept=journal.folder / CONTEXT, progress=progress) as context,
        Progress("window", rows * columns, start=columns * first, enabled=progress) as bar,
    ):
        if model.card.window:
            bar.note(f"windows of {windows.tile} pixels; the model was scored in {model.card.window}")
        if first:
            bar.note(f"{journal.target.name}: {first} of {rows} rows of windows were done before; resuming")
        hooks = Hooks(context.look_at, partial(_advance, bar, megapixels))
        predicted = predict_rows(
            model, raster, windows, options.views, first=first, measures=measured_for(layers), hooks=hooks
        )
        for _, group in groupby(predicted, attrgetter("row")):
            journal.keep(map(partial(_as_stored, nodata, certain_from), group))


def _advance(bar: Progress, megapixels: float, count: int) -> None:
    """Show that ``count`` more windows of so many megapixels of the map are done."""
    bar.advance(count, facts=f"{megapixels * bar.rate(count):.2f} Mpx/s")


def _as_stored(nodata: int, certain_from: float | None, rows: Rows) -> dict[str, np.ndarray]:
    """The layers of some rows in the integers that they are written in."""
    labels = rows.labels.astype(np.uint8 if nodata < 256 else np.uint16, copy=False)
    np.copyto(labels, nodata, where=~rows.valid)
    return {"labels": labels, **planes_stored(rows.measures, rows.valid, certain_from)}
