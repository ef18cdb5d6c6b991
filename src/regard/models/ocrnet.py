"""OCRNet and HRNet-OCR: coarse regions first, then each pixel asks the regions.

Source: Yuan et al., Object-Contextual Representations for Semantic Segmentation, ECCV 2020, figure 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.aspp import ASPP
from regard.blocks.conv import conv_bn_relu
from regard.blocks.object_context import ObjectContext
from regard.card import Card
from regard.models.backbone import build_backbone
from regard.models.segmenter import ModelConfig, Segmenter
from regard.ops.resize import resize_logits


class OCRNetConfig(ModelConfig):
    """``width`` pixel features, ``key_width`` of the comparison with regions; ``aspp`` puts a pyramid before both."""

    width: int = 512
    key_width: int = 256
    dropout: float = 0.05
    aspp: bool = False


class OCRNet(Segmenter):
    """On HRNet, all branches joined feed both the regions and the pixels; on others, the last map but one the regions."""

    loss_weights: ClassVar[dict[str, float]] = {"main": 1.0, "regions": 0.4}

    def __init__(self, card: Card, *, pretrained: bool | str | Path = False) -> None:
        super().__init__(card)
        self.config = config = self.parse(OCRNetConfig)
        self.backbone, channels, strides = build_backbone(
            config.backbone,
            in_channels=len(card.bands),
            output_stride=config.output_stride,
            align_corners=config.align_corners,
            pretrained=pretrained,
        )
        self.joins_branches = config.backbone.startswith("hrnet")
        self.stride = strides[0] if self.joins_branches else strides[-1]
        coarse, deep = (sum(channels), sum(channels)) if self.joins_branches else channels[-2:]
        self.aspp = ASPP(deep) if config.aspp else None
        if self.aspp is not None:
            coarse = deep = self.aspp.out_channels
        kernel, hidden = (1, coarse) if self.joins_branches else (3, config.width)
        classes = len(card.classes)
        self.regions = nn.Sequential(conv_bn_relu(coarse, hidden, kernel), nn.Conv2d(hidden, classes, 1))
        self.pixels = conv_bn_relu(deep, config.width, 3)
        self.object_context = ObjectContext(config.width, config.key_width, dropout=config.dropout)
        self.classify = nn.Conv2d(config.width, classes, 1)

    def features(self, image: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b p _ _"], Float[Tensor, "b q _ _"]]:
        """What the regions look at and what the pixels look at, on one grid."""
        maps = self.backbone(image)
        if self.joins_branches:
            size = maps[0].shape[-2:]
            joined = torch.cat([resize_logits(x, size, align_corners=self.config.align_corners) for x in maps], dim=1)
            coarse = deep = joined
        else:
            coarse, deep = (resize_logits(x, maps[-1].shape[-2:], align_corners=False) for x in maps[-2:])
        if self.aspp is not None:
            coarse = deep = self.aspp(deep)
        return coarse, deep

    def logits(self, image: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b k _ _"]]:
        coarse, deep = self.features(image)
        regions = self.regions(coarse)
        augmented = self.object_context(self.pixels(deep), regions)
        return {"main": self.classify(augmented), "regions": regions}

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return self.at_size_of(image, self.logits(image)["main"])
