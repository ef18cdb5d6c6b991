"""One batch of images to class scores: as it is, at several scales, flipped, or by sliding window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.classes import ClassMap
from regard.errors import ConfigError
from regard.models import Segmenter
from regard.ops.normalise import Scaling
from regard.ops.resize import resize_logits
from regard.ops.windows import starts

Averaging = Literal["softmax", "logits", "exp"]


def scaling_of(model: Segmenter) -> Scaling:
    """How raw values enter this model."""
    return Scaling(model.card.mean, model.card.std, model.card.divisor)


@contextmanager
def evaluating(model: Segmenter) -> Iterator[Segmenter]:
    """The model in eval mode; afterwards it is as it was."""
    was_training = model.training
    try:
        yield model.eval()
    finally:
        model.train(was_training)


@torch.inference_mode()
def class_scores(
    model: Segmenter,
    image: Float[Tensor, "b c h w"],
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    d4: bool = False,
    window: int | None = None,
    averaging: Averaging = "softmax",
) -> Float[Tensor, "b k h w"]:
    """Scores at the image's size whose softmax is the class probability.

    One scale without flip gives the model's own logits. ``d4`` looks at the image and its mirror image in all four
    quarter turns, for views from above; it is averaged as ``softmax``. ``window`` looks through squares of
    that many pixels, two thirds apart. Several views are averaged as a code base does it:

    - ``softmax``: the log of the mean probability of all views; windows average logits. Source: mmsegmentation.
    - ``logits``: by scale and window exp(mean of the logits of the image and its mirror image), summed over scales;
      the log of that. Source: HRNet-OCR, ``multi_scale_inference``.
    - ``exp``: the same with exp(sum of the two). Source: DANet, ``MultiEvalModule``.

    Raises:
        ConfigError: an impossible scale, window or averaging.
    """
    if not scales or min(scales) <= 0 or (window is not None and window < 2):
        raise ConfigError(
            f"got scales {list(scales)}, window {window}; need scales above 0 and a window of 2 pixels or more."
        )
    if averaging not in get_args(Averaging):
        raise ConfigError(f"got averaging {averaging!r}; need {', '.join(get_args(Averaging))}. Choose one of these.")
    views = list(product(scales, (False, True) if flip or d4 else (False,), range(4 if d4 else 1)))
    if views == [(1.0, False, 0)] and (averaging == "softmax" or window is None):
        return _look(model, image, window)
    if averaging != "softmax" and not d4:
        return _log_of_powers(Powers(model, flip, 0.5 if averaging == "logits" else 1.0), image, scales, window)
    total = image.new_zeros(1)
    for scale, flipped, turns in views:
        view = _scaled(image, scale).rot90(turns, (-2, -1))
        scores = _look(model, view.flip(-1) if flipped else view, window)
        scores = (scores.flip(-1) if flipped else scores).rot90(-turns, (-2, -1))
        total = total + resize_logits(scores, image.shape[-2:], align_corners=False).softmax(dim=1)
    return (total / len(views)).clamp(min=torch.finfo(total.dtype).tiny).log()


class Powers(NamedTuple):
    """exp(share × (logits + logits of the mirror image)) of a part of an image, in float64."""

    model: Segmenter
    flip: bool
    share: float

    @property
    def classes(self) -> ClassMap:
        return self.model.classes

    def __call__(self, part: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        logits = self.model(part).double()
        if self.flip:
            logits = self.share * (logits + self.model(part.flip(-1)).flip(-1))
        return logits.clamp(-700, 700).exp()  # what float64 can hold


def _log_of_powers(
    powers: Powers, image: Float[Tensor, "b c h w"], scales: Sequence[float], window: int | None
) -> Float[Tensor, "b k h w"]:
    total = image.new_zeros(1, dtype=torch.float64)
    for scale in scales:
        found = _look(powers, _scaled(image, scale), window)
        total = total + resize_logits(found, image.shape[-2:], align_corners=False)
    return total.log().float()


def _scaled(image: Float[Tensor, "b c h w"], scale: float) -> Float[Tensor, "b c H W"]:
    if scale == 1.0:
        return image
    size = [max(1, round(length * scale)) for length in image.shape[-2:]]
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=scale < 1)


def _look(model: Segmenter | Powers, image: Float[Tensor, "b c h w"], window: int | None) -> Float[Tensor, "b k h w"]:
    """Logits of the whole image, or the mean over windows where they overlap."""
    height, width = image.shape[-2:]
    if window is None or max(height, width) <= window:
        return _wide(model(image))
    dtype = torch.float32 if isinstance(model, Segmenter) else torch.float64
    total = image.new_zeros(len(image), len(model.classes), height, width, dtype=dtype)
    count = image.new_zeros(height, width)
    for top in starts(height, window, window * 2 // 3):
        for left in starts(width, window, window * 2 // 3):
            part = (..., slice(top, top + window), slice(left, left + window))
            total[part] += _wide(model(image[part]))
            count[part] += 1
    return total / count


def _wide(scores: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    return scores if scores.dtype == torch.float64 else scores.float()
