"""The seed's first design built right: object context behind DANet.

The seed feeds its object context with DANet's class scores at full resolution and with as many unsupervised regions as
it has channels. Here the context looks at the fused features, before they are classified, and the regions are DANet's
own class scores, which have their loss.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.conv import conv_bn_relu
from regard.blocks.object_context import ObjectContext, QueryGrid
from regard.card import Card
from regard.models.danet import DANet, DANetConfig
from regard.models.segmenter import LogitMaps, Pretrained


class DANetOCRSerialConfig(DANetConfig):
    """DANet's settings, and those of the object context behind it; ``scale``: see ``QueryGrid``."""

    key_width: int | None = None
    context_dropout: float = 0.05
    scale: int = 1


class DANetOCRSerial(DANet):
    """DANet's fused features, augmented with the object regions that DANet itself proposes."""

    config: DANetOCRSerialConfig
    config_type = DANetOCRSerialConfig

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card, pretrained=pretrained)
        width = self.width
        key_width = self.config.key_width or width // 2
        self.pixels = conv_bn_relu(width, width, 3)
        queries = QueryGrid(self.config.scale, self.config.align_corners)
        dropout = self.config.context_dropout
        self.object_context = ObjectContext(width, key_width, dropout=dropout, queries=queries)
        self.classify_pixels = nn.Conv2d(width, len(card.classes), 1)
        self.loss_weights = {**self.loss_weights, "regions": 0.4}

    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        *_, middle, deep = self.backbone(image)
        position, channel = self.position(deep), self.channel(deep)
        fused = position + channel
        regions = self.classify["main"](fused)
        branches = self.of_branches(middle, position, channel) if auxiliary else {}  # their dropouts draw first
        main = self.classify_pixels(self.object_context(self.pixels(fused), regions))
        return {"main": main, "regions": regions, **branches}
