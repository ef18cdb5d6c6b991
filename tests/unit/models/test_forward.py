"""Every network's outputs, put together from its parts as its paper's figure or formula says."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from regard.models import DANetOCR, Segmenter, backbone
from regard.models.backbone import build_backbone, margins_of
from regard.models.hrnet import make_bilinear, shorten
from support import tiny

ROOT = Path(__file__).parents[3]
HRNET = {
    "backbone": "hrnet_w18",
    "output_stride": None,
    "backbone_options": {"modules": [1, 1, 1], "blocks": [1, 1, 1, 1]},
}


def made(architecture: str, **settings: Any) -> tuple[Segmenter, Tensor, list[Tensor]]:
    """A network in float64 with its gates open, an image, and the backbone's maps of it."""
    model = tiny(architecture, **settings).double()
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma", "alpha")):
            nn.init.constant_(parameter, 0.7)
    image = torch.randn(2, 3, 50, 71, dtype=torch.float64)
    return model, image, model.backbone(image)


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted, msg=lambda text, name=name: f"{name}: {text}")
        assert wanted.std(dim=(2, 3)).max() > 1e-6


def context(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Of each pixel (b, d, h, w), the mean of values (b, c, m) by the keys' (b, d, m) likeness, divided by √d."""
    weights = (torch.einsum("bdhw,bdm->bhwm", query, key) / key.shape[1] ** 0.5).softmax(dim=3)
    return torch.einsum("bhwm,bcm->bchw", weights, value)


@torch.no_grad()
def test_danet():
    model, image, (*_, middle, deep) = made("danet", auxiliary=True)
    position, channel = model.position(deep), model.channel(deep)
    expected = {
        "main": model.classify["main"](position + channel),
        "position": model.classify["position"](position),
        "channel": model.classify["channel"](channel),
        "auxiliary": model.auxiliary(middle),
    }
    agree(model.logits(image, auxiliary=True), expected)


@pytest.mark.parametrize("reading", ["R1", "R2"])
@torch.no_grad()
def test_the_fusion(reading: str):
    model, image, (*_, deep) = made("danet_ocr", reading=reading)
    regions, inside = model.regions(deep), model.position_in(deep)
    shares = regions.flatten(2).softmax(dim=2)
    embedded, part = model.position.embed(inside), model.position_context
    key, value = (x.flatten(2) for x in (embedded.query, embedded.key))
    if reading == "R2":
        key, value = (torch.einsum("bdn,bkn->bdk", x, shares) for x in (key, value))
    found = part.up(context(part.query(embedded.output), key, value))
    position = part.fuse(torch.cat([found, embedded.output], dim=1))
    channel = model.channel_context(model.channel[1](model.channel[0](deep)), regions)
    plain = model.plain_context(model.plain(deep), regions)
    joined = torch.cat([position, channel, plain], dim=1)
    agree(model.logits(image), {"main": model.classify(model.fuse(joined)), "regions": regions})


@torch.no_grad()
def test_object_context_behind_danet():
    model, image, (*_, deep) = made("danet_ocr_serial")
    fused = model.position(deep) + model.channel(deep)
    regions = model.classify["main"](fused)
    main = model.classify_pixels(model.object_context(model.pixels(fused), regions))
    agree(model.logits(image), {"main": main, "regions": regions})


@torch.no_grad()
def test_three_branches():
    model, image, (*_, deep) = made("danet_three_branch", reduction=4)
    found = {name: model.branches[name](deep) for name in ("position", "non_local", "channel")}
    main = model.classify(model.tail(model.fuse(torch.cat(list(found.values()), dim=1))))
    expected = {"main": main, **{name: model.auxiliary[name](branch) for name, branch in found.items()}}
    agree(model.logits(image, auxiliary=True), expected)


@pytest.mark.parametrize(("architecture", "head"), [("deeplab", "tail"), ("non_local", "context")])
@torch.no_grad()
def test_the_baselines(architecture: str, head: str):
    model, image, (*_, middle, deep) = made(architecture)
    expected = {"main": model.classify(getattr(model, head)(deep)), "auxiliary": model.auxiliary(middle)}
    agree(model.logits(image, auxiliary=True), expected)


@pytest.mark.parametrize("align", [True, False])
@torch.no_grad()
def test_ocrnet_on_hrnet_joins_the_branches_from_fine_to_coarse(align: bool):
    model, image, maps = made("ocrnet", **HRNET, align_corners=align)
    sized = [F.interpolate(x, maps[0].shape[-2:], mode="bilinear", align_corners=align) for x in maps]
    joined = torch.cat(sized, dim=1)
    regions = model.regions(joined)
    main = model.classify(model.object_context(model.pixels(joined), regions))
    agree(model.logits(image), {"main": main, "regions": regions})


@pytest.mark.parametrize("align", [True, False])
@torch.no_grad()
def test_ocrnets_regions_are_of_the_last_map_but_one(align: bool):
    model, image, (*_, middle, deep) = made("ocrnet", output_stride=32, align_corners=align)
    regions = model.regions(F.interpolate(middle, deep.shape[-2:], mode="bilinear"))
    logits = {"main": model.classify(model.object_context(model.pixels(deep), regions)), "regions": regions}
    agree(model.logits(image), logits)
    sized = {name: F.interpolate(x, (50, 71), mode="bilinear", align_corners=align) for name, x in logits.items()}
    agree(model.outputs(image), sized)


@pytest.mark.parametrize("align", [True, False])
@torch.no_grad()
def test_several_scales(align: bool):
    model, image, _ = made("ocrnet_multiscale", scales=(0.5, 1.0, 1.5), attention_width=8, align_corners=align)

    def up(x: Tensor, size: Any) -> Tensor:
        return F.interpolate(x, tuple(size), mode="bilinear", align_corners=align)

    joined, expected = {}, {}
    for scale in (1.5, 1.0, 0.5):
        scaled = up(image, [int(scale * side) for side in image.shape[2:]])
        coarse, deep = model.features(scaled)
        regions = model.regions(coarse)
        augmented = model.object_context(model.pixels(deep), regions)
        trust = up(model.trust(augmented), scaled.shape[2:])
        here = {"main": up(model.classify(augmented), scaled.shape[2:]), "regions": up(regions, scaled.shape[2:])}
        expected[f"scale_{scale:g}"] = up(here["main"], image.shape[2:])
        grid = scaled.shape[2:] if scale >= 1 else image.shape[2:]
        for name, logits in here.items():
            finer = joined.get(name)
            fused = logits if finer is None else up(trust * logits, grid) + (1 - up(trust, grid)) * up(finer, grid)
            joined[name] = fused
    agree(model.logits(image, auxiliary=True), joined | expected)


@pytest.mark.parametrize("two_steps", [True, False])
@pytest.mark.parametrize("align", [True, False])
@torch.no_grad()
def test_hrnets_exchange(two_steps: bool, align: bool):
    network = timm.create_model("hrnet_w18", features_only=True, feature_location="", out_indices=(1, 2, 3, 4)).eval()
    shorten(network, modules=(1, 1, 1), blocks=(1, 1, 1, 1))
    make_bilinear(network, align_corners=align, two_steps=two_steps)
    module, sizes = network.stage4[0], ((13, 18), (7, 9), (4, 5), (2, 3))
    maps = [torch.randn(1, width, *size) for width, size in zip((18, 36, 72, 144), sizes, strict=True)]
    branches = [branch(x) for branch, x in zip(module.branches, maps, strict=True)]
    for target, (found, size) in enumerate(zip(module(maps), sizes, strict=True)):
        total = torch.zeros_like(found)
        for source, x in enumerate(branches):
            part = module.fuse_layers[target][source](x)
            if source > target and two_steps:
                larger = [2 ** (source - target) * side for side in sizes[source]]
                part = F.interpolate(part, larger, mode="bilinear", align_corners=align)
            total += F.interpolate(part, size, mode="bilinear", align_corners=align)
        torch.testing.assert_close(found, total.clamp(min=0), rtol=1e-4, atol=1e-4)


def test_a_shortened_hrnet_keeps_the_first_modules_and_blocks():
    with torch.device("meta"):
        network = timm.create_model("hrnet_w18", features_only=True, feature_location="", out_indices=(1, 2, 3, 4))
    stages = {name: list(getattr(network, name)) for name in ("layer1", "stage2", "stage3", "stage4")}
    blocks = {name: list(stages[name][0].branches[1]) for name in ("stage2", "stage3", "stage4")}
    shorten(network, modules=(1, 2, 1), blocks=(4, 1, 2, 3))
    assert list(network.layer1) == stages["layer1"][:4]
    for name, keep, depth in (("stage2", 1, 1), ("stage3", 2, 2), ("stage4", 1, 3)):
        assert list(getattr(network, name)) == stages[name][:keep]
        assert list(getattr(network, name)[0].branches[1]) == blocks[name][:depth]


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 3, (3, 5), padding=(1, 2), bias=False),
        nn.Conv2d(2, 3, 3, padding=(2, 4), dilation=(2, 4), bias=False),
        Conv2dSame(2, 3, 3, stride=2, bias=False),
        Conv2dSame(2, 3, 4, stride=3, bias=False),
    ],
    ids=["oblong", "dilated", "same", "same, even"],
)
@pytest.mark.parametrize("size", [(9, 12), (10, 11)])
@torch.no_grad()
def test_the_margins_of_a_convolution(conv: nn.Conv2d, size: tuple[int, int]):
    x = torch.randn(1, 2, *size)
    padded = F.pad(x, margins_of(conv, size))
    torch.testing.assert_close(F.conv2d(padded, conv.weight, None, conv.stride, 0, conv.dilation), conv(x))


def test_a_backbone_that_ignores_its_output_stride_gives_its_maps_joined(monkeypatch: pytest.MonkeyPatch):
    real = timm.create_model

    def deaf(name: str, *, pretrained: bool, output_stride: int, **options: Any) -> nn.Module:
        return real(name, pretrained=pretrained, **options)

    monkeypatch.setattr(backbone.timm, "create_model", deaf)
    with torch.device("meta"):
        found = build_backbone("resnet18", output_stride=8)
        shapes = [x.shape[1:] for x in found.network(torch.empty(1, 3, 64, 96))]
    assert (found.channels, found.strides) == ([64, 64, 128, 256, 128 + 256 + 512], [2, 4, 8, 16, 8])
    assert shapes[-1] == (128 + 256 + 512, 8, 12)


def test_the_page_on_the_fusion_shows_its_forward() -> None:
    page = (ROOT / "docs" / "concepts" / "fusion.md").read_text(encoding="utf-8")
    assert textwrap.dedent(inspect.getsource(DANetOCR.logits)) in page
