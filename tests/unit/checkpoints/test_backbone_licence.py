"""The licence of the backbone's weights: on the card, kept by a training, and told where it is not an open one."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from regard.card import Card
from regard.checkpoints import create as module
from regard.checkpoints.create import create
from regard.checkpoints.hub import readme
from regard.errors import LicenceWarning


@pytest.fixture(autouse=True)
def without_download(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.build
    monkeypatch.setattr(module, "build", lambda card, pretrained: real(card))


def card_of(backbone: str, pretrained: bool | str | Path) -> Card:
    with torch.device("meta"):
        return create("danet", backbone=backbone, classes=["ground", "roof"], pretrained=pretrained).card


@pytest.mark.parametrize(
    ("backbone", "licence"),
    [
        ("vit_small_patch16_dinov3", "dinov3-license (timm/vit_small_patch16_dinov3.lvd1689m)"),
        ("vit_large_patch16_dinov3.sat493m", "dinov3-license (timm/vit_large_patch16_dinov3.sat493m)"),
        ("convnext_tiny.dinov3_lvd1689m", "dinov3-license (timm/convnext_tiny.dinov3_lvd1689m)"),
        ("mambaout_tiny", None),
    ],
)
def test_a_licence_that_is_not_open_is_told(backbone: str, licence: str | None):
    if licence is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert card_of(backbone, True).backbone_licence.startswith("apache-2.0 (timm/mambaout_tiny")
        return
    with pytest.warns(LicenceWarning, match="dinov3-license, which is not an open-source one"):
        card = card_of(backbone, "imagenet")
    assert card.backbone_licence == card.without_data().backbone_licence == licence
    assert f"began with: {licence}" in readme(card)


def test_the_satellite_weights_have_their_own_scaling():
    with pytest.warns(LicenceWarning):
        card = card_of("vit_large_patch16_dinov3.sat493m", True)
    assert (card.mean, card.std) == ((0.43, 0.411, 0.296), (0.213, 0.156, 0.143))


@pytest.mark.parametrize("pretrained", [False, "none"])
def test_random_weights_have_none(pretrained: bool | str):
    assert card_of("vit_small_patch16_dinov3", pretrained).backbone_licence == ""


def test_a_file_is_not_known_to_be_timms():
    with pytest.warns(LicenceWarning):
        stated = card_of("vit_small_patch16_dinov3", "mine.pth").backbone_licence
    assert stated.startswith("not known (a file); timm's weights of this network: dinov3-license")
