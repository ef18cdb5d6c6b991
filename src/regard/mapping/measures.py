"""What a map says of each pixel besides its class, from the probabilities of the classes, and how it is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from regard.classes import CERTAINTY, ClassMap
from regard.io.cog_writer import Layer, label_layer, measure_layer

PROBABILITIES = "probabilities"  # the only measure with one band a class
CERTAIN = "certain"  # a map of its own, by the confidence
LABEL_BYTES, MEASURE_BYTES = 0.2, 2.0  # of a pixel in journal, work file, copy and twin, compressed


def confidence(probabilities: Float[Tensor, "k h w"]) -> Float[Tensor, "h w"]:
    """The probability of the most likely class."""
    return probabilities.amax(dim=0)


def entropy(probabilities: Float[Tensor, "k h w"]) -> Float[Tensor, "h w"]:
    """The uncertainty of a pixel: -Σ p log p over log k, from 0 (one class is certain) to 1 (all are alike)."""
    return torch.special.entr(probabilities).sum(dim=0) / max(np.log(len(probabilities)), 1e-9)


def margin(probabilities: Float[Tensor, "k h w"]) -> Float[Tensor, "h w"]:
    """How far the most likely class is ahead of the second."""
    first, *second = probabilities.topk(min(2, len(probabilities)), dim=0).values
    return first - second[0] if second else first


def in_steps(probabilities: Float[Tensor, "k h w"]) -> UInt8[Tensor, "k h w"]:
    """The probability of every class in steps of 1/255: floats of many classes would take much of the memory."""
    return (probabilities * 255).round().to(torch.uint8)


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "confidence": confidence,
    "entropy": entropy,
    PROBABILITIES: in_steps,
    "margin": margin,
}


def empty(measures: Sequence[str], classes: int, size: tuple[int, int]) -> dict[str, Shaped[np.ndarray, "*k h w"]]:
    """Room for each measure of some pixels."""
    planes = {name: np.empty(size, np.float32) for name in measures if name != PROBABILITIES}
    return planes | {name: np.empty((classes, *size), np.uint8) for name in measures if name == PROBABILITIES}


def as_bytes(share: Shaped[np.ndarray, "..."], valid: Bool[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """0..1 in steps of 1/255, or what is in such steps; 0 where there is no data, at least 1 elsewhere."""
    steps = share if share.dtype == np.uint8 else np.rint(share * 255)
    return np.where(valid, np.clip(steps, 1, 255), 0).astype(np.uint8)


def layer_of(name: str, classes: ClassMap, tags: Mapping[str, str]) -> Layer:
    """How a raster of a map is written: its ``labels``, whether they are certain, or a measure."""
    if name in ("labels", CERTAIN):
        return label_layer(classes if name == "labels" else CERTAINTY, tags, styled=name == "labels")
    return measure_layer(name, tags, classes.names if name == PROBABILITIES else ())


def planes_of(name: str, classes: int) -> list[str]:
    """The names under which the bands of a raster are kept until it is written."""
    return [f"{name}_{label}" for label in range(classes)] if name == PROBABILITIES else [name]


def measured_for(names: Iterable[str]) -> list[str]:
    """The measures that the rasters of a map take."""
    return [*dict.fromkeys("confidence" if name == CERTAIN else name for name in names if name != "labels")]


def planes_stored(
    measures: Mapping[str, Shaped[np.ndarray, "*k h w"]], valid: Bool[np.ndarray, "h w"], certain_from: float | None
) -> dict[str, UInt8[np.ndarray, "h w"]]:
    """The bands of some measures, by the names under which they are kept; and where the confidence makes certain."""
    certain = {}
    if certain_from is not None:
        certain[CERTAIN] = np.where(valid, measures["confidence"] >= certain_from, 255).astype(np.uint8)
    each = {name: as_bytes(share, valid).reshape(-1, *valid.shape) for name, share in measures.items()}
    named = [zip(planes_of(name, len(bands)), bands, strict=True) for name, bands in each.items()]
    return certain | dict(chain.from_iterable(named))


def bytes_needed(names: Sequence[str], classes: int) -> float:
    """About the room on the disk that a pixel of these rasters takes, at most, while they are made."""
    planes = [plane for name in names for plane in planes_of(name, classes)]
    return sum(LABEL_BYTES if plane in ("labels", CERTAIN) else MEASURE_BYTES for plane in planes)
