"""Squeeze-and-excitation: the seed's channel attention.

Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, equations 2 to 4; the seed's inner activation
is CELU.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """``x · sigmoid(W2 CELU(W1 mean(x)))``: one weight in 0..1 per channel and image."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.excite = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // reduction, 1),
            nn.CELU(),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.excite(x)
