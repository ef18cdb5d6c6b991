"""The constants of the papers and their code: weights of the losses, dropout, rates, widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from regard.checkpoints.create import create
from regard.errors import ConfigError, StrideUnavailable
from regard.models import Segmenter

NAMES = ["ground", "water", "tree", "roof"]
RESNET = {"backbone": "resnet18", "output_stride": 32}
HRNET = {"backbone": "hrnet_w18", "output_stride": None}


def meta(architecture: str, **config: Any) -> Segmenter:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return create(architecture, classes=NAMES, **{**RESNET, **config})


LOSSES: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "danet": ({"auxiliary": True}, {"main": 1, "position": 1, "channel": 1, "auxiliary": 0.4}),
    "danet_ocr": ({}, {"main": 1, "regions": 0.4}),
    "danet_ocr_serial": ({}, {"main": 1, "position": 1, "channel": 1, "regions": 0.4}),
    "danet_three_branch": ({}, {"main": 1, "position": 0.4, "non_local": 0.4, "channel": 0.4}),
    "deeplab": ({}, {"main": 1, "auxiliary": 0.4}),
    "non_local": ({}, {"main": 1, "auxiliary": 0.4}),
    "ocrnet": ({}, {"main": 1, "regions": 0.4}),
    "ocrnet_multiscale": ({}, {"main": 1, "regions": 0.4, "scale_0.5": 0.05, "scale_1": 0.05}),
}


@pytest.mark.parametrize("architecture", LOSSES)
def test_the_weights_of_the_losses(architecture: str):
    config, weights = LOSSES[architecture]
    assert meta(architecture, **config).loss_weights == weights


def dropouts(model: nn.Module) -> dict[str, float]:
    """By place; all drop whole channels."""
    assert not any(type(part) is nn.Dropout for name, part in model.named_modules() if not name.startswith("backbone"))
    return {name: part.p for name, part in model.named_modules() if isinstance(part, nn.Dropout2d)}


HEADS = ("classify.main.0", "classify.position.0", "classify.channel.0")
DROPOUTS: list[tuple[str, dict[str, Any], dict[str, float]]] = [
    ("danet", {"auxiliary": True}, {**dict.fromkeys(HEADS, 0.1), "auxiliary.1": 0.1}),
    ("danet", {"auxiliary": True, "dropout": 0.3}, {**dict.fromkeys(HEADS, 0.3), "auxiliary.1": 0.3}),
    ("danet_ocr", {}, {"channel_context.fuse.1": 0.05, "plain_context.fuse.1": 0.05, "fuse.1": 0.1}),
    ("danet_ocr", {"dropout": 0.3}, {"channel_context.fuse.1": 0.05, "plain_context.fuse.1": 0.05, "fuse.1": 0.3}),
    ("danet_ocr_serial", {}, {**dict.fromkeys(HEADS, 0.1), "object_context.fuse.1": 0.05}),
    (
        "danet_ocr_serial",
        {"dropout": 0.3, "context_dropout": 0.2},
        {**dict.fromkeys(HEADS, 0.3), "object_context.fuse.1": 0.2},
    ),
    ("danet_three_branch", {}, {}),
    ("deeplab", {}, {"classify.0": 0.1, "auxiliary.1": 0.1}),
    ("deeplab", {"dropout": 0.3}, {"classify.0": 0.3, "auxiliary.1": 0.3}),
    ("non_local", {}, {"classify.0": 0.1, "auxiliary.1": 0.1}),
    ("non_local", {"dropout": 0.3}, {"classify.0": 0.3, "auxiliary.1": 0.3}),
    ("ocrnet", {}, {"regions.1": 0.0, "object_context.fuse.1": 0.05}),
    ("ocrnet", {"dropout": 0.3, "regions_dropout": 0.2}, {"regions.1": 0.2, "object_context.fuse.1": 0.3}),
    ("ocrnet", {"dropout": 0.3, "aspp": "context"}, {"regions.1": 0.0, "object_context.fuse.1": 0.3}),
    ("ocrnet_multiscale", {}, {"regions.1": 0.0, "object_context.fuse.1": 0.05}),
]


@pytest.mark.parametrize(("architecture", "config", "expected"), DROPOUTS)
def test_every_dropout_has_its_published_or_its_given_rate(architecture: str, config: dict, expected: dict[str, float]):
    assert dropouts(meta(architecture, **config)) == expected


def rates(module: nn.Module) -> list[int]:
    return [part.dilation[0] for part in module.modules() if isinstance(part, nn.Conv2d) and part.dilation[0] > 1]


@pytest.mark.parametrize("aspp", ["before", "inside", "context"])
def test_the_rates_of_ocrs_pyramids(aspp: str):
    for given, expected in (({}, [12, 24, 36]), ({"rates": (2, 3)}, [2, 3])):
        model = meta("ocrnet", aspp=aspp, **given)
        assert rates(model.aspp if aspp == "before" else model.object_context) == expected


def test_true_is_the_pyramid_before_both_heads():
    assert meta("ocrnet", aspp=True).config.aspp == "before" and meta("ocrnet").config.aspp is False


def test_the_rates_of_the_seeds_tail():
    assert rates(meta("deeplab").tail) == [8, 12, 16] * 2
    assert rates(meta("deeplab", rates=(1, 2)).tail) == [2, 2]


def test_the_width_and_the_reduction_of_danet():
    model = meta("danet", auxiliary=True)
    assert model.width == 512 // 4 and model.position[1].query.weight.shape == (16, 128, 1, 1)
    assert model.auxiliary[0][0].weight.shape == (256 // 4, 256, 3, 3)
    assert len(meta("danet", reduction=4).position[1].query.weight) == 32
    assert len(meta("danet", width=40, auxiliary=True, auxiliary_width=12).auxiliary[0][0].weight) == 12


def test_the_widths_of_the_others():
    assert len(meta("danet_three_branch", reduction=4, width=64).branches["channel"][1].excite[1].weight) == 16
    assert len(meta("danet_ocr").channel_context.down[0].weight) == 256
    assert len(meta("danet_ocr_serial").object_context.down[0].weight) == 64
    assert len(meta("non_local").context[1].query[0].weight) == 128
    assert len(meta("non_local", attention="position").context[1].query[0].weight) == 16
    ocrnet = meta("ocrnet")
    assert (ocrnet.classify.in_channels, len(ocrnet.object_context.down[0].weight)) == (512, 256)


@pytest.mark.parametrize(("backbone", "kernel", "width"), [("resnet18", 3, 512), ("hrnet_w18", 1, 270)])
def test_the_regions_of_ocrnet_are_3x3_except_on_hrnet(backbone: str, kernel: int, width: int):
    first = meta("ocrnet", backbone=backbone, output_stride=None).regions[0][0]
    assert (first.kernel_size, first.out_channels) == ((kernel, kernel), width)


def test_the_defaults_that_are_not_layers():
    with torch.device("meta"):
        config = create("danet", classes=NAMES).config
    assert (config.backbone, config.output_stride, config.align_corners) == ("resnet50", 8, False)
    assert meta("danet_ocr").config.reading == "R2" and meta("danet_ocr").position_context.by_region
    assert not meta("danet_ocr", reading="R1").position_context.by_region
    assert meta("ocrnet_multiscale").config.scales == (0.5, 1.0)
    assert meta("ocrnet_multiscale", scales=(2.0, 1.0)).config.scales == (1.0, 2.0)


@pytest.mark.parametrize("scales", [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (0.5,)])
def test_scales_are_positive_and_differ(scales: tuple[float, ...]):
    with pytest.raises(ConfigError, match=r"must be positive, differ, and have 1\.0"):
        meta("ocrnet_multiscale", scales=scales)


@pytest.mark.parametrize(("backbone", "stride"), [("resnet18", 4), ("resnet18", 12), ("hrnet_w18", 8)])
def test_strides_that_a_backbone_cannot_have(backbone: str, stride: int):
    with pytest.raises(StrideUnavailable, match=f"{backbone} cannot run at output_stride={stride}"):
        meta("danet", backbone=backbone, output_stride=stride)


@pytest.mark.parametrize(
    ("stride", "first", "second"), [(8, [2, 4], [2, 4]), (16, [1, 2], [1, 2]), (32, [1, 1], [1, 1])]
)
def test_dilation_of_basic_blocks(stride: int, first: list[int], second: list[int]):
    """Of the last two stages' second blocks; mmseg and sssegmentation do not dilate the second convolution."""
    for dilates in (True, False):
        backbone = meta("danet", output_stride=stride, backbone_options={"dilate_second": dilates}).backbone
        blocks = [getattr(backbone, stage)[1] for stage in ("layer3", "layer4")]
        assert [block.conv1.dilation[0] for block in blocks] == first
        assert [block.conv1.padding[0] for block in blocks] == first
        assert [block.conv2.dilation[0] for block in blocks] == (second if dilates else [1, 1])
        assert [block.conv2.padding[0] for block in blocks] == (second if dilates else [1, 1])


def test_multi_grid_dilates_the_first_convolution_of_basic_blocks():
    stage = meta("danet", output_stride=8, multi_grid=(3, 5), backbone_options={"dilate_second": False}).backbone.layer4
    assert [(block.conv1.dilation[0], block.conv2.dilation[0]) for block in stage] == [(3, 1), (5, 1)]


def test_openseg_rounds_the_size_after_the_stem_up():
    sizes = {}
    for ceil in (False, True):
        backbone = meta("danet", backbone_options={"pool_ceil": ceil}).backbone
        sizes[ceil] = [backbone(torch.empty(1, 3, 64, size, device="meta"))[1].shape[-1] for size in (70, 72)]
    assert sizes == {False: [18, 18], True: [18, 19]}
