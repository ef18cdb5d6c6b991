"""What the heads are built of: convolution blocks, a small classifier, and the squeeze-and-excitation gate."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

Recipe = Literal["bn_relu", "bn_leaky_relu", "in_celu"]


def conv_block(
    in_channels: int, out_channels: int, kernel: int = 1, *, dilation: int = 1, recipe: Recipe = "bn_relu"
) -> nn.Sequential:
    """Bias-free convolution, normalisation, activation; keeps height and width.

    * ``bn_relu``: batch norm, ReLU; every published network but
    * ``bn_leaky_relu``: openseg's InPlaceABN, slope 0.01;
    * ``in_celu``: the seed's GroupNorm of one channel a group (= instance norm with scale and shift), then CELU.
    """
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
    if recipe == "in_celu":
        return nn.Sequential(conv, nn.GroupNorm(out_channels, out_channels), nn.CELU(inplace=True))
    activation = nn.ReLU(inplace=True) if recipe == "bn_relu" else nn.LeakyReLU(0.01, inplace=True)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), activation)


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int = 1, *, dilation: int = 1) -> nn.Sequential:
    """Bias-free convolution, batch norm, ReLU; keeps height and width."""
    return conv_block(in_channels, out_channels, kernel, dilation=dilation)


def classifier(
    in_channels: int,
    classes: int,
    *,
    width: int,
    kernel: int = 3,
    dropout: float = 0.1,
    recipe: Recipe = "bn_relu",
) -> nn.Sequential:
    """A small fully convolutional head: convolution block, Dropout2d, 1x1 convolution to logits.

    Source: Long et al., Fully Convolutional Networks, CVPR 2015; as the auxiliary head of mmseg, openseg and HRNet-OCR.
    """
    block = conv_block(in_channels, width, kernel, recipe=recipe)
    return nn.Sequential(block, nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1))


class SqueezeExcite(nn.Module):
    """``x · sigmoid(W2 CELU(W1 mean(x)))``: one weight in 0..1 per channel and image.

    Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, equations 2 to 4; the seed's CELU inside.
    """

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
