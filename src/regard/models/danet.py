"""DANet: position and channel attention over the last feature map, summed.

Source: Fu et al., Dual Attention Network for Scene Segmentation, CVPR 2019, figure 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.conv import conv_bn_relu
from regard.blocks.dual_attention import ChannelAttention, PositionAttention
from regard.card import Card
from regard.models.backbone import build_backbone
from regard.models.segmenter import ModelConfig, Segmenter


class DANetConfig(ModelConfig):
    """``width`` is the channels inside the branches (default: a quarter of the last map's)."""

    width: int | None = None
    reduction: int = 8
    dropout: float = 0.1


class DANet(Segmenter):
    """Two branches, each convolution, attention, convolution; their sum is classified, and each branch by itself."""

    loss_weights: ClassVar[dict[str, float]] = {"main": 1.0, "position": 1.0, "channel": 1.0}

    def __init__(self, card: Card, *, pretrained: bool | str | Path = False) -> None:
        super().__init__(card)
        self.config = config = self.parse(DANetConfig)
        self.backbone, channels, strides = build_backbone(
            config.backbone, in_channels=len(card.bands), output_stride=config.output_stride, pretrained=pretrained
        )
        self.stride = strides[-1]
        deep = channels[-1]
        width = config.width or deep // 4
        position, channel = PositionAttention(width, config.reduction), ChannelAttention()
        self.position = nn.Sequential(conv_bn_relu(deep, width, 3), position, conv_bn_relu(width, width, 3))
        self.channel = nn.Sequential(conv_bn_relu(deep, width, 3), channel, conv_bn_relu(width, width, 3))
        self.classify = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Dropout2d(config.dropout), nn.Conv2d(width, len(card.classes), 1))
                for name in ("main", "position", "channel")
            }
        )

    def logits(self, image: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b k _ _"]]:
        deep = self.backbone(image)[-1]
        position, channel = self.position(deep), self.channel(deep)
        features = {"main": position + channel, "position": position, "channel": channel}
        return {name: self.classify[name](feature) for name, feature in features.items()}

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return self.at_size_of(image, self.logits(image)["main"])
