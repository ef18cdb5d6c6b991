"""Tensors on disk: read without running anyone's code, written whole or not at all."""

from __future__ import annotations

import argparse
import codecs
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from regard.errors import CheckpointError, counted, listed, near, one_line
from regard.files import check_writable, replacing, writing

# What training programs store next to the weights (the best score, the arguments): plain data, no code.
_scalar, _rebuild = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
HARMLESS: list[Any] = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_rebuild, "numpy.core.multiarray._reconstruct"),
    (_rebuild, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    codecs.encode,
    argparse.Namespace,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "uint8", "float32", "float64")),
]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` or a PyTorch ``.pth`` file (its ``state_dict`` if it is a container).

    Raises:
        CheckpointError: the file is missing, broken, holds no tensors, or would run code when read.
    """
    return unwrap(read_file(path), path)


def unwrap(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of a file's content, be they in a container or not; a CheckpointError if there are none."""
    for container in ("state_dict", "model"):
        if isinstance(content.get(container), Mapping):
            content = content[container]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors. Give a file of network weights.")
    size = path.stat().st_size
    odd = [name for name, value in tensors.items() if not isinstance(name, str) or not _is_plain(value, size)]
    if odd:
        raise CheckpointError(
            f"{path}: {listed(odd)} is not a named, dense tensor of this file. Save a plain state_dict."
        )
    return tensors


def _is_plain(value: Tensor, most: int) -> bool:
    """Whether a tensor is dense, its numbers all in a file of ``most`` bytes: a few bytes can stand for any size."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes() <= most


def strip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the names of wrappers, where any has them.

    Data parallel and training wrapper stand in front, that of ``torch.compile`` anywhere.
    """
    names = {name: re.sub(r"(^|\.)_orig_mod(?=\.)", "", name).removeprefix(".") for name in tensors}
    return {re.sub(r"^((module|model)\.)+", "", names[name]): value for name, value in tensors.items()}


def check_numbers(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are not numbers.

    Raises:
        CheckpointError: a tensor holds nan or infinity; it is named.
    """
    wrong = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise CheckpointError(
            f"{path} holds nan or infinity in {counted(len(wrong), 'tensor')} ({listed(wrong)}): its training broke "
            "down. Use an earlier checkpoint."
        )


def read_file(path: Path) -> dict[Any, Any]:
    """The content of a weights file as a dict, read with ``weights_only=True``.

    A file that is missing, broken, no dict, or would run code when read is a CheckpointError.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} does not exist.{near(path)} Give the path of a .safetensors or .pth file.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        _check_unpacked(path)
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that it did not write, and then refuses them
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_unsafe(error)}") from None
    except Exception as error:  # of a damaged pickle Torch raises whatever its parts do
        raise CheckpointError(
            f"{path} is broken or no weights file ({one_line(error, 160)}). Fetch or write it again."
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict of tensors. Save a state_dict.")
    return dict(content)


def _check_unpacked(path: Path) -> None:
    """Raise a ValueError if a zip unpacks to more than itself: Torch does not compress."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:
            raise ValueError(f"a zip that unpacks to {unpacked / 2**20:,.0f} MiB")


def _unsafe(error: Exception) -> str:
    reason = one_line(error, 2000)
    called = re.search(r"GLOBAL ([\w.]+)", reason)
    if called:
        return (
            f"reading it would run code ({called[1]}), so it is refused. If you trust its maker, clean it where their "
            "program is installed: python -c \"import torch; f = torch.load('IN.pth', 'cpu', weights_only=False); "
            "torch.save({'state_dict': f.get('state_dict', f)}, 'OUT.pth')\"."
        )
    # Torch then advises reading the file unsafely; only its diagnosis is passed on.
    diagnosis = reason.partition("WeightsUnpickler error: ")[2].partition(" Check the doc")[0] or "no such pickle"
    return f"it is broken or no weights file ({diagnosis[:120]}). Fetch or write it again."


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a ``.safetensors`` with ``header`` as its metadata, by atomic rename; an OutputError if it fails."""
    check_writable(path)
    content = memoryview(save({name: tensor.contiguous() for name, tensor in tensors.items()}, dict(header)))
    length = 8 + int.from_bytes(content[:8], "little")
    facts = json.loads(bytes(content[8:length]))
    facts["__metadata__"] = dict(sorted(header.items()))  # in any order otherwise: the same model is the same bytes
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # tensors begin at a multiple of 8
    with writing(path.parent), replacing(path) as part, part.open("wb") as file:
        for piece in (len(text).to_bytes(8, "little"), text, content[length:]):
            file.write(piece)
