"""DANet: position and channel attention over the last feature map, summed.

Source: Fu et al., Dual Attention Network for Scene Segmentation, CVPR 2019, figure 2.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.conv import classifier, conv_bn_relu
from regard.blocks.self_attention import ChannelAttention, PositionAttention
from regard.card import Card
from regard.models.segmenter import LogitMaps, ModelConfig, Pretrained, Segmenter


class DANetConfig(ModelConfig):
    """``width`` is the channels inside the branches (default: a quarter of the last map's).

    ``auxiliary`` adds mmseg's small classifier on the last map but one, ``auxiliary_width`` wide (default: a quarter of
    that map's channels); it costs nothing in ``forward``.
    """

    width: int | None = None
    reduction: int = 8
    dropout: float = 0.1
    auxiliary: bool = False
    auxiliary_width: int | None = None


class DANet(Segmenter):
    """Two branches, each convolution, attention, convolution; their sum is classified, and each branch by itself."""

    config: DANetConfig
    config_type: type[DANetConfig] = DANetConfig

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card)
        config, classes = self.config, len(card.classes)
        *_, middle, deep = self.attach_backbone(pretrained)
        self.width = width = config.width or deep // 4
        position, channel = PositionAttention(width, config.reduction), ChannelAttention()
        self.position = nn.Sequential(conv_bn_relu(deep, width, 3), position, conv_bn_relu(width, width, 3))
        self.channel = nn.Sequential(conv_bn_relu(deep, width, 3), channel, conv_bn_relu(width, width, 3))
        self.classify = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Dropout2d(config.dropout), nn.Conv2d(width, classes, 1))
                for name in ("main", "position", "channel")
            }
        )
        self.loss_weights = {"main": 1.0, "position": 1.0, "channel": 1.0}
        if config.auxiliary:
            hidden = config.auxiliary_width or middle // 4
            self.auxiliary = classifier(middle, classes, width=hidden, dropout=config.dropout)
            self.loss_weights["auxiliary"] = 0.4

    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        *_, middle, deep = self.backbone(image)
        position, channel = self.position(deep), self.channel(deep)
        outputs = {"main": self.classify["main"](position + channel)}
        return outputs | self.of_branches(middle, position, channel) if auxiliary else outputs

    def of_branches(
        self,
        middle: Float[Tensor, "b _ _ _"],
        position: Float[Tensor, "b d h w"],
        channel: Float[Tensor, "b d h w"],
    ) -> LogitMaps:
        """The auxiliary outputs: each branch classified by itself, and the last map but one if the config says so."""
        outputs = {"position": self.classify["position"](position), "channel": self.classify["channel"](channel)}
        return outputs | {"auxiliary": self.auxiliary(middle)} if self.config.auxiliary else outputs
