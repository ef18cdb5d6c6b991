"""What the weights of a family do not tell, and where a wrong place would have the right shape.

From the authors' programs: a wrong value here gives wrong predictions without an error.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from regard.card import IMAGENET_MEAN, IMAGENET_STD, RGB
from regard.checkpoints.foreign import danet, hrnet_ocr, mmseg, openseg, sssegmentation
from regard.checkpoints.foreign.config_from_tensors import settings
from regard.checkpoints.foreign.convert import FAMILIES, _config
from regard.checkpoints.foreign.metadata import Evidence, align_corners, evidence, scaling
from regard.checkpoints.foreign.rename import Family, aspp, translate, without_averages

POOL = {"backbone_options": {"pool_ceil": True}}
BY_NAME = {family.name: family for family in FAMILIES}
# Settings on every backbone, on a ResNet, on an HRNet, on basic blocks.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "mmseg DANet": ({}, {}, {}, {"dilate_second": False}),
    "mmseg OCRNet": (
        {},
        {"dropout": 0.1, "regions_dropout": 0.1},
        {"dropout": 0.0, "backbone_options": {"two_steps": True}},
        {"dilate_second": False},
    ),
    "official DANet": ({"align_corners": True}, {}, {}, {}),
    "official HRNet-OCR": ({"align_corners": True}, {}, {}, {}),
    "NVIDIA MscaleOCR": ({}, {}, {}, {}),
    "NVIDIA OCRNet": ({}, {}, {}, {}),
    "openseg SpatialOCRNet": ({"align_corners": True, "dropout": 0.05, "regions_dropout": 0.05, **POOL}, {}, {}, {}),
    "openseg ASPOCRNet": ({"align_corners": True, "dropout": 0.1, "regions_dropout": 0.1, **POOL}, {}, {}, {}),
    "openseg HRNet_W48_OCR": ({"align_corners": True, "dropout": 0.05}, {}, {}, {}),
    "openseg HRNet_W48_ASPOCR": ({"align_corners": True, "dropout": 0.1, "rates": (24, 48, 72)}, {}, {}, {}),
    "sssegmentation DANet": ({}, {}, {}, {"dilate_second": False}),
    "sssegmentation OCRNet": (
        {"dropout": 0.1, "regions_dropout": 0.1},
        {},
        {"backbone_options": {"two_steps": True}},
        {"dilate_second": False},
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_that_weights_do_not_tell(name: str):
    family = BY_NAME[name]
    assert (family.config, family.on_resnet, family.on_hrnet, family.on_basic) == SETTINGS[name]


def test_every_family_is_listed():
    assert set(BY_NAME) == set(SETTINGS)


def test_the_images_that_a_family_is_trained_on():
    """openseg reads BGR: in 0..255 less Caffe's mean, or on HRNet scaled by ImageNet's statistics in RGB's order."""
    for name in ("openseg SpatialOCRNet", "openseg ASPOCRNet"):
        assert BY_NAME[name].card == {
            "bands": ("blue", "green", "red"),
            "mean": (102.9801, 115.9465, 122.7717),
            "std": (1.0, 1.0, 1.0),
            "divisor": 1.0,
        }
    for name in ("openseg HRNet_W48_OCR", "openseg HRNet_W48_ASPOCR"):
        assert BY_NAME[name].card == {"bands": ("blue", "green", "red")}
    assert all(family.card == {} for family in FAMILIES if not family.name.startswith("openseg"))
    assert IMAGENET_MEAN == (0.485, 0.456, 0.406) and IMAGENET_STD == (0.229, 0.224, 0.225)


