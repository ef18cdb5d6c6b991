"""The seed's DANet: position, non-local and squeeze-excite attention side by side, then its DeepLab tail.

The seed freezes a ResNeXt-50 at stride 32, and its code cannot run (see ``DeepLabTail``). Here any backbone and stride
will do, the number of classes is that of the data, and each branch has a loss of its own. With
``backbone="resnext50_32x4d", output_stride=32, recipe="in_celu"`` the layers are the seed's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.aspp import DeepLabTail
from regard.blocks.conv import Recipe, conv_block
from regard.blocks.dual_attention import PositionAttention
from regard.blocks.non_local import NonLocal
from regard.blocks.squeeze_excite import SqueezeExcite
from regard.card import Card
from regard.models.segmenter import ModelConfig, Segmenter


class ThreeBranchConfig(ModelConfig):
    """``width`` inside the branches: the backbone's own, as in the seed, if not given; ``auxiliary``: a loss each."""

    width: int | None = None
    reduction: int = 8
    auxiliary: bool = True
    recipe: Recipe = "bn_relu"


class ThreeBranch(Segmenter):
    """Three attention branches, concatenated."""

    config: ThreeBranchConfig

    def __init__(self, card: Card, *, pretrained: bool | str | Path = False) -> None:
        super().__init__(card)
        self.config = config = self.parse(ThreeBranchConfig)
        deep, classes = self.attach_backbone(pretrained)[-1], len(card.classes)
        width, recipe = config.width or deep, config.recipe
        attentions = {
            "position": PositionAttention(width, config.reduction),
            "non_local": NonLocal(width),
            "channel": SqueezeExcite(width, config.reduction),
        }
        self.branches = nn.ModuleDict(
            {
                name: nn.Sequential(
                    conv_block(deep, width, 3, recipe=recipe), attention, conv_block(width, width, 3, recipe=recipe)
                )
                for name, attention in attentions.items()
            }
        )
        self.fuse = conv_block(3 * width, width, recipe=recipe)
        self.tail = DeepLabTail(width, width // 8, recipe=recipe)
        self.classify = nn.Conv2d(width // 8, classes, 3, padding=1)
        self.auxiliary = nn.ModuleDict({name: nn.Conv2d(width, classes, 1) for name in attentions if config.auxiliary})
        self.loss_weights = {"main": 1.0} | dict.fromkeys(self.auxiliary, 0.4)

    def fused(self, branches: dict[str, Float[Tensor, "b c h w"]]) -> Float[Tensor, "b k h w"]:
        """The class scores from the features of all branches."""
        return self.classify(self.tail(self.fuse(torch.cat(list(branches.values()), dim=1))))

    def logits(self, image: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b k _ _"]]:
        deep = self.backbone(image)[-1]
        branches = {name: branch(deep) for name, branch in self.branches.items()}
        single = {name: head(branches[name]) for name, head in self.auxiliary.items()}
        return {"main": self.fused(branches), **single}

    def main_logits(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k _ _"]:
        deep = self.backbone(image)[-1]
        return self.fused({name: branch(deep) for name, branch in self.branches.items()})

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return self.at_size_of(image, self.main_logits(image))
