"""mmsegmentation's DANet and OCRNet, each with its FCN auxiliary head.

Source: mmsegmentation 1.2.2. Files are ``{"meta": ..., "state_dict": ...}``; images RGB, 0..255 scaled by ImageNet's
statistics; ``align_corners`` is true in the configurations for 769 x 769 crops and false in the others.
"""

from __future__ import annotations

from regard.checkpoints.foreign.rename import DEEP_STEM, Family, block, within

LICENCE = "mmsegmentation is Apache-2.0; the training data has terms of its own"
BASIC = {"dilate_second": False}
BACKBONE = {"backbone": "backbone", **within("backbone.", DEEP_STEM, to="backbone.")}


def _attention_branch(source: str, target: str) -> dict[str, str]:
    return {
        **block(f"decode_head.{source}_in_conv", f"{target}.0"),
        **block(f"decode_head.{source}_out_conv", f"{target}.2"),
        f"decode_head.{source}.gamma.scale": f"{target}.1.gamma",
        f"decode_head.{source}_conv_seg": f"classify.{target}.1",
    }


DANET = Family(
    name="mmseg DANet",
    architecture="danet",
    signature=("decode_head.pam_in_conv.conv.weight", "decode_head.cam_conv_seg.weight"),
    table={
        **BACKBONE,
        **_attention_branch("pam", "position"),
        **_attention_branch("cam", "channel"),
        **{f"decode_head.pam.{part}_project": f"position.1.{part}" for part in ("query", "key", "value")},
        "decode_head.conv_seg": "classify.main.1",
        **block("auxiliary_head.convs.0", "auxiliary.0"),
        "auxiliary_head.conv_seg": "auxiliary.2",
    },
    licence=LICENCE,
    on_basic=BASIC,
)

_CONTEXT = "decode_head.1.object_context_block"

OCRNET = Family(
    name="mmseg OCRNet",
    architecture="ocrnet",
    signature=("decode_head.0.conv_seg.weight", f"{_CONTEXT}.bottleneck.conv.weight"),
    table={
        **BACKBONE,
        **block("decode_head.0.convs.0", "regions.0"),
        "decode_head.0.conv_seg": "regions.2",
        **block("decode_head.1.bottleneck", "pixels"),
        **block(f"{_CONTEXT}.query_project.0", "object_context.pixel.0"),
        **block(f"{_CONTEXT}.query_project.1", "object_context.pixel.1"),
        **block(f"{_CONTEXT}.key_project.0", "object_context.object.0"),
        **block(f"{_CONTEXT}.key_project.1", "object_context.object.1"),
        **block(f"{_CONTEXT}.value_project", "object_context.down"),
        **block(f"{_CONTEXT}.out_project", "object_context.up"),
        **block(f"{_CONTEXT}.bottleneck", "object_context.fuse.0"),
        "decode_head.1.conv_seg": "classify",
    },
    licence=LICENCE,
    on_basic=BASIC,
    on_resnet={"dropout": 0.1, "regions_dropout": 0.1},
    on_hrnet={"dropout": 0.0, "backbone_options": {"two_steps": True}},
)

FAMILIES = (DANET, OCRNET)
