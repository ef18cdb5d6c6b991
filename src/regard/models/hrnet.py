"""HRNet's exchange between resolutions, bilinear and for any image size.

timm upsamples with nearest neighbours by a fixed factor, which fails on sizes that are no multiple of 32; the published
networks are bilinear. Source: Wang et al., Deep High-Resolution Representation Learning, TPAMI 2020, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from regard.ops.resize import resize_logits

STAGES = ("stage2", "stage3", "stage4")


class BilinearExchange(nn.Module):
    """A timm ``HighResolutionModule`` with its coarse maps brought to each branch's own size; same parameters.

    ``two_steps``, as mmseg and sssegmentation do: first up by the factor between the strides, then to the branch's
    size. This differs from one step where the image's size is no multiple of 32.
    """

    def __init__(self, module: nn.Module, *, align_corners: bool, two_steps: bool) -> None:
        super().__init__()
        self.branches = cast(nn.ModuleList, module.branches)
        self.fuse_layers = cast(nn.ModuleList, module.fuse_layers)
        self.align_corners = align_corners
        self.two_steps = two_steps
        for target in self.fuse_layers:
            for source, layer in enumerate(cast(nn.ModuleList, target)):
                if isinstance(layer, nn.Sequential) and isinstance(layer[-1], nn.Upsample):
                    cast(nn.ModuleList, target)[source] = layer[:-1]

    def forward(self, maps: list[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ _ _"]]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self._fuse(cast(nn.ModuleList, layers), maps, index) for index, layers in enumerate(self.fuse_layers)]

    def _fuse(
        self, layers: nn.ModuleList, maps: list[Float[Tensor, "b _ _ _"]], target: int
    ) -> Float[Tensor, "b c h w"]:
        parts = [
            self._bring(layer(x), maps[target], 2 ** (source - target) if source > target else 1)
            for source, (layer, x) in enumerate(zip(layers, maps, strict=True))
        ]
        return sum(parts[1:], parts[0]).relu()

    def _bring(
        self, x: Float[Tensor, "b c _ _"], to: Float[Tensor, "b _ h w"], factor: int
    ) -> Float[Tensor, "b c h w"]:
        if self.two_steps and factor > 1:
            x = resize_logits(x, [factor * side for side in x.shape[-2:]], align_corners=self.align_corners)
        return resize_logits(x, to.shape[-2:], align_corners=self.align_corners)


def make_bilinear(network: nn.Module, *, align_corners: bool, two_steps: bool = False) -> None:
    """Replace every exchange module of a timm HRNet, in place."""
    for name in STAGES:
        stage = cast(nn.Sequential, getattr(network, name))
        for index, module in enumerate(stage):
            stage[index] = BilinearExchange(module, align_corners=align_corners, two_steps=two_steps)


def shorten(network: nn.Module, *, modules: Sequence[int], blocks: Sequence[int]) -> None:
    """Keep the first ``modules`` of stages 2 to 4 and the first ``blocks`` of each branch of stages 1 to 4."""
    first = cast(nn.Sequential, network.layer1)
    network.layer1 = first[: blocks[0]]
    for name, keep, depth in zip(STAGES, modules, blocks[1:], strict=True):
        stage = cast(nn.Sequential, getattr(network, name))[:keep]
        for module in stage:
            branches = cast(nn.ModuleList, module.branches)
            for index, branch in enumerate(branches):
                branches[index] = cast(nn.Sequential, branch)[:depth]
        setattr(network, name, stage)
