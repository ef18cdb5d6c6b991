"""Training samples: one random view of one image, as a pure function of (seed, counter).

The geometry is drawn first, then applied to image and labels alike by torchvision. Nothing keeps state, so a resumed
run sees exactly the samples that it would have seen without the stop.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torchvision.transforms.v2.functional as T
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regard.datasets.labelled_data import Sample
from regard.training.config import Augmentation

DRAWS = 10  # of a crop that has no label, or that a single class fills
BLUR = 0.1, 1.5  # standard deviation in pixels


def generator(seed: int, *counters: int) -> np.random.Generator:
    """A random generator that depends on nothing but these numbers."""
    return np.random.default_rng([seed, *counters])


def random_view(
    sample: Sample,
    augmentation: Augmentation,
    rng: np.random.Generator,
    *,
    ignore_index: int,
    divisor: float,
    label: int | None = None,
) -> tuple[Float[Tensor, "c t s"], Int[Tensor, "t s"], Float[Tensor, "t s"]]:
    """A random crop: values over ``divisor``, labels, and the valid mask as 1 and 0.

    The crop holds a labelled pixel, where the image has one; with ``label``, a pixel of that class.
    """
    image, labels, valid = _random_crop(sample, augmentation, rng, ignore_index=ignore_index, label=label)
    size = list(augmentation.size)
    values = T.resize(image.float() / divisor, size, T.InterpolationMode.BILINEAR, antialias=True)
    labels = T.resize(labels[None], size, T.InterpolationMode.NEAREST_EXACT)[0]
    valid = T.resize(valid[None], size, T.InterpolationMode.NEAREST_EXACT)[0]
    if augmentation.flip and rng.random() < 0.5:
        values, labels, valid = values.flip(-1), labels.flip(-1), valid.flip(-1)
    if augmentation.rot90:
        turns = int(rng.integers(4))
        values, labels, valid = (x.rot90(turns, (-2, -1)) for x in (values, labels, valid))
    if augmentation.colour > 0:
        values = _jitter(values, augmentation.colour, rng)
    if augmentation.band_jitter > 0:
        values = _jitter_bands(values, augmentation.band_jitter, rng)
    if augmentation.blur and rng.random() < augmentation.blur:
        spread = float(rng.uniform(*BLUR))
        values = T.gaussian_blur(values, [2 * math.ceil(3 * spread) + 1] * 2, [spread] * 2)
    return values.contiguous(), labels.contiguous(), valid.contiguous()


def _random_crop(
    sample: Sample, augmentation: Augmentation, rng: np.random.Generator, *, ignore_index: int, label: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The source rectangle that becomes the crop; where the image is too small, the rest is empty and ignored."""
    factor = math.exp(rng.uniform(math.log(augmentation.scale[0]), math.log(augmentation.scale[1])))
    tall, wide = (max(1, round(side / factor)) for side in augmentation.size)
    height, width = sample.labels.shape
    for _ in range(DRAWS):
        top = int(rng.integers(max(1, height - tall + 1)))
        left = int(rng.integers(max(1, width - wide + 1)))
        window = np.s_[top : top + tall, left : left + wide]
        if label is not None or _is_useful(sample.labels[window], ignore_index, augmentation.class_ratio):
            break
    wanted = sample.labels != ignore_index if label is None else sample.labels == label
    if label is not None or not wanted[window].any():
        top, left = _around(wanted, (top, left), (tall, wide), rng)
        window = np.s_[top : top + tall, left : left + wide]
    missing = [0, 0, max(0, wide - width), max(0, tall - height)]
    valid = sample.valid[window]
    image = np.where(valid, sample.image[:, *window], 0)
    layers = ((image, 0), (sample.labels[window], ignore_index), (valid.astype(np.float32), 0))
    padded = [T.pad(torch.from_numpy(np.ascontiguousarray(x))[None], missing, fill=fill)[0] for x, fill in layers]
    return padded[0], padded[1], padded[2]


def _around(
    wanted: Bool[np.ndarray, "h w"], corner: tuple[int, int], size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """The corner of a window that holds one wanted pixel, drawn evenly; the given corner where there is none."""
    found = np.flatnonzero(wanted)
    if not found.size:
        return corner
    pixel = divmod(int(found[rng.integers(found.size)]), wanted.shape[1])
    starts = np.array(pixel) - [int(rng.integers(side)) for side in size]
    top, left = np.clip(starts, 0, np.maximum(0, np.subtract(wanted.shape, size))).tolist()
    return top, left


def _is_useful(labels: Int[np.ndarray, "h w"], ignore_index: int, class_ratio: float) -> bool:
    """Whether a crop has a labelled pixel, and no class has ``class_ratio`` or more of them, unless that is 1."""
    labelled = bool((labels != ignore_index).any())
    return labelled and (class_ratio == 1 or _largest_share(labels, ignore_index) < class_ratio)


def _largest_share(labels: Int[np.ndarray, "h w"], ignore_index: int) -> float:
    """How much of what is labelled the largest class has.

    Source: mmsegmentation, ``RandomCrop``'s ``cat_max_ratio``.
    """
    _, counts = np.unique(labels[labels != ignore_index], return_counts=True)
    return float(counts.max() / counts.sum()) if counts.size else 1.0


def _jitter_bands(values: Float[Tensor, "c h w"], strength: float, rng: np.random.Generator) -> Float[Tensor, "c h w"]:
    """A gain of 1 ± ``strength`` for each band, and an offset of at most ``strength`` of its spread: what haze, sun and
    calibration do to each band of a sensor in its own way.
    """
    gain, offset = torch.from_numpy(rng.uniform(-strength, strength, size=(2, len(values), 1, 1))).float()
    return values * (1 + gain) + offset * values.std(dim=(1, 2), keepdim=True)


def drop_band(image: Float[Tensor, "c h w"], chance: float, rng: np.random.Generator) -> Float[Tensor, "c h w"]:
    """The scaled image, with a ``chance`` that one of its bands, drawn evenly, is its mean throughout: zero."""
    if chance and len(image) > 1 and rng.random() < chance:
        image[int(rng.integers(len(image)))] = 0
    return image


def _jitter(values: Float[Tensor, "c h w"], strength: float, rng: np.random.Generator) -> Float[Tensor, "c h w"]:
    """Brightness, contrast and, for three bands, saturation and a little hue; each about 1 ± ``strength``."""
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, size=3)
    hue = rng.uniform(-0.1, 0.1) * strength
    if len(values) == 3 and float(values.min()) >= 0 and float(values.max()) <= 1:
        values = T.adjust_saturation(values, float(saturation))
        values = T.adjust_hue(values, float(hue))
    mean = values.mean()
    return ((values - mean) * float(contrast) + mean) * float(brightness)
