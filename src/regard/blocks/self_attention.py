"""Self-attention over pixels and over channels: DANet's two blocks and the non-local blocks of the seed project.

Source: Fu et al., Dual Attention Network for Scene Segmentation, CVPR 2019, sections 3.2 and 3.3, arXiv 1809.02983;
Wang et al., Non-local Neural Networks, CVPR 2018, equation 2; the seed's NonLocalAttention and
NonLocalPositionAttention (published code: CELU activations, no scale, no residual).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.ops.attention import Compared, attend, to_map, to_tokens, without_autocast


class PositionAttention(nn.Module):
    """Every pixel adds a weighted sum of all pixels: ``gamma · attend(query, key, value) + x`` (equations 1 and 2).

    The energies are not divided by sqrt(d): the paper does not, and published weights rely on it.
    """

    attend = staticmethod(attend)  # to the pixels of an image; to a whole scene: regard.ops.scene_sums

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
        return self.gamma * to_map(self.attend(to_tokens(query), key, to_tokens(self.value(x))), x.shape[-2:]) + x


def mix(channels: Float[Tensor, "b c n"]) -> Float[Tensor, "b c n"]:
    """The weighted sum of all channels that each channel adds."""
    return attend(-channels, channels, channels)


class ChannelAttention(nn.Module):
    """Every channel adds a weighted sum of all channels (equations 3 and 4); no projections.

    The authors' code takes softmax(max(E) - E), which is softmax(-E): channels that look alike weigh *less*.
    The paper's equation 3 has the other sign; published weights need this one. The query carries the minus.
    Energies sum over all pixels, so they stay in float32 under autocast.
    """

    mix = staticmethod(mix)  # by energies of an image; of a whole scene: regard.ops.scene_sums

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        with without_autocast(x.device):
            precision = torch.promote_types(x.dtype, torch.float32)
            channels = x.flatten(2).to(precision)  # (b, c, h*w): here the channels are the tokens
            context = self.mix(channels)
        return self.gamma * context.to(x.dtype).unflatten(2, x.shape[-2:]) + x


class NonLocal(nn.Module):
    """``attend(query, key, value)`` of three activated 1x1 projections at full width: no scale, no residual."""

    attend = staticmethod(attend)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.CELU())
        self.key = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.CELU())
        self.value = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.CELU())

    def compared(self, x: Float[Tensor, "b c h w"]) -> Compared:
        """Query and key of each pixel."""
        return Compared(self.query(x), to_tokens(self.key(x)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        query, key, *_ = self.compared(x)
        return to_map(self.attend(to_tokens(query), key, to_tokens(self.value(x))), x.shape[-2:])


class Embedded(NamedTuple):
    """What non-local position attention computes: its output and the two embeddings it compared."""

    output: Float[Tensor, "b c h w"]
    query: Float[Tensor, "b d h w"]
    key: Float[Tensor, "b d h w"]


class NonLocalPosition(nn.Module):
    """``alpha · attend(E1, E2, x) + ReLU(W3 x)`` with E1 = ReLU(W1 x), E2 = ReLU(W2 x); alpha starts at 0."""

    attend = staticmethod(attend)

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Conv2d(channels, channels // reduction, 1), nn.ReLU())
        self.key = nn.Sequential(nn.Conv2d(channels, channels // reduction, 1), nn.ReLU())
        self.assemble = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU())
        self.alpha = nn.Parameter(torch.zeros(1))

    def compared(self, x: Float[Tensor, "b c h w"]) -> Compared:
        """Query and key of each pixel."""
        return Compared(self.query(x), to_tokens(self.key(x)))

    def embed(self, x: Float[Tensor, "b c h w"]) -> Embedded:
        """The output together with both embeddings, which the fusion hands on to its object context."""
        query, key, *_ = self.compared(x)
        context = to_map(self.attend(to_tokens(query), key, to_tokens(x)), x.shape[-2:])
        return Embedded(self.alpha * context + self.assemble(x), query, to_map(key, x.shape[-2:]))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.embed(x).output
