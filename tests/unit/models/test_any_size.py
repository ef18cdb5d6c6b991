"""Padding, joining and the pyramid, against the same written out; what is refused, and what stays frozen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.checkpoints.create import create
from regard.errors import ConfigError
from regard.models import Segmenter
from regard.models.any_size import AnySize, fit
from regard.models.backbone import build_backbone, padding_of
from regard.training.config import TrainConfig
from regard.training.optimizer import freeze, optimizer_of

NAMES = ["ground", "roof"]
VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2}


def made(name: str, **settings: Any) -> AnySize:
    torch.manual_seed(2)
    found = build_backbone(name, **settings).network
    assert isinstance(found, AnySize)
    return found.double().eval()


def image(height: int, width: int) -> Tensor:
    torch.manual_seed(height)
    return torch.randn(1, 3, height, width, dtype=torch.float64)


@torch.no_grad()
def test_an_image_is_padded_and_its_maps_are_cut():
    model, x = made("test_convnext", output_stride=32, options={"pad": 32}), image(70, 97)
    whole = torch.zeros(1, 3, 96, 128, dtype=torch.float64)
    whole[:, :, :70, :97] = x
    for found, full, stride in zip(model(x), model.network(whole), (4, 8, 16, 32), strict=True):
        torch.testing.assert_close(found, full[:, :, : -(-70 // stride), : -(-97 // stride)])


@torch.no_grad()
def test_maps_with_channels_last_are_turned_and_joined_at_the_output_stride():
    model, x = made("test_mambaout", output_stride=8), image(64, 96)
    raw = [part.permute(0, 3, 1, 2) for part in model.network(x)]
    wide = [F.interpolate(part, (8, 12), mode="bilinear", align_corners=False) for part in raw[1:]]
    found = model(x)
    torch.testing.assert_close(found[-1], torch.cat(wide, dim=1))
    torch.testing.assert_close(found[:-1], raw[:-1])


@pytest.mark.parametrize("stride", [8, 16, 32])
@torch.no_grad()
def test_the_pyramid_of_a_network_of_one_scale(stride: int):
    model, x = made("vit_tiny_patch16_dinov3_qkvb", output_stride=stride, options=VIT), image(64, 96)
    *_, raw = model.network(x)
    norm, steps = model.neck.norms[-1], model.neck.steps[-1]
    mean, variance = raw.mean(dim=1, keepdim=True), raw.var(dim=1, keepdim=True, unbiased=False)
    expected = (raw - mean) / (variance + norm.eps).sqrt()
    if stride == 8:
        grown = torch.einsum("bchw,cdij->bdhiwj", expected, steps[0].weight).flatten(4, 5).flatten(2, 3)
        expected = grown + steps[0].bias[:, None, None]
    if stride == 32:
        expected = expected.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax(dim=(3, 5))
    torch.testing.assert_close(model(x)[-1], expected)


@pytest.mark.parametrize(("stride", "cells"), [(8, (12, 16)), (16, (6, 8)), (None, (6, 8))])
@torch.no_grad()
def test_patches_of_14_pixels_come_to_strides_of_windows(stride: int | None, cells: tuple[int, int]):
    settings = {"options": {**VIT, "pad": 14, "img_size": 28}, "output_stride": stride}
    found = made("vit_small_patch14_dinov2", **settings)(image(90, 121))
    assert [part.shape[2:] for part in found] == [cells] * 2


@pytest.mark.parametrize(
    ("name", "stride", "pad"),
    [
        ("resnet18", 8, 1),
        ("test_convnext", 8, 8),
        ("test_convnext", None, 32),
        ("test_mambaout", 8, 1),
        ("test_maxvit", 16, 160),
        ("test_vit", 8, 16),
        ("hrnet_w18", None, 1),
    ],
)
def test_the_padding_that_a_backbone_needs(name: str, stride: int | None, pad: int):
    assert padding_of(name, stride, {}) == pad
    with torch.device("meta"):
        card = create("ocrnet", classes=NAMES, backbone=name, output_stride=stride).card
    assert card.config["backbone_options"] == ({} if pad == 1 else {"pad": pad})


@pytest.mark.parametrize("name", ["test_coatnet", "gmlp_ti16_224"])
def test_what_takes_one_size_alone_is_refused_at_creation(name: str):
    with pytest.raises(ConfigError, match=rf"{name} takes images of (160|224) x \1 pixels alone.* as resnet50, .*swin"):
        create("ocrnet", classes=NAMES, backbone=name)


def vit() -> Segmenter:
    return create(
        "ocrnet", classes=NAMES, backbone="vit_tiny_patch16_dinov3_qkvb", width=16, key_width=8, backbone_options=VIT
    )


def test_a_frozen_backbone_leaves_the_pyramid_to_learn():
    model = vit()
    freeze(model, "backbone")
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert not any(name.startswith("backbone.network") for name in learning)
    assert {name for name in learning if name.startswith("backbone.neck")} == {
        f"backbone.neck.{part}" for part in dict(model.backbone.neck.named_parameters())
    }


def test_the_pyramid_learns_at_the_rate_of_the_heads_and_the_blocks_by_their_depth():
    model = vit()
    config = TrainConfig(learning_rate=1e-3, backbone_rate=0.1, layer_decay=0.5, warmup=0)
    optimizer, _ = optimizer_of(model, config)
    rates = {id(value): group["initial_lr"] for group in optimizer.param_groups for value in group["params"]}
    assert {rates[id(value)] for value in model.backbone.neck.parameters()} == {1e-3}
    by_block = [{rates[id(value)] for value in block.parameters()} for block in model.backbone.network.model.blocks]
    assert [len(found) for found in by_block] == [1] * 4
    assert [found.pop() for found in by_block] == pytest.approx([1e-4 * 0.5**above for above in (3, 2, 1, 0)])


@pytest.mark.parametrize(("wanted", "is_possible"), [(8, True), (16, True), (32, False), (None, True)])
def test_a_last_map_that_is_finer_than_wanted_cannot_be_had(wanted: int | None, is_possible: bool):
    found = fit(nn.Identity(), [8, 24], [8, 16], wanted=wanted, pad=1)
    assert (found is not None) == is_possible
    if found is not None:
        assert found[2][-1] == (wanted or 16)
