"""The one convolution recipe that the heads are built of."""

from __future__ import annotations

from torch import nn


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int = 1, *, dilation: int = 1) -> nn.Sequential:
    """Bias-free convolution, batch norm, ReLU; keeps height and width."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
