"""The commands that train: train, refine and demo."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from regard.cli.app import Answer, Bands, Model, Out, app, settings_of
from regard.errors import ConfigError
from regard.options import Windows
from regard.refine.options import Choice, Inputs, RefineOptions
from regard.training.config import (
    DATA,
    MOST_USED,
    Augmentation,
    Evaluation,
    Optimisation,
    Recipe,
    Session,
    TrainConfig,
)
from regard.training.config import recipe as find_recipe

if TYPE_CHECKING:
    from regard.datasets.labelled_data import LabelledData
    from regard.models import Segmenter
    from regard.training.record import Run


NETWORK = Parameter(group=Group.create_ordered("Network"))
OPTIMISATION, AUGMENTATION, EVALUATION, RUN = (
    Parameter(name="*", group=Group.create_ordered(heading))
    for heading in ("Optimisation", "Augmentation", "Evaluation", "Run")
)


@app.command
def train(
    data: Path,
    /,
    *,
    out: Annotated[Out, MOST_USED],
    recipe: Annotated[str, MOST_USED] = "default",
    backbone: Annotated[str | None, MOST_USED] = None,
    pretrained: Annotated[str | None, MOST_USED] = None,
    init: Annotated[str | None, MOST_USED] = None,
    bands: Annotated[Bands, DATA] = None,
    architecture: Annotated[str | None, NETWORK] = None,
    config: Annotated[dict[str, str] | None, NETWORK] = None,
    optimisation: Annotated[Optimisation | None, OPTIMISATION] = None,
    augmentation: Annotated[Augmentation | None, AUGMENTATION] = None,
    evaluation: Annotated[Evaluation | None, EVALUATION] = None,
    session: Annotated[Session | None, RUN] = None,
    resume: Annotated[bool, Parameter(group=RUN.group)] = False,
    dry_run: Annotated[bool, Parameter(group=RUN.group)] = False,
    progress: Annotated[bool, Parameter(group=RUN.group)] = True,
) -> Answer:
    """Train a model on a folder of labelled images. Run the same command again to resume a run that was stopped.

    Args:
        data: A folder: images/, masks/, classes.json, train.txt, val.txt (or mmsegmentation's layout, or one scene), or
            a .json that describes scenes and polygon labels.
        out: The folder of the run: best.safetensors, metrics.jsonl, run.json.
        recipe: Published network, weights and settings, for the options that are not given: danet-cityscapes,
            mmseg-40k, ...
        backbone: Any backbone of timm; by default the recipe's, or resnet50.
        pretrained: The backbone's weights: imagenet (timm's, downloaded once), none (random), or a file of timm's.
        init: A trained model to start from; it keeps the weights of classes and bands with the same names.
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        architecture: A network that regard models lists; by default the recipe's, or danet_ocr.
        config: Settings of the network: --config.width 128 --config.output-stride 16.
        optimisation: The loss, the optimizer and its learning rates.
        augmentation: Random views of the training images.
        evaluation: When and how the split val is scored.
        session: What the run needs of the machine and where it logs.
        resume: Continue a stopped or complete run with more --steps (or --epochs): from there on the learning rate
            is that of a run of so many steps.
        dry_run: Print the minutes and the memory that the training needs on this machine, from two steps of it, and a
            smaller one if it needs too much. Nothing is written.
        progress: Show a progress bar, or lines where there is no terminal.
    """
    import torch

    from regard.datasets.folder import folder
    from regard.training.train import completed
    from regard.training.train import train as run

    labelled = folder(data, bands=bands)
    torch.manual_seed((session or Session()).seed)
    network, another = settings_of(config), None
    if init is not None:
        _leave_to_the_model(architecture=architecture, backbone=backbone, pretrained=pretrained)
        model, notes = _adapted(init, labelled, network)
    else:
        plan, notes = find_recipe(recipe), ()
        model = _new_model(labelled, plan, architecture, backbone, pretrained, network)
        another = partial(_new_model, labelled, plan, architecture, pretrained="none", network=network)
    groups = (optimisation, augmentation, evaluation, session)
    given = {name: getattr(group, name) for group in groups if group for name in group.model_fields_set}
    if dry_run:
        return _rehearsed(model, labelled, completed(recipe, given, labelled), another)
    if progress and notes:
        print("\n".join(notes), file=sys.stderr)
    finished = run(model, labelled, out, recipe=recipe, resume=resume, progress=progress, **given)
    return _finished(finished, notes)


def _finished(run: Run, notes: Sequence[str]) -> Answer:
    scores = run.scores.as_dict() if run.scores else None
    table = run.scores.table() if run.scores else "no split val: no scores"
    notes = [*notes, *(f"skipped {name}: {fault}" for name, fault in run.skipped.items())]
    facts = {"best": str(run.best), "scores": scores, "notes": notes}
    return Answer(facts, "\n".join([*notes, table, f"best model: {run.best}"]))


def _rehearsed(
    model: Segmenter, data: LabelledData, settings: TrainConfig, another: Callable[[str], Segmenter] | None
) -> Answer:
    from regard.training.rehearsal import rehearse

    facts = rehearse(model, data, settings, another)
    return Answer(facts, "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()))


def _new_model(
    data: LabelledData,
    plan: Recipe,
    architecture: str | None,
    backbone: str | None,
    pretrained: str | None,
    network: dict[str, Any],
) -> Segmenter:
    """The recipe's network, or the one that is named, for the classes and bands of the data."""
    from regard.checkpoints.create import create, unscaled
    from regard.datasets.statistics import is_8_bit

    names = data.band_names()
    planned = plan.config if architecture in (None, plan.architecture) else {}
    if backbone not in (None, plan.backbone):
        planned = {name: value for name, value in planned.items() if name != "backbone_options"}  # of the plan's own
    model = create(
        architecture or plan.architecture,
        classes=data.classes,
        backbone=backbone or plan.backbone,
        in_channels=len(names),
        bands=names,
        pretrained=pretrained or plan.pretrained,
        **{**planned, **network},
    )
    if is_8_bit(data):
        return model
    return model.with_card(model.card.model_copy(update=unscaled(names)))  # measured by the training


