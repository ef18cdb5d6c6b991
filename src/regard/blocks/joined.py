"""Maps side by side, and convolutions that need not put them so."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from regard.ops.joined import convolve_joined, join_maps


class Join(nn.Module):
    """Several maps, brought to the size of the first, as one."""

    def __init__(self, *, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, maps: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b c h w"]:
        return join_maps(maps, align_corners=self.align_corners)


class JoinedConv(nn.Module):
    """``conv(join(maps))`` in one step, for inference."""

    def __init__(self, conv: nn.Conv2d, join: Join) -> None:
        super().__init__()
        self.conv, self.join = conv, join

    def forward(self, maps: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b c h w"]:
        if maps[0].device.type != "cpu":
            return self.conv(self.join(maps))
        return convolve_joined(maps, self.conv.weight, self.conv.bias, align_corners=self.join.align_corners)