C = "decode_head.1.object_context_block"
SPATIAL = {
    "f_pixel.0.weight": "pixel.0.0.weight",
    "f_pixel.1.0.weight": "pixel.0.1.weight",
    "f_pixel.2.weight": "pixel.1.0.weight",
    "f_pixel.3.0.bias": "pixel.1.1.bias",
    "f_object.2.weight": "object.1.0.weight",
    "f_object.3.running_mean": "object.1.1.running_mean",
    "f_down.0.weight": "down.0.weight",
    "f_down.1.0.bias": "down.1.bias",
    "f_up.0.weight": "up.0.weight",
    "f_up.1.0.bias": "up.1.bias",
}
PLACES: list[tuple[Family, dict[str, str]]] = [
    (
        mmseg.DANET,
        {
            **{f"decode_head.pam.{x}_project.weight": f"position.1.{x}.weight" for x in ("query", "key", "value")},
            "decode_head.pam_in_conv.conv.weight": "position.0.0.weight",
            "decode_head.pam_out_conv.bn.bias": "position.2.1.bias",
            "decode_head.pam.gamma.scale": "position.1.gamma",
            "decode_head.pam_conv_seg.weight": "classify.position.1.weight",
            "decode_head.cam_in_conv.conv.weight": "channel.0.0.weight",
            "decode_head.cam_out_conv.conv.weight": "channel.2.0.weight",
            "decode_head.cam.gamma.scale": "channel.1.gamma",
            "decode_head.cam_conv_seg.weight": "classify.channel.1.weight",
            "decode_head.conv_seg.bias": "classify.main.1.bias",
            "backbone.stem.0.weight": "backbone.conv1.0.weight",
            "backbone.stem.7.weight": "backbone.bn1.weight",
        },
    ),
    (
        mmseg.OCRNET,
        {
            f"{C}.query_project.0.conv.weight": "object_context.pixel.0.0.weight",
            f"{C}.query_project.1.bn.weight": "object_context.pixel.1.1.weight",
            f"{C}.key_project.0.conv.weight": "object_context.object.0.0.weight",
            f"{C}.key_project.1.conv.weight": "object_context.object.1.0.weight",
            f"{C}.value_project.conv.weight": "object_context.down.0.weight",
            f"{C}.out_project.conv.weight": "object_context.up.0.weight",
            f"{C}.bottleneck.conv.weight": "object_context.fuse.0.0.weight",
            "decode_head.0.conv_seg.weight": "regions.2.weight",
            "decode_head.1.conv_seg.weight": "classify.weight",
            "decode_head.1.bottleneck.conv.weight": "pixels.0.weight",
        },
    ),
    (
        danet.DANET,
        {
            "head.conv5a.0.weight": "position.0.0.weight",
            "head.conv51.0.weight": "position.2.0.weight",
            "head.conv5c.0.weight": "channel.0.0.weight",
            "head.conv52.0.weight": "channel.2.0.weight",
            "head.sa.gamma": "position.1.gamma",
            "head.sc.gamma": "channel.1.gamma",
            "head.conv8.1.weight": "classify.main.1.weight",
            "head.conv6.1.weight": "classify.position.1.weight",
            "head.conv7.1.weight": "classify.channel.1.weight",
            **{f"head.sa.{x}_conv.weight": f"position.1.{x}.weight" for x in ("query", "key", "value")},
        },
    ),
    (
        sssegmentation.DANET,
        {
            "pam_in_conv.0.weight": "position.0.0.weight",
            "cam_out_conv.0.weight": "channel.2.0.weight",
            "pam_net.query_project.weight": "position.1.query.weight",
            "pam_net.key_project.weight": "position.1.key.weight",
            "pam_net.gamma.scale": "position.1.gamma",
            "cam_net.gamma.scale": "channel.1.gamma",
            "decoder_pamcam.1.weight": "classify.main.1.weight",
            "decoder_pam.1.weight": "classify.position.1.weight",
            "decoder_cam.1.weight": "classify.channel.1.weight",
        },
    ),
    (
        sssegmentation.OCRNET,
        {
            "object_context_block.query_project.1.0.weight": "object_context.pixel.1.0.weight",
            "object_context_block.key_project.0.0.weight": "object_context.object.0.0.weight",
            "object_context_block.value_project.0.weight": "object_context.down.0.weight",
            "object_context_block.out_project.0.weight": "object_context.up.0.weight",
            "decoder.1.weight": "classify.weight",
            "auxiliary_decoder.4.weight": "regions.2.weight",
        },
    ),
    *(
        (family, {f"{head}.object_context_block.{old}": f"object_context.{new}" for old, new in SPATIAL.items()})
        for family, head in (
            (openseg.OCRNET, "spatial_ocr_head"),
            (openseg.HRNET_OCR, "ocr_distri_head"),
            (hrnet_ocr.OFFICIAL, "ocr_distri_head"),
            (hrnet_ocr.NVIDIA, "ocr.ocr_distri_head"),
        )
    ),
    *(
        (
            family,
            {
                **{
                    f"asp_ocr_head.context.2.object_context_block.{old}": f"object_context.attention.{new}"
                    for old, new in SPATIAL.items()
                },
                **{
                    f"asp_ocr_head.conv{2 + index}.0.weight": f"object_context.pyramid.branches.{index}.0.weight"
                    for index in range(4)
                },
                "backbone.resinit.conv1.weight": "backbone.conv1.0.weight",
                "backbone.resinit.bn2.weight": "backbone.conv1.4.weight",
                "backbone.resinit.conv3.weight": "backbone.conv1.6.weight",
                "backbone.resinit.bn3.weight": "backbone.bn1.weight",
            },
        )
        for family in (openseg.ASP_OCRNET, openseg.HRNET_ASP_OCR)
    ),
    *(
        (
            family,
            {f"scale_attn.{old}.weight": f"trust.{new}.weight" for layout in layouts for old, new in layout.items()},
        )
        for layouts in [
            (
                {"conv0": "0.0", "bn0": "0.1", "conv1": "1.0", "bn1": "1.1", "conv2": "2"},
                {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2"},
            )
        ]
        for family in hrnet_ocr.FAMILIES[1:3]
    ),
]


@pytest.mark.parametrize(
    ("family", "places"), PLACES, ids=[f"{number} {family.name}" for number, (family, _) in enumerate(PLACES)]
)
def test_tensors_whose_place_no_shape_betrays(family: Family, places: dict[str, str]):
    assert {old: translate(old, family.table) for old in places} == places


def test_nvidias_pyramid_begins_with_the_image():
    table = aspp("aspp", "ours")
    assert translate("aspp.img_conv.0.weight", table) == "ours.image.1.0.weight"
    assert [translate(f"aspp.features.{i}.1.bias", table) for i in range(4)] == [
        f"ours.branches.{i}.1.bias" for i in range(4)
    ]


def said(name: str = "x.pth", **parts: Any) -> Evidence:
    return evidence(Path(name), parts)


def test_the_tensors_of_a_loss_are_left_out():
    assert hrnet_ocr.OFFICIAL.drops == ("loss", "criterion") and hrnet_ocr.NVIDIA.drops == ("criterion",)
    assert danet.DANET.drops == ("pretrained.fc",)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (said(meta={"config": "decode_head=dict(align_corners=False)\nauxiliary_head=dict(align_corners=True)"}), True),
        (said(meta={"cfg": "'align_corners': True"}), True),
        (said(meta={"config": "align_corners = False"}), False),
        (said("danet_769x769.pth", meta={"config": "align_corners=False"}), False),
        (said("danet_r50-d8_769x769_80k.pth"), True),
        (said("danet_r50-d8_512x1024_80k.pth"), None),
    ],
)
def test_corners_are_aligned_as_the_file_says(words: Evidence, expected: bool | None):
    assert align_corners(words) is expected


