"""Pixels to class scores: the only place where pixel values are normalised, moved to the device and scored.

The views of an image (scales, mirror images, rotations, windows) are fused here: test-time augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.card import Scaling
from regard.classes import ClassMap
from regard.inference.values import check_image, check_range
from regard.io.image import Pixels
from regard.models import Segmenter
from regard.ops.resize import resize_logits
from regard.ops.windows import starts
from regard.options import Views


@contextmanager
def evaluating(model: Segmenter) -> Iterator[Segmenter]:
    """The model in eval mode; afterwards it is as it was."""
    was_training = model.training
    try:
        yield model.eval()
    finally:
        model.train(was_training)


def views_of(views: Views, model: Segmenter) -> Views:
    """The views with a window or None for the whole image: as given, else as the model was scored by its card."""
    return replace(views, window=(model.card.window if views.window is None else views.window) or None)


def scores_of(model: Segmenter, pixels: Pixels, views: Views = Views()) -> Float[Tensor, "k h w"]:
    """Class scores of every pixel of an image or window, on the model's device; their softmax is the probability.

    Raises:
        BandMismatch: see :func:`regard.inference.values.check_values`.
    """
    check_image(pixels, model.scaling)
    return class_scores(model, prepare(*pixels, model.scaling)[None].to(model.device), views)[0]


@torch.inference_mode()
def grid_scores(model: Segmenter, windows: Sequence[Pixels], views: Views = Views()) -> Float[Tensor, "b k _ _"]:
    """Class scores of windows of one size, on the CPU, at the centres of cells of ``stride`` pixels.

    For a single view they are the logits that the network computes on its own grid, where that has these centres.
    """
    images = [prepare(*pixels, model.scaling) for pixels in windows]
    image = (images[0][None] if len(images) == 1 else torch.stack(images)).to(model.device)
    if views.single and not views.window and not model.config.align_corners:
        return model.calibrated(model.logits(image)["main"].float()).cpu()
    cells = [length // model.stride for length in image.shape[-2:]]
    return F.interpolate(class_scores(model, image, views), cells, mode="bilinear", align_corners=False).cpu()


def prepare(image: np.ndarray, valid: np.ndarray, scaling: Scaling) -> Float[Tensor, "c h w"]:
    """The pixels of an image (c, h, w), normalised as the model's card says, on the CPU; 0 where there is no data.

    Raises:
        BandMismatch: see :func:`regard.inference.values.check_range`.
    """
    clean = np.where(valid, image, 0)
    check_range(clean, scaling.divisor)
    values = torch.from_numpy(clean.astype(np.float32)).div_(scaling.divisor)
    return normalise(values, scaling, torch.from_numpy(valid.astype(np.float32)))


def normalise(
    values: Float[Tensor, "*b c h w"], scaling: Scaling, valid: Float[Tensor, "*b h w"]
) -> Float[Tensor, "*b c h w"]:
    """``(values - mean) / std`` in place, zero (the mean) where there is no data, so that it does not bleed."""
    mean = torch.tensor(scaling.mean, dtype=torch.float32)[:, None, None]
    std = torch.tensor(scaling.std, dtype=torch.float32)[:, None, None]
    return values.sub_(mean).div_(std).masked_fill_(valid.unsqueeze(-3) <= 0, 0.0)


@torch.inference_mode()
def class_scores(model: Segmenter, image: Float[Tensor, "b c h w"], views: Views = Views()) -> Float[Tensor, "b k h w"]:
    """Scores of normalised images, at their size; the softmax of the scores is the class probability."""
    if views.single and (views.fusion == "probabilities" or not views.window):
        return _by_windows(model, image, views.window)
    if views.fusion != "probabilities":
        network = ExponentialLogits(model, views.flip, 0.5 if views.fusion == "logits" else 1.0)
        return _log_of_sum(network, image, views.scales, views.window)
    every = list(
        product(views.scales, (False, True) if views.flip or views.d4 else (False,), range(4 if views.d4 else 1))
    )
    total = image.new_zeros(1)
    for scale, flipped, turns in every:
        view = _scaled(image, scale).rot90(turns, (-2, -1))
        scores = _by_windows(model, view.flip(-1) if flipped else view, views.window)
        scores = (scores.flip(-1) if flipped else scores).rot90(-turns, (-2, -1))
        total = total + resize_logits(scores, image.shape[-2:], align_corners=False).softmax(dim=1)
    return (total / len(every)).clamp(min=torch.finfo(total.dtype).tiny).log()


class ExponentialLogits(NamedTuple):
    """exp(factor × (logits + logits of the mirror image)) of an image, in float64; without ``flip`` exp(logits)."""

    model: Segmenter
    flip: bool
    factor: float

    @property
    def classes(self) -> ClassMap:
        return self.model.classes

    def __call__(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        logits = self.model.calibrated(self.model(image).double())
        if self.flip:
            logits = self.factor * (logits + self.model.calibrated(self.model(image.flip(-1))).flip(-1))
        return logits.clamp(-700, 700).exp()  # what float64 can hold


def _log_of_sum(
    network: ExponentialLogits, image: Float[Tensor, "b c h w"], scales: Sequence[float], window: int | None
) -> Float[Tensor, "b k h w"]:
    total = image.new_zeros(1, dtype=torch.float64)
    for scale in scales:
        found = _by_windows(network, _scaled(image, scale), window)
        total = total + resize_logits(found, image.shape[-2:], align_corners=False)
    return total.log().float()


def _scaled(image: Float[Tensor, "b c h w"], scale: float) -> Float[Tensor, "b c H W"]:
    if scale == 1.0:
        return image
    size = [max(1, round(length * scale)) for length in image.shape[-2:]]
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=scale < 1)


def _by_windows(
    network: Segmenter | ExponentialLogits, image: Float[Tensor, "b c h w"], window: int | None
) -> Float[Tensor, "b k h w"]:
    """The network's output for the whole image, or the mean over windows where they overlap; float32 or float64."""
    height, width = image.shape[-2:]
    scored = network if isinstance(network, ExponentialLogits) else lambda part: network.calibrated(network(part))
    if not window or max(height, width) <= window:
        scores = scored(image)
        return scores.to(torch.promote_types(scores.dtype, torch.float32))
    dtype = torch.float32 if isinstance(network, Segmenter) else torch.float64
    total = image.new_zeros(len(image), len(network.classes), height, width, dtype=dtype)
    count = image.new_zeros(height, width)
    for top in starts(height, window, window * 2 // 3):
        for left in starts(width, window, window * 2 // 3):
            part = (..., slice(top, top + window), slice(left, left + window))
            total[part] += scored(image[part])
            count[part] += 1
    return total / count
