"""Atrous spatial pyramid pooling.

Source: Chen et al., Rethinking Atrous Convolution, 2017, section 3.3, arXiv 1706.05587. As in NVIDIA's OCR + ASPP there is
no projection after the concatenation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.conv import conv_bn_relu


class ASPP(nn.Module):
    """The image's mean, a 1x1 and a 3x3 convolution per dilation rate, concatenated in this order."""

    def __init__(self, in_channels: int, branch_channels: int = 256, *, rates: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(in_channels, branch_channels))
        dilated = (conv_bn_relu(in_channels, branch_channels, 3, dilation=rate) for rate in rates)
        self.branches = nn.ModuleList([conv_bn_relu(in_channels, branch_channels), *dilated])
        self.out_channels = branch_channels * (2 + len(rates))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        image = F.interpolate(self.image(x), x.shape[-2:], mode="nearest")
        return torch.cat([image, *(branch(x) for branch in self.branches)], dim=1)
