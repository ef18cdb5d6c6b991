"""HRNet-OCR: the authors', and NVIDIA's: plain, with an atrous pyramid in either place, or hierarchical over scales.

Sources: HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR: files are flat or ``{"state_dict"}``, every key under
``model.``, next to the loss, which is left out; ``align_corners`` is true. NVIDIA/semantic-segmentation: files are
``{"state_dict", ...}`` under ``module.``; ``align_corners`` is false unless trained with ``--align_corners``.
The images of both are RGB with ImageNet's statistics.
"""

from __future__ import annotations

from dataclasses import replace

from regard.checkpoints.foreign.rename import Family, aspp, plain_block, spatial_ocr

_STEM = ("conv1", "bn1", "conv2", "bn2", "layer1", "transition1", "transition2", "transition3")

OFFICIAL = Family(
    name="official HRNet-OCR",
    architecture="ocrnet",
    signature=("conv3x3_ocr.0.weight", "cls_head.weight", "stage4.0.branches.0.0.conv1.weight"),
    table={
        **{part: f"backbone.{part}" for part in (*_STEM, "stage2", "stage3", "stage4")},
        **plain_block("aux_head", "regions.0"),
        "aux_head.3": "regions.2",
        **plain_block("conv3x3_ocr", "pixels"),
        **spatial_ocr("ocr_distri_head"),
        "cls_head": "classify",
    },
    licence="the authors' code is MIT; the training data has terms of its own",
    drops=("loss", "criterion"),
    config={"align_corners": True},
)

NVIDIA_LICENCE = "NVIDIA's code has a BSD-3-Clause licence; the training data has terms of its own"
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
_SIGNATURE = ("ocr.conv3x3_ocr.0.weight", "ocr.cls_head.weight")


def _trust(names: tuple[str, str, str, str, str]) -> dict[str, str]:
    targets = ("trust.0.0", "trust.0.1", "trust.1.0", "trust.1.1", "trust.2")
    return {f"scale_attn.{name}": target for name, target in zip(names, targets, strict=True)}


NVIDIA = Family(
    name="NVIDIA OCRNet",
    architecture="ocrnet",
    signature=_SIGNATURE,
    table=_OCR,
    licence=NVIDIA_LICENCE,
    drops=("criterion",),
)


def _mscale(last: str) -> Family:
    return replace(
        NVIDIA,
        name="NVIDIA MscaleOCR",
        architecture="ocrnet_multiscale",
        signature=(*_SIGNATURE, f"scale_attn.{last}.weight"),
        table={**_OCR, **_trust(("conv0", "bn0", "conv1", "bn1", "conv2")), **_trust(("0", "1", "3", "4", "6"))},
    )


# Both layouts of the scale attention: today's, and that of MSCALE_OLDARCH.
FAMILIES = (OFFICIAL, _mscale("conv2"), _mscale("6"), NVIDIA)
