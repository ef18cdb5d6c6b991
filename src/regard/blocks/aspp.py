"""Atrous spatial pyramid pooling, and the seed's tail of two of them.

Source: Chen et al., Rethinking Atrous Convolution, 2017, section 3.3, arXiv 1706.05587. As in NVIDIA's OCR + ASPP there
is no projection after the concatenation unless ``project`` asks for one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.conv import Recipe, conv_block


class ASPP(nn.Module):
    """The image's mean, a 1x1 and a 3x3 convolution per dilation rate, concatenated in this order."""

    def __init__(
        self,
        in_channels: int,
        branch_channels: int = 256,
        *,
        rates: Sequence[int] = (12, 24, 36),
        image_mean: bool = True,
        project: int | None = None,
        recipe: Recipe = "bn_relu",
    ) -> None:
        super().__init__()
        mean = (nn.AdaptiveAvgPool2d(1), conv_block(in_channels, branch_channels, recipe=recipe))
        self.image = nn.Sequential(*mean) if image_mean else None
        dilated = (conv_block(in_channels, branch_channels, 3, dilation=rate, recipe=recipe) for rate in rates)
        self.branches = nn.ModuleList([conv_block(in_channels, branch_channels, recipe=recipe), *dilated])
        width = branch_channels * (1 + len(rates) + image_mean)
        self.project = conv_block(width, project, recipe=recipe) if project else None
        self.out_channels = project or width

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        parts = [branch(x) for branch in self.branches]
        if self.image is not None:
            parts.insert(0, F.interpolate(self.image(x), x.shape[-2:], mode="nearest"))
        joined = torch.cat(parts, dim=1)
        return joined if self.project is None else self.project(joined)


class DeepLabTail(nn.Module):
    """A 1x1, a 3x3 and two atrous pyramids side by side, fused by a 1x1 convolution.

    Source: the seed's ``DeepLabV3``. There the branch of rate 16 is padded by 3 instead of 16 and resized back, which
    fails below 27 pixels, and each pyramid holds an image branch that is never called; here the padding is 16, and
    that branch is left out.
    """

    def __init__(
        self,
        in_channels: int,
        width: int = 256,
        *,
        rates: Sequence[int] = (1, 8, 12, 16),
        recipe: Recipe = "bn_relu",
    ) -> None:
        super().__init__()
        self.point = conv_block(in_channels, width, recipe=recipe)
        self.local = conv_block(in_channels, width, 3, recipe=recipe)
        self.pyramids = nn.ModuleList(
            [ASPP(in_channels, width, rates=rates, image_mean=False, project=width, recipe=recipe) for _ in range(2)]
        )
        self.fuse = conv_block(4 * width, width, recipe=recipe)
        self.out_channels = width

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        return self.fuse(torch.cat([self.point(x), self.local(x), *(pyramid(x) for pyramid in self.pyramids)], dim=1))
