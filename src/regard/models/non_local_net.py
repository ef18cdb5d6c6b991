"""One non-local block over the last feature map: the plain counterpart of DANet's position branch.

Source: Wang et al., Non-local Neural Networks, CVPR 2018; the seed's non-local blocks.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.conv import Recipe, classifier, conv_block
from regard.blocks.self_attention import NonLocal, NonLocalPosition
from regard.card import Card
from regard.models.segmenter import LogitMaps, ModelConfig, Pretrained, Segmenter


class NonLocalNetConfig(ModelConfig):
    """``attention``: the seed's plain block, or its position block (embeddings an eighth as wide, gated)."""

    width: int | None = None
    attention: Literal["plain", "position"] = "plain"
    dropout: float = 0.1
    recipe: Recipe = "bn_relu"


class NonLocalNet(Segmenter):
    """Convolution, non-local attention, convolution, classifier; regions of the last map but one help in training."""

    config: NonLocalNetConfig
    config_type = NonLocalNetConfig
    loss_weights: dict[str, float] = {"main": 1.0, "auxiliary": 0.4}

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card)
        config = self.config
        *_, middle, deep = self.attach_backbone(pretrained)
        width, classes = config.width or deep // 4, len(card.classes)
        self.context = nn.Sequential(
            conv_block(deep, width, 3, recipe=config.recipe),
            NonLocal(width) if config.attention == "plain" else NonLocalPosition(width),
            conv_block(width, width, 3, recipe=config.recipe),
        )
        self.classify = nn.Sequential(nn.Dropout2d(config.dropout), nn.Conv2d(width, classes, 1))
        self.auxiliary = classifier(middle, classes, width=max(1, middle // 4), dropout=config.dropout)

    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        *_, middle, deep = self.backbone(image)
        outputs = {"main": self.classify(self.context(deep))}
        return outputs | {"auxiliary": self.auxiliary(middle)} if auxiliary else outputs
