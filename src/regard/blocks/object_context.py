"""Object-contextual representations: gather pixels into regions, distribute regions to pixels.

Source: Yuan et al., Object-Contextual Representations for Semantic Segmentation, ECCV 2020, figure 3 and
equations 8 to 11, arXiv 1909.11065.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.conv import conv_bn_relu
from regard.ops.attention import attend, gather_objects, to_map, to_tokens


class ObjectContext(nn.Module):
    """Each pixel is augmented with the object regions that it resembles; keeps the number of channels."""

    def __init__(self, channels: int, key_channels: int, *, dropout: float = 0.05) -> None:
        super().__init__()
        self.scale = key_channels**-0.5
        self.pixel = nn.Sequential(conv_bn_relu(channels, key_channels), conv_bn_relu(key_channels, key_channels))
        self.object = nn.Sequential(conv_bn_relu(channels, key_channels), conv_bn_relu(key_channels, key_channels))
        self.down = conv_bn_relu(channels, key_channels)
        self.up = conv_bn_relu(key_channels, channels)
        self.fuse = nn.Sequential(conv_bn_relu(2 * channels, channels), nn.Dropout2d(dropout))

    def gather(self, pixels: Float[Tensor, "b c h w"], regions: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c k 1"]:
        """The k object descriptors (equation 8), as a map of k rows so that 1x1 convolutions apply."""
        return gather_objects(to_tokens(pixels), regions.flatten(2)).transpose(1, 2).unsqueeze(-1)

    def distribute(
        self, pixels: Float[Tensor, "b c h w"], objects: Float[Tensor, "b c k 1"]
    ) -> Float[Tensor, "b c h w"]:
        """Each pixel's mean of the k objects, weighted by its likeness to them (equations 9 and 10)."""
        query = to_tokens(self.pixel(pixels))
        key, value = to_tokens(self.object(objects)), to_tokens(self.down(objects))
        return self.up(to_map(attend(query, key, value, scale=self.scale), pixels.shape[-2:]))

    def forward(self, pixels: Float[Tensor, "b c h w"], regions: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c h w"]:
        context = self.distribute(pixels, self.gather(pixels, regions))
        return self.fuse(torch.cat([context, pixels], dim=1))