def test_openseg_says_how_images_are_scaled():
    normalize = {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "div_value": 255}
    rgb = {"mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3), "divisor": 255.0, "bands": RGB}
    assert scaling(said(config_dict={"normalize": normalize, "data": {"input_mode": "RGB"}})) == rgb
    bgr = scaling(said(config_dict={"normalize": normalize, "data": {"input_mode": "BGR"}}))
    assert bgr == {**rgb, "bands": ("blue", "green", "red")}
    assert scaling(said(config_dict={"normalize": {"mean": [0.4] * 3}})) == scaling(said()) == {}


@pytest.mark.parametrize(
    ("arguments", "name", "stem", "expected"),
    [
        (None, "danet.pth", "conv1.weight", (4, 8, 16)),
        (None, "danet.pth", "conv1.0.weight", None),
        (None, "danet_multi_grid.pth", "conv1.0.weight", (4, 8, 16)),
        ({"multi_grid": True, "multi_dilation": None}, "danet.pth", "conv1.0.weight", (4, 8, 16)),
        ({"multi_grid": True, "multi_dilation": [2, 4, 8]}, "danet.pth", "conv1.weight", (2, 4, 8)),
        ({"multi_grid": False}, "danet.pth", "conv1.weight", None),
    ],
)
def test_danets_multi_grid(arguments: dict[str, Any] | None, name: str, stem: str, expected: tuple[int, ...] | None):
    words = said(name, **({} if arguments is None else {"args": argparse.Namespace(**arguments)}))
    found = danet.multi_grid({f"pretrained.{stem}": torch.ones(1)}, words)
    assert found.config == {"multi_grid": expected}


def test_the_first_set_of_mmcvs_two_is_kept():
    tensors = {"a.b": torch.zeros(1), "ema_a_b": torch.ones(1), "c": torch.ones(1)}
    kept, second = without_averages(tensors)
    assert list(kept) == ["a.b", "c"] and second == ["ema_a_b"]


def a_resnet(
    layers: tuple[int, ...], *, deep: bool = True, middle: tuple[int, int] = (64, 64), stem: int | None = None
) -> dict[str, torch.Tensor]:
    """The tensors that tell a ResNet's settings, and DANet's head of 32 channels with an embedding of 4."""
    names = [f"backbone.layer{s}.{i}.bn1.weight" for s, count in enumerate(layers, start=1) for i in range(count)]
    tensors = dict.fromkeys(names, torch.ones(1)) | {"backbone.layer1.0.conv2.weight": torch.empty(*middle, 3, 3)}
    if deep:
        tensors["backbone.layer1.0.conv3.weight"] = torch.empty(1, 1, 1, 1)
    if stem:
        tensors["backbone.conv1.0.weight"] = torch.empty(stem, 3, 3, 3)
    head = {"position.0.0.weight": torch.empty(32, 1, 3, 3), "position.1.query.weight": torch.empty(4, 32, 1, 1)}
    return tensors | head


@pytest.mark.parametrize(
    ("tensors", "backbone", "options"),
    [
        (a_resnet((2, 2, 2, 2), deep=False), "resnet18", {}),
        (a_resnet((3, 4, 6, 3), deep=False), "resnet34", {}),
        (a_resnet((3, 4, 6, 3)), "resnet50", {}),
        (a_resnet((3, 4, 23, 3)), "resnet101", {}),
        (a_resnet((3, 8, 36, 3)), "resnet152", {}),
        (a_resnet((3, 4, 6, 3), stem=32), "resnet50c", {}),
        (a_resnet((3, 4, 6, 3), stem=64), "resnet50s", {}),
        (a_resnet((3, 4, 6, 3), stem=16), "resnet50", {"stem_type": "deep", "stem_width": 16}),
        (a_resnet((3, 4, 6, 3), middle=(128, 4)), "resnext50_32x4d", {}),
        (a_resnet((3, 4, 23, 3), middle=(256, 8)), "resnext101_32x8d", {}),
        (a_resnet((3, 4, 23, 3), middle=(8, 8)), "resnet101", {"channels": [8, 16, 32, 64]}),
    ],
)
def test_a_resnet_is_told_by_its_tensors(tensors: dict[str, torch.Tensor], backbone: str, options: dict[str, Any]):
    found = settings("danet", tensors)
    assert (found["backbone"], found["backbone_options"], found["output_stride"]) == (backbone, options, 8)
    assert (found["width"], found["reduction"]) == (32, 8)


def test_what_the_file_says_counts_before_the_default():
    tensors = a_resnet((2, 2, 2, 2), deep=False)
    for text, expected in (("align_corners=True", True), ("", False)):
        found, notes = _config(mmseg.DANET, tensors, said(meta={"config": text}))
        assert found["align_corners"] is expected and found["backbone_options"] == {"dilate_second": False}
        assert notes == [f"align_corners: {expected}, {'as the file says' if text else 'by default'}"]
    assert _config(danet.DANET, tensors, said(meta={"config": "align_corners=False"}))[0]["align_corners"] is True
