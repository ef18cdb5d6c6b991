"""The command ``regard``: verbs to functions. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import json as jsons
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import App, CycloptsError, Parameter

from regard._version import __version__
from regard.engine.config import TrainConfig
from regard.errors import RegardError

EPILOGUE = (
    "Every verb also takes --json (one object on standard output) and --debug (a stack trace when it fails). "
    "Exit codes: 0 done, 1 failed, 2 wrong usage."
)
app = App(
    name="regard",
    version=__version__,
    help="Semantic segmentation with attention context, on photographs and on maps of any size.",
    help_epilogue=EPILOGUE,
    default_parameter=Parameter(negative_iterable=()),
)

Out = Annotated[Path, Parameter(name=["--out", "-o"])]
List = Annotated[tuple[str, ...], Parameter(consume_multiple=True)]


class Answer(NamedTuple):
    """What a verb found: for machines, and for people."""

    facts: dict[str, Any]
    text: str


@app.command
def predict(
    model: str,
    sources: Annotated[tuple[Path, ...], Parameter(name="SOURCE")],
    /,
    *,
    out: Out,
    confidence: Path | None = None,
    bands: str | None = None,
    tile: int = 1024,
    overlap: int = 256,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    batch: int = 2,
) -> Answer:
    """Make class maps of photographs and rasters.

    Args:
        model: A bundled model (dubai-s, globe-s) or a .safetensors file.
        sources: Photographs (.jpg, .png, ...) or rasters (.tif, .jp2).
        out: The file to write (.png for photographs, .tif for rasters); with several sources, a folder.
        confidence: A second GeoTIFF: the probability of the chosen class.
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        tile: Side of the windows in pixels, for rasters.
        overlap: How many pixels neighbouring windows share and blend.
        scales: Look at the image at several sizes and average: slower, a little better.
        flip: Look at the mirror image too.
        batch: Windows looked at together.
    """
    from regard.engine.many import predict_many

    chosen = tuple(bands.split(",")) if bands else None
    options = {"bands": chosen, "tile": tile, "overlap": overlap, "scales": scales, "flip": flip, "batch": batch}
    facts = predict_many(model, sources, out, confidence=confidence, **options)
    lines = [f"{path}" for path in facts["files"]]
    return Answer(
        facts, "\n".join([*lines, f"{facts['mpx_per_s']:.2f} Mpx/s, peak memory {facts['peak_memory_mb']:.0f} MB"])
    )


@app.command
def train(
    data: Path,
    /,
    *,
    out: Out,
    architecture: str = "danet_ocr",
    backbone: str = "resnet50",
    config: dict[str, str] | None = None,
    pretrained: str | None = None,
    start_from: str | None = None,
    bands: str | None = None,
    settings: Annotated[TrainConfig | None, Parameter(name="*")] = None,
) -> Answer:
    """Train a model on a folder of labelled images; run again, it goes on where it stopped.

    Args:
        data: A folder: images/, masks/, classes.json, train.txt, val.txt (or mmsegmentation's layout, or one scene).
        out: The folder of the run: best.safetensors, metrics.jsonl, run.json.
        architecture: A network of ``regard models``.
        backbone: Any backbone of timm.
        config: Settings of the network: --config.width 128 --config.output_stride 16.
        pretrained: 'imagenet' fetches timm's weights for the backbone; a file gives them.
        start_from: A trained model to go on from, with the same classes.
        bands: The bands to use, by number from 1 or by name: 4,3,2.
        settings: How to train.
    """
    from regard.checkpoints.create import create
    from regard.checkpoints.file import load
    from regard.data.image_folder import folder
    from regard.engine.train import train as run

    chosen = bands.split(",") if bands else None
    labelled = folder(data, bands=chosen)
    if start_from is not None:
        model = load(start_from)
    else:
        names = labelled.band_names()
        weights: bool | str = pretrained is not None and (pretrained == "imagenet" or pretrained)
        parsed = {name: _value(text) for name, text in (config or {}).items()}
        model = create(
            architecture,
            classes=labelled.classes,
            backbone=backbone,
            in_channels=len(names),
            bands=names,
            pretrained=weights,
            **parsed,
        )
    finished = run(model, labelled, out, **(settings or TrainConfig()).model_dump())
    scores = finished.scores.as_dict() if finished.scores else None
    table = finished.scores.table() if finished.scores else "no split val: no scores"
    return Answer({"best": str(finished.best), "scores": scores}, f"{table}\nbest model: {finished.best}")


@app.command
def evaluate(
    model: str,
    data: Path,
    /,
    *,
    split: str = "val",
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    window: int | None = None,
    bands: str | None = None,
    save: Path | None = None,
) -> Answer:
    """Compare a model with labels: mIoU, accuracy, F1, per class.

    Args:
        model: A bundled model or a .safetensors file.
        data: A folder of labelled images.
        split: train, val or test.
        scales: Average over several sizes of the image.
        flip: Look at the mirror image too.
        window: Slide a square of that many pixels instead of taking images whole.
        bands: The bands to use, by number from 1 or by name.
        save: Write the scores there as JSON.
    """
    from regard.checkpoints.file import load
    from regard.data.image_folder import folder
    from regard.engine.evaluate import evaluate as score

    labelled = folder(data, bands=bands.split(",") if bands else None)
    scores = score(load(model), labelled, split=split, scales=scales, flip=flip, window=window)
    if save is not None:
        scores.save(save)
    return Answer(scores.as_dict(), f"mIoU {100 * scores.miou:.2f}\n{scores.table()}")


@app.command
def report(source: Path, /, *, out: Out, model: str | None = None, data: Path | None = None) -> Answer:
    """Write one HTML file about a training run: curves, scores per class, confusions, pictures.

    Args:
        source: The folder of a run.
        out: The HTML file to write.
        model: A model to draw pictures with; needs --data.
        data: Labelled images for the pictures: the best and the worst are shown.
    """
    from regard.checkpoints.file import load
    from regard.data.image_folder import folder
    from regard.report.page import report as write

    path = write(source, out, model=load(model) if model else None, data=folder(data) if data else None)
    return Answer({"files": [str(path)]}, str(path))


@app.command
def export(model: str, out: Path, /, *, normalise: bool = False) -> Answer:
    """Write a model as ONNX or as a torch.export program, for any image size, and check it against the model.

    Args:
        model: A bundled model or a .safetensors file.
        out: A name that ends in .onnx or .pt2.
        normalise: Take raw pixel values; else the image must be scaled as the model's card says.
    """
    from regard.checkpoints.file import load
    from regard.engine.export import export as write

    path = write(load(model), out, normalise=normalise)
    return Answer({"files": [str(path)]}, str(path))


@app.command
def models() -> Answer:
    """List the bundled models and the architectures."""
    from regard.checkpoints.file import bundled, parse_card, read_header
    from regard.models import MODELS

    cards = {name: parse_card(path, read_header(path)) for name, path in bundled().items()}
    facts = {
        "bundled": {name: card.model_dump(mode="json") for name, card in cards.items()},
        "architectures": sorted(MODELS),
    }
    lines = [
        f"{name}: {card.architecture} on {card.config['backbone']}, {len(card.classes)} classes "
        f"({', '.join(card.classes.names)}), val mIoU {100 * card.scores.get('miou', 0):.1f}. {card.licence}"
        for name, card in cards.items()
    ]
    return Answer(facts, "\n".join(["Bundled models", *lines, "", "Architectures: " + ", ".join(sorted(MODELS))]))


@app.command
def doctor() -> Answer:
    """Print versions, device and what works on this machine."""
    from regard.engine.doctor import examine

    facts = examine()
    return Answer(facts, "\n".join(f"{name}: {value}" for name, value in facts.items()))


@app.command
def demo(*, out: Out = Path("demo")) -> Answer:
    """Map a real place, fine-tune, evaluate and report, with what comes with regard; about three minutes, no network.

    Args:
        out: The folder for the results.
    """
    from regard.demo import run

    facts = run(out)
    return Answer(facts, "\n".join(f"{what}: {path}" for what, path in facts["files"].items()))


def _value(text: str) -> Any:
    try:
        return jsons.loads(text)
    except ValueError:
        return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    json, debug = "--json" in tokens, "--debug" in tokens
    code = _run([token for token in tokens if token not in ("--json", "--debug")], json=json, debug=debug)
    raise SystemExit(code)


def _run(tokens: list[str], *, json: bool, debug: bool) -> Literal[0, 1, 2]:
    try:
        answer = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail("UsageError", f"{_plain(error)} See: regard {tokens[0] if tokens else ''} --help", 2, json)
    except KeyboardInterrupt:
        return _fail("Interrupted", "stopped by the user; nothing half-written was left.", 1, json)
    except RegardError as error:
        if debug:
            raise
        return _fail(type(error).__name__, str(error), 1, json)
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())
        return _fail(type(error).__name__, f"{text} This is a fault of regard; --debug shows where.", 1, json)
    if isinstance(answer, Answer):
        print(jsons.dumps(answer.facts) if json else answer.text)
    return 0


def _plain(error: CycloptsError) -> str:
    return " ".join(str(error).split())


def _fail(kind: str, message: str, code: Literal[1, 2], json: bool) -> Literal[1, 2]:
    if json:
        print(jsons.dumps({"error": {"kind": kind, "message": message}}))
    print(f"{kind}: {message}", file=sys.stderr)
    return code
