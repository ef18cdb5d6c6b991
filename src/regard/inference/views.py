"""Test-time augmentation: a batch of normalised images to class scores, fused from several views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regard.classes import ClassMap
from regard.inference.compute import Fusion as Fusion
from regard.inference.compute import Views as Views
from regard.models import Segmenter
from regard.ops.normalise import Scaling
from regard.ops.resize import resize_logits
from regard.ops.windows import starts

Averaging = Literal["softmax", "logits", "exp"]  # the names of before, until every caller takes Views
OLD_NAMES: dict[str, Fusion] = {"softmax": "probabilities", "logits": "logits", "exp": "exp_logits"}


def scaling_of(model: Segmenter) -> Scaling:
    """``model.scaling``: the name of before, until every caller takes ``scores_of``."""
    return model.scaling


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
    model: Segmenter, image: Float[Tensor, "b c h w"], views: Views = Views(), **options: Any
) -> Float[Tensor, "b k h w"]:
    """Scores of normalised images, at their size; the softmax of the scores is the class probability."""
    if options:
        views = Views(fusion=OLD_NAMES[options.pop("averaging", "softmax")], **options)
    if views.single and (views.fusion == "probabilities" or views.window is None):
        return _look(model, image, views.window)
    if views.fusion != "probabilities":
        powers = Powers(model, views.flip, 0.5 if views.fusion == "logits" else 1.0)
        return _log_of_powers(powers, image, views.scales, views.window)
    every = list(
        product(views.scales, (False, True) if views.flip or views.d4 else (False,), range(4 if views.d4 else 1))
    )
    total = image.new_zeros(1)
    for scale, flipped, turns in every:
        view = _scaled(image, scale).rot90(turns, (-2, -1))
        scores = _look(model, view.flip(-1) if flipped else view, views.window)
        scores = (scores.flip(-1) if flipped else scores).rot90(-turns, (-2, -1))
        total = total + resize_logits(scores, image.shape[-2:], align_corners=False).softmax(dim=1)
    return (total / len(every)).clamp(min=torch.finfo(total.dtype).tiny).log()


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
