"""The settings of a training run, checked before anything is loaded, and the recipes that fill them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import Group, Parameter
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from regard.classes import first_reason
from regard.errors import ConfigError, unknown

MOST_USED = Parameter(group=Group.create_ordered("Most used"))  # the first heading of regard train --help
DATA = Parameter(group=Group.create_ordered("Data"))
RENAMED = {"overhead": "rot90", "average": "ema"}  # run folders of version 0.1 have the names on the left
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
MOST, WIDEST = 2**31 - 1, 65_536  # of steps and whatever else is counted; of crops, and pixels across


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _check_count(cls, value: object) -> object:
        if isinstance(value, int) and value > MOST:
            raise ValueError(f"{value} must be at most {MOST:,}")
        return value


class Optimisation(_Settings):
    """The loss, the optimizer and its learning rates."""

    steps: Annotated[int, MOST_USED] = Field(20_000, ge=1, description="Optimisation steps; each takes one batch.")
    epochs: Annotated[float | None, MOST_USED] = Field(
        None, gt=0, allow_inf_nan=False, description="In place of steps: so many passes over the training images."
    )
    batch: Annotated[int, MOST_USED] = Field(8, ge=1, le=WIDEST, description="Crops in a batch.")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum 0.9.")
    learning_rate: Annotated[float, MOST_USED] = Field(1e-3, gt=0, description="Highest learning rate of the heads.")
    backbone_rate: float = Field(0.1, ge=0, description="The backbone's learning rate, as a share of the heads'.")
    layer_decay: PositiveShare = Field(
        1.0, description="Each stage of the backbone learns at this share of the rate of the one after it."
    )
    weight_decay: float = Field(0.01, ge=0, description="Weight decay.")
    warmup: int = Field(50, ge=0, description="Steps over which the learning rate rises.")
    power: float = Field(0.9, gt=0, description="Exponent of the poly decay of the learning rate.")
    lowest_rate: float = Field(0.0, ge=0, description="The learning rate does not fall below this.")
    ema: Fraction = Field(
        0.99,
        description="Decay of the exponential moving average (EMA) of the weights that is scored and saved; 0: none.",
    )
    loss: Literal["ce", "ohem", "focal", "ce+dice", "ce+lovasz"] = Field(
        "ce",
        description="Loss of the main output: cross entropy, that of hard pixels (ohem), focal, with Dice or Lovász.",
    )
    class_weights: Literal["equal", "balanced", "cityscapes"] = Field(
        "equal", description="Class weights of the cross entropy: by class frequency, or the authors' 19."
    )
    focal_power: float = Field(2.0, ge=0, description="Focal loss: exponent; larger values weight easy pixels less.")
    hard_below: float = Field(0.9, gt=0, description="OHEM: a pixel is hard if its true class has a lower probability.")
    hard_pixels: int = Field(131_072, ge=1, description="OHEM: the loss takes at least this many pixels of a batch.")
    freeze: Literal["nothing", "norms", "backbone"] = Field(
        "nothing", description="Keep the backbone's batch norms, or all of the backbone, as they are."
    )


class Augmentation(_Settings):
    """Random views of the training images: where the crops lie and how they are changed."""

    crop: Annotated[int, MOST_USED] = Field(
        512, ge=32, le=WIDEST, description="Height of the crops in pixels, and their width if that is not given."
    )
    crop_width: int | None = Field(None, ge=32, le=WIDEST, description="Width of the crops in pixels.")
    scale: tuple[float, float] = Field((0.5, 2.0), description="Images are resized by a random factor between these.")
    flip: bool = Field(True, description="Mirror half of the crops.")
    rot90: Annotated[bool, MOST_USED] = Field(
        False, description="Rotate crops by random quarter turns; for aerial images."
    )
    colour: Fraction = Field(0.3, description="Strength of random brightness, contrast and saturation.")
    blur: Share = Field(0.0, description="Share of crops that are blurred a little.")
    class_ratio: PositiveShare = Field(
        1.0, description="Draw a crop again, up to ten times, if one class has at least this share of it."
    )
    balance: Share = Field(
        0.0, description="Share of crops placed on a class drawn with equal probability: more of rare classes."
    )
    band_jitter: Fraction = Field(
        0.0, description="Strength of a random gain and offset of each band, for rasters of many bands."
    )
    band_dropout: Share = Field(0.0, description="Share of crops that lack one band, drawn at random.")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crops."""
        return self.crop, self.crop_width or self.crop

    @model_validator(mode="after")
    def _check_views(self) -> Augmentation:
        low, high = self.scale
        if not 0.01 <= low <= high <= 100:
            raise ValueError(f"scale {self.scale} must be two rising numbers from 0.01 to 100")
        if self.rot90 and self.crop_width not in (None, self.crop):
            raise ValueError(f"crop {self.crop} x {self.crop_width} cannot be rotated by 90 degrees; use rot90 false")
        return self


