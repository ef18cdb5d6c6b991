"""Forms of the fusion, object context on both attention branches, that the package does not have: one switch each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from regard.blocks.conv import SqueezeExcite, classifier, conv_bn_relu
from regard.blocks.object_context import ObjectContext
from regard.blocks.self_attention import ChannelAttention, Embedded, NonLocalPosition
from regard.card import Card
from regard.models.danet_ocr import DANetOCRConfig, PositionContext
from regard.models.segmenter import Segmenter
from regard.ops.resize import resize_logits


@dataclass(frozen=True)
class Variant:
    """What differs from ``danet_ocr``; the defaults are its own.

    * ``losses``: DANet's loss on each branch, on its features ``before`` or ``after`` its object context;
    * ``refine``: DANet's second 3x3 convolution, between attention and context;
    * ``summed``: DANet's sum of the branches in place of the joined branches and a 1x1 convolution;
    * ``gated``: features + gamma · context in place of a 1x1 convolution of both; gamma starts at ``gate``;
    * ``regions`` from the last map (``deep``), from the last but one as in OCRNet (``middle``), or the class scores of
      the branches' sum before their contexts, as in the serial network built right (``scores``);
    * ``sharp`` multiplies the regions' scores where pixels are gathered into them.
    """

    losses: Literal["none", "before", "after"] = "none"
    refine: bool = False
    summed: bool = False
    gated: bool = False
    gate: float = 0.0
    regions: Literal["deep", "middle", "scores"] = "deep"
    plain: bool = True
    squeeze: bool = False
    reduction: int = 8
    regions_weight: float = 0.4
    sharp: float = 1.0


class Gate(nn.Module):
    """``features + gamma · context``."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((1,), start))

    def forward(self, joined: Tensor) -> Tensor:
        context, features = joined.chunk(2, dim=1)
        return features + self.gamma * context


class Fusion(Segmenter):
    """``danet_ocr`` with switches."""

    config_type = DANetOCRConfig

    def __init__(self, card: Card, how: Variant) -> None:
        super().__init__(card)
        self.how = how
        *_, middle, deep = self.attach_backbone(False)
        width, key_width, classes = (
            self.config.width,
            self.config.key_width or self.config.width // 2,
            len(card.classes),
        )
        self.position_in = conv_bn_relu(deep, width, 3)
        self.position = NonLocalPosition(width, how.reduction)
        self.channel = nn.Sequential(
            conv_bn_relu(deep, width, 3), SqueezeExcite(width) if how.squeeze else ChannelAttention()
        )
        self.names = ("position", "channel", "plain") if how.plain else ("position", "channel")
        if how.plain:
            self.plain = conv_bn_relu(deep, width, 3)
        refine = {name: conv_bn_relu(width, width, 3) if how.refine else nn.Identity() for name in self.names}
        self.refine = nn.ModuleDict(refine)
        self.contexts = nn.ModuleDict({name: ObjectContext(width, key_width) for name in self.names})
        self.contexts["position"] = PositionContext(width, how.reduction)
        if how.gated:
            for context in self.contexts.values():
                context.fuse = Gate(how.gate)
        source = {"deep": deep, "middle": middle, "scores": width}[how.regions]
        self.regions = (
            nn.Sequential(nn.Dropout2d(self.config.dropout), nn.Conv2d(width, classes, 1))
            if how.regions == "scores"
            else classifier(source, classes, width=width, dropout=0.0)
        )
        fuse = nn.Identity() if how.summed else conv_bn_relu(len(self.names) * width, width)
        self.fuse = nn.Sequential(fuse, nn.Dropout2d(self.config.dropout))
        self.classify = nn.Conv2d(width, classes, 1)
        self.loss_weights = {"main": 1.0, "regions": how.regions_weight}
        if how.losses != "none":
            self.each = nn.ModuleDict(
                {
                    name: nn.Sequential(nn.Dropout2d(self.config.dropout), nn.Conv2d(width, classes, 1))
                    for name in self.names
                }
            )
            self.loss_weights |= dict.fromkeys(self.names, 1.0)

    def logits(self, image: Tensor, *, auxiliary: bool = False) -> dict[str, Tensor]:
        middle, deep = self.backbone(image)[-2:]
        embedded = self.position.embed(self.position_in(deep))
        features = {"position": embedded.output, "channel": self.channel(deep)}
        if self.how.plain:
            features["plain"] = self.plain(deep)
        before = {name: self.refine[name](feature) for name, feature in features.items()}
        if self.how.regions == "scores":
            regions = self.regions(torch.stack(list(before.values())).sum(0))
        elif self.how.regions == "middle":
            regions = self.regions(resize_logits(middle, deep.shape[-2:], align_corners=False))
        else:
            regions = self.regions(deep)
        given = before | {"position": Embedded(before["position"], *embedded[1:])}
        after = {name: self.contexts[name](given[name], self.how.sharp * regions) for name in self.names}
        maps = list(after.values())
        fused = self.fuse(torch.stack(maps).sum(0) if self.how.summed else torch.cat(maps, dim=1))
        outputs = {"main": self.classify(fused), "regions": regions}
        if self.how.losses != "none":
            looked_at = before if self.how.losses == "before" else after
            outputs |= {name: self.each[name](looked_at[name]) for name in self.names}
        return outputs
