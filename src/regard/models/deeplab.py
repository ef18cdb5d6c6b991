"""The seed's DeepLab tail on any backbone: a baseline without attention.

Source: Chen et al., Rethinking Atrous Convolution, 2017, arXiv 1706.05587; the seed's ``DeepLabV3``.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.aspp import DeepLabTail
from regard.blocks.conv import Recipe, classifier
from regard.card import Card
from regard.models.segmenter import LogitMaps, ModelConfig, Pretrained, Segmenter


class DeepLabConfig(ModelConfig):
    """``width`` of each branch and ``rates`` of the two pyramids."""

    width: int = 256
    rates: tuple[int, ...] = (1, 8, 12, 16)
    dropout: float = 0.1
    recipe: Recipe = "bn_relu"


class DeepLab(Segmenter):
    """Two atrous pyramids next to a 1x1 and a 3x3 convolution, classified; the last map but one helps in training."""

    config: DeepLabConfig
    config_type = DeepLabConfig
    loss_weights: dict[str, float] = {"main": 1.0, "auxiliary": 0.4}

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card)
        config = self.config
        *_, middle, deep = self.attach_backbone(pretrained)
        classes = len(card.classes)
        self.tail = DeepLabTail(deep, config.width, rates=config.rates, recipe=config.recipe)
        self.classify = nn.Sequential(nn.Dropout2d(config.dropout), nn.Conv2d(config.width, classes, 1))
        self.auxiliary = classifier(middle, classes, width=max(1, middle // 4), dropout=config.dropout)

    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        *_, middle, deep = self.backbone(image)
        outputs = {"main": self.classify(self.tail(deep))}
        return outputs | {"auxiliary": self.auxiliary(middle)} if auxiliary else outputs