class Evaluation(_Settings):
    """When and how the split val is scored."""

    evaluate_every: int = Field(500, ge=1, description="Steps between evaluations on val, each with a checkpoint.")
    patience: int = Field(
        0, ge=0, description="Stop early if mIoU on val has not risen for this many evaluations; 0: never."
    )
    window: int | None = Field(
        None,
        ge=0,
        description="Score val in windows of this many pixels; 0: whole images. By default whole images; windows of "
        "the crops' size if val is cut from a scene.",
    )


class Session(_Settings):
    """What the run needs of the machine and where it logs."""

    seed: int = Field(0, ge=0, description="Random seed of initial weights, data order, augmentation and dropout.")
    workers: int = Field(1, ge=0, le=1024, description="Processes that read and augment images.")
    devices: int = Field(1, ge=1, le=1024, description="Number of GPUs, or of processes on a CPU.")
    precision: Literal["32", "bf16", "16"] = Field("32", description="Number format of the forward pass.")
    recompute: bool = Field(
        False, description="Compute the backbone's activations again in the backward pass: less memory, slower."
    )
    on_bad_image: Annotated[Literal["stop", "skip"], DATA] = Field(
        "stop", description="If a training image cannot be used: stop, or take another one and list it in the record."
    )
    origin: Annotated[str | None, DATA] = Field(
        None, description="Where the data come from, for the model's card; by default what their SOURCE.txt says."
    )
    licence: Annotated[str | None, DATA] = Field(None, description="The licence of the data, likewise.")
    credit: Annotated[str | None, DATA] = Field(None, description="Whom to name with the model and its maps, likewise.")
    log: tuple[Literal["tensorboard", "wandb", "mlflow", "none"], ...] = Field(
        ("tensorboard",), description="Where losses and scores are logged in addition to the run's own files."
    )

    @model_validator(mode="after")
    def _check_log(self) -> Session:
        if "none" in self.log and len(self.log) > 1:
            raise ValueError(f"log {' '.join(self.log)}: none goes with no other")
        return self


class TrainConfig(Session, Evaluation, Augmentation, Optimisation):
    """How to train. Each setting is declared, with its default, in the group that it belongs to."""

    @classmethod
    def of(cls, **settings: Any) -> TrainConfig:
        """The settings, checked.

        Raises:
            ConfigError: an unknown setting or an impossible value.
        """
        for name in settings.keys() & RENAMED.keys():
            raise ConfigError(f"the training setting {name!r} is now {RENAMED[name]!r}. Use the new name.")
        for name in settings.keys() - cls.model_fields.keys():
            raise ConfigError(f"training has no setting {name!r}. Settings: {', '.join(cls.model_fields)}.")
        try:
            return cls(**settings)
        except ValidationError as error:
            got = error.errors()[0]["input"]
            raise ConfigError(f"training setting {first_reason(error)}; got {got!r}. Choose another value.") from None


class Recipe(NamedTuple):
    """A network and its training as its authors published it.

    ``pretrained`` and ``config`` are those of ``regard.create``. ``published`` is the authors' score, ``differs`` what
    is not as theirs, ``ours`` where our score with it is; None where nobody has run it with regard yet.
    """

    architecture: str
    backbone: str
    pretrained: str
    config: dict[str, Any]
    settings: dict[str, Any]
    source: str
    published: str
    differs: str
    ours: str | None


@cache
def recipes() -> dict[str, Recipe]:
    """The recipes of ``recipes.json`` by name."""
    text = (resources.files("regard.training") / "recipes.json").read_text(encoding="utf-8")
    return {name: Recipe(**facts) for name, facts in json.loads(text).items()}


def recipe(name: str) -> Recipe:
    """A recipe by name; UnknownName if there is none."""
    if name not in recipes():
        raise unknown("recipe", name, recipes())
    return recipes()[name]


def with_recipe(name: str, given: Mapping[str, Any]) -> TrainConfig:
    """The recipe's settings, and over them those that were given; a ConfigError if both together are impossible."""
    return TrainConfig.of(**{**recipe(name).settings, **given})
