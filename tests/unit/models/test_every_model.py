"""What holds for every architecture: sizes, gradients, export, no cost for auxiliary outputs, saving."""

from __future__ import annotations

import pytest
import torch

from regard.checkpoints.create import create
from regard.checkpoints.file import load, save
from regard.errors import ConfigError
from regard.models import Segmenter
from support import own_architectures

NAMES = ["ground", "water", "tree", "roof"]
RESNET = {"backbone": "test_resnet", "output_stride": 16}
HRNET = {
    "backbone": "hrnet_w18",
    "output_stride": None,
    "backbone_options": {"modules": [1, 1, 1], "blocks": [1, 1, 1, 1]},
}
VARIANTS = {
    "danet": ("danet", {**RESNET, "width": 16, "auxiliary": True}),
    "danet plain": ("danet", {**RESNET, "width": 16}),
    "danet_ocr": ("danet_ocr", {**RESNET, "width": 16}),
    "danet_ocr R1 se": ("danet_ocr", {**RESNET, "width": 16, "reading": "R1", "channel": "squeeze_excite"}),
    "danet_ocr scale": ("danet_ocr", {**RESNET, "width": 16, "scale": 2}),
    "danet_ocr two": ("danet_ocr", {**RESNET, "width": 16, "backbone_branch": False}),
    "danet_ocr_serial": ("danet_ocr_serial", {**RESNET, "width": 16, "auxiliary": True}),
    "deeplab": ("deeplab", {**RESNET, "width": 8}),
    "non_local": ("non_local", {**RESNET, "width": 16}),
    "non_local position": ("non_local", {**RESNET, "width": 16, "attention": "position", "recipe": "in_celu"}),
    "ocrnet": ("ocrnet", {**RESNET, "width": 16, "key_width": 8}),
    "ocrnet leaky 3x3": ("ocrnet", {**RESNET, "width": 16, "recipe": "bn_leaky_relu", "fuse_kernel": 3}),
    "ocrnet scale": ("ocrnet", {**RESNET, "width": 16, "key_width": 8, "scale": 4, "align_corners": True}),
    "ocrnet before": ("ocrnet", {**RESNET, "width": 16, "aspp": True, "aspp_width": 8}),
    "ocrnet inside": ("ocrnet", {**RESNET, "width": 16, "aspp": "inside", "aspp_width": 8}),
    "ocrnet context": ("ocrnet", {**RESNET, "width": 16, "key_width": 8, "aspp": "context", "rates": (2, 3)}),
    "ocrnet hrnet": ("ocrnet", {**HRNET, "width": 16, "key_width": 8}),
    "ocrnet_multiscale": ("ocrnet_multiscale", {**RESNET, "width": 16, "attention_width": 8, "scales": (0.5, 1, 1.5)}),
    "refined context": (
        "refined",
        {**RESNET, "base": "danet_ocr", "base_config": {"width": 16}, "head": "context", "sees_bands": True},
    ),
    "refined bands": ("refined", {**RESNET, "head": "kernel", "squares": (3,), "landmarks": 5}),
    "danet_three_branch": ("danet_three_branch", {**RESNET, "width": 16, "reduction": 4}),
}


def make(variant: str) -> Segmenter:
    architecture, config = VARIANTS[variant]
    torch.manual_seed(11)
    return create(architecture, classes=NAMES, **config).eval()


