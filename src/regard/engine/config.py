"""The settings of a training run, checked before anything is loaded."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from regard.classes import first_reason
from regard.errors import ConfigError


class TrainConfig(BaseModel):
    """How to train. Steps count batches; lengths are pixels; the backbone learns at ``backbone_rate`` times the heads' rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(20_000, ge=1)
    batch: int = Field(8, ge=1)
    crop: int = Field(512, ge=32)
    seed: int = Field(0, ge=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    backbone_rate: float = Field(0.1, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: int = Field(50, ge=0)
    power: float = Field(0.9, gt=0)
    average: float = Field(0.99, ge=0, lt=1)
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    overhead: bool = False
    colour: float = Field(0.3, ge=0, lt=1)
    evaluate_every: int = Field(500, ge=1)
    workers: int = Field(1, ge=0)
    precision: Literal["32", "bf16", "16"] = "32"
    devices: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _check_scale(self) -> TrainConfig:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale {self.scale} must be two rising numbers above 0")
        return self

    @classmethod
    def of(cls, **settings: Any) -> TrainConfig:
        """The settings, checked.

        Raises:
            ConfigError: an unknown setting or an impossible value.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "extra_forbidden":
                raise ConfigError(
                    f"training has no setting {first['loc'][0]!r}. Settings: {', '.join(cls.model_fields)}."
                ) from None
            raise ConfigError(
                f"training setting {first_reason(error)}; got {first['input']!r}. Choose another value."
            ) from None
