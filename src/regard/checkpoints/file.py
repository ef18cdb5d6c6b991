"""A saved model is one .safetensors whose header carries its card: load it, save it, publish it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from regard.card import Card
from regard.checkpoints.create import build
from regard.checkpoints.hub import PREFIX, fetch, readme, upload
from regard.classes import first_reason
from regard.errors import CheckpointError, ConfigError, near, one_line, unknown
from regard.execution import Precision
from regard.files import checked_name, digest, write_text
from regard.inference.optimise import optimise
from regard.inference.runtimes import RUNTIMES, open_exported
from regard.models import Segmenter
from regard.options import Compute
from regard.tensor_files import check_numbers, read_tensors, write_tensors

MORE_TENSORS, MORE_ELEMENTS = 10_000, 2**26  # what timm's networks may have besides what is kept


def load(
    source: str | Path,
    *,
    device: str = "cpu",
    fast: bool = False,
    precision: Precision = "float32",
    runtime: str | None = None,
    **config: Any,
) -> Segmenter:
    """A saved model, ready to predict (eval mode): a path, the name of a bundled model, or ``hf:user/repo``.

    ``config`` changes settings that keep the weights, such as ``output_stride=8`` (finer, slower). ``fast``
    optimises the network for prediction (see ``make_fast``): the same logits but for rounding. ``precision``
    ``auto`` does so too, in bfloat16 where the processor or GPU has fast products of it: other labels for less than
    one pixel in a hundred. An exported ``.onnx`` or ``.xml`` runs on ``runtime``: onnxruntime or openvino.

    Raises:
        UnknownName: neither a file nor a bundled model.
        CheckpointError: broken, not written by regard, changed since it was written, or not to be had from the hub.
        ConfigError, MissingExtra: an impossible device, precision or runtime; see :func:`open_exported`.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"got precision {precision!r}; need {', '.join(get_args(Precision))}. Choose one of these.")
    path = find(source)
    if path.suffix in RUNTIMES:
        if fast or config or device != "cpu":
            raise ConfigError(f"{path.name} is exported and runs on the CPU as it is. Omit device, fast and settings.")
        return open_exported(path, runtime=runtime, precision=precision)
    if runtime is not None:
        raise ConfigError(f"runtime {runtime!r} is for exported models (.onnx, .xml); got {path.name}. Omit it.")
    _check_device(device)
    model = open_saved(path, **config)
    return optimise(model, device, precision).to(device) if fast or precision != "float32" else model.to(device)


def load_to_predict(source: str | Path, compute: Compute = Compute()) -> Segmenter:
    """:func:`load` as the commands do: rebuilt for speed, unless ``compute.plain`` or the model is exported."""
    path = find(source)
    fast = not compute.plain and path.suffix not in RUNTIMES
    return load(path, fast=fast, device=compute.device, precision=compute.precision, runtime=compute.runtime)


def find(source: str | Path) -> Path:
    """The file behind a path, a bundled name, or ``hf:user/repo``, fetched if need be; raises as :func:`load`."""
    if isinstance(source, str) and source.startswith(PREFIX):
        return fetch(source)
    path = Path(source)
    if os.path.isfile(path):
        return path
    if path.suffix == ".safetensors" or path.parent != Path() or near(path):
        known = ", ".join(bundled())
        raise CheckpointError(f"{path} does not exist.{near(path)} Give a .safetensors file or one of: {known}.")
    if str(source) not in bundled():
        raise unknown("model", str(source), bundled())
    return bundled()[str(source)]


def open_saved(path: Path, **config: Any) -> Segmenter:
    """The network in a ``.safetensors``, as its card says but for ``config``, in eval mode."""
    card, tensors = read_model(path)
    card = card.model_copy(update={"config": {**card.config, **config}})
    with no_larger_than(tensors, path):
        model = build(card)
    fit(model, tensors, path)
    return model.eval()


def save(model: Segmenter, path: str | Path, *, half: bool = False) -> Path:
    """Write weights and card into one ``.safetensors``; ``half`` stores the floats as float16.

    A ``path`` without a suffix is a folder as the Hugging Face Hub wants it: ``model.safetensors`` and a
    ``README.md`` with classes, scores and licence.

    Raises:
        ConfigError: the name does not end in ``.safetensors``, or the model was loaded with ``fast=True``.
        OutputError: it cannot be written there.
    """
    model.check_plain("saved")
    target = Path(path)
    if not target.suffix:
        checked_name(target).mkdir(parents=True, exist_ok=True)
        write_text(target / "README.md", readme(model.card))
        target = target / "model.safetensors"
    if target.suffix != ".safetensors":
        need = "a model is saved as one .safetensors file"
        raise ConfigError(f"{need}; got {target.name}. Name it {target.stem}.safetensors.")
    tensors = dict(model.state_dict())
    if half:
        tensors = {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}
    header = {"format": "pt", "regard": model.card.model_dump_json(), "sha256": digest(tensors)}
    write_tensors(target, tensors, header)
    return target


