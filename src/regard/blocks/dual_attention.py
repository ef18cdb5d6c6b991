"""Position attention and channel attention, side by side.

Source: Fu et al., Dual Attention Network for Scene Segmentation, CVPR 2019, sections 3.2 and 3.3, arXiv 1809.02983.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.ops.attention import Compared, attend, to_map, to_tokens


def full_precision(device: str) -> AbstractContextManager[object]:
    """No autocast inside; nothing to switch off where the device has none (``meta``)."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


class PositionAttention(nn.Module):
    """Every pixel adds a weighted sum of all pixels: ``gamma · attend(query, key, value) + x`` (equations 1 and 2).

    The energies are not divided by sqrt(d): the paper does not, and published weights rely on it.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // reduction, 1)
        self.key = nn.Conv2d(channels, channels // reduction, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def compared(self, x: Float[Tensor, "b c h w"]) -> Compared:
        """Query and key of each pixel."""
        return Compared(self.query(x), to_tokens(self.key(x)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        query, key, *_ = self.compared(x)
        return self.gamma * to_map(attend(to_tokens(query), key, to_tokens(self.value(x))), x.shape[-2:]) + x


class ChannelAttention(nn.Module):
    """Every channel adds a weighted sum of all channels (equations 3 and 4); no projections.

    The authors' code takes softmax(max(E) - E), which is softmax(-E): channels that look alike weigh *less*.
    The paper's equation 3 has the other sign; published weights need this one. The query carries the minus.
    Energies sum over all pixels, so they stay in float32 under autocast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        with full_precision(x.device.type):
            precision = torch.promote_types(x.dtype, torch.float32)
            channels = x.flatten(2).to(precision)  # (b, c, h*w): here the channels are the tokens
            context = attend(-channels, channels, channels)
        return self.gamma * context.to(x.dtype).unflatten(2, x.shape[-2:]) + x
