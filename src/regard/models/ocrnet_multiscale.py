"""OCRNet at several scales, with learned attention between them.

Source: Tao et al., Hierarchical Multi-Scale Attention for Semantic Segmentation, 2020, section 3.2, arXiv 2005.10821;
NVIDIA's ``MscaleOCR``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import field_validator
from torch import Tensor, nn

from regard.blocks.conv import conv_bn_relu
from regard.card import Card
from regard.models.ocrnet import OCRNet, OCRNetConfig
from regard.models.segmenter import LogitMaps, Pretrained
from regard.ops.resize import resize_logits


class MultiScaleOCRNetConfig(OCRNetConfig):
    """``scales`` of the image, 1 among them; ``attention_width`` of the head that weighs a scale against finer ones."""

    scales: tuple[float, ...] = (0.5, 1.0)
    attention_width: int = 256

    @field_validator("scales")
    @classmethod
    def _check_scales(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if 1.0 not in scales or len(set(scales)) != len(scales) or min(scales) <= 0:
            raise ValueError(f"scales {scales} must be positive, differ, and have 1.0 among them")
        return tuple(sorted(scales))


class AtScale(NamedTuple):
    """The outputs at one scale, at the size of its own image, and the weight of this scale against finer ones."""

    main: Float[Tensor, "b k h w"]
    regions: Float[Tensor, "b k h w"]
    trust: Float[Tensor, "b 1 h w"]


class MultiScaleOCRNet(OCRNet):
    """From the finest scale to the coarsest: ``trust · this scale + (1 - trust) · all finer scales``.

    ``logits`` are on the image's own grid (``stride`` 1), since the scales meet there.
    """

    config: MultiScaleOCRNetConfig
    config_type = MultiScaleOCRNetConfig

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:
        super().__init__(card, pretrained=pretrained)
        self.stride = 1
        inner, width = self.config.attention_width, self.config.width
        self.trust = nn.Sequential(
            conv_bn_relu(width, inner, 3),
            conv_bn_relu(inner, inner, 3),
            nn.Conv2d(inner, 1, 1, bias=False),
            nn.Sigmoid(),
        )
        self.loss_weights = {"main": 1.0, "regions": 0.4} | {f"scale_{scale:g}": 0.05 for scale in self.config.scales}

    def at_scale(self, image: Float[Tensor, "b c h w"], scale: float) -> AtScale:
        """OCRNet's outputs for the image resized by ``scale``."""
        if scale != 1.0:
            image = F.interpolate(
                image,
                scale_factor=scale,
                mode="bilinear",
                align_corners=self.config.align_corners,
                recompute_scale_factor=True,
            )
        coarse, deep = self.features(image)
        regions = self.regions(coarse)
        augmented = self.object_context(self.pixels(deep), regions)
        outputs = (self.classify(augmented), regions, self.trust(augmented))
        return AtScale(*(self.at_size_of(image, output) for output in outputs))

    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        scales = {scale: self.at_scale(image, scale) for scale in sorted(self.config.scales, reverse=True)}
        outputs = {"main": self.fused(scales, "main")}
        if auxiliary:
            outputs["regions"] = self.fused(scales, "regions")
            outputs |= {f"scale_{scale:g}": self.at_size_of(image, found.main) for scale, found in scales.items()}
        return outputs

    def fused(self, scales: dict[float, AtScale], output: Literal["main", "regions"]) -> Float[Tensor, "b k _ _"]:
        """One output of all scales, fused from the finest to the coarsest."""
        (_, finest), *coarser = scales.items()
        finer: Tensor = getattr(finest, output)
        for scale, coarse in coarser:
            finer = self._fuse(finer, getattr(coarse, output), coarse.trust, scale=scale)
        return finer

    def _fuse(
        self,
        finer: Float[Tensor, "b k _ _"],
        coarse: Float[Tensor, "b k _ _"],
        trust: Float[Tensor, "b 1 _ _"],
        *,
        scale: float,
    ) -> Float[Tensor, "b k h w"]:
        """From scale 1 up, the finer scores shrink to the coarser one's size; below, the coarser grow to theirs."""
        weighted = trust * coarse
        size = coarse.shape[-2:] if scale >= 1 else finer.shape[-2:]
        finer, weighted, trust = (
            resize_logits(x, size, align_corners=self.config.align_corners) for x in (finer, weighted, trust)
        )
        return weighted + (1 - trust) * finer
