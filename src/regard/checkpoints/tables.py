"""Pieces of rename tables that several families share."""

from __future__ import annotations

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
