"""sssegmentation's DANet and OCRNet.

Source: sssegmentation 1.7.0. Files are ``{"model": ...}``; images RGB, ImageNet's statistics; ``align_corners`` is
false in its configurations. Its position attention has no biases; its OCR fuses with a 3 x 3 convolution.
"""

from __future__ import annotations

from regard.checkpoints.foreign.rename import DEEP_STEM, Family, within

LICENCE = "sssegmentation is Apache-2.0; the training data has terms of its own"
BASIC = {"dilate_second": False}
BACKBONE = {"backbone_net": "backbone", **within("backbone_net.", DEEP_STEM, to="backbone.")}
_PARTS = ("query", "key", "value")


def _head(source: str, target: str) -> dict[str, str]:
    return {f"{source}.0": f"{target}.0.0", f"{source}.1": f"{target}.0.1", f"{source}.4": f"{target}.2"}


DANET = Family(
    name="sssegmentation DANet",
    architecture="danet",
    signature=("pam_in_conv.0.weight", "decoder_pamcam.1.weight"),
    table={
        **BACKBONE,
        "pam_in_conv": "position.0",
        "pam_out_conv": "position.2",
        "cam_in_conv": "channel.0",
        "cam_out_conv": "channel.2",
        **{f"pam_net.{part}_project": f"position.1.{part}" for part in _PARTS},
        "pam_net.gamma.scale": "position.1.gamma",
        "cam_net.gamma.scale": "channel.1.gamma",
        "decoder_pamcam": "classify.main",
        "decoder_pam": "classify.position",
        "decoder_cam": "classify.channel",
        **_head("auxiliary_decoder", "auxiliary"),
    },
    licence=LICENCE,
    on_basic=BASIC,
    zeros=tuple(f"position.1.{part}.bias" for part in _PARTS),
)

OCRNET = Family(
    name="sssegmentation OCRNet",
    architecture="ocrnet",
    signature=("bottleneck.0.weight", "object_context_block.bottleneck.0.weight", "decoder.1.weight"),
    table={
        **BACKBONE,
        "bottleneck": "pixels",
        "object_context_block.query_project": "object_context.pixel",
        "object_context_block.key_project": "object_context.object",
        "object_context_block.value_project": "object_context.down",
        "object_context_block.out_project": "object_context.up",
        "object_context_block.bottleneck": "object_context.fuse.0",
        "decoder.1": "classify",
        **_head("auxiliary_decoder", "regions"),
    },
    licence=LICENCE,
    on_basic=BASIC,
    config={"dropout": 0.1, "regions_dropout": 0.1},
    on_hrnet={"backbone_options": {"two_steps": True}},
)

FAMILIES = (DANET, OCRNET)
