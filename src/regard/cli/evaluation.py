"""The commands on scores: evaluate and report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from regard.cli.app import Answer, Bands, ModelOrMap, Out, app
from regard.errors import ConfigError
from regard.options import Compute, Views

if TYPE_CHECKING:
    from regard.evaluation.scores import Scores
    from regard.models import Segmenter


@app.command
def evaluate(
    model: ModelOrMap,
    data: Path,
    /,
    *,
    split: str = "val",
    views: Annotated[Views, Parameter(name="*")] = Views(),
    map: str | None = None,
    boundary: int | None = None,
    leave_out: tuple[str, ...] = (),
    bands: Bands = None,
    compute: Annotated[Compute, Parameter(name="*")] = Compute(),
    save: Path | None = None,
    progress: bool = True,
) -> Answer | None:
    """Evaluate a model, or a finished class map, on labelled images: mIoU, accuracy, F1, per class.

    Under torchrun, processes share the images.

    Args:
        model: A bundled model, a .safetensors file, or an exported .onnx or .xml; or a class map (.tif), whose labels
            are compared as they are.
        data: A folder of labelled images, or a .json of scenes and polygons; for a class map, those of the scene that
            was mapped, or a mask on its grid.
        split: train, val or test; of a class map also all.
        views: Test-time augmentation.
        map: The data's class that each class of the model is, * for the rest: building=roof,*=other.
        boundary: Also compute the boundary F1 with a tolerance of this many pixels.
        leave_out: Classes to exclude from the means, such as clutter.
        bands: The bands to use, by number from 1 or by name.
        compute: Device, precision and runtime.
        save: A JSON file to write the scores to.
        progress: Show progress on standard error.
    """
    from regard.distributed import process_group
    from regard.evaluation.evaluate import evaluate as score
    from regard.evaluation.matching import parse_matching
    from regard.files import check_writable

    matching = None if map is None else parse_matching(map)
    if save is not None:
        check_writable(save)
    if Path(model).suffix.lower() in (".tif", ".tiff"):
        if views != Views() or boundary is not None or bands is not None or compute != Compute():
            raise ConfigError(f"{model} is a finished map, compared as it is. Leave out the options of a model.")
        scores, facts, seen = _score_map(model, data, split, matching, progress=progress)
    else:
        from regard.checkpoints.file import load_to_predict
        from regard.datasets.folder import folder

        labelled = folder(data, bands=bands)
        labelled.classes.check_left_out(leave_out)
        with process_group() as first:
            network = load_to_predict(model, compute)
            options = {**asdict(views), "map": matching, "boundary": boundary, "progress": progress}
            scores = score(network, labelled, split=split, **options)
        if not first:
            return None
        facts, seen = _seen_by(network, views, windows=any(pair.box for pair in labelled.split(split)))
    scores = scores.without(*leave_out)
    if save is not None:
        scores.save(save)
    return Answer({**facts, **scores.as_dict()}, f"mIoU {100 * scores.miou:.2f} ({seen})\n{scores.table()}")


def _score_map(
    path: str, data: Path, split: str, matching: dict[str, str] | None, *, progress: bool
) -> tuple[Scores, dict[str, Any], str]:
    """The scores of a finished map, and how much of the labels it leaves out, as a fact and in words."""
    from regard.evaluation.finished import evaluate_map

    scores, unmapped = evaluate_map(path, data, split=split, map=matching, progress=progress)
    return scores, {"unmapped": unmapped}, f"{100 * unmapped:.2f} % of the labelled pixels have no data in the map"


def _seen_by(network: Segmenter, views: Views, *, windows: bool) -> tuple[dict[str, Any], str]:
    """In which windows a model was evaluated, as a fact and in words; the data may be windows themselves."""
    from regard.inference.scores import views_of

    window = views_of(views, network).window or 0
    if windows and not window:
        return {"window": 0}, "windows as the data have them"
    words = f"windows of {window} pixels" if window else "whole images"
    by_card = views.window is None and network.card.window is not None
    return {"window": window}, f"{words}, as the model's card says" if by_card else words


@app.command
def report(
    source: Path, /, *, out: Out, model: str | None = None, data: Path | None = None, confidence: Path | None = None
) -> Answer:
    """Write one HTML file about a training run, scores or a map: curves, scores, errors, areas, pictures.

    Args:
        source: The folder of a run, a JSON file of scores, or a class map (.tif).
        out: The HTML file to write.
        model: The model whose predictions are shown; by default the best model of the run.
        data: A folder of labelled images: shows the worst, the best and the least confident predictions.
        confidence: The confidence raster that was written with the map.
    """
    from regard.checkpoints.file import load
    from regard.datasets.folder import folder
    from regard.reports.page import report as write

    network, labelled = load(model) if model else None, folder(data) if data else None
    path = write(source, out, model=network, data=labelled, confidence=confidence)
    return Answer({"files": [str(path)]}, str(path))
