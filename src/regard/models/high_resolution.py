"""HRNet's exchange between resolutions, bilinear and for any image size.

timm upsamples with nearest neighbours by a fixed factor, which fails on sizes that are no multiple of 32; the published
networks are bilinear. Source: Wang et al., Deep High-Resolution Representation Learning, TPAMI 2020, section 3.1.
"""

from __future__ import annotations

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from regard.ops.resize import resize_logits


class BilinearExchange(nn.Module):
    """A timm ``HighResolutionModule`` with its coarse maps brought to each branch's own size; same parameters and names."""

    def __init__(self, module: nn.Module, *, align_corners: bool) -> None:
        super().__init__()
        self.branches = cast(nn.ModuleList, module.branches)
        self.fuse_layers = cast(nn.ModuleList, module.fuse_layers)
        self.align_corners = align_corners
        for target in self.fuse_layers:
            for source, layer in enumerate(cast(nn.ModuleList, target)):
                if isinstance(layer, nn.Sequential) and isinstance(layer[-1], nn.Upsample):
                    cast(nn.ModuleList, target)[source] = layer[:-1]

    def forward(self, maps: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [
            self._fuse(cast(nn.ModuleList, layers), maps, x) for layers, x in zip(self.fuse_layers, maps, strict=False)
        ]

    def _fuse(
        self, layers: nn.ModuleList, maps: list[Float[Tensor, "b _ _ _"]], own: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        size = own.shape[-2:]
        parts = [
            resize_logits(layer(x), size, align_corners=self.align_corners)
            for layer, x in zip(layers, maps, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total.relu()


def make_bilinear(network: nn.Module, *, align_corners: bool) -> None:
    """Replace every exchange module of a timm HRNet, in place."""
    for name in ("stage2", "stage3", "stage4"):
        stage = cast(nn.Sequential, getattr(network, name))
        for index, module in enumerate(stage):
            stage[index] = BilinearExchange(module, align_corners=align_corners)
