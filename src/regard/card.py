"""What a model file says of itself: enough to use the weights rightly without asking anyone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from regard.classes import ClassMap
from regard.errors import ConfigError

RGB = ("red", "green", "blue")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RENAMED = {"three_branch": "danet_three_branch"}  # architectures, as older files name them


@dataclass(frozen=True)
class Scaling:
    """How raw values enter a network: ``(value / divisor - mean) / std``, zero where there is no data."""

    mean: Sequence[float]
    std: Sequence[float]
    divisor: float = 255.0


class Card(BaseModel):
    """The identity of a model: architecture, classes, bands, scaling, origin, scores.

    A pixel value v of band i enters the network as ``(v / divisor - mean[i]) / std[i]``: fixed for the
    model, never taken from the image itself, so that two tiles of one scene are treated alike.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    architecture: str
    config: dict[str, Any]
    classes: ClassMap
    bands: tuple[str, ...] = RGB
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    divisor: float = 255.0
    ground_resolution: float | None = None  # metres per pixel of the training images
    origin: str = ""
    licence: str = ""
    credit: str = ""
    backbone_licence: str = ""  # of the weights that its training began with, and whose they are
    scores: dict[str, float] = {}
    protocol: str = ""  # of the scores: on which images, seen how
    window: int | None = None  # pixels of the windows that were scored, 0: whole images; None: not known
    temperature: float = 1.0  # scores are divided by it before the softmax: see regard calibrate
    certain: tuple[tuple[float, float], ...] = ()  # confidences, and the error that is promised from each on
    refined_with: tuple[dict[str, Any], ...] = ()  # by regard refine: labels, scene, counts, seed; the latest last
    regard_version: str = ""

    def without_data(self) -> Card:
        """The card without what is said of the training data and of the scores on them: for training on others."""
        own: tuple[str, ...] = ("ground_resolution", "origin", "licence", "credit", "scores", "protocol", "window")
        own += ("temperature", "certain", "refined_with")
        return self.model_copy(update={name: Card.model_fields[name].get_default() for name in own})

    def certain_from(self, error: float | None) -> float | None:
        """The confidence from which on the classes of at most this share are wrong; above 1 where nothing is certain.
        None for no error.

        Raises:
            ConfigError: an error that is no share, or a model without a promise.
        """
        if error is None:
            return None
        if not 0 < error < 1:
            raise ConfigError(f"got certain {error:g}; need the share of errors that is allowed, such as 0.05.")
        if not self.certain:
            raise ConfigError(
                "certain needs a model whose card promises errors. Fit it: regard calibrate MODEL DATA -o BETTER."
            )
        return min((confidence for confidence, promised in self.certain if promised <= error), default=2.0)

    @field_validator("architecture")
    @classmethod
    def _rename(cls, architecture: str) -> str:
        return RENAMED.get(architecture, architecture)

    @field_validator("std")
    @classmethod
    def _check_std(cls, std: tuple[float, ...]) -> tuple[float, ...]:
        if any(not value > 0 for value in std):
            raise ValueError(f"std {std} must be above 0")
        return std

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, temperature: float) -> float:
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature {temperature} must be above 0")
        return temperature

    @model_validator(mode="after")
    def _check_bands(self) -> Card:
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise ValueError(
                f"{len(self.bands)} bands, {len(self.mean)} means, {len(self.std)} stds: must be equally many"
            )
        return self
