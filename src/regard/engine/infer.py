"""One batch of images to class scores: as it is, at several scales, flipped, or by sliding window."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.data.augment import Scaling
from regard.errors import ConfigError
from regard.models import Segmenter
from regard.ops.resize import resize_logits
from regard.ops.windows import starts


def scaling_of(model: Segmenter) -> Scaling:
    """How raw values enter this model."""
    return Scaling(model.card.mean, model.card.std, model.card.divisor)


@torch.inference_mode()
def class_scores(
    model: Segmenter,
    image: Float[Tensor, "b c h w"],
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: int | None = None,
) -> Float[Tensor, "b k h w"]:
    """Scores at the image's size whose softmax is the class probability.

    One scale without flip gives the model's own logits. Several views give the log of their mean probability, as
    mmsegmentation averages. ``window`` looks through squares of that many pixels, two thirds apart.

    Raises:
        ConfigError: an impossible scale or window.
    """
    if not scales or min(scales) <= 0 or (window is not None and window < 2):
        raise ConfigError(
            f"got scales {list(scales)}, window {window}; need scales above 0 and a window of 2 pixels or more."
        )
    views = [(scale, flipped) for scale in scales for flipped in ((False, True) if flip else (False,))]
    if views == [(1.0, False)]:
        return _look(model, image, window)
    total = image.new_zeros(1)
    for scale, flipped in views:
        view = _scaled(image, scale)
        scores = _look(model, view.flip(-1) if flipped else view, window)
        scores = scores.flip(-1) if flipped else scores
        total = total + resize_logits(scores, image.shape[-2:], align_corners=False).softmax(dim=1)
    return (total / len(views)).log()


def _scaled(image: Float[Tensor, "b c h w"], scale: float) -> Float[Tensor, "b c H W"]:
    if scale == 1.0:
        return image
    size = [max(1, round(length * scale)) for length in image.shape[-2:]]
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=scale < 1)


def _look(model: Segmenter, image: Float[Tensor, "b c h w"], window: int | None) -> Float[Tensor, "b k h w"]:
    """Logits of the whole image, or the mean over windows where they overlap."""
    height, width = image.shape[-2:]
    if window is None or max(height, width) <= window:
        return model(image).float()
    total = image.new_zeros(len(image), len(model.classes), height, width)
    count = image.new_zeros(height, width)
    for top in starts(height, window, window * 2 // 3):
        for left in starts(width, window, window * 2 // 3):
            part = (..., slice(top, top + window), slice(left, left + window))
            total[part] += model(image[part]).float()
            count[part] += 1
    return total / count
