"""The settings of a training run, checked before anything is loaded."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from regard.classes import first_reason
from regard.errors import ConfigError


class TrainConfig(BaseModel):
    """How to train; each setting says what it does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(20_000, ge=1, description="How many batches to learn from.")
    batch: int = Field(8, ge=1, description="Crops in a batch.")
    crop: int = Field(512, ge=32, description="Height of the crops in pixels, and their width if that is not given.")
    crop_width: int | None = Field(None, ge=32, description="Width of the crops in pixels.")
    seed: int = Field(0, ge=0, description="First weights, data order, augmentation and dropout follow from it.")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum 0.9.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest rate of the heads.")
    backbone_rate: float = Field(0.1, ge=0, description="The backbone's rate, as a share of the heads'.")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Each stage of the backbone learns at this share of the rate of the one after it."
    )
    weight_decay: float = Field(0.01, ge=0, description="Pull of the weights towards 0.")
    warmup: int = Field(50, ge=0, description="Steps over which the rate rises.")
    power: float = Field(0.9, gt=0, description="Exponent of the rate's poly decay.")
    lowest_rate: float = Field(0.0, ge=0, description="The rate does not fall below this.")
    average: float = Field(0.99, ge=0, lt=1, description="Memory of the running average of the weights; 0 for none.")
    loss: Literal["ce", "ohem", "focal", "ce+dice", "ce+lovasz"] = Field(
        "ce",
        description="Of the main output: cross entropy, of the hardest pixels (ohem), focal, with Dice or Lovász.",
    )
    class_weights: Literal["equal", "balanced", "cityscapes"] = Field(
        "equal", description="Weights of the cross entropy: by the classes' shares of pixels, or the authors' 19."
    )
    focal_power: float = Field(2.0, ge=0, description="Focal loss: how much less the easy pixels count.")
    hard_below: float = Field(0.9, gt=0, description="Ohem: pixels whose true class has a lower probability count.")
    hard_pixels: int = Field(131_072, ge=1, description="Ohem: at least so many pixels of a batch count.")
    balance: float = Field(
        0.0, ge=0, le=1, description="Share of crops placed on a class drawn evenly, so that rare classes are seen."
    )
    freeze: Literal["nothing", "norms", "backbone"] = Field(
        "nothing", description="Keep the backbone's batch norms, or all of the backbone, as they are."
    )
    scale: tuple[float, float] = Field((0.5, 2.0), description="Images are resized by a random factor between these.")
    flip: bool = Field(True, description="Mirror half of the crops.")
    overhead: bool = Field(False, description="Images from above: turn crops by random quarter turns.")
    colour: float = Field(0.3, ge=0, lt=1, description="Strength of random brightness, contrast and saturation.")
    class_ratio: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Crops in which one class has at least this share are drawn again, up to ten times.",
    )
    blur: float = Field(0.0, ge=0, le=1, description="Share of crops that are blurred a little.")
    band_jitter: float = Field(
        0.0, ge=0, lt=1, description="Strength of a random gain and offset of each band, for rasters of many bands."
    )
    band_dropout: float = Field(0.0, ge=0, le=1, description="Share of crops that lack one band, drawn evenly.")
    evaluate_every: int = Field(
        500, ge=1, description="Steps between evaluations on val; a checkpoint is written then."
    )
    window: int | None = Field(
        None,
        ge=0,
        description="Score val in squares of that many pixels, 0 for whole images. Left out: whole, but squares as "
        "large as the crops where val is cut from a scene.",
    )
    on_bad_image: Literal["stop", "skip"] = Field(
        "stop", description="A training image that cannot be used: stop, or take another and list it in the record."
    )
    log: tuple[Literal["tensorboard", "wandb", "mlflow", "none"], ...] = Field(
        ("tensorboard",),
        description="Where losses and scores are shown beside the run's own files.",
    )
    workers: int = Field(1, ge=0, description="Processes that read and augment.")
    precision: Literal["32", "bf16", "16"] = Field("32", description="Number format of the forward pass.")
    devices: int = Field(1, ge=1, description="How many GPUs, or CPU processes.")

    @model_validator(mode="after")
    def _check_scale(self) -> TrainConfig:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale {self.scale} must be two rising numbers above 0")
        if "none" in self.log and len(self.log) > 1:
            raise ValueError(f"log {' '.join(self.log)}: none goes with no other")
        if self.overhead and self.crop_width not in (None, self.crop):
            raise ValueError(f"crop {self.crop} x {self.crop_width} cannot be turned by quarters; use overhead false")
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
