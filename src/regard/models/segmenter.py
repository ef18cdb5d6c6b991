"""What all networks share: card and config, device, and logits brought to the size of the image."""

from __future__ import annotations

import copy
from abc import abstractmethod
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from torch import Tensor, nn

from regard.card import Card, Scaling
from regard.classes import ClassMap, first_reason
from regard.errors import ConfigError
from regard.models.backbone import build_backbone
from regard.ops.resize import resize_logits

WIDEST = 65_536  # channels, or pixels of a dilation


class ModelConfig(BaseModel):
    """The settings that every architecture has; unknown ones are refused, and numbers that no network has.

    ``multi_grid`` and ``backbone_options``: see ``build_backbone``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = "resnet50"
    output_stride: int | None = 8
    align_corners: bool = False
    multi_grid: tuple[int, ...] | None = None
    backbone_options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check_numbers(self) -> ModelConfig:
        for name, value in self:
            least, most = (0, 1) if name.endswith("dropout") else (0 if name == "scales" else 1, WIDEST)
            numbers = [number for number in (value if isinstance(value, tuple) else (value,)) if _is_number(number)]
            if not all(least <= number <= most for number in numbers):
                raise ValueError(f"{name} {value} must be from {least} to {most:,}")
        return self


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Network = TypeVar("Network", bound="Segmenter")
Pretrained = bool | str | Path  # weights of the backbone: none, those of timm, or a file
LogitMaps = dict[str, Float[Tensor, "b k _ _"]]  # by the name of the output


class Segmenter(nn.Module):
    """Base of every network: image ``(b, c, h, w)``, normalised as the card says, to logits ``(b, k, h, w)``.

    A network writes :meth:`logits`, from the image to its outputs on its own grid, ``stride`` pixels apart.
    ``model(image)`` gives the main logits at the image's size, ``model.outputs(image)`` every output at that size.
    """

    config_type: type[ModelConfig] = ModelConfig
    loss_weights: dict[str, float] = {"main": 1.0}
    config: ModelConfig
    backbone: nn.Module
    stride: int
    fast: bool = False  # changed for prediction alone: see make_fast
    saved_sha256: str | None = None  # of its weights before that change

    def __init__(self, card: Card, *, pretrained: Pretrained = False) -> None:  # for attach_backbone
        super().__init__()
        self.card, self.config = card, self.parse(card)

    @property
    def classes(self) -> ClassMap:
        return self.card.classes

    @property
    def bands(self) -> tuple[str, ...]:
        return self.card.bands

    @property
    def scaling(self) -> Scaling:
        """How pixel values enter the network."""
        return Scaling(self.card.mean, self.card.std, self.card.divisor)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def with_card(self: Network, card: Card) -> Network:
        """The same network, parameters and buffers shared, with another card; this one keeps its own.

        Raises:
            ConfigError: the card is of a network with other layers.
        """
        layers, wanted = (
            (each.architecture, each.config, len(each.classes), len(each.bands)) for each in (self.card, card)
        )
        if layers != wanted:
            raise ConfigError(
                f"a card of {wanted[0]} with {wanted[2]} classes and {wanted[3]} bands is not of this network "
                f"({layers[0]}, {layers[2]} classes, {layers[3]} bands), or has another config. Create a new model."
            )
        other = copy.copy(self)
        other.card = card
        return other

    @abstractmethod
    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        """The outputs by name on the network's own grid: ``"main"``, and with ``auxiliary`` all that have a loss.

        An auxiliary output that the main one is made of costs nothing and is always there.
        """

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return self.at_size_of(image, self.logits(image)["main"])

    def calibrated(self, logits: Float[Tensor, "*b k h w"]) -> Float[Tensor, "*b k h w"]:
        """Logits at the temperature of the card, whose softmax is the probability."""
        return logits if self.card.temperature == 1 else logits / self.card.temperature

    def outputs(self, image: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b k h w"]]:
        """Every output by name, each at the image's size: what the losses compare with the labels."""
        return {name: self.at_size_of(image, logits) for name, logits in self.logits(image, auxiliary=True).items()}

    def at_size_of(self, image: Float[Tensor, "b c h w"], logits: Float[Tensor, "b k _ _"]) -> Float[Tensor, "b k h w"]:
        """Logits resized to the image's height and width."""
        return resize_logits(logits, image.shape[-2:], align_corners=self.config.align_corners)

    def attach_backbone(self, pretrained: Pretrained) -> list[int]:
        """Build the backbone of ``config`` and set ``stride`` to that of its last map; the channels of its maps."""
        self.backbone, channels, strides = build_backbone(
            self.config.backbone,
            in_channels=len(self.bands),
            output_stride=self.config.output_stride,
            align_corners=self.config.align_corners,
            pretrained=pretrained,
            multi_grid=self.config.multi_grid,
            options=self.config.backbone_options,
        )
        self.stride = strides[-1]
        return channels

    @classmethod
    def parse(cls, card: Card) -> ModelConfig:
        """The settings of a card, checked, with the defaults of those that it leaves out.

        Raises:
            ConfigError: an unknown setting or an impossible value.
        """
        try:
            return cls.config_type(**card.config)
        except ValidationError as error:
            known = ", ".join(cls.config_type.model_fields)
            raise ConfigError(f"{card.architecture}: {first_reason(error)}. Settings: {known}.") from None

    def train(self, mode: bool = True) -> Segmenter:
        if mode:
            self.check_plain("trained")
        return super().train(mode)

    def check_plain(self, purpose: str) -> None:
        """Raise a ConfigError if the network is rebuilt for prediction, and so not as its card says."""
        if self.fast:
            raise ConfigError(
                f"a model loaded with fast=True, in another precision or from an exported file cannot be {purpose}. "
                "Load its .safetensors without."
            )
