"""How pixel values enter a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import BandMismatch

BYTE = 255


@dataclass(frozen=True)
class Scaling:
    """How raw values enter a network: ``(value / divisor - mean) / std``, zero where there is no data."""

    mean: Sequence[float]
    std: Sequence[float]
    divisor: float = 255.0


def normalise(
    values: Float[Tensor, "*b c h w"], scaling: Scaling, valid: Float[Tensor, "*b h w"]
) -> Float[Tensor, "*b c h w"]:
    """``(values - mean) / std`` in place, zero (the mean) where there is no data, so that it does not bleed."""
    mean = torch.tensor(scaling.mean, dtype=torch.float32)[:, None, None]
    std = torch.tensor(scaling.std, dtype=torch.float32)[:, None, None]
    return values.sub_(mean).div_(std).masked_fill_(valid.unsqueeze(-3) <= 0, 0.0)


def check_depth(image: np.ndarray, divisor: float, name: str = "the image") -> None:
    """Refuse values that a model of 8-bit images has never seen; ``image`` has 0 where there is no data.

    Raises:
        BandMismatch: the divisor is 255, and a value is larger or all are fractions of 1.
    """
    if divisor != BYTE or image.dtype == np.uint8:
        return
    largest, floating = float(image.max(initial=0)), np.issubdtype(image.dtype, np.floating)
    if largest > BYTE:
        advice = "in the same way as its training images (for example gdal_translate -ot Byte -scale 0 3000 0 255)"
    elif floating and 0 < largest <= 1 and (image % 1).any():
        advice = "(gdal_translate -ot Byte -scale 0 1 0 255)"
    else:
        return
    raise BandMismatch(
        f"{name} holds values up to {largest:g}; the model takes 8-bit images, 0 to 255. Scale it {advice}, or "
        "train a model on such images."
    )


def prepare(image: np.ndarray, valid: np.ndarray, scaling: Scaling) -> Float[Tensor, "c h w"]:
    """A whole image as a network wants it.

    Raises:
        BandMismatch: see ``check_depth``.
    """
    clean = np.where(valid, image, 0)
    check_depth(clean, scaling.divisor)
    values = torch.from_numpy(clean.astype(np.float32)).div_(scaling.divisor)
    return normalise(values, scaling, torch.from_numpy(valid.astype(np.float32)))