def _adapted(init: str, data: LabelledData, network: dict[str, Any]) -> tuple[Segmenter, tuple[str, ...]]:
    from regard.checkpoints.adapt import adapt

    return adapt(init, classes=data.classes, bands=data.band_names(), **network)


def _leave_to_the_model(**given: str | None) -> None:
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise ConfigError(f"--init brings a network and its weights; got --{named[0]} too. Omit one of the two.")


@app.command
def demo(*, out: Out = Path("demo")) -> Answer:
    """Map, fine-tune, evaluate and report with bundled models and images; about a minute, no network access.

    Args:
        out: The folder for the results.
    """
    from regard.demo import run

    facts = run(out)
    return Answer(facts, "\n".join(f"{name}: {path}" for name, path in facts["files"].items()))


@dataclass(frozen=True)
class _Refine(RefineOptions):
    __doc__ = RefineOptions.__doc__
    head: Choice = RefineOptions.head  # resolves its name here
    inputs: Inputs | None = RefineOptions.inputs


@app.command
def refine(
    model: Model,
    scene: Path,
    labels: str,
    /,
    *,
    out: Out,
    options: Annotated[_Refine, Parameter(name="*")] = _Refine(),
    bands: Bands = None,
    nodata: float | None = None,
    vrt: bool = False,
    tile: int = Windows.tile,
    overlap: int = Windows.overlap,
    overwrite: bool = False,
) -> Answer:
    """Correct a model with a few labels on a scene, in seconds: points, lines or polygons with a class.

    Prints the IoU of each class on blocks of ground that were held out, before and after.

    Args:
        model: A bundled model or a .safetensors file; none: look at the bands of the scene alone.
        scene: A raster.
        labels: A vector file in any CRS: FILE or FILE|layername=LAYER.
        out: The refined model to write (.safetensors): predict, view and export take it as any other.
        options: What is learned, and how.
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        nodata: A value that stands for no data where all bands have it.
        vrt: Allow a VRT (a list of other files) as scene; it may read any file of this machine.
        tile: Side of the windows in pixels; 0: as the model was scored (see its card), else 1024.
        overlap: Pixels that neighbouring windows share and blend; at most a quarter of windows of the card's size.
        overwrite: Replace an existing file.
    """
    from regard.checkpoints.file import load
    from regard.refine.refine import refine as correct

    known = None if model == "none" else load(model)
    found = correct(
        known, scene, labels, out, **vars(options), bands=bands, nodata=nodata, vrt=vrt, tile=tile, overlap=overlap,
        overwrite=overwrite,
    )  # fmt: skip
    text = "\n\n".join([found.heading(), found.table(), str(out)])
    return Answer({"files": [str(out)], **found.as_dict()}, text)
