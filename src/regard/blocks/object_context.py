"""Object-contextual representations: gather pixels into regions, distribute regions to pixels.

Source: Yuan et al., Object-Contextual Representations for Semantic Segmentation, ECCV 2020, figure 3 and
equations 8 to 11, arXiv 1909.11065.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from regard.blocks.aspp import ASPP
from regard.blocks.conv import Recipe, conv_block
from regard.ops.attention import Compared, attend, gather_objects, to_map, to_tokens
from regard.ops.resize import resize_logits


class QueryGrid(NamedTuple):
    """OCR's ``scale``: the pixels that ask are the maxima of ``scale`` x ``scale`` pixels; their context is enlarged.

    As in the authors' code, rows and columns beyond a whole number of squares ask nothing. The context is resized
    bilinearly, with the network's ``align_corners``.
    """

    scale: int = 1
    align_corners: bool = False

    def pool(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c _ _"]:
        """The features of those that ask; a map that is smaller than a square has one row or column of them."""
        if self.scale == 1:
            return pixels
        return F.max_pool2d(pixels, [min(self.scale, side) for side in pixels.shape[-2:]])

    def enlarge(self, context: Float[Tensor, "b c _ _"], like: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c h w"]:
        """Their context on the grid of the pixels."""
        if self.scale == 1:
            return context
        return resize_logits(context, like.shape[-2:], align_corners=self.align_corners)


EVERY_PIXEL = QueryGrid()


class ObjectAttention(nn.Module):
    """The context alone: what the object regions say to each pixel; keeps the number of channels."""

    over_pixels = staticmethod(gather_objects)  # of an image; of a whole scene: regard.ops.scene_sums

    def __init__(
        self, channels: int, key_channels: int, *, recipe: Recipe = "bn_relu", queries: QueryGrid = EVERY_PIXEL
    ) -> None:
        super().__init__()
        block = partial(conv_block, recipe=recipe)
        self.queries = queries
        self.scale = key_channels**-0.5
        self.pixel = nn.Sequential(block(channels, key_channels), block(key_channels, key_channels))
        self.object = nn.Sequential(block(channels, key_channels), block(key_channels, key_channels))
        self.down = block(channels, key_channels)
        self.up = block(key_channels, channels)

    def gather(self, pixels: Float[Tensor, "b c h w"], regions: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c k 1"]:
        """The k object descriptors (equation 8), as a map of k rows so that 1x1 convolutions apply."""
        return self.over_pixels(to_tokens(pixels), regions.flatten(2)).transpose(1, 2).unsqueeze(-1)

    def compared(self, pixels: Float[Tensor, "b c h w"], objects: Float[Tensor, "b c k 1"]) -> Compared:
        """The query of each pixel of the queries' grid, the key of each object region."""
        return Compared(
            self.pixel(self.queries.pool(pixels)), to_tokens(self.object(objects)), self.scale, by_region=True
        )

    def distribute(
        self, pixels: Float[Tensor, "b c h w"], objects: Float[Tensor, "b c k 1"]
    ) -> Float[Tensor, "b c h w"]:
        """Each pixel's mean of the k objects, weighted by its likeness to them (equations 9 and 10)."""
        query, key, scale, _ = self.compared(pixels, objects)
        context = attend(to_tokens(query), key, to_tokens(self.down(objects)), scale=scale)
        return self.queries.enlarge(self.up(to_map(context, query.shape[-2:])), pixels)

    def forward(self, pixels: Float[Tensor, "b c h w"], regions: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c h w"]:
        return self.distribute(pixels, self.gather(pixels, regions))


class ObjectContext(ObjectAttention):
    """Each pixel is augmented with the object regions that it resembles; keeps the number of channels.

    ``kernel`` of the fusing convolution is 3 in sssegmentation, 1 elsewhere. A ``pyramid`` (NVIDIA's OCR_ASPP) looks at
    the pixels too, and stands between context and pixels in the concatenation.
    """

    def __init__(
        self,
        channels: int,
        key_channels: int,
        *,
        dropout: float = 0.05,
        kernel: int = 1,
        pyramid: ASPP | None = None,
        recipe: Recipe = "bn_relu",
        queries: QueryGrid = EVERY_PIXEL,
    ) -> None:
        super().__init__(channels, key_channels, recipe=recipe, queries=queries)
        self.pyramid = pyramid
        joined = 2 * channels + (pyramid.out_channels if pyramid is not None else 0)
        self.fuse = nn.Sequential(conv_block(joined, channels, kernel, recipe=recipe), nn.Dropout2d(dropout))

    def forward(self, pixels: Float[Tensor, "b c h w"], regions: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c h w"]:
        return self.fuse(torch.cat(self.parts(pixels, regions), dim=1))

    def parts(
        self, pixels: Float[Tensor, "b c h w"], regions: Float[Tensor, "b k h w"]
    ) -> list[Float[Tensor, "b _ h w"]]:
        """What is concatenated and fused: the context, the pyramid if there is one, the pixels."""
        context = self.distribute(pixels, self.gather(pixels, regions))
        return [context, *([] if self.pyramid is None else [self.pyramid(pixels)]), pixels]


class ObjectPyramid(nn.Module):
    """openseg's ASP-OCR: the object context is one branch of an atrous pyramid, in the place of the image's mean."""

    def __init__(
        self,
        in_channels: int,
        width: int = 256,
        *,
        key_channels: int = 128,
        rates: Sequence[int] = (12, 24, 36),
        dropout: float = 0.1,
        recipe: Recipe = "bn_relu",
        queries: QueryGrid = EVERY_PIXEL,
    ) -> None:
        super().__init__()
        self.pixels = conv_block(in_channels, width, 3, recipe=recipe)
        self.attention = ObjectAttention(width, key_channels, recipe=recipe, queries=queries)
        self.pyramid = ASPP(in_channels, width, rates=rates, image_mean=False, recipe=recipe)
        joined = width + self.pyramid.out_channels
        self.fuse = nn.Sequential(conv_block(joined, width, recipe=recipe), nn.Dropout2d(dropout))

    def forward(self, x: Float[Tensor, "b c h w"], regions: Float[Tensor, "b k h w"]) -> Float[Tensor, "b o h w"]:
        context = self.attention(self.pixels(x), regions)
        return self.fuse(torch.cat([context, self.pyramid(x)], dim=1))
