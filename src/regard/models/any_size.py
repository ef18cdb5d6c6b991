"""Any timm network on images of any size: padded images, maps channels first, at a stride that windows can have.

* Images are padded with zeros, at their right and lower edges, to a multiple of what the network divides them into.
* The maps of a network of one scale (ViT) are brought to the output stride by deconvolutions or by pooling, as in the
  simple feature pyramid of Li et al., Exploring Plain Vision Transformer Backbones, ECCV 2022, arXiv 2203.16527.
* A network of several scales that cannot be dilated (Swin, MambaOut) gives its maps from the output stride on, resized
  and concatenated, as HRNet's are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)  # that divide the places of windows
Maps = list[Float[Tensor, "b _ _ _"]]


class AnySize(nn.Module):
    """A timm network with maps at ``strides`` for images of any size. ``neck`` alone is not of the network itself."""

    def __init__(self, network: nn.Module, neck: nn.Module, strides: Sequence[int], pad: int) -> None:
        super().__init__()
        self.network, self.neck, self.strides, self.pad = network, neck, list(strides), pad
        self.channels_last = _is_channels_last(network)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Maps:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % self.pad, 0, -height % self.pad))
        maps = self.network(image)
        if self.channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        maps = self.neck(maps, [side // self.strides[-1] for side in image.shape[-2:]])
        # The sizes as -(-a // b) are what torch.export can follow.
        return [x[:, :, : -(-height // step), : -(-width // step)] for x, step in zip(maps, self.strides, strict=True)]


def network_of(backbone: nn.Module) -> nn.Module:
    """What has pretrained weights: the backbone without a neck of ours."""
    return backbone.network if isinstance(backbone, AnySize) else backbone


class Unchanged(nn.Module):
    """The maps as they are."""

    def forward(self, maps: Maps, size: Sequence[int]) -> Maps:
        return maps


class Joined(nn.Module):
    """The last map is all from ``first`` on, resized to ``size`` and concatenated."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def forward(self, maps: Maps, size: Sequence[int]) -> Maps:
        joined = [F.interpolate(x, tuple(size), mode="bilinear", align_corners=False) for x in maps[self.first :]]
        return [*maps[:-1], torch.cat(joined, dim=1)]


class Pyramid(nn.Module):
    """The last two maps of a network of one scale, each normalised and brought from stride ``patch`` to ``stride``."""

    def __init__(self, channels: Sequence[int], patch: int, stride: int) -> None:
        super().__init__()
        self.fits = math.log2(patch / stride).is_integer()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels)
        self.steps = nn.ModuleList(_steps(width, patch, stride) for width in channels)

    def forward(self, maps: Maps, size: Sequence[int]) -> Maps:
        maps = maps[-len(self.norms) :]
        scaled = [
            steps(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
            for x, norm, steps in zip(maps, self.norms, self.steps, strict=True)
        ]
        if self.fits:
            return scaled
        return [F.interpolate(x, tuple(size), mode="bilinear", align_corners=False) for x in scaled]


def _steps(channels: int, patch: int, stride: int) -> nn.Sequential:
    """To the power of two times ``patch`` that is next to ``stride``; the rest is for bilinear resizing."""
    power = round(math.log2(patch / stride))
    if power < 0:
        return nn.Sequential(nn.MaxPool2d(2**-power))
    doubled = [part for _ in range(power) for part in (nn.ConvTranspose2d(channels, channels, 2, 2), nn.GELU())]
    return nn.Sequential(*doubled[:-1])


def fit(
    network: nn.Module, channels: Sequence[int], strides: Sequence[int], *, wanted: int | None, pad: int
) -> tuple[nn.Module, list[int], list[int]] | None:
    """The network with its last map at stride ``wanted``, channels and strides; None if it cannot have it.

    Without ``wanted`` the stride stays, if windows can have it. A network that needs nothing is returned as it is.
    """
    last = strides[-1]
    wanted = wanted or min(STRIDES, key=lambda stride: abs(math.log2(last / stride)))
    if len(set(strides)) == 1:
        widths = list(channels[-2:])
        neck: nn.Module = Pyramid(widths, last, wanted)
        two = [wanted] * len(widths)
        return AnySize(network, neck, two, math.lcm(pad, last, wanted)), widths, two
    if last > wanted:
        first = next(index for index, stride in enumerate(strides) if stride >= wanted)
        widths, steps = [*channels[:-1], sum(channels[first:])], [*strides[:-1], wanted]
        return AnySize(network, Joined(first), steps, math.lcm(pad, last)), widths, steps
    if last < wanted:
        return None
    if pad > 1 or _is_channels_last(network):
        network = AnySize(network, Unchanged(), strides, pad)
    return network, list(channels), list(strides)


def found_padding(network: nn.Module, device: str, native: int) -> int | None:
    """The multiple that images must be padded to; 1 for none, None if there is none.

    Networks that lose cells at the edges (Inception) need three cells at least.
    """
    coarsest = max(_strides(network))
    odd = torch.zeros(1, 3, 3 * coarsest + 1, 4 * coarsest - 1, device=device)
    if takes(network, odd):
        return 1
    for side in (coarsest, 2 * coarsest, native):
        if takes(network, torch.zeros(1, 3, side, 2 * side, device=device)):
            return side
    return 3 * coarsest if takes(network, F.pad(odd, (0, 4 * coarsest, 0, 4 * coarsest)), within=6) else None


def takes(network: nn.Module, image: Float[Tensor, "1 c h w"], *, within: int = 0) -> bool:
    """Whether the network takes such an image, and its maps have the sizes that their strides say.

    ``within`` so many cells; a network of convolutions without padding loses some at the edges.
    """
    try:
        with torch.no_grad():
            maps = network(image)
    except Exception:  # timm asserts, and stumbles over shapes in many ways
        return False
    axes = (1, 2) if _is_channels_last(network) else (2, 3)
    cells = [
        (x.shape[axis], math.ceil(side / stride))
        for x, stride in zip(maps, _strides(network), strict=True)
        for axis, side in zip(axes, image.shape[-2:], strict=True)
    ]
    return all(abs(found - expected) <= within for found, expected in cells)


def _strides(network: nn.Module) -> list[int]:
    info: Any = network.feature_info
    return list(info.reduction())


def _is_channels_last(network: nn.Module) -> bool:
    return str(getattr(network, "output_fmt", "")).endswith("NHWC")
