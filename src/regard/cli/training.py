"""Verbs over labelled data: train, evaluate, report, demo."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from regard.cli.app import Answer, Model, Out, app, bands_of, settings_of
from regard.errors import ConfigError
from regard.inference.compute import DEFAULT_COMPUTE, Compute
from regard.training.config import TrainConfig


@app.command
def train(
    data: Path,
    /,
    *,
    out: Out,
    recipe: str = "default",
    architecture: str | None = None,
    backbone: str | None = None,
    config: dict[str, str] | None = None,
    pretrained: str | None = None,
    init: str | None = None,
    bands: str | None = None,
    settings: Annotated[TrainConfig | None, Parameter(name="*")] = None,
) -> Answer:
    """Train a model on a folder of labelled images; run again, it goes on where it stopped.

    Args:
        data: A folder: images/, masks/, classes.json, train.txt, val.txt (or mmsegmentation's layout, or one scene), or
            a .json that describes scenes and the polygons over them.
        out: The folder of the run: best.safetensors, metrics.jsonl, run.json.
        recipe: Settings of the authors that hold where none are given: danet-cityscapes, mmseg-40k, ...
        architecture: A network of ``regard models``; without a recipe danet_ocr.
        backbone: Any backbone of timm; without a recipe resnet50.
        config: Settings of the network: --config.width 128 --config.output-stride 16.
        pretrained: 'imagenet' fetches timm's weights for the backbone; a file gives them.
        init: A trained model to go on from; other classes and bands take over what they share with it by name.
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        settings: How to train.
    """
    import torch

    from regard.checkpoints.adapt import adapt
    from regard.checkpoints.create import create, unscaled
    from regard.datasets.folder import folder
    from regard.datasets.statistics import is_of_bytes
    from regard.training.recipes import recipe as find_recipe
    from regard.training.train import train as run

    plan = find_recipe(recipe)
    labelled = folder(data, bands=bands_of(bands))
    names, notes = labelled.band_names(), tuple[str, ...]()
    torch.manual_seed(settings.seed if settings else 0)
    if init is not None:
        _leave_to_the_model(architecture=architecture, backbone=backbone, pretrained=pretrained)
        model, notes = adapt(init, classes=labelled.classes, bands=names, **settings_of(config))
    else:
        weights: bool | str = pretrained is not None and (pretrained == "imagenet" or pretrained)
        same = architecture in (None, plan.architecture)
        model = create(
            architecture or plan.architecture,
            classes=labelled.classes,
            backbone=backbone or plan.backbone,
            in_channels=len(names),
            bands=names,
            pretrained=weights,
            **{**(plan.config if same else {}), **settings_of(config)},
        )
        if not is_of_bytes(labelled):  # no scaling of photographs: the training measures the images
            model.card = model.card.model_copy(update=unscaled(len(names), names))
    given = settings.model_dump(include=settings.model_fields_set) if settings else {}
    finished = run(model, labelled, out, recipe=recipe, **given)
    scores = finished.scores.as_dict() if finished.scores else None
    table = finished.scores.table() if finished.scores else "no split val: no scores"
    notes = (*notes, *(f"skipped {name}: {fault}" for name, fault in finished.skipped.items()))
    facts = {"best": str(finished.best), "scores": scores, "notes": list(notes)}
    return Answer(facts, "\n".join([*notes, table, f"best model: {finished.best}"]))


def _leave_to_the_model(**given: str | None) -> None:
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise ConfigError(f"--init brings a network and its weights; got --{named[0]} too. Leave one of the two out.")


@app.command
def evaluate(
    model: Model,
    data: Path,
    /,
    *,
    split: str = "val",
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    window: int | None = None,
    fusion: Literal["probabilities", "logits", "exp_logits"] = "probabilities",
    boundary: int | None = None,
    leave_out: tuple[str, ...] = (),
    bands: str | None = None,
    compute: Annotated[Compute, Parameter(name="*")] = DEFAULT_COMPUTE,
    save: Path | None = None,
) -> Answer | None:
    """Compare a model with labels: mIoU, accuracy, F1, per class. Under torchrun the processes share the images.

    Args:
        model: A bundled model, a .safetensors file, or an exported .onnx or .xml.
        data: A folder of labelled images.
        split: train, val or test.
        scales: Fuse the scores of the image resized by these factors.
        flip: Score the mirror image too.
        window: Slide a square of that many pixels instead of taking images whole.
        fusion: How the views are fused: probabilities (mmsegmentation), logits (HRNet-OCR), exp_logits (DANet).
        boundary: Also score the classes' boundaries, found where at most so many pixels off.
        leave_out: Classes that count in no mean, such as clutter.
        bands: The bands to use, by number from 1 or by name.
        compute: Device, precision and runtime.
        save: Write the scores there as JSON.
    """
    from regard.checkpoints.file import load
    from regard.datasets.folder import folder
    from regard.distributed import joined
    from regard.evaluation.evaluate import evaluate as score
    from regard.files import check_writable

    labelled = folder(data, bands=bands_of(bands))
    labelled.classes.check_left_out(leave_out)
    if save is not None:
        check_writable(save)
    how = partial(score, split=split, scales=scales, flip=flip, window=window, fusion=fusion)
    with joined() as first:
        scores = how(load(model, **asdict(compute)), labelled, boundary=boundary).without(*leave_out)
    if not first:
        return None
    if save is not None:
        scores.save(save)
    return Answer(scores.as_dict(), f"mIoU {100 * scores.miou:.2f}\n{scores.table()}")


@app.command
def report(
    source: Path, /, *, out: Out, model: str | None = None, data: Path | None = None, confidence: Path | None = None
) -> Answer:
    """Write one HTML file about a training run, scores or a map: curves, scores, mistakes, areas, pictures.

    Args:
        source: The folder of a run, a JSON file of scores, or a class map (.tif).
        out: The HTML file to write.
        model: The model to draw pictures with; without one, the best model of the run.
        data: Labelled images for the pictures: the best, the worst and the least sure are shown.
        confidence: The confidence that was written with the map.
    """
    from regard.checkpoints.file import load
    from regard.datasets.folder import folder
    from regard.reports.page import report as write

    network, labelled = load(model) if model else None, folder(data) if data else None
    path = write(source, out, model=network, data=labelled, confidence=confidence)
    return Answer({"files": [str(path)]}, str(path))


@app.command
def demo(*, out: Out = Path("demo")) -> Answer:
    """Map a real place, fine-tune, evaluate and report, with what comes with regard; about two minutes, no network.

    Args:
        out: The folder for the results.
    """
    from regard.demo import run

    facts = run(out)
    return Answer(facts, "\n".join(f"{what}: {path}" for what, path in facts["files"].items()))
