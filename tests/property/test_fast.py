"""A fast model gives the plain model's answers; each identity behind it holds in float64."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regard.blocks import ObjectAttention
from regard.checkpoints.file import load, save
from regard.errors import ConfigError
from regard.inference.optimise import MapsConv, convolve_maps, fold_norms, make_fast, project_objects
from regard.models import Segmenter
from support import tiny

HRNET = {
    "backbone": "hrnet_w18",
    "output_stride": None,
    "backbone_options": {"modules": [1, 1, 1], "blocks": [1, 1, 1, 1]},
}
NETWORKS = {
    "danet": ("danet", {}),
    "danet_ocr": ("danet_ocr", {}),
    "ocrnet": ("ocrnet", {"key_width": 8}),
    "ocrnet hrnet": ("ocrnet", {**HRNET, "key_width": 8}),
    "ocrnet hrnet, corners": ("ocrnet", {**HRNET, "key_width": 8, "align_corners": True, "fuse_kernel": 3}),
    "ocrnet hrnet, pyramids": ("ocrnet", {**HRNET, "key_width": 8, "aspp": "context", "rates": (2, 3)}),
    "ocrnet scale": ("ocrnet", {"key_width": 8, "scale": 2, "align_corners": True}),
    "ocrnet inside": ("ocrnet", {"aspp": "inside", "aspp_width": 8, "recipe": "bn_leaky_relu"}),
    "ocrnet_multiscale": ("ocrnet_multiscale", {"attention_width": 8}),
    "ocrnet_multiscale hrnet": ("ocrnet_multiscale", {**HRNET, "key_width": 8, "attention_width": 8}),
    "danet_three_branch": ("danet_three_branch", {"reduction": 4, "recipe": "in_celu"}),
    "efficientnet": ("danet", {"backbone": "test_efficientnet", "output_stride": None}),
}
SPLIT = {
    "ocrnet hrnet": 3,
    "ocrnet_multiscale hrnet": 3,
    "ocrnet hrnet, corners": 3,
}  # convolutions that take several maps


def exact(network: str) -> Segmenter:
    """A network in float64 whose norms and gates do something."""
    architecture, settings = NETWORKS[network]
    model = tiny(architecture, **settings).double()
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma", "alpha")) or parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


@pytest.mark.parametrize("network", NETWORKS)
@torch.inference_mode()
def test_a_fast_model_gives_the_same_logits(network: str):
    plain = exact(network)
    fast = make_fast(copy.deepcopy(plain))
    for size in ((64, 96), (50, 71)):
        image = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(fast(image), plain(image), rtol=1e-8, atol=1e-11)
    assert not any(type(module) is nn.BatchNorm2d for module in fast.modules())
    assert sum(isinstance(module, MapsConv) for module in fast.modules()) == SPLIT.get(network, 0)


@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    factors=st.lists(st.sampled_from([1, 2, 3, 4, 7, 8]), min_size=4, max_size=4),
    size=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    taps=st.sampled_from([1, 3, 5]),
    align=st.booleans(),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    seed=st.integers(0, 10_000),
)
def test_a_convolution_of_several_maps(widths, factors, size, taps, align, layout, seed):
    torch.manual_seed(seed)
    sizes = [size, *([max(1, -(-side // factor)) for side in size] for factor in factors)]
    maps = [
        torch.randn(2, width, *low, dtype=torch.float64).to(memory_format=layout)
        for width, low in zip(widths, sizes, strict=False)
    ]
    weight, bias = torch.randn(3, sum(widths), taps, taps, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    large = [F.interpolate(x, size, mode="bilinear", align_corners=align) for x in maps]
    expected = F.conv2d(torch.cat(large, dim=1), weight, bias, padding=taps // 2)
    torch.testing.assert_close(convolve_maps(maps, weight, bias, align_corners=align), expected)


@given(shape=st.tuples(*[st.integers(1, 6)] * 4), seed=st.integers(0, 10_000))
def test_objects_may_be_projected_before_they_are_distributed(shape: tuple[int, int, int, int], seed: int):
    torch.manual_seed(seed)
    channels, keys, classes, side = shape
    plain = ObjectAttention(channels, keys).double().eval()
    for norm in (module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)):
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(values, 0.5, 1.5)
    folded = copy.deepcopy(plain)
    folded.up[0], folded.up[1] = torch.nn.utils.fuse_conv_bn_eval(plain.up[0], plain.up[1]), nn.Identity()
    project_objects(folded)
    pixels = torch.randn(2, channels, side, 7, dtype=torch.float64)
    regions = torch.randn(2, classes, side, 7, dtype=torch.float64)
    torch.testing.assert_close(folded(pixels, regions), plain(pixels, regions))


def test_a_norm_that_follows_no_convolution_stays(tiny_model: Segmenter):
    norm = nn.BatchNorm2d(3)
    tiny_model.backbone = nn.Sequential(norm, tiny_model.backbone)
    fold_norms(tiny_model)
    assert [module for module in tiny_model.modules() if isinstance(module, nn.BatchNorm2d)] == [norm]


@pytest.mark.parametrize("name", ["conv1", "act1", "bn1", "layer1"])
@torch.inference_mode()
def test_what_is_listened_to_stays_and_is_heard(name: str, tiny_model: Segmenter):
    """As timm takes the maps of some networks: by hooks."""
    plain = tiny_model.double()
    heard: list[torch.Tensor] = []
    image = torch.randn(1, 3, 50, 71, dtype=torch.float64)
    plain.backbone.get_submodule(name).register_forward_hook(lambda *found: heard.append(found[2].clone()))
    expected = plain(image)
    fast = make_fast(plain)
    heard_then = heard[:1]
    heard.clear()
    torch.testing.assert_close(fast(image), expected)
    torch.testing.assert_close(heard, heard_then)


@pytest.mark.parametrize("use", ["trained", "saved"])
def test_a_fast_model_only_predicts(use: str, tiny_model: Segmenter, tmp_path: Path):
    fast = load(save(tiny_model, tmp_path / "plain.safetensors"), fast=True)
    with pytest.raises(ConfigError, match=rf"fast=True.* cannot be {use}"):
        fast.train() if use == "trained" else save(fast, tmp_path / "fast.safetensors")
