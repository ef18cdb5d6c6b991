"""Dilated ResNets as the papers have them, on top of timm's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

from regard.errors import ConfigError


def set_dilations(network: nn.Module, stage: str, rates: Sequence[int]) -> None:
    """Give the 3x3 convolution of each block of a stage its own dilation, absolute, in place.

    DANet's multi-grid is 4, 8, 16 in the last stage, which also replaces the halved rate of the first block.
    Source: the authors' training command (``--multi-grid --multi-dilation 4 8 16``).

    Raises:
        ConfigError: the network has no such stage, or the stage another number of blocks.
    """
    blocks = dict(network.named_children()).get(stage)
    if not isinstance(blocks, nn.Sequential) or len(blocks) != len(rates):
        count = f"{len(blocks)} blocks" if isinstance(blocks, nn.Sequential) else "no such stage"
        raise ConfigError(
            f"dilations {tuple(rates)} for {stage}, but the backbone has {count}. multi_grid needs a ResNet and one "
            "rate per block of its last stage."
        )
    for block, rate in zip(blocks, rates, strict=True):
        conv = spatial_conv(block)
        conv.dilation = conv.padding = (rate, rate)


def spatial_conv(block: nn.Module) -> nn.Conv2d:
    """The dilated 3x3 convolution of a residual block: the second of a bottleneck, the first of a basic block."""
    return cast(nn.Conv2d, block.conv2 if hasattr(block, "conv3") else block.conv1)


def dilate_first_only(network: nn.Module) -> None:
    """No dilation in the second convolution of basic blocks (ResNet-18, -34), as mmseg and sssegmentation have it."""
    for block in network.modules():
        if hasattr(block, "conv2") and not hasattr(block, "conv3"):
            conv = cast(nn.Conv2d, block.conv2)
            conv.dilation = conv.padding = (1, 1)


def keep_dilation(network: nn.Module) -> None:
    """Dilation 2 and 4 in every block of the last two stages, the first ones included, as NVIDIA's ResNets have it."""
    for stage, rate in (("layer3", 2), ("layer4", 4)):
        set_dilations(network, stage, [rate] * len(cast(nn.Sequential, getattr(network, stage))))
