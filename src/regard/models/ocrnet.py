"""OCRNet and HRNet-OCR: coarse regions first, then each pixel asks the regions.

Source: Yuan et al., Object-Contextual Representations for Semantic Segmentation, ECCV 2020, figure 3.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import field_validator
from torch import Tensor, nn

from regard.blocks.aspp import ASPP
from regard.blocks.conv import Recipe, classifier, conv_block
from regard.blocks.object_context import ObjectContext, ObjectPyramid, QueryGrid
from regard.card import Card
from regard.models.segmenter import LogitMaps, ModelConfig, Pretrained, Segmenter
from regard.ops.resize import resize_logits


class OCRNetConfig(ModelConfig):
    """What the five code bases differ in; the defaults are the paper's.

    * ``width`` pixel features, ``key_width`` of the comparison with regions, ``dropout`` behind their fusion, and
      ``fuse_kernel`` of it (3 in sssegmentation);
    * ``scale``: one query for ``scale`` x ``scale`` pixels, see ``QueryGrid``;
    * ``regions_kernel``, ``regions_width``, ``regions_dropout`` of the coarse classifier (default: 1x1 as wide as its
      input on HRNet, 3x3 and ``width`` wide on others);
    * ``aspp``: ``"before"`` (or true) an atrous pyramid before both heads (NVIDIA's OCRNetASPP), ``"inside"`` next to
      the context (NVIDIA's OCR_ASPP), ``"context"`` the context as one of the pyramid's branches (openseg's ASP-OCR);
      ``rates`` are its dilations and ``aspp_width`` the channels of each branch (of the first two);
    * ``recipe`` of the heads' convolutions.
    """

    width: int = 512
    key_width: int = 256
    dropout: float = 0.05
    fuse_kernel: Literal[1, 3] = 1
    scale: int = 1
    regions_kernel: Literal[1, 3] | None = None
    regions_width: int | None = None
    regions_dropout: float = 0.0
    aspp: Literal[False, "before", "inside", "context"] = False
    rates: tuple[int, ...] = (12, 24, 36)
    aspp_width: int = 256
    recipe: Recipe = "bn_relu"

    @field_validator("aspp", mode="before")
    @classmethod
    def _name_true(cls, aspp: Any) -> Any:
        return "before" if aspp is True else aspp


class OCRNet(Segmenter):
    """On HRNet all branches, joined, feed both regions and pixels; on others the last map but one feeds the regions."""

    config: OCRNetConfig
    loss_weights: dict[str, float] = {"main": 1.0, "regions": 0.4}
    config_type: type[OCRNetConfig] = OCRNetConfig

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card)
        config = self.config
        channels = self.attach_backbone(pretrained)
        self.joins_branches = config.backbone.removeprefix("tu-").startswith("hrnet")
        coarse, deep = channels[-2:]
        if self.joins_branches:
            self.stride, coarse, deep = 4, sum(channels), sum(channels)
        self.aspp = self.make_aspp(deep) if config.aspp == "before" else None
        if self.aspp is not None:
            coarse = deep = self.aspp.out_channels
        self.regions = classifier(
            coarse,
            len(card.classes),
            width=config.regions_width or (coarse if self.joins_branches else config.width),
            kernel=config.regions_kernel or (1 if self.joins_branches else 3),
            dropout=config.regions_dropout,
            recipe=config.recipe,
        )
        self.attach_context(deep)
        self.classify = nn.Conv2d(config.width, len(card.classes), 1)

    def make_aspp(self, channels: int) -> ASPP:
        """The atrous pyramid on a map of ``channels``."""
        return ASPP(channels, self.config.aspp_width, rates=self.config.rates, recipe=self.config.recipe)

    def attach_context(self, deep: int) -> None:
        """Make ``pixels`` and ``object_context``, in the place that ``aspp`` says."""
        config = self.config
        queries = QueryGrid(config.scale, config.align_corners)
        if config.aspp == "context":
            self.pixels: nn.Module = nn.Identity()
            self.object_context: nn.Module = ObjectPyramid(
                deep,
                config.width,
                key_channels=config.key_width,
                rates=config.rates,
                dropout=config.dropout,
                recipe=config.recipe,
                queries=queries,
            )
            return
        pyramid = self.make_aspp(config.width) if config.aspp == "inside" else None
        self.pixels = conv_block(deep, config.width, 3, recipe=config.recipe)
        self.object_context = ObjectContext(
            config.width,
            config.key_width,
            dropout=config.dropout,
            kernel=config.fuse_kernel,
            pyramid=pyramid,
            recipe=config.recipe,
            queries=queries,
        )

    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        coarse, deep = self.features(image)
        regions = self.regions(coarse)
        return {"main": self.classify(self.object_context(self.pixels(deep), regions)), "regions": regions}

    def features(self, image: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b _ _ _"], Float[Tensor, "b _ _ _"]]:
        """What the regions and what the pixels are computed from, on one grid."""
        maps = self.backbone(image)
        if self.joins_branches:
            size, corners = maps[0].shape[-2:], self.config.align_corners
            coarse = deep = torch.cat([resize_logits(x, size, align_corners=corners) for x in maps], dim=1)
        else:
            coarse, deep = (resize_logits(x, maps[-1].shape[-2:], align_corners=False) for x in maps[-2:])
        if self.aspp is not None:
            coarse = deep = self.aspp(deep)
        return coarse, deep
