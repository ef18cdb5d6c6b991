"""The commands that state how accurate a map is: sample and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from regard.assessment.options import Allocation, SampleOptions, Unit
from regard.cli.app import Answer, Area, Map, Model, Out, app


@dataclass(frozen=True)
class _Options(SampleOptions):
    __doc__ = SampleOptions.__doc__
    allocation: Allocation = SampleOptions.allocation  # resolves its name here
    unit: Unit = SampleOptions.unit
    aoi: Annotated[Sequence[float] | str | Path | None, Area] = SampleOptions.aoi


@app.command
def sample(
    map_: Map,
    /,
    *,
    out: Out | None = None,
    later: Path | None = None,
    options: Annotated[_Options, Parameter(name="*")] = _Options(),
    overwrite: bool = False,
) -> Answer:
    """Draw points of a class map to label, at random in each class.

    Args:
        map_: A class map of regard (.tif).
        out: The points to write (.gpkg), with a form for QGIS. Without it, the command says how many points the design
            takes and draws none.
        later: The map of a later date on the same grid: the classes are then pairs, such as "forest > town", and the
            points say what has changed.
        options: How many points, and where.
        overwrite: Replace an existing file, with its labels.
    """
    from regard.assessment.sample import sample as draw
    from regard.assessment.sample import summary

    design = draw(map_, out, later=later, **vars(options), overwrite=overwrite)
    return Answer({"files": [] if out is None else [str(out)], **design.as_dict()}, summary(design, out))


@app.command
def accuracy(
    map_: Map,
    points: Path,
    /,
    *,
    out: Out | None = None,
    later: Path | None = None,
    probabilities: Path | None = None,
    sub_areas: str | None = None,
    second: Path | None = None,
    disagreements: Path | None = None,
    overwrite: bool = False,
) -> Answer:
    """Estimate the accuracy of a class map and the areas of its classes from labelled points, with 95 % intervals.

    Args:
        map_: The class map that the points were drawn from.
        points: The file of regard sample, its column reference filled with class names or values.
        out: A page to write (.html).
        later: The map of the later date, if the points were drawn with one.
        probabilities: The raster of regard predict --probabilities of this map: also gives areas with its help, whose
            intervals are mostly narrower.
        sub_areas: A layer of polygons, such as districts: FILE or FILE|layername=LAYER. Gives the same figures for each
            name in its column name.
        second: A copy of the points that another person has labelled: gives the agreement of the two and Cohen's kappa.
            All else rests on the first.
        disagreements: With --second: a file to write (.gpkg) with the labels on which both agree; the others are left
            open, for both to fill in.
        overwrite: Replace existing files.
    """
    from regard.assessment.accuracy import accuracy as estimate
    from regard.files import check_targets, refuse_to_replace

    if out is not None:
        check_targets([out], [map_, points])
        if not overwrite:
            refuse_to_replace([out], "")
    about = {"later": later, "probabilities": probabilities, "sub_areas": sub_areas, "second": second}
    found = estimate(map_, points, **about, disagreements=disagreements, overwrite=overwrite)
    if out is not None:
        from regard.reports.page import report

        report(found, out)
    files = [str(file) for file in (out, disagreements) if file is not None]
    return Answer({"files": files, **found.as_dict()}, "\n\n".join([found.text(), *files]))


@app.command
def calibrate(
    model: Model,
    data: Path,
    /,
    *,
    out: Out | None = None,
    split: str = "val",
    progress: bool = True,
    overwrite: bool = False,
) -> Answer:
    """Make a model's probabilities hold: fit the temperature by which its scores are divided to labelled images.

    Prints how far probabilities hold on blocks of ground that were held out, before and after. All that shows a
    probability uses the temperature: predict, view, evaluate, explain, export --probabilities.

    Args:
        model: A bundled model or a .safetensors file.
        data: A folder of labelled images, or a .json of scenes and polygons; not what the model was trained on.
        out: The model with its temperature to write (.safetensors). Without it, the command prints alone.
        split: train, val or test.
        progress: Show progress on standard error.
        overwrite: Replace an existing file.
    """
    from regard.assessment.calibrate import calibrate as fit
    from regard.checkpoints.file import load, save
    from regard.datasets.folder import folder
    from regard.files import check_targets, refuse_to_replace

    if out is not None:
        check_targets([out], [Path(model)])
        if not overwrite:
            refuse_to_replace([out], "")
    found = fit(load(model), folder(data), split=split, progress=progress)
    files = [] if out is None else [str(save(found.model, out))]
    return Answer({"files": files, **found.as_dict()}, "\n\n".join([found.heading(), found.table(), *files]))
