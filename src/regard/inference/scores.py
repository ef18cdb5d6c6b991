"""Pixels to class scores: the only place where pixel values are normalised, moved to the device and scored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.inference.views import Views, class_scores
from regard.io.image import Pixels
from regard.models import Segmenter
from regard.ops.normalise import prepare


def network_input(model: Segmenter, pixels: Pixels) -> Float[Tensor, "c h w"]:
    """The pixels of an image, normalised as the model's card says, on the CPU; 0 where there is no data.

    Raises:
        BandMismatch: values beyond 8 bits for a model of 8-bit images.
    """
    return prepare(pixels.values, pixels.valid, model.scaling)


def scores_of(model: Segmenter, pixels: Pixels, views: Views = Views()) -> Float[Tensor, "k h w"]:
    """Class scores of every pixel of an image or window, on the model's device; their softmax is the probability.

    Raises:
        BandMismatch: see :func:`network_input`.
    """
    return class_scores(model, network_input(model, pixels)[None].to(model.device), views)[0]


@torch.inference_mode()
def grid_scores(model: Segmenter, windows: Sequence[Pixels], views: Views = Views()) -> Float[Tensor, "b k _ _"]:
    """Class scores of windows of one size, on the CPU, at the centres of cells of ``stride`` pixels.

    For a single view they are the logits that the network computes on its own grid, where that has these centres.

    Raises:
        BandMismatch: see :func:`network_input`.
    """
    images = [network_input(model, pixels) for pixels in windows]
    image = (images[0][None] if len(images) == 1 else torch.stack(images)).to(model.device)
    if views == Views() and not model.config.align_corners:
        return model.logits(image)["main"].float().cpu()
    cells = [length // model.stride for length in image.shape[-2:]]
    return F.interpolate(class_scores(model, image, views), cells, mode="bilinear", align_corners=False).cpu()
