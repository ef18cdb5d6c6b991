"""The authors' HRNet-OCR.

Source: HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR. Files are flat or ``{"state_dict"}``, every key under
``model.``, beside the loss, which is left out; images RGB, ImageNet's statistics; ``align_corners`` is true.
"""

from __future__ import annotations

from regard.checkpoints.foreign.rename import Family, plain_block, spatial_ocr

_STEM = ("conv1", "bn1", "conv2", "bn2", "layer1", "transition1", "transition2", "transition3")

OCRNET = Family(
    name="official HRNet-OCR",
    architecture="ocrnet",
    marks=("conv3x3_ocr.0.weight", "cls_head.weight", "stage4.0.branches.0.0.conv1.weight"),
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

FAMILIES = (OCRNET,)
