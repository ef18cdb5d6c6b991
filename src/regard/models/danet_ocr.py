"""The fusion: position and channel attention, each followed by its own object context, next to the plain features.

The seed project describes this network in words and one figure, without code. Its text: key and value of the object
context are 'the two embedding matrices in Non-Local Attention', the query is 'its final output'. Two readings stand:

* ``R2`` (default): the embeddings are gathered into the k object regions, so key and value are k vectors;
* ``R1`` (literal): the embeddings themselves, one key and value per pixel; no regions in the position branch.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.conv import SqueezeExcite, conv_bn_relu
from regard.blocks.object_context import EVERY_PIXEL, ObjectContext, QueryGrid
from regard.blocks.self_attention import ChannelAttention, Embedded, NonLocalPosition
from regard.card import Card
from regard.models.segmenter import LogitMaps, ModelConfig, Pretrained, Segmenter
from regard.ops.attention import Compared, Gather, attend, gather_objects, to_map, to_tokens


class DANetOCRConfig(ModelConfig):
    """``reading`` of the position branch, ``channel`` attention of the second, and whether the third branch stands.

    ``scale``: one query of each object context for ``scale`` x ``scale`` pixels, see ``QueryGrid``.
    """

    width: int = 512
    key_width: int | None = None
    dropout: float = 0.1
    reading: Literal["R1", "R2"] = "R2"
    channel: Literal["attention", "squeeze_excite"] = "attention"
    backbone_branch: bool = True
    scale: int = 1


class PositionContext(nn.Module):
    """Object context of the position branch: its keys and values are the attention's own embeddings."""

    attend = staticmethod(attend)
    keys_of, values_of = staticmethod(gather_objects), staticmethod(gather_objects)  # see ``ObjectAttention``

    def __init__(
        self, channels: int, reduction: int = 8, *, by_region: bool = True, queries: QueryGrid = EVERY_PIXEL
    ) -> None:
        super().__init__()
        width = channels // reduction
        self.by_region, self.queries = by_region, queries
        self.scale = width**-0.5
        self.query = nn.Conv2d(channels, width, 1)
        self.up = conv_bn_relu(width, channels)
        self.fuse = conv_bn_relu(2 * channels, channels)

    def gather(
        self, over_pixels: Gather, embedding: Float[Tensor, "b d h w"], regions: Float[Tensor, "b k h w"]
    ) -> Float[Tensor, "b m d"]:
        """An embedding of each object region (reading R2) or pixel (R1)."""
        tokens = to_tokens(embedding)
        return over_pixels(tokens, regions.flatten(2)) if self.by_region else tokens

    def compared(self, embedded: Embedded, regions: Float[Tensor, "b k h w"]) -> Compared:
        """The query of each pixel of the queries' grid, the key of each object region or pixel."""
        query = self.query(self.queries.pool(embedded.output))
        return Compared(query, self.gather(self.keys_of, embedded.query, regions), self.scale, self.by_region)

    def forward(self, embedded: Embedded, regions: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c h w"]:
        query, key, scale, _ = self.compared(embedded, regions)
        value = self.gather(self.values_of, embedded.key, regions)
        context = self.attend(to_tokens(query), key, value, scale=scale)
        context = self.queries.enlarge(self.up(to_map(context, query.shape[-2:])), regions)
        return self.fuse(torch.cat([context, embedded.output], dim=1))


class DANetOCR(Segmenter):
    """Position, channel and backbone branch, each with object context over shared, supervised regions."""

    config: DANetOCRConfig
    config_type = DANetOCRConfig
    loss_weights = {"main": 1.0, "regions": 0.4}

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card)
        config = self.config
        deep, width, classes = self.attach_backbone(pretrained)[-1], config.width, len(card.classes)
        key_width = config.key_width or width // 2
        queries = QueryGrid(config.scale, config.align_corners)
        self.regions = nn.Sequential(conv_bn_relu(deep, width, 3), nn.Conv2d(width, classes, 1))
        self.position_in = conv_bn_relu(deep, width, 3)
        self.position = NonLocalPosition(width)
        self.position_context = PositionContext(width, by_region=config.reading == "R2", queries=queries)
        attention = ChannelAttention() if config.channel == "attention" else SqueezeExcite(width)
        self.channel = nn.Sequential(conv_bn_relu(deep, width, 3), attention)
        self.channel_context = ObjectContext(width, key_width, queries=queries)
        if config.backbone_branch:
            self.plain = conv_bn_relu(deep, width, 3)
            self.plain_context = ObjectContext(width, key_width, queries=queries)
        branches = 3 if config.backbone_branch else 2
        self.fuse = nn.Sequential(conv_bn_relu(branches * width, width), nn.Dropout2d(config.dropout))
        self.classify = nn.Conv2d(width, classes, 1)

    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        deep = self.backbone(image)[-1]
        regions = self.regions(deep)
        branches = [
            self.position_context(self.position.embed(self.position_in(deep)), regions),
            self.channel_context(self.channel(deep), regions),
        ]
        if self.config.backbone_branch:
            branches.append(self.plain_context(self.plain(deep), regions))
        return {"main": self.classify(self.fuse(torch.cat(branches, dim=1))), "regions": regions}