def push_to_hub(model: Segmenter, repository: str, *, private: bool = False, message: str = "Upload model") -> str:
    """Publish a model with its README as ``repository`` = ``"user/name"``; the address of the commit.

    Raises:
        CheckpointError: the hub refuses (no token, no right, a bad name) or cannot be reached.
    """
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        return upload(folder, repository, private=private, message=message)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0][:120]
        raise ConfigError(f"device {device!r} cannot be used ({reason}). Choose cpu, or cuda with a GPU.") from None


def bundled() -> dict[str, Path]:
    """The models that come with regard: name to file."""
    folder = Path(str(resources.files("regard") / "bundled"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def read_model(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """The card and the tensors of a saved model; a CheckpointError if it changed since it was written."""
    header = read_header(path)
    card, tensors = parse_card(path, header), read_tensors(path)
    if digest(tensors) != header.get("sha256"):
        fault = "the tensors are not those that were saved (SHA-256 differs)"
        raise CheckpointError(f"{path}: {fault}. Fetch the file again.")
    return card, tensors


def read_header(path: Path) -> dict[str, str]:
    """The text header of a .safetensors file; a CheckpointError if it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        reason = one_line(error)
        advice = f"Other people's files: regard convert {path.name} OUT.safetensors."
        raise CheckpointError(f"{path} is not a model of regard ({reason}). {advice}") from None


def parse_card(path: Path, header: Mapping[str, str]) -> Card:
    """The card in a header; a CheckpointError if there is none, or it is not valid."""
    if "regard" not in header:
        advice = f"Convert it: regard convert {path.name} OUT.safetensors."
        raise CheckpointError(f"{path} has no card: regard did not write it. {advice}")
    try:
        return Card.model_validate_json(header["regard"])
    except ValidationError as error:
        raise CheckpointError(f"{path}: its card is not valid ({first_reason(error)}). Fetch the file again.") from None


@contextmanager
def no_larger_than(tensors: Mapping[str, Tensor], path: Path) -> Iterator[None]:
    """Stop building a network when it outgrows the tensors of its file: a card may describe one of any size.

    Each parameter is counted when it is registered, which is before its memory is touched.

    Raises:
        CheckpointError: it has many more parameters than the file, or much larger ones.
    """
    count = elements = 0
    kept, thread = sum(tensor.numel() for tensor in tensors.values()), threading.get_ident()

    def register(_: object, name: str, parameter: Tensor | None) -> None:
        nonlocal count, elements
        if threading.get_ident() == thread and parameter is not None:
            count, elements = count + 1, elements + parameter.numel()
        if count > MORE_TENSORS + 2 * len(tensors) or elements > MORE_ELEMENTS + 4 * kept:
            raise CheckpointError(
                f"{path}: its card describes {count} tensors of {elements} numbers and more, but it has {len(tensors)} "
                f"of {kept}. Its card and weights disagree."
            )

    handle = register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        handle.remove()


def fit(model: Segmenter, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a model of the same names and shapes; float16 becomes float32.

    Other names or shapes, and weights that are not numbers, are a CheckpointError.
    """
    check_numbers(tensors, path)
    check_fit(model, tensors, path)
    widened = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in tensors.items()}
    model.load_state_dict(widened)


def check_fit(model: Segmenter, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise a CheckpointError if the tensors have other names, shapes or kinds of numbers than the model's."""
    own = model.state_dict()
    missing, unused = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    common = sorted(own.keys() & tensors.keys())
    shaped = [name for name in common if own[name].shape != tensors[name].shape]
    kinds = [name for name in common if own[name].is_floating_point() != tensors[name].is_floating_point()]
    named = {"missing": missing, "unused": unused}
    problems = [f"{len(names)} {what} ({names[0]}, ...)" for what, names in named.items() if names]
    problems += [f"{name} is {tensors[name].dtype}, expected {own[name].dtype}" for name in kinds[:1]]
    problems += [f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}" for name in shaped[:1]]
    if problems:
        misfit = f"{path} does not fit {model.card.architecture}: {'; '.join(problems)}"
        raise CheckpointError(f"{misfit}. Its card and weights disagree.")
