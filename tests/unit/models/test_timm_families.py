"""Backbones of every kind: they train, take any size, map scenes, and are the same when made fast; or are refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import timm
import torch
import torch.nn.functional as F

import regard
from regard.checkpoints.create import create
from regard.errors import ConfigError
from regard.inference.optimise import make_fast
from regard.models import Segmenter
from support import NAMES, save_image, write_tif

PAGE = Path(__file__).parents[3] / "docs" / "backbones.md"
SMALL: dict[str, Any] = {"width": 16, "key_width": 8}
SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)}
DINO = {"embed_dim": 32, "depth": 3, "num_heads": 2}
HRNET = {"modules": [1, 1, 1], "blocks": [1, 1, 1, 1]}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {  # the cheapest of each: backbone, settings
    "convolutions": ("test_resnet", {}),
    "inverted residuals": ("mobilenetv4_conv_small_035", {"output_stride": 16}),
    "squares of the stem": ("test_convnext", {}),
    "branches": ("hrnet_w18", {"output_stride": None, "backbone_options": HRNET}),
    "channels last": ("test_mambaout", {}),
    "windows": ("swin_tiny_patch4_window7_224", {"backbone_options": SWIN}),
    "hybrid of fixed windows": ("test_maxvit", {"output_stride": 16}),
    "patches": ("test_vit", {"output_stride": 16}),
    "patches, rotary": ("vit_tiny_patch16_dinov3_qkvb", {"backbone_options": DINO}),
}


def made(backbone: str, architecture: str = "ocrnet", **settings: Any) -> Segmenter:
    torch.manual_seed(5)
    settings = {**SMALL, **settings}
    if architecture == "danet":
        del settings["key_width"]
    return create(architecture, classes=NAMES, backbone=backbone, **settings)


def train_a_step(model: Segmenter) -> None:
    """Every parameter that has a gradient changes, and there is one in the first layer and in the last."""
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.train().parameters())
    labels = torch.randint(len(NAMES), (2, 96, 96))
    losses = [F.cross_entropy(output, labels) for output in model.outputs(torch.randn(2, 3, 96, 96)).values()]
    torch.stack(losses).sum().backward()
    optimizer.step()
    after = dict(model.named_parameters())
    assert all(value.isfinite().all() for value in after.values())
    for name in (next(iter(after)), *(name for name in after if name.startswith("classify"))):
        assert not torch.equal(after[name], before[name]), name


def predict_and_map(model: Segmenter, folder: Path) -> None:
    rng = np.random.default_rng(0)
    image = save_image(folder / "image.png", rng.integers(1, 255, (250, 333, 3)))
    assert regard.predict(model, image).labels.shape == (250, 333)
    scene = write_tif(folder / "scene.tif", rng.integers(1, 255, (3, 600, 500)).astype(np.uint8))
    with rasterio.open(regard.predict(model, scene, out=folder / "map.tif", tile=256, overlap=64)) as written:
        labels = written.read(1)
    assert labels.shape == (600, 500) and labels.max() < len(NAMES)


def compare_fast(model: Segmenter, tolerance: float) -> None:
    """Of the largest logit, in the model's precision."""
    image = torch.randn(1, 3, 250, 333, dtype=next(model.parameters()).dtype)
    with torch.inference_mode():
        plain, fast = model(image), make_fast(copy.deepcopy(model))(image)
    assert float((fast - plain).abs().max()) < tolerance * float(plain.abs().max())


@pytest.mark.parametrize("architecture", ["danet", "ocrnet", "danet_ocr"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_each_kind_trains(kind: str, architecture: str):
    backbone, settings = KINDS[kind]
    train_a_step(made(backbone, architecture, **settings))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_each_kind_maps_and_is_the_same_when_fast(kind: str, tmp_path: Path):
    backbone, settings = KINDS[kind]
    model = made(backbone, **settings).eval()
    predict_and_map(model, tmp_path)
    compare_fast(model, 1e-4)
    compare_fast(model.double(), 1e-9)


def rows() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Of the page's table: the member of each family that is tried, what becomes of it, and its options."""
    text = PAGE.read_text().partition("## Every family")[2]
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {
        family.strip("`"): (member.strip("`"), result, {"depth": 3} if "`depth` 3" in note else {})
        for family, member, result, note in cells
    }


def smallest(family: str) -> str:
    sizes = {}
    for name in timm.list_models(module=family):
        with torch.device("meta"):
            sizes[name] = sum(parameter.numel() for parameter in timm.create_model(name).parameters())
    return min(sizes, key=lambda name: sizes[name])


@pytest.mark.nightly
@pytest.mark.parametrize("family", timm.list_modules())
def test_a_member_of_every_family_does_what_the_page_says(family: str, tmp_path: Path):
    member, result, options = rows().get(family) or (smallest(family), "runs", {})
    if result == "refused":
        with pytest.raises(ConfigError, match="maps need any size"):
            made(member)
        return
    settings = {"output_stride": None} if member.startswith("hrnet") else {}
    model = made(member, backbone_options=options, **settings)
    train_a_step(model)
    predict_and_map(model.eval(), tmp_path)
    compare_fast(model.double(), 1e-9)
