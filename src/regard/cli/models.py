"""The commands on models and checks: convert, export, models, doctor, check, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from regard.cli.app import Answer, Model, app, settings_of
from regard.errors import ConfigError


@app.command
def convert(
    source: Path, target: Path, /, *, classes: str | None = None, config: dict[str, str] | None = None
) -> Answer:
    """Convert a checkpoint of mmseg, DANet, HRNet-OCR, openseg, NVIDIA or sssegmentation to regard's format.

    Args:
        source: The .pth file.
        target: The .safetensors file to write.
        classes: A known list of classes (cityscapes, ade20k, ...), or their names: building,land,road.
        config: Settings of the network that the file does not hold: --config.multi_grid [4,8,16]
            --config.align_corners true.
    """
    from regard.checkpoints.foreign.convert import convert as write

    if target.is_file() and not source.exists():
        raise ConfigError(f"{source} does not exist, {target} does. The checkpoint comes first, then the new file.")
    names = classes.split(",") if classes and "," in classes else classes
    done = write(source, target, classes=names, **settings_of(config))
    facts = done._asdict() | {"card": done.card.model_dump(mode="json")}
    facts = {"files": [str(facts.pop("path"))], **facts}
    lines = [f"{done.path}: {done.family}, {done.tensors} tensors", *done.notes]
    return Answer(facts, "\n".join(lines))


@app.command
def export(
    model: Model, out: Path, /, *, normalise: bool = False, probabilities: bool = False, int8: Path | None = None
) -> Answer:
    """Export a model to ONNX, OpenVINO or torch.export, for any image size, and check the file against the model.

    Args:
        model: A bundled model or a .safetensors file.
        out: The file to write: .onnx, .xml (OpenVINO) or .pt2 (torch.export).
        normalise: The file takes raw pixel values; by default, values normalised with the model's mean and std.
        probabilities: The file gives class probabilities; by default, logits. QGIS's Deepness plugin needs them.
        int8: A folder of labelled images: quantise the convolutions to 8 bits, calibrated on the split train (.xml
            only). Nothing is written if mIoU on the split val falls by more than one point.
    """
    from regard.checkpoints.file import load
    from regard.export.export import export as write

    if Path(model).suffix in (".onnx", ".xml", ".pt2") and not Path(model).exists():
        raise ConfigError(f"{model} does not exist: the model comes first, then the file to write.")
    if int8 is not None:
        from regard.datasets.folder import folder
        from regard.export.quantise import quantise

        if probabilities:
            raise ConfigError("a file in 8 bits gives logits; got --probabilities too. Omit one of the two.")
        made = quantise(load(model), out, folder(int8), normalise=normalise)
        facts = {"files": [str(made.path)], "miou_before": made.before, "miou_after": made.after}
        return Answer(facts, f"{made.path}: mIoU {100 * made.before:.2f} in float32, {100 * made.after:.2f} in 8 bits")
    path = write(load(model), out, normalise=normalise, probabilities=probabilities)
    return Answer({"files": [str(path)]}, str(path))


@app.command
def models() -> Answer:
    """List the bundled models, and the networks with size, cost and the checkpoints that convert to them."""
    from regard.checkpoints.create import catalogue
    from regard.checkpoints.file import bundled, parse_card, read_header

    cards = {name: parse_card(path, read_header(path)) for name, path in bundled().items()}
    rows = catalogue()
    facts = {
        "bundled": {name: card.model_dump(mode="json") for name, card in cards.items()},
        "networks": [row._asdict() for row in rows],
    }
    lines = [
        f"{name:10} {card.architecture} on {card.config['backbone']}, {len(card.classes)} classes "
        f"({', '.join(card.classes.names)}), val mIoU {100 * card.scores.get('miou', 0):.1f}"
        for name, card in cards.items()
    ]
    table = [
        f"{row.name:34} {row.parameters:9.3f} {row.gmac:9.2f} {row.stride:6}  {', '.join(row.converts)}" for row in rows
    ]
    head = f"{'network (19 classes)':34} {'M params':>9} {'GMAC':>9} {'stride':>6}  converts from"
    return Answer(facts, "\n".join(["Bundled models", *lines, "", head, *table, "GMAC at 512 x 1024 pixels"]))


@app.command
def doctor() -> Answer:
    """Print the versions, processors and devices that regard finds on this system."""
    from regard.doctor.system import check_system

    facts = check_system()
    return Answer(facts, "\n".join(f"{name}: {value}" for name, value in facts.items()))


@app.command
def check(
    data: Path,
    /,
    *,
    model: str | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    progress: bool = True,
) -> Answer:
    """Check a data set: labels, sizes, coordinates, leaks between splits, class frequency. Exit code 1 on errors.

    Args:
        data: A folder of labelled images, or a .json of scenes and polygons.
        model: A model with the same classes: also lists labels that are probably wrong.
        out: An HTML page to write.
        progress: Show progress on standard error.
    """
    from regard.checkpoints.file import load
    from regard.doctor.audit import audit
    from regard.doctor.suspects import with_suspects
    from regard.files import check_writable
    from regard.reports.audit import as_text, write_page

    network = load(model) if model else None
    if out is not None:
        check_writable(out)
    checked = audit(data, progress=progress)
    if network is not None:
        checked = with_suspects(checked, network, progress=progress)
    facts = checked.as_dict()
    if out is not None:
        facts["files"] = [str(write_page(checked, out))]
    return Answer(facts, as_text(checked), 1 if checked.count("error") else 0)


@app.command
def compare(model: Model, /, *, images: Path | None = None) -> Answer:
    """Compare the faster modes of computing a model with float32: agreement of the labels, mIoU, speed.

    Args:
        model: A bundled model, a .safetensors file, or an exported .onnx or .xml.
        images: A folder of labelled images with a split val; by default the bundled images of Dubai.
    """
    from regard.datasets.folder import folder
    from regard.evaluation.compare import bundled_images
    from regard.evaluation.compare import compare as score

    rows = score(model, folder(images or bundled_images()))
    return Answer({"agreement": [row._asdict() for row in rows]}, "\n".join(row.line for row in rows))
