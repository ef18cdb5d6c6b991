"""One small engine for other people's names: every tensor of a file is renamed, dropped for a reason, or an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from regard.errors import CheckpointError

ABN_EPSILON = 1e-5  # InPlaceABN's batch norm scales by |weight| + eps


@dataclass(frozen=True)
class Family:
    """A code base's files of one architecture.

    ``marks`` are keys that only its files have; ``table`` renames by the longest prefix (whole parts of a name);
    ``drops`` are prefixes left out on purpose; ``zeros`` are our biases that its layers do not have. ``config`` and
    ``card`` are what its networks are, but its weights do not tell.
    """

    name: str
    architecture: str
    marks: tuple[str, ...]
    table: Mapping[str, str]
    licence: str
    drops: tuple[str, ...] = ()
    zeros: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    on_hrnet: Mapping[str, Any] = field(default_factory=dict)
    on_resnet: Mapping[str, Any] = field(default_factory=dict)
    on_basic: Mapping[str, Any] = field(default_factory=dict)  # options of ResNet-18 and -34
    card: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, names: Iterable[str]) -> bool:
        """Whether all marks are among ``names``."""
        return set(self.marks) <= set(names)


def strip(tensors: Mapping[str, Tensor], prefixes: Iterable[str] = ("module.", "model.")) -> dict[str, Tensor]:
    """The tensors without the wrappers' prefixes (data parallel, training wrapper), where any tensor has them."""
    known = tuple(prefixes)
    return {_unwrapped(name, known): value for name, value in tensors.items()}


def _unwrapped(name: str, prefixes: tuple[str, ...]) -> str:
    while name.startswith(prefixes):
        name = name.partition(".")[2]
    return name


def rename(tensors: Mapping[str, Tensor], family: Family) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors in our names, and the names of those dropped on purpose.

    Raises:
        CheckpointError: a tensor is neither in the table nor among the drops, or two get one name.
    """
    renamed: dict[str, Tensor] = {}
    dropped, unknown = [], []
    for name, value in tensors.items():
        target = translate(name, family.table)
        if any(_starts(name, prefix) for prefix in family.drops):
            dropped.append(name)
        elif target is None or target in renamed:
            unknown.append(name)
        else:
            renamed[target] = value
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} tensors have no place in {family.architecture} ({family.name}): {listed(unknown)}. "
            "The file is of another network; nothing was written."
        )
    return renamed, dropped


def translate(name: str, table: Mapping[str, str]) -> str | None:
    """The name with its longest prefix in the table replaced; none if there is no such prefix."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        head = ".".join(parts[:count])
        if head in table:
            return ".".join([table[head], *parts[count:]])
    return None


def settle(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], zeros: Iterable[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """Small differences that do not change the numbers, and the names of the biases that were folded.

    * a convolution's bias before a batch norm: ``running_mean - bias``, exact in evaluation;
    * scalars that we keep as one-element vectors;
    * counters of batches that old files lack, and biases that the family's layers do not have (zero).
    """
    settled, folded = dict(tensors), []
    for name in [name for name in tensors if name.endswith(".0.bias") and name not in own]:
        mean = f"{name.removesuffix('.0.bias')}.1.running_mean"
        if mean in own and mean in settled:
            settled[mean] = settled[mean] - settled.pop(name)
            folded.append(name)
    for name, value in own.items():
        if name in settled and settled[name].ndim == 0 and value.shape == (1,):
            settled[name] = settled[name].reshape(1)
        elif name not in settled and (name.endswith(".num_batches_tracked") or name in zeros):
            settled[name] = torch.zeros(value.shape, dtype=value.dtype)
    return settled, folded


def positive_scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """InPlaceABN's scales as plain batch norm has them: ``|weight| + eps``."""
    norms = {name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")}
    scales = {f"{norm}.weight" for norm in norms}
    return {name: value.abs() + ABN_EPSILON if name in scales else value for name, value in tensors.items()}


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    known = sorted(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def _starts(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


# A ResNet's deep stem as one Sequential (mmseg, sssegmentation): its last batch norm is timm's ``bn1``.
DEEP_STEM = {"stem": "conv1", "stem.7": "bn1"}


def within(prefix: str, table: dict[str, str], *, to: str = "") -> dict[str, str]:
    """The table with every source under ``prefix`` and every target under ``to``."""
    return {f"{prefix}{source}": f"{to}{target}" for source, target in table.items()}


def block(source: str, target: str) -> dict[str, str]:
    """A convolution block whose parts are called ``conv`` and ``bn``."""
    return {f"{source}.conv": f"{target}.0", f"{source}.bn": f"{target}.1"}


def plain_block(source: str, target: str) -> dict[str, str]:
    """Convolution 0, then batch norm 1, alone or as the first part of (batch norm, ReLU)."""
    return {f"{source}.0": f"{target}.0", f"{source}.1": f"{target}.1", f"{source}.1.0": f"{target}.1"}


def two_plain_blocks(source: str, target: str) -> dict[str, str]:
    """Two blocks in one Sequential: convolutions 0 and 2, batch norms 1 and 3."""
    second = {f"{source}.2": f"{target}.1.0", f"{source}.3": f"{target}.1.1", f"{source}.3.0": f"{target}.1.1"}
    return {**plain_block(source, f"{target}.0"), **second}


def object_attention(source: str, target: str) -> dict[str, str]:
    """The relation of pixels and objects, as openseg named it and HRNet-OCR and NVIDIA took it over."""
    return {
        **two_plain_blocks(f"{source}.f_pixel", f"{target}.pixel"),
        **two_plain_blocks(f"{source}.f_object", f"{target}.object"),
        **plain_block(f"{source}.f_down", f"{target}.down"),
        **plain_block(f"{source}.f_up", f"{target}.up"),
    }


def spatial_ocr(source: str, target: str = "object_context") -> dict[str, str]:
    """The relation and the fusion behind it."""
    return {
        **object_attention(f"{source}.object_context_block", target),
        **plain_block(f"{source}.conv_bn_dropout", f"{target}.fuse.0"),
    }


def aspp(source: str, target: str) -> dict[str, str]:
    """NVIDIA's atrous pyramid."""
    branches = {f"{source}.features.{index}": f"{target}.branches.{index}" for index in range(4)}
    return {**branches, f"{source}.img_conv": f"{target}.image.1"}
