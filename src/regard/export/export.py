"""Export a model as ONNX, OpenVINO or torch.export file, and check the file against the model."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.card import Card
from regard.errors import ConfigError, ExportError, OutputError, one_line
from regard.files import check_writable, replacing, writing
from regard.inference.runtimes import CELLS, RT_INFO, needed
from regard.inference.scores import evaluating
from regard.models import Segmenter

CHECKED_SIZES = ((256, 256), (192, 320))
WEIGHTS = ".bin"  # OpenVINO's, next to its .xml
TOLERANCE = 1e-3  # of the largest logit


class Exported(nn.Module):
    """Image to logits at the image's size, or to ``probabilities``.

    With ``normalise`` the image holds raw values, else normalised ones.
    """

    offset: Tensor
    spread: Tensor

    def __init__(self, model: Segmenter, *, normalise: bool, probabilities: bool = False) -> None:
        super().__init__()
        self.model, self.normalise, self.probabilities = model, normalise, probabilities
        for name, values in (("offset", model.card.mean), ("spread", model.card.std)):
            self.register_buffer(name, torch.tensor(values)[None, :, None, None] * model.card.divisor)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return self.answer(self.model(self.scaled(image)))

    def answer(self, logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        return self.model.calibrated(logits).softmax(dim=1) if self.probabilities else logits

    def scaled(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return (image - self.offset) / self.spread if self.normalise else image


class WithCells(nn.Module):
    """:class:`Exported` with a second output, the logits at the output stride, for ONNX Runtime and OpenVINO."""

    def __init__(self, network: Exported) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b k _ _"]]:
        image = self.network.scaled(image)
        cells = self.network.model.logits(image)["main"]
        return self.network.answer(self.network.model.at_size_of(image, cells)), cells


def export(model: Segmenter, path: str | Path, *, normalise: bool = False, probabilities: bool = False) -> Path:
    """Write ``model`` as ``.onnx``, ``.xml`` (OpenVINO) or ``.pt2`` (torch.export) for any batch, height and width.

    The file is checked on random images of two sizes before it gets its name: its output may differ by a thousandth of
    the largest. ONNX and OpenVINO files carry the card, so that :func:`regard.load` opens them. OpenVINO's weights are
    a ``.bin`` next to the ``.xml``. With ``normalise`` the file takes raw pixel values and normalises them itself. With
    ``probabilities`` it gives the softmax of the logits, and its metadata tell QGIS's Deepness plugin how to use it.

    Raises:
        ConfigError: another ending, or the model was loaded with ``fast=True``.
        MissingExtra: the packages for ONNX or OpenVINO are not installed.
        ExportError: the file does not agree with the model, or torch cannot write such a network as a program.
        OutputError: it cannot be written.
    """
    target = Path(path)
    if target.suffix not in WRITERS:
        raise ConfigError(f"models are exported as {' or '.join(WRITERS)}; got {target.name}. Choose one of these.")
    model.check_plain("exported")
    check_writable(target)
    with writing(target.parent), replacing(target, side=WEIGHTS) as part, evaluating(model):
        network = Exported(model, normalise=normalise, probabilities=probabilities).eval()
        check(network, WRITERS[target.suffix](network, part), target)
    return target


def check(network: Exported, run: Callable[[Tensor], Tensor], target: Path) -> float:
    """The largest difference of logits over random images, relative to the largest logit.

    Raises:
        ExportError: it is above a thousandth.
    """
    differences = []
    for size in CHECKED_SIZES:
        image = sample_image(network, size)
        with torch.no_grad():
            expected, found = network(image), run(image)
        differences.append((found - expected).abs().max() / expected.abs().max())
    worst = float(torch.stack(differences).max())  # unlike Python's, keeps NaN
    if not worst <= TOLERANCE:
        raise ExportError(
            f"{target.name} differs from the model by {worst:.1e} of the largest logit; {TOLERANCE:.0e} is allowed. "
            "It was not written. Please report it with the versions that regard doctor prints."
        )
    return worst


def sample_image(network: Exported, size: tuple[int, int]) -> Float[Tensor, "1 c h w"]:
    """Smooth random values, the same at every call, in the units that the file takes."""
    noise = torch.rand(1, len(network.model.bands), 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(noise, size, mode="bicubic")
    return smooth * network.model.card.divisor if network.normalise else (smooth - 0.5) * 4


def _program(network: Exported, whole: nn.Module | None = None) -> torch.export.ExportedProgram:
    dims = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    images = torch.cat([sample_image(network, CHECKED_SIZES[1])] * 2)
    with torch.no_grad():
        return torch.export.export(whole or network, (images,), dynamic_shapes=(dims,))


def _write_program(network: Exported, part: Path) -> Callable[[Tensor], Tensor]:
    program, card = _program(network), network.model.card
    try:
        with part.open("wb") as file:  # of a path, torch writes the hidden name into the archive
            torch.export.save(program, file, extra_files={"regard": card.model_dump_json()})
    except RuntimeError as error:
        raise _no_program(card, error) from None
    written = _read_back(part, lambda: torch.export.load(part)).module()

    def run(image: Tensor) -> Tensor:
        try:
            found: Tensor = written(image)
            return found
        except AssertionError as error:  # the program is bound to the size that it was made with
            raise _no_program(card, error) from None

    return run


def _read_back(part: Path, read: Callable[[], Any]) -> Any:
    """What a library reads of the file that it has just written; an OutputError if the disk has not kept it."""
    try:
        return read()
    except Exception as error:  # each library has its own
        raise OutputError(f"{part.name} does not read back ({one_line(error)}). Is the disk full?") from None


def _no_program(card: Card, error: Exception) -> ExportError:
    return ExportError(
        f"torch cannot write {card.architecture} on {card.config['backbone']} as a program ({one_line(error)}). "
        "Write it as .onnx instead."
    )


def _write_onnx(network: Exported, part: Path) -> Callable[[Tensor], Tensor]:
    onnxruntime = needed("onnxruntime")
    _save_onnx(network, part)
    session = _read_back(part, lambda: onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"]))
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _save_onnx(network: Exported, part: Path) -> None:
    onnx, _ = needed("onnx"), needed("onnxscript")
    logger = logging.getLogger("torch.onnx")
    with warnings.catch_warnings(), ExitStack() as after:
        after.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        program = _program(network, WithCells(network))
        written = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["image"], output_names=["logits", CELLS]
        )
    assert written is not None
    proto = written.model_proto
    del proto.graph.output[1]  # it stays a value inside, under its name
    onnx.helper.set_model_props(proto, onnx_facts(network))
    with writing(part.parent):
        onnx.save(proto, part)


def _write_openvino(network: Exported, part: Path) -> Callable[[Tensor], Tensor]:
    openvino = needed("openvino")
    middle = part.with_suffix(".onnx")
    try:
        _save_onnx(network, middle)
        written = openvino.convert_model(middle)
    finally:
        middle.unlink(missing_ok=True)
    for name, value in onnx_facts(network).items():
        written.set_rt_info(value, [RT_INFO, name])
    with writing(part.parent):
        openvino.save_model(written, part, compress_to_fp16=False)
    run = _read_back(part, lambda: openvino.compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))
    return lambda image: torch.from_numpy(run(image.numpy())[0])


def onnx_facts(network: Exported) -> dict[str, str]:
    """The card, and what the Deepness plugin of QGIS reads. Source: Deepness 0.6.5, ``models/model_base.py``.

    Deepness divides by 255, standardises, sets what is below a threshold to 0, and takes the largest: of probabilities
    and threshold 0 these are the model's labels. Its values are JSON.
    """
    model, card = network.model, network.model.card
    bands = range(len(card.bands))
    mean, std = ([0.0 for _ in bands], [1 / 255 for _ in bands]) if network.normalise else (card.mean, card.std)
    unit = 1.0 if network.normalise else card.divisor / 255
    facts = {
        "class_names": json.dumps({str(label): name for label, name in enumerate(card.classes.names)}),
        "standardization_mean": json.dumps([value * unit for value in mean]),
        "standardization_std": json.dumps([value * unit for value in std]),
        "tile_size": "512",
        "tiles_overlap": "25",
        "regard_card": card.model_dump_json(),
        "regard_stride": str(model.stride),
        "regard_input": "raw" if network.normalise else "scaled",
    }
    if card.ground_resolution is not None:
        facts["resolution"] = str(round(card.ground_resolution * 100, 3))  # centimetres per pixel
    if network.probabilities:
        facts |= {"model_type": json.dumps("Segmentor"), "seg_thresh": "0", "seg_small_segment": "0"}
    return facts


WRITERS = {".onnx": _write_onnx, ".xml": _write_openvino, ".pt2": _write_program}
