"""The seed's two networks as it published them, in our words, with only the change that lets them run: one padding.

Its own DANet and the serial DANet_OCR behind it. Every suspected cause of the loss that falls and rises is a field of
``Defects``; the defaults are as published. Numbers D1 to D25 are those of the project's list of defects. The blocks
that the package has too (position, non-local and channel attention of the seed) come from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from regard.blocks.conv import SqueezeExcite
from regard.blocks.self_attention import NonLocal, PositionAttention
from regard.ops.attention import attend, gather_objects, to_map, to_tokens
from regard.ops.resize import resize_logits


@dataclass(frozen=True)
class Defects:
    """What can be repaired alone.

    * ``scrambled`` (D1 to D3): memory is read again as (pixels, channels) without moving the axes;
    * ``supervised`` (D6): whether the object regions have a loss. Scrambled code needs as many regions as channels:
      then the loss is that of a classifier of which only the first k answers are ever true; else there are k regions;
    * ``tap`` (D7): object context on DANet's scores at the image's size, or on its features at the network's stride;
    * ``norm`` (D14): one group per channel, or batch norm;
    * ``dropout`` (D23) behind the object context.
    """

    scrambled: bool = True
    supervised: bool = False
    tap: Literal["scores", "features"] = "scores"
    norm: Literal["instance", "batch"] = "instance"
    dropout: float = 0.5


def normal(channels: int, how: Defects) -> nn.Module:
    return nn.GroupNorm(channels, channels) if how.norm == "instance" else nn.BatchNorm2d(channels)


def block(inputs: int, outputs: int, kernel: int, how: Defects, *, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
    return nn.Sequential(conv, normal(outputs, how), nn.CELU(inplace=True))


def reread(x: Tensor, channels: int) -> Tensor:
    """The memory of ``(b, c, h, w)`` as ``(b, h*w, c)`` without moving an axis: what ``.view`` does in the seed."""
    return x.reshape(len(x), -1, channels)


class Pyramid(nn.Module):
    """The seed's ASPP; its last branch had padding 3 at dilation 16 and could not run on maps below 27 pixels."""

    def __init__(self, channels: int, width: int, how: Defects) -> None:
        super().__init__()
        self.branches = nn.ModuleList([block(channels, width, 1, how)])
        self.branches.extend(block(channels, width, 3, how, dilation=rate) for rate in (1, 8, 12, 16))
        self.join = block(5 * width, width, 1, how)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([branch(x) for branch in self.branches], dim=1))


class Tail(nn.Module):
    """The seed's DeepLabV3: 1x1, 3x3 and two equal pyramids."""

    def __init__(self, channels: int, width: int, how: Defects) -> None:
        super().__init__()
        self.branches = nn.ModuleList([block(channels, width, 1, how), block(channels, width, 3, how)])
        self.branches.extend(Pyramid(channels, width, how) for _ in range(2))
        self.join = block(4 * width, width, 1, how)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([branch(x) for branch in self.branches], dim=1))


class SeedHead(nn.Module):
    """Three branches (position, channel, non-local), joined, the tail, and a 3x3 convolution to ``outputs`` maps."""

    def __init__(self, deep: int, outputs: int, *, width: int, how: Defects) -> None:
        super().__init__()
        attentions = {"position": PositionAttention(width), "channel": SqueezeExcite(width), "other": NonLocal(width)}
        for name, attention in attentions.items():
            branch = nn.Sequential(block(deep, width, 3, how), attention, block(width, width, 3, how))
            self.add_module(name, branch)
        self.join = block(3 * width, width, 1, how)
        self.tail = Tail(width, width // 2, how)
        self.scores = nn.Conv2d(width // 2, outputs, 3, padding=1)

    def features(self, deep: Tensor) -> Tensor:
        branches = [self.position(deep), self.channel(deep), self.other(deep)]
        return self.tail(self.join(torch.cat(branches, dim=1)))

    def forward(self, deep: Tensor) -> Tensor:
        return self.scores(self.features(deep))


class SeedDANet(nn.Module):
    """The seed's DANet: one loss, on the joined scores."""

    loss_weights = {"main": 1.0}

    def __init__(self, backbone: nn.Module, deep: int, classes: int, *, width: int, how: Defects) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = SeedHead(deep, classes, width=width, how=how)

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        scores = self.head(self.backbone(image)[-1])
        return {"main": resize_logits(scores, image.shape[-2:], align_corners=True)}


class SeedContext(nn.Module):
    """Gather and distribute; ``scrambled`` reads memory again in all four places."""

    def __init__(self, channels: int, how: Defects) -> None:
        super().__init__()
        self.scrambled = how.scrambled
        self.pixel = nn.Sequential(block(channels, channels, 1, how), block(channels, channels, 1, how))
        self.object = nn.Sequential(block(channels, channels, 1, how), block(channels, channels, 1, how))
        self.down = block(channels, channels, 1, how)
        self.up = block(channels, channels, 1, how)

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        channels, scale = pixels.shape[1], pixels.shape[1] ** -0.5
        if self.scrambled:
            objects = gather_objects(reread(pixels, channels), regions.flatten(2)).unsqueeze(-1)
            query, key = reread(self.pixel(pixels), channels), to_tokens(self.object(objects))
            value = self.down(objects).flatten(2)
            return self.up(attend(query, key, value, scale=scale).reshape(pixels.shape))
        objects = gather_objects(to_tokens(pixels), regions.flatten(2)).transpose(1, 2).unsqueeze(-1)
        query, key, value = (
            to_tokens(self.pixel(pixels)),
            to_tokens(self.object(objects)),
            to_tokens(self.down(objects)),
        )
        return self.up(to_map(attend(query, key, value, scale=scale), pixels.shape[-2:]))


class SeedSerial(nn.Module):
    """The seed's DANet_OCR: object context behind DANet's scores."""

    def __init__(self, backbone: nn.Module, deep: int, classes: int, *, width: int, how: Defects) -> None:
        super().__init__()
        self.backbone, self.how, channels = backbone, how, width // 2
        self.head = SeedHead(deep, channels, width=width, how=how)
        last = nn.Conv2d(channels, classes if how.supervised and not how.scrambled else channels, 3, padding=1)
        first = nn.Conv2d(channels, channels, 3, padding=1)
        self.regions = nn.Sequential(first, normal(channels, how), nn.LeakyReLU(0.2, inplace=True), last)
        self.pixels = block(channels, channels, 3, how)
        self.context = SeedContext(channels, how)
        self.fuse = nn.Sequential(block(2 * channels, channels, 1, how), nn.Dropout2d(how.dropout))
        self.classify = nn.Conv2d(channels, classes, 1)
        self.loss_weights = {"main": 1.0, "regions": 0.4} if how.supervised else {"main": 1.0}

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        deep, size = self.backbone(image)[-1], image.shape[-2:]
        if self.how.tap == "scores":
            features = resize_logits(self.head(deep), size, align_corners=True)
        else:
            features = self.head.features(deep)
        regions, pixels = self.regions(features), self.pixels(features)
        main = self.classify(self.fuse(torch.cat([self.context(pixels, regions), pixels], dim=1)))
        outputs = {"main": main, "regions": regions} if self.how.supervised else {"main": main}
        return {name: resize_logits(scores, size, align_corners=True) for name, scores in outputs.items()}
