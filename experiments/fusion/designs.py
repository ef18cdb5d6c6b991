"""Forms of the fusion that the package does not have: ``Dual``, and its own reading R2 with one thing changed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from experiments.fusion.backbone import OnFiveStages, WidthConfig
from regard.blocks.conv import classifier, conv_bn_relu
from regard.blocks.object_context import ObjectContext
from regard.blocks.self_attention import ChannelAttention, Embedded, PositionAttention
from regard.card import Card
from regard.models import DANetOCR
from regard.models.danet_ocr import DANetOCRConfig, PositionContext
from regard.models.segmenter import LogitMaps, Pretrained
from regard.ops.attention import attend, gather_objects, to_map, to_tokens

FAST = 10.0  # a gate that is stored divided by this learns at so many times the rate


class Gate(nn.Module):
    """``features + gamma · context`` with a gamma a channel: small at first, and ten times as fast as other weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slow = nn.Parameter(torch.full((channels, 1, 1), 0.1 / FAST))

    def forward(self, joined: Tensor) -> Tensor:
        context, features = joined.chunk(2, dim=1)
        return features + FAST * self.slow * context


class Context(ObjectContext):
    """The package's object context with ``heads``, a learnt ``temperature`` of the region scores, or a ``gate``."""

    attend = staticmethod(attend)

    def __init__(self, channels: int, key_width: int, *, heads: int, temperature: bool, gate: bool) -> None:
        super().__init__(channels, key_width)
        self.heads = heads
        self.slow = nn.Parameter(torch.zeros(())) if temperature else None
        if gate:
            self.fuse = Gate(channels)

    def distribute(self, pixels: Tensor, objects: Tensor) -> Tensor:
        query, key, _, _ = self.compared(pixels, objects)
        parts = [self.split(x) for x in (to_tokens(query), key, to_tokens(self.down(objects)))]
        context = self.attend(*parts, scale=parts[0].shape[2] ** -0.5)
        joined = context.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)
        return self.up(to_map(joined, query.shape[-2:]))

    def split(self, tokens: Tensor) -> Tensor:
        """(b, n, c) as (b · heads, n, c / heads)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2).flatten(0, 1)

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        sharper = regions if self.slow is None else regions * (FAST * self.slow).exp()
        return super().forward(pixels, sharper)


class GuidedPosition(PositionAttention):
    """Position attention whose queries and keys also see the class probabilities of the regions."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels)
        self.query = nn.Conv2d(channels + classes, channels // 8, 1)
        self.key = nn.Conv2d(channels + classes, channels // 8, 1)

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        seen = torch.cat([x, regions.softmax(1)], dim=1)
        context = self.attend(to_tokens(self.query(seen)), to_tokens(self.key(seen)), to_tokens(self.value(x)))
        return self.gamma * to_map(context, x.shape[-2:]) + x


class RegionPosition(PositionAttention):
    """Position attention whose keys and values are the object regions: n x k in place of n x n."""

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        objects = gather_objects(to_tokens(x), regions.flatten(2)).transpose(1, 2).unsqueeze(-1)
        context = self.attend(to_tokens(self.query(x)), to_tokens(self.key(objects)), to_tokens(self.value(objects)))
        return self.gamma * to_map(context, x.shape[-2:]) + x


class PixelPosition(PositionAttention):
    """As DANet has it."""

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        return super().forward(x)


class DualConfig(WidthConfig):
    """What differs from ``dual``: DANet with object context behind each branch and regions from the last map but one.

    * ``gate``: features + gamma · context in place of a 1x1 convolution of both;
    * ``once``: one context, of the branches' sum;
    * ``late``: the branches' logits are averaged, not their features summed;
    * ``heads`` of the object attention, learnt ``temperature`` of the region scores;
    * ``position``: keys are pixels, pixels with their class probabilities (``guided``), or ``regions``;
    * ``regions`` from the ``middle`` map or the ``deep`` one; ``losses`` on the branches before their contexts.
    """

    gate: bool = False
    once: bool = False
    late: bool = False
    heads: int = 1
    temperature: bool = False
    position: Literal["pixels", "guided", "regions"] = "pixels"
    regions: Literal["middle", "deep"] = "middle"
    losses: bool = True


class Dual(OnFiveStages):
    """DANet with object context on its attention branches."""

    config: DualConfig
    config_type = DualConfig

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card)
        middle, deep = self.attach_backbone(pretrained)
        how, width, classes = self.config, self.config.width, len(card.classes)
        self.regions = classifier(deep if how.regions == "deep" else middle, classes, width=width, dropout=0.0)
        self.position_in, self.channel_in = conv_bn_relu(deep, width, 3), conv_bn_relu(deep, width, 3)
        self.position: nn.Module = (
            GuidedPosition(width, classes)
            if how.position == "guided"
            else {"pixels": PixelPosition, "regions": RegionPosition}[how.position](width)
        )
        self.channel = ChannelAttention()
        self.position_out, self.channel_out = conv_bn_relu(width, width, 3), conv_bn_relu(width, width, 3)
        self.contexts = nn.ModuleList(
            Context(width, width // 2, heads=how.heads, temperature=how.temperature, gate=how.gate)
            for _ in range(1 if how.once else 2)
        )
        self.classify = nn.ModuleList(self.head(width, classes) for _ in range(2 if how.late else 1))
        self.loss_weights = {"main": 1.0, "regions": 0.4}
        if how.losses:
            self.each = nn.ModuleDict({name: self.head(width, classes) for name in ("position", "channel")})
            self.loss_weights |= {"position": 1.0, "channel": 1.0}

    def head(self, width: int, classes: int) -> nn.Sequential:
        return nn.Sequential(nn.Dropout2d(self.config.dropout), nn.Conv2d(width, classes, 1))

    def logits(self, image: Tensor, *, auxiliary: bool = False) -> LogitMaps:
        middle, deep = self.backbone(image)
        regions = self.regions(deep if self.config.regions == "deep" else middle)
        position = self.position_out(self.position(self.position_in(deep), regions))
        channel = self.channel_out(self.channel(self.channel_in(deep)))
        branches = [position + channel] if self.config.once else [position, channel]
        found = [context(branch, regions) for context, branch in zip(self.contexts, branches, strict=True)]
        if self.config.late:
            main = sum(classify(x) for classify, x in zip(self.classify, found, strict=True)) / 2
        else:
            main = self.classify[0](torch.stack(found).sum(0))
        outputs = {"main": main, "regions": regions}
        if auxiliary and self.config.losses:
            outputs |= {"position": self.each["position"](position), "channel": self.each["channel"](channel)}
        return outputs


class WideValues(PositionContext):
    """The position branch's context with values of all channels: its output's, gathered, in place of an embedding's."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.up = conv_bn_relu(channels, channels)

    def forward(self, embedded: Embedded, regions: Tensor) -> Tensor:
        return super().forward(embedded._replace(key=embedded.output), regions)


class ReadingConfig(DANetOCRConfig):
    """``wide``: see ``WideValues``; ``losses``: DANet's, on both branches before their contexts."""

    wide: bool = False
    losses: bool = False


class Reading(OnFiveStages, DANetOCR):
    """The package's fusion, reading R2, with one thing changed."""

    config: ReadingConfig
    config_type = ReadingConfig

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card, pretrained=pretrained)
        width = self.config.width
        if self.config.wide:
            self.position_context = WideValues(width)
        if self.config.losses:
            self.each = nn.ModuleList(
                nn.Sequential(nn.Dropout2d(self.config.dropout), nn.Conv2d(width, len(card.classes), 1)) for _ in "ab"
            )
            self.loss_weights = {**self.loss_weights, "position": 1.0, "channel": 1.0}

    def logits(self, image: Tensor, *, auxiliary: bool = False) -> LogitMaps:
        if not (self.config.losses and auxiliary):
            return super().logits(image, auxiliary=auxiliary)
        branches: dict[str, Tensor] = {}
        hooks = [
            self.position_context.register_forward_pre_hook(lambda _, given: branches.update(position=given[0].output)),
            self.channel.register_forward_hook(lambda _, __, output: branches.update(channel=output)),
        ]
        outputs = super().logits(image, auxiliary=True)
        for hook in hooks:
            hook.remove()
        return outputs | {
            name: head(branches[name]) for head, name in zip(self.each, ("position", "channel"), strict=True)
        }
