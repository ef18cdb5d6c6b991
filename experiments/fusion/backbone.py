"""The backbone of the study: the first five of the seven stages of EfficientNet-Lite0, at stride 8.

The last two, dilated, would take 60 % of a step's time, and they see far by themselves, which is what a context module
is for.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from regard.models.segmenter import ModelConfig, Pretrained, Segmenter

STAGES = 5


class FiveStages(nn.Module):
    """The maps of the fourth and fifth stage of timm's EfficientNet, both at stride 8."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Sequential(network.conv_stem, network.bn1), network.blocks[:STAGES]

    def forward(self, image: Tensor) -> list[Tensor]:
        middle = self.blocks[:-1](self.stem(image))
        return [middle, self.blocks[-1](middle)]


class OnFiveStages(Segmenter):
    """Mixed into a network: its backbone ends after the fifth stage."""

    def attach_backbone(self, pretrained: Pretrained) -> list[int]:
        super().attach_backbone(pretrained)
        self.backbone = FiveStages(self.backbone)
        return [part[-1].bn3.num_features for part in self.backbone.blocks[-2:]]


class WidthConfig(ModelConfig):
    """Channels of the head, and the dropout before its classifiers."""

    width: int = 64
    dropout: float = 0.1
