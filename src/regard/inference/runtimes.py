"""An exported model in place of the model: ONNX Runtime or OpenVINO computes, the file's own card says how."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor, nn

from regard.card import Card
from regard.errors import CheckpointError, ConfigError, MissingExtra, RegardError, one_line
from regard.models.segmenter import LogitMaps, ModelConfig, Segmenter

CELLS = "cells"  # the value inside the graph that holds the logits on the network's own grid
RT_INFO = "regard"  # where OpenVINO keeps our facts
COARSEST = 64  # pixels between two cells, at most
RUNTIMES = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}


Run = Callable[[Tensor], Tensor]


class RunnerConfig(ModelConfig, extra="ignore"):
    """What any network's settings say of the size of its logits."""


class Runner(Segmenter):
    """A network that something else computes: another program, or in other numbers.

    ``run`` gives the main logits on the network's own grid; ``mark`` (32 bytes) tells it from any other network.
    """

    config_type = RunnerConfig

    def __init__(self, card: Card, run: Run, *, stride: int, mark: bytes, network: Segmenter | None = None) -> None:
        super().__init__(card)
        self.run, self.stride, self.fast = run, stride, True
        self.network = network  # so that it moves to a device with this
        self.saved_sha256 = None if network is None else network.saved_sha256
        self.mark = nn.Parameter(torch.tensor(list(mark), dtype=torch.float32), requires_grad=False)

    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        return {"main": self.run(image)}


class Facts(NamedTuple):
    """What an exported file says of itself; ``raw``: it takes raw pixel values, not values scaled as the card says."""

    card: Card
    stride: int
    raw: bool

    @classmethod
    def of(cls, entries: Mapping[str, str], path: Path) -> Facts:
        """Out of the file's metadata.

        Raises:
            CheckpointError: they are missing or broken.
        """
        try:
            card = Card.model_validate_json(entries["regard_card"])
            stride = int(entries["regard_stride"])
            if not 1 <= stride <= COARSEST:
                raise ValueError(f"stride {stride}")
            return cls(card, stride, entries["regard_input"] == "raw")
        except (KeyError, ValueError, ValidationError):
            raise CheckpointError(
                f"{path} does not say its classes, bands and scaling: this version of regard did not export it. "
                f"Write it with regard export MODEL {path.name}."
            ) from None

    def as_taken(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The scaled image in the units that the file takes."""
        if not self.raw:
            return image
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.card.mean, self.card.std))
        return (image * std + mean) * self.card.divisor

    def check(self, image: Float[Tensor, "b c h w"], cells: Tensor) -> Tensor:
        """The logits on the network's grid; a ValueError if they are not the image's, as the card and stride say."""
        (count, _, height, width), step = image.shape, self.stride
        whole = height % step == width % step == 0
        size = (height // step, width // step) if whole else cells.shape[2:]  # else as the network rounds it
        expected = (count, len(self.card.classes), *size)
        if cells.shape != expected or cells.ndim != 4 or cells.dtype != torch.float32:
            raise ValueError(f"it gives {cells.dtype} of {tuple(cells.shape)}, expected float32 of {expected}")
        return cells


def needed(package: str, extra: str = "export") -> Any:
    """A package of an extra.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        missing = error.name or package
        raise MissingExtra(f"{missing} is not installed. Do: pip install 'regard[{extra}]'.") from None


def open_exported(path: Path, *, runtime: str | None = None, precision: str = "float32") -> Runner:
    """The network in an ``.onnx`` or ``.xml`` file; it predicts and is evaluated like any other.

    Raises:
        ConfigError: a runtime that cannot run such a file, or not in that precision.
        CheckpointError: the file is broken, or ``regard export`` did not write it.
        MissingExtra: the runtime is not installed.
    """
    able = RUNTIMES[path.suffix]
    chosen = runtime or able[0]
    if chosen not in able:
        raise ConfigError(f"{path.name} runs on {' or '.join(able)}; got runtime {chosen!r}. Choose one of these.")
    mark = hashlib.sha256(f"{chosen} {precision}".encode())
    for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        if not part.is_file():
            raise CheckpointError(f"{part} does not exist; an OpenVINO model is two files. Copy {part.name} there too.")
        mark.update(part.read_bytes())
    program = needed(chosen)
    with _refusing(path, chosen):
        facts, run = (_onnxruntime if chosen == "onnxruntime" else _openvino)(program, path, precision)

    def checked(image: Tensor) -> Tensor:
        with _refusing(path, chosen):
            return facts.check(image, run(facts.as_taken(image)))

    return Runner(facts.card, checked, stride=facts.stride, mark=mark.digest()).eval()


@contextmanager
def _refusing(path: Path, program: str) -> Iterator[None]:
    """Turn what a program raises about a file, mostly exceptions of its own, into a CheckpointError."""
    try:
        yield
    except RegardError:
        raise
    except Exception as error:
        reason = one_line(error)
        raise CheckpointError(f"{path} cannot be run by {program} ({reason}). Export it again.") from error


def _onnxruntime(program: Any, path: Path, precision: str) -> tuple[Facts, Run]:
    if precision == "bfloat16":
        raise ConfigError("ONNX Runtime computes in float32 only; got precision bfloat16. Choose --runtime openvino.")
    onnx = needed("onnx")
    proto = onnx.load(path)
    facts = Facts.of({entry.key: entry.value for entry in proto.metadata_props}, path)
    del proto.graph.output[:]
    proto.graph.output.append(onnx.ValueInfoProto(name=CELLS))
    options = program.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = program.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return facts, lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _openvino(program: Any, path: Path, precision: str) -> tuple[Facts, Run]:
    core = program.Core()
    whole = core.read_model(path)
    place = [RT_INFO] if path.suffix == ".xml" else ["framework"]  # its reader of ONNX keeps metadata there
    found = whole.get_rt_info(place).astype(dict) if whole.has_rt_info(place) else {}
    facts = Facts.of({name: str(getattr(value, "value", value)) for name, value in found.items()}, path)
    cells = next(port for port in whole.add_outputs(CELLS) if CELLS in port.get_names())
    part = program.Model([cells.get_node().input_value(0)], whole.get_parameters(), CELLS)
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and not has_bfloat16:
        raise ConfigError("this processor has no bfloat16, so OpenVINO cannot use it. Choose --precision float32.")
    hint = "f32" if precision == "float32" or not has_bfloat16 else "bf16"
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(part, "CPU", settings)
    return facts, lambda image: torch.from_numpy(compiled(image.numpy())[0].copy())
