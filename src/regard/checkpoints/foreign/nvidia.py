"""NVIDIA's HRNet-OCR: plain, with an atrous pyramid in either place, and hierarchical over scales.

Source: NVIDIA/semantic-segmentation. Files are ``{"state_dict", ...}`` under ``module.``; images RGB, ImageNet's
statistics; ``align_corners`` is false unless trained with ``--align_corners``.
"""

from __future__ import annotations

from regard.checkpoints.foreign.rename import Family, aspp, plain_block, spatial_ocr

LICENCE = "NVIDIA's code has a BSD-3-Clause licence; the training data has terms of its own"
_OCR = {
    "backbone": "backbone",
    **plain_block("ocr.aux_head", "regions.0"),
    "ocr.aux_head.2": "regions.2",
    **plain_block("ocr.conv3x3_ocr", "pixels"),
    **spatial_ocr("ocr.ocr_distri_head"),
    **aspp("ocr.ocr_distri_head.aspp", "object_context.pyramid"),
    **aspp("aspp", "aspp"),
    "ocr.cls_head": "classify",
}
_MARKS = ("ocr.conv3x3_ocr.0.weight", "ocr.cls_head.weight")


def _trust(names: tuple[str, str, str, str, str]) -> dict[str, str]:
    targets = ("trust.0.0", "trust.0.1", "trust.1.0", "trust.1.1", "trust.2")
    return {f"scale_attn.{name}": target for name, target in zip(names, targets, strict=True)}


def _mscale(last: str) -> Family:
    return Family(
        name="NVIDIA MscaleOCR",
        architecture="ocrnet_multiscale",
        marks=(*_MARKS, f"scale_attn.{last}.weight"),
        table={**_OCR, **_trust(("conv0", "bn0", "conv1", "bn1", "conv2")), **_trust(("0", "1", "3", "4", "6"))},
        licence=LICENCE,
        drops=("criterion",),
    )


OCRNET = Family(
    name="NVIDIA OCRNet",
    architecture="ocrnet",
    marks=_MARKS,
    table=_OCR,
    licence=LICENCE,
    drops=("criterion",),
)

# Both layouts of the scale attention: today's, and that of MSCALE_OLDARCH.
FAMILIES = (_mscale("conv2"), _mscale("6"), OCRNET)
