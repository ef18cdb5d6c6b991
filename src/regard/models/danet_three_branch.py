"""The seed's DANet: position, non-local and squeeze-excite attention side by side, then its DeepLab tail.

The seed freezes a ResNeXt-50 at stride 32, and its code cannot run (see ``DeepLabTail``). Here any backbone and stride
will do, the number of classes is that of the data, and each branch has a loss of its own. With
``backbone="resnext50_32x4d", output_stride=32, recipe="in_celu"`` the layers are the seed's.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.aspp import DeepLabTail
from regard.blocks.conv import Recipe, SqueezeExcite, conv_block
from regard.blocks.self_attention import NonLocal, PositionAttention
from regard.card import Card
from regard.models.segmenter import LogitMaps, ModelConfig, Pretrained, Segmenter


class DANetThreeBranchConfig(ModelConfig):
    """``width`` inside the branches: the backbone's own, as in the seed, if not given; ``auxiliary``: a loss each."""

    width: int | None = None
    reduction: int = 8
    auxiliary: bool = True
    recipe: Recipe = "bn_relu"


class DANetThreeBranch(Segmenter):
    """Three attention branches, concatenated."""

    config: DANetThreeBranchConfig
    config_type = DANetThreeBranchConfig

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card)
        config = self.config
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

    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        deep = self.backbone(image)[-1]
        branches = {name: branch(deep) for name, branch in self.branches.items()}
        fused = self.fuse(torch.cat(list(branches.values()), dim=1))
        outputs = {"main": self.classify(self.tail(fused))}
        return outputs | {name: head(branches[name]) for name, head in self.auxiliary.items()} if auxiliary else outputs
