"""An exported model in place of the model: ONNX Runtime or OpenVINO computes, the file's own card says how."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from regard.card import Card
from regard.errors import CheckpointError, ConfigError, MissingExtra
from regard.models import Segmenter
from regard.models.runner import Run, Runner

CELLS = "cells"  # the value inside the graph that holds the logits on the network's own grid
RT_INFO = "regard"  # where OpenVINO keeps our facts
RUNTIMES = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}
BROKEN = (RuntimeError, ValueError, OSError, IndexError)


def needed(package: str) -> Any:
    """A package of the extra ``export``.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        missing = error.name or package
        raise MissingExtra(
            f"{missing} is not installed; {package} is needed. Do: pip install 'regard[export]'."
        ) from None


def open_exported(path: Path, *, runtime: str | None, precision: str) -> Segmenter:
    """The network in an ``.onnx`` or ``.xml`` file; it predicts and is evaluated like any other.

    Raises:
        ConfigError: a runtime that cannot run such a file, or not in that precision.
        CheckpointError: the file is broken, or ``regard export`` did not write it.
        MissingExtra: the runtime is not installed.
    """
    able = RUNTIMES[path.suffix]
    runtime = runtime or able[0]
    if runtime not in able:
        raise ConfigError(f"{path.name} runs on {' or '.join(able)}; got runtime {runtime!r}. Choose one of these.")
    if runtime == "onnxruntime" and precision == "bfloat16":
        raise ConfigError("ONNX Runtime computes in float32 only; got precision bfloat16. Choose --runtime openvino.")
    program, sha = needed(runtime), hashlib.sha256(f"{runtime} {precision}".encode())
    for part in (path, path.with_suffix(".bin"))[: 2 if path.suffix == ".xml" else 1]:
        if not part.is_file():
            raise CheckpointError(f"{part} does not exist; an OpenVINO model is two files. Copy {part.name} there too.")
        sha.update(part.read_bytes())
    try:
        facts, run = (_onnxruntime if runtime == "onnxruntime" else _openvino)(program, path, precision)
    except BROKEN as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path} cannot be run by {runtime} ({reason}). Export it again.") from None
    return Runner(_card(path, facts), run, stride=int(facts["regard_stride"]), mark=sha.digest()).eval()


def _card(path: Path, facts: Mapping[str, str]) -> Card:
    try:
        return Card.model_validate_json(facts["regard_card"])
    except ValidationError:
        raise CheckpointError(f"{path}: its card is not valid. Export the model again.") from None


def _check(path: Path, names: Mapping[str, str]) -> None:
    if "regard_card" not in names or "regard_stride" not in names:
        raise CheckpointError(
            f"{path} does not say its classes, bands and scaling: this version of regard did not export it. Write it "
            f"with regard export MODEL {path.name}."
        )


def _raw(facts: Mapping[str, str], image: Tensor) -> Tensor:
    """The image in the units that the file takes."""
    if facts.get("regard_input") != "raw":
        return image
    card = Card.model_validate_json(facts["regard_card"])
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.mean, card.std))
    return (image * std + mean) * card.divisor


def _onnxruntime(program: Any, path: Path, precision: str) -> tuple[dict[str, str], Run]:
    onnx = needed("onnx")
    try:
        proto = onnx.load(path)
    except Exception as error:  # protobuf's own class, which has no public place
        raise ValueError(f"no ONNX: {error}") from None
    facts = {entry.key: entry.value for entry in proto.metadata_props}
    _check(path, facts)
    del proto.graph.output[:]
    proto.graph.output.append(onnx.ValueInfoProto(name=CELLS))
    options = program.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = program.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return facts, lambda image: torch.from_numpy(session.run(None, {"image": _raw(facts, image).numpy()})[0])


def _openvino(program: Any, path: Path, precision: str) -> tuple[dict[str, str], Run]:
    core = program.Core()
    whole = core.read_model(path)
    place = [RT_INFO] if path.suffix == ".xml" else ["framework"]  # its reader of ONNX keeps metadata there
    found = whole.get_rt_info(place).astype(dict) if whole.has_rt_info(place) else {}
    facts = {name: str(value.value if hasattr(value, "value") else value) for name, value in found.items()}
    _check(path, facts)
    cells = next(port for port in whole.add_outputs(CELLS) if CELLS in port.get_names())
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and "BF16" not in able:
        raise ConfigError("this processor has no bfloat16, so OpenVINO cannot use it. Choose --precision float32.")
    hint = "f32" if precision == "float32" or "BF16" not in able else "bf16"
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    part = program.Model([cells.get_node().input_value(0)], whole.get_parameters(), CELLS)
    compiled = core.compile_model(part, "CPU", settings)
    return facts, lambda image: torch.from_numpy(compiled(_raw(facts, image).numpy())[0].copy())
