"""A network that was refined with a few labels: another one without its classifier, and a light head in its place.

The head is fitted in seconds, see :mod:`regard.refine`. What it looks at:

* the deep features of the other network, ``base``: the input of its classifier, or if that is not linear, its logits;
* with ``sees_bands``, the values of each pixel, and the means over squares around it, at full resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import field_validator
from torch import Tensor, nn

from regard.card import Card
from regard.classes import ClassMap
from regard.errors import unknown
from regard.models.segmenter import LogitMaps, ModelConfig, Pretrained, Segmenter
from regard.ops.attention import attend, gather_objects, to_map, to_tokens
from regard.ops.resize import resize_logits

PIXELS = 2**14  # classified at once: what is computed of them stays in the cache
Head = Literal["linear", "context", "kernel"]
CLASSIFIERS = {"danet": "classify.main", "danet_ocr_serial": "classify_pixels"}  # of others: classify


class Headless(NamedTuple):
    """A network without its classifier, the channels of its main output, and the classifier; None where it stays."""

    network: Segmenter
    channels: int
    classifier: nn.Conv2d | None


def headless(network: Segmenter) -> Headless:
    """Take away a network's classifier, so that its main output is the input of that.

    One that is more than a product with each pixel stays, and the output is the logits.
    """
    name = CLASSIFIERS.get(network.card.architecture, "classify")
    found = network.get_submodule(name)
    last = found[-1] if isinstance(found, nn.Sequential) else found
    if isinstance(last, nn.Conv2d) and last.kernel_size == (1, 1) and network.card.architecture != "ocrnet_multiscale":
        network.set_submodule(name, nn.Identity())
        return Headless(network, last.in_channels, last)
    return Headless(network, len(network.card.classes), None)


class RefinedConfig(ModelConfig):
    """The settings of the base are ``base_config`` besides those that all networks have; no ``base``: bands alone.

    * ``linear``: a linear classifier; with ``sees_bands`` the sum of two, one of them at full resolution;
    * ``context``: each pixel's deep features are augmented with the object regions that a linear classifier finds;
    * ``kernel``: a kernel machine with ``landmarks`` on the bands, added to a linear classifier of the deep features.
    """

    base: str = ""
    base_config: dict[str, Any] = {}
    base_classes: int | None = None
    head: Head = "linear"
    sees_bands: bool = False
    squares: tuple[int, ...] = ()
    landmarks: int = 1

    @field_validator("squares")
    @classmethod
    def _check_squares(cls, squares: tuple[int, ...]) -> tuple[int, ...]:
        if any(side % 2 == 0 for side in squares):
            raise ValueError(f"squares {squares} must have odd sides")
        return squares


class RegionContext(nn.Module):
    """Object context without weights of its own: regions are gathered from standardised features and distributed."""

    mean: Tensor
    spread: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("spread", torch.ones(channels, 1, 1))

    def forward(self, deep: Float[Tensor, "b d h w"], regions: Float[Tensor, "b k h w"]) -> Float[Tensor, "b e h w"]:
        pixels = to_tokens((deep - self.mean) / self.spread)
        objects = gather_objects(pixels, regions.flatten(2))
        context = attend(pixels, objects, objects, scale=deep.shape[1] ** -0.5)
        return torch.cat([deep, to_map(context, deep.shape[-2:])], dim=1)


def by_pixel(
    classify: Callable[[Float[Tensor, "n c"]], Float[Tensor, "n k"]], values: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b k h w"]:
    """Each pixel of a map classified by itself; in an export all at once."""
    exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    pixels = to_tokens(values).flatten(0, 1)
    found = classify(pixels) if exporting else torch.cat([classify(part) for part in pixels.split(PIXELS)])
    return to_map(found.unflatten(0, (values.shape[0], -1)), values.shape[-2:])


class Kernel(nn.Module):
    """A linear classifier of exp(-|x - l|²) for each of some landmarks l; x is divided by the width of the kernel."""

    inverse_width: Tensor

    def __init__(self, channels: int, landmarks: int, classes: int) -> None:
        super().__init__()
        self.landmarks = nn.Parameter(torch.randn(landmarks, channels))
        self.register_buffer("inverse_width", torch.ones(channels))
        self.classify = nn.Linear(landmarks, classes)

    def similarities(self, pixels: Float[Tensor, "n c"]) -> Float[Tensor, "n m"]:
        """exp(-|x - l|²): from 0, far from a landmark, to 1."""
        scaled = pixels * self.inverse_width
        lengths = scaled.square().sum(1, keepdim=True) + self.landmarks.square().sum(1)
        return (2 * scaled @ self.landmarks.T - lengths).clamp(max=0).exp()

    def forward(self, values: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return by_pixel(lambda pixels: self.classify(self.similarities(pixels)), values)


class Refined(Segmenter):
    """Deep features and bands to logits: on the base's grid, or at full resolution with bands."""

    config: RefinedConfig
    config_type = RefinedConfig
    networks: ClassVar[dict[str, type[Segmenter]]] = {}  # what a base may be: see ``MODELS``

    def __init__(self, card: Card, *, pretrained: Pretrained = False, base: Headless | None = None) -> None:
        super().__init__(card)
        config, classes, deep = self.config, len(card.classes), 0
        if config.base:
            if base is None:
                network = self.networks.get(config.base)
                if network is None:
                    raise unknown("architecture", config.base, self.networks)
                base = headless(network(self._card_of_base(), pretrained=pretrained))
            self.base, deep = base.network, base.channels
        seen = len(card.bands) * (1 + len(config.squares)) if config.sees_bands or not deep else 0
        self.stride = 1 if seen else self.base.stride
        if deep and config.head == "context":
            self.regions, self.context = nn.Conv2d(deep, classes, 1), RegionContext(deep)
            deep *= 2
        if deep:
            self.classify = nn.Conv2d(deep, classes, 1)
        if seen:
            kernel = config.head == "kernel"
            self.classify_bands = Kernel(seen, config.landmarks, classes) if kernel else nn.Conv2d(seen, classes, 1)

    def _card_of_base(self) -> Card:
        common = {name: getattr(self.config, name) for name in ModelConfig.model_fields}
        count = self.config.base_classes or len(self.card.classes)
        names = ClassMap.of([f"class {number}" for number in range(max(2, count))])
        update = {"architecture": self.config.base, "config": {**common, **self.config.base_config}, "classes": names}
        return self.card.model_copy(update=update)

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """That of the base."""
        return self.base.backbone if self.config.base else nn.Identity()

    def logits(self, image: Float[Tensor, "b c h w"], *, auxiliary: bool = False) -> LogitMaps:
        return {"main": self.answer(image, self.deep(image))}

    def deep(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _ _"] | None:
        """The features of the base, on its grid."""
        return self.base.logits(image)["main"] if self.config.base else None

    def answer(
        self, image: Float[Tensor, "b c h w"], deep: Float[Tensor, "b d _ _"] | None
    ) -> Float[Tensor, "b k _ _"]:
        """The logits from the deep features of an image and its bands."""
        return self.head(None if deep is None else self.in_context(deep), self.seen(image), image.shape[-2:])

    def head(
        self, deep: Float[Tensor, "b e _ _"] | None, seen: Float[Tensor, "b v h w"] | None, size: Sequence[int]
    ) -> Float[Tensor, "b k _ _"]:
        """The logits from what the head looks at, of an image of some size; on the bands' grid, if it sees them."""
        corners = self.config.align_corners
        found = [] if seen is None else [self.classify_bands(seen)]
        if deep is not None:
            logits = self.classify(deep)
            found.append(resize_logits(logits, size, align_corners=corners) if found else logits)
        return sum(found[1:], found[0])

    def in_context(self, deep: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e h w"]:
        """The deep features; with a context head, augmented with the object regions."""
        return self.context(deep, self.regions(deep)) if self.config.head == "context" else deep

    def seen(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b v h w"] | None:
        """The bands, and their means over squares of some sides around each pixel, as far as they lie in the image."""
        if not self.config.sees_bands and self.config.base:
            return None
        means = (
            F.avg_pool2d(image, side, stride=1, padding=side // 2, count_include_pad=False)
            for side in self.config.squares
        )
        return torch.cat([image, *means], dim=1)
