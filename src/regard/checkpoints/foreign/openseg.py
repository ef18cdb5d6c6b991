"""openseg: OCRNet and ASP-OCR on deep-stemmed ResNets and on HRNet-W48.

Source: openseg-group/openseg.pytorch. Files: ``{"config_dict", "state_dict"}``. Images are BGR: for ResNets in 0..255
minus the mean, for HRNet with ImageNet's statistics in their order for RGB; ``config_dict`` decides if it is there.
``align_corners`` is true. The heads' convolutions have biases, which are folded. Files of InPlaceABN get leaky ReLU in
the heads and positive scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from regard.checkpoints.foreign.metadata import Evidence
from regard.checkpoints.foreign.rename import Family, Special, object_attention, plain_block, spatial_ocr, within

ABN_EPSILON = 1e-5  # InPlaceABN's batch norm scales by |weight| + eps
LICENCE = "openseg is MIT; the training data has terms of its own"
CARD: dict[str, Any] = {
    "bands": ("blue", "green", "red"),
    "mean": (102.9801, 115.9465, 122.7717),
    "std": (1.0, 1.0, 1.0),
    "divisor": 1.0,
}
HRNET_CARD: dict[str, Any] = {"bands": ("blue", "green", "red")}
_STEM = {"conv1": "conv1.0", "bn1": "conv1.1", "conv2": "conv1.3", "bn2": "conv1.4", "conv3": "conv1.6", "bn3": "bn1"}
BACKBONE = {"backbone": "backbone", **within("backbone.resinit.", _STEM, to="backbone.")}
POOL = {"backbone_options": {"pool_ceil": True}}
_DSN = {**plain_block("dsn_head", "regions.0"), "dsn_head.3": "regions.2", "head": "classify"}
_AUX = {**plain_block("aux_head", "regions.0"), "aux_head.2": "regions.2", "cls_head": "classify"}


def _asp() -> dict[str, str]:
    branches = (plain_block(f"asp_ocr_head.conv{2 + i}", f"object_context.pyramid.branches.{i}") for i in range(4))
    return {
        **plain_block("asp_ocr_head.context", "object_context.pixels"),
        **object_attention("asp_ocr_head.context.2.object_context_block", "object_context.attention"),
        **{old: new for branch in branches for old, new in branch.items()},
        **plain_block("asp_ocr_head.conv_bn_dropout", "object_context.fuse.0"),
    }


def in_place(tensors: Mapping[str, Tensor], words: Evidence) -> Special:
    """Leaky ReLU and positive scales if the blocks are InPlaceABN: one module, where (batch norm, ReLU) are two."""
    if not {"dsn_head.1.running_mean", "aux_head.1.running_mean"} & tensors.keys():
        return Special(tensors)
    note = "InPlaceABN: leaky ReLU in the heads, scales made positive"
    return Special(positive_scales(tensors), {"recipe": "bn_leaky_relu"}, (note,))


def positive_scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """InPlaceABN's scales as plain batch norm has them: ``|weight| + eps``."""
    norms = {name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")}
    scales = {f"{norm}.weight" for norm in norms}
    return {name: value.abs() + ABN_EPSILON if name in scales else value for name, value in tensors.items()}


_ocrnet = partial(Family, architecture="ocrnet", licence=LICENCE, special=in_place)

OCRNET = _ocrnet(
    name="openseg SpatialOCRNet",
    signature=("conv_3x3.0.weight", "dsn_head.0.weight", "head.weight"),
    table={**BACKBONE, **_DSN, **plain_block("conv_3x3", "pixels"), **spatial_ocr("spatial_ocr_head")},
    config={"align_corners": True, "dropout": 0.05, "regions_dropout": 0.05, **POOL},
    card=CARD,
)

ASP_OCRNET = _ocrnet(
    name="openseg ASPOCRNet",
    signature=("asp_ocr_head.context.0.weight", "dsn_head.0.weight"),
    table={**BACKBONE, **_DSN, **_asp()},
    config={"align_corners": True, "dropout": 0.1, "regions_dropout": 0.1, **POOL},
    card=CARD,
)

HRNET_OCR = _ocrnet(
    name="openseg HRNet_W48_OCR",
    signature=("conv3x3.0.weight", "aux_head.2.weight", "cls_head.weight"),
    table={**BACKBONE, **_AUX, **plain_block("conv3x3", "pixels"), **spatial_ocr("ocr_distri_head")},
    config={"align_corners": True, "dropout": 0.05},
    card=HRNET_CARD,
)

HRNET_ASP_OCR = _ocrnet(
    name="openseg HRNet_W48_ASPOCR",
    signature=("asp_ocr_head.context.0.weight", "aux_head.2.weight"),
    table={**BACKBONE, **_AUX, **_asp()},
    zeros=("classify.bias", "regions.2.bias"),
    config={"align_corners": True, "dropout": 0.1, "rates": (24, 48, 72)},
    card=HRNET_CARD,
)

FAMILIES = (OCRNET, ASP_OCRNET, HRNET_OCR, HRNET_ASP_OCR)
