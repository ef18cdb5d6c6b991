"""A family of checkpoints and the renaming of its tensors: each is renamed, dropped for a reason, or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.checkpoints.foreign.metadata import Evidence
from regard.errors import CheckpointError, listed


class Special(NamedTuple):
    """What one file needs that the table of its family cannot say: other tensors, settings of the network, notes."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] = {}
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A code base's files of one architecture.

    ``signature`` are keys that only its files have; ``table`` renames by the longest prefix (whole parts of a name);
    ``drops`` are prefixes left out on purpose; ``zeros`` are our biases that its layers do not have. ``config`` and
    ``card`` are what its networks are, but its weights do not tell; ``special`` is what depends on the file.
    """

    name: str
    architecture: str
    signature: tuple[str, ...]
    table: Mapping[str, str]
    licence: str
    drops: tuple[str, ...] = ()
    zeros: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    on_hrnet: Mapping[str, Any] = field(default_factory=dict)
    on_resnet: Mapping[str, Any] = field(default_factory=dict)
    on_basic: Mapping[str, Any] = field(default_factory=dict)  # options of ResNet-18 and -34
    card: Mapping[str, Any] = field(default_factory=dict)
    special: Callable[[Mapping[str, Tensor], Evidence], Special] = lambda tensors, _: Special(tensors)

    def fits(self, names: Iterable[str]) -> bool:
        """Whether the whole signature is among ``names``."""
        return set(self.signature) <= set(names)


def without_averages(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors without the second set of weights of mmcv's EMAHook, and the names of that set.

    It keeps ``ema_a_b`` next to ``a.b`` and swaps the two before an evaluation, so that ``a.b`` is what was scored.
    Source: mmcv 1.7, ``runner/hooks/ema.py``.
    """
    second = {f"ema_{name.replace('.', '_')}" for name in tensors} & tensors.keys()
    return {name: value for name, value in tensors.items() if name not in second}, sorted(second)


def rename(tensors: Mapping[str, Tensor], family: Family) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors in our names, and the names of those dropped on purpose; one without a place is a CheckpointError."""
    renamed: dict[str, Tensor] = {}
    dropped, unknown = [], []
    for name, value in tensors.items():
        target = translate(name, family.table)
        if f"{name}.".startswith(tuple(f"{prefix}." for prefix in family.drops)):
            dropped.append(name)
        elif target is None or target in renamed:
            unknown.append(name)
        else:
            renamed[target] = value
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} tensors have no place in {family.architecture} ({family.name}): "
            f"{listed(sorted(unknown))}. The file is of another network; nothing was written."
        )
    return renamed, dropped


def translate(name: str, table: Mapping[str, str]) -> str | None:
    """The name with its longest prefix in the table replaced; none if there is no such prefix."""
    parts = name.split(".")
    heads = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    head = next((head for head in heads if head in table), None)
    return None if head is None else table[head] + name.removeprefix(head)


def reconcile(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], zeros: Iterable[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """Small differences that do not change the numbers, and the names of the biases that were folded.

    * a convolution's bias before a batch norm: ``running_mean - bias``, exact in evaluation;
    * scalars that we keep as one-element vectors;
    * counters of batches that old files lack, and biases that the family's layers do not have (zero).
    """
    ours, folded = dict(tensors), []
    for name in [name for name in tensors if name.endswith(".0.bias") and name not in own]:
        mean = f"{name.removesuffix('.0.bias')}.1.running_mean"
        if mean in own and mean in ours:
            ours[mean] = ours[mean] - ours.pop(name)
            folded.append(name)
    for name, value in own.items():
        if name in ours and ours[name].ndim == 0 and value.shape == (1,):
            ours[name] = ours[name].reshape(1)
        elif name not in ours and (name.endswith(".num_batches_tracked") or name in zeros):
            ours[name] = torch.zeros(value.shape, dtype=value.dtype)
    return ours, folded


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