def test_every_architecture_is_tried():
    assert {architecture for architecture, _ in VARIANTS.values()} == own_architectures()


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_outputs_have_the_images_size_and_losses(variant: str):
    model = make(variant)
    image = torch.randn(2, 3, 50, 71)
    outputs = model.outputs(image)
    assert outputs.keys() == model.loss_weights.keys()
    assert {output.shape for output in outputs.values()} == {(2, 4, 50, 71)}
    torch.testing.assert_close(model(image), outputs["main"], rtol=0, atol=0)
    alone, every = model.logits(image), model.logits(image, auxiliary=True)
    torch.testing.assert_close(alone["main"], every["main"], rtol=0, atol=0)
    assert alone.keys() <= every.keys() == outputs.keys()
    cells = model.logits(torch.zeros(1, 3, 64, 96))["main"].shape[-2:]
    assert cells == (64 // model.stride, 96 // model.stride)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_finite_gradient(variant: str):
    model = make(variant).train()
    outputs = model.outputs(torch.randn(2, 3, 64, 64))
    torch.stack(
        [model.loss_weights[name] * output.square().mean() for name, output in outputs.items()]
    ).sum().backward()
    broken = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.isfinite().all()]
    assert broken == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_model_gives_the_same_bits(variant: str, tmp_path):
    model = make(variant)
    again = load(save(model, tmp_path / "model.safetensors"))
    assert again.card == model.card
    image = torch.randn(1, 3, 33, 47)
    with torch.inference_mode():
        assert torch.equal(model(image), again(image))


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("variant", VARIANTS)
def test_export_at_a_dynamic_size(variant: str):
    model = make(variant)
    auto = torch.export.Dim.AUTO
    dynamic = {"image": {0: auto, 2: auto, 3: auto}}
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=dynamic, strict=False)
    for size in ((1, 3, 64, 64), (3, 3, 97, 50)):
        image = torch.randn(size)
        with torch.inference_mode():
            torch.testing.assert_close(program.module()(image), model(image), rtol=1e-4, atol=1e-5)


def test_multi_grid_replaces_the_dilations_of_the_last_stage():
    config = {"backbone": "resnet50", "classes": NAMES, "width": 16}
    with torch.device("meta"):
        plain, grid = create("danet", **config), create("danet", **config, multi_grid=(4, 8, 16))
        even = create("danet", **config, backbone_options={"contract_dilation": False})

    def rates(model: Segmenter, stage: str) -> list[int]:
        return [block.conv2.dilation[0] for block in getattr(model.backbone, stage)]

    assert rates(plain, "layer4") == [2, 4, 4] and rates(plain, "layer3") == [1, 2, 2, 2, 2, 2]
    assert rates(grid, "layer4") == [4, 8, 16] and rates(grid, "layer3") == rates(plain, "layer3")
    assert rates(even, "layer4") == [4, 4, 4] and rates(even, "layer3") == [2] * 6
    assert [block.conv2.padding[0] for block in grid.backbone.layer4] == [4, 8, 16]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"backbone": "resnet18", "multi_grid": (4, 8, 16)}, "2 blocks"),
        ({"backbone": "test_convnext", "output_stride": None, "multi_grid": (4,)}, "no such stage"),
        ({"backbone": "resnet18", "backbone_options": {"no_such_option": 1}}, "no_such_option"),
        ({"backbone": "resnet18", "no_such_field": 1}, "no_such_field"),
    ],
)
def test_impossible_settings_are_named(config: dict, words: str):
    with torch.device("meta"), pytest.raises(ConfigError, match=words):
        create("danet", classes=NAMES, **config)


def test_scales_must_hold_one():
    with pytest.raises(ConfigError, match=r"must be positive, differ, and have 1\.0"):
        create("ocrnet_multiscale", classes=NAMES, **RESNET, scales=(0.5, 2.0))


def test_the_fusion_keeps_the_names_of_its_trained_weights():
    """Models are trained with these names; renaming a module must not orphan them."""
    heads = {name.split(".")[0] for name in make("danet_ocr").state_dict()}
    assert heads == {
        "backbone",
        "regions",
        "position_in",
        "position",
        "position_context",
        "channel",
        "channel_context",
        "plain",
        "plain_context",
        "fuse",
        "classify",
    }
    names = set(make("danet_ocr").state_dict())
    assert {"regions.1.weight", "position.alpha", "channel.1.gamma", "fuse.0.0.weight"} <= names
    assert {
        "plain_context.fuse.0.0.weight",
        "plain_context.pixel.1.1.running_mean",
        "position_context.up.1.bias",
    } <= names
