"""A new model by name, and the catalogue of networks."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from regard._version import __version__
from regard.card import RGB, Card
from regard.classes import ClassMap
from regard.errors import BandMismatch, ConfigError, LicenceWarning, RegardError, one_line, unknown
from regard.models import MODELS, Segmenter
from regard.models.backbone import licence_of, padding_of, preprocessing

OPEN_LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "mit")


def create(
    architecture: str,
    *,
    classes: ClassMap | Sequence[str],
    backbone: str = "resnet50",
    in_channels: int = 3,
    bands: Sequence[str] | None = None,
    pretrained: bool | str | Path = False,
    **config: Any,
) -> Segmenter:
    """A new network with random heads.

    The backbone's weights are random (``pretrained`` False or ``"none"``), timm's for ImageNet (True or ``"imagenet"``,
    downloaded once), or from a file with timm's names.

    On red, green, blue its mean and std are those of the backbone's ImageNet weights; on other bands 0 and 1, until
    training measures them. The card says which licence the backbone's weights have.

    Warns:
        LicenceWarning: these weights are under a licence that is not open (DINOv3's, or one without commercial use).

    Raises:
        UnknownName: no such architecture or backbone.
        ConfigError, StrideUnavailable, CheckpointError: see the model's config and ``build_backbone``.
        BandMismatch: as many ``bands`` as ``in_channels`` are needed.
    """
    names = band_names(in_channels, bands)
    scaling = unscaled(names)
    if names == RGB:
        scaling["mean"], scaling["std"] = preprocessing(backbone)
    start = {"none": False, "imagenet": True}.get(str(pretrained), pretrained)
    settings = {"backbone": backbone, **({"output_stride": None} if backbone.startswith("hrnet") else {}), **config}
    card = Card(
        architecture=architecture,
        config=_padded(settings),
        classes=ClassMap.of(classes),
        regard_version=__version__,
        backbone_licence=_licence(backbone, start),
        **scaling,
    )
    return build(card, pretrained=start)


def _licence(backbone: str, pretrained: bool | str | Path) -> str:
    """The licence of the backbone's weights for the card; a warning if it is no open one."""
    if not pretrained:
        return ""
    licence, owner = licence_of(backbone)
    if licence not in OPEN_LICENCES:
        text = f"the weights of backbone {backbone} ({owner}) have the licence {licence or 'not stated'}"
        warnings.warn(
            f"{text}, which is not an open-source one. Read it before you use or pass on what is made of them.",
            LicenceWarning,
            stacklevel=3,
        )
    if isinstance(pretrained, bool):
        return f"{licence or 'not stated'} ({owner})"
    return f"not known (a file); timm's weights of this network: {licence or 'not stated'} ({owner})"


def _padded(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with the padding that the backbone needs."""
    options = settings.get("backbone_options", {})
    if "pad" in options:
        return settings
    pad = padding_of(settings["backbone"], settings.get("output_stride", 8), options)
    return settings if pad == 1 else {**settings, "backbone_options": {**options, "pad": pad}}


def build(card: Card, *, pretrained: bool | str | Path = False) -> Segmenter:
    """The network that a card describes, with every default of its config written out in the card.

    An architecture or backbone that there is not is an UnknownName, settings that make no network are a ConfigError.
    """
    if card.architecture not in MODELS:
        raise unknown("architecture", card.architecture, MODELS)
    network = MODELS[card.architecture]
    config = network.parse(card).model_dump(mode="json")
    try:
        return network(card.model_copy(update={"config": config}), pretrained=pretrained)
    except RegardError:
        raise
    except Exception as error:  # timm takes any option, and stumbles over odd ones in its own code
        reason = one_line(error, 160, kind=True)
        raise ConfigError(f"no {card.architecture} can be built with {config} ({reason}). Correct it.") from error


def unscaled(bands: Sequence[str]) -> dict[str, Any]:
    """The card's bands with mean 0 and standard deviation 1 each."""
    return {"bands": tuple(bands), "mean": (0.0,) * len(bands), "std": (1.0,) * len(bands)}


def band_names(in_channels: int, bands: Sequence[str] | None) -> tuple[str, ...]:
    """The given names, else red, green, blue for three, else band_1, ...; BandMismatch if the numbers differ."""
    if in_channels < 1 or bands == ():
        raise BandMismatch(f"got in_channels={in_channels}, bands={bands}; a network needs one band at least.")
    if bands is None:
        return RGB if in_channels == 3 else tuple(f"band_{index + 1}" for index in range(in_channels))
    if in_channels not in (3, len(bands)):
        got = f"{len(bands)} band names ({', '.join(bands)}) but in_channels={in_channels}"
        raise BandMismatch(f"{got}. Give as many of both.")
    return tuple(bands)


class Row(NamedTuple):
    """A network with 19 classes: parameters in millions, and 10^9 multiplications to predict 512 x 1024 pixels.

    ``converts`` names the code bases whose checkpoints become it.
    """

    name: str
    architecture: str
    config: dict[str, Any]
    parameters: float
    gmac: float
    stride: int
    converts: tuple[str, ...]


def catalogue() -> list[Row]:
    """One row a network, by architecture and size: the table of ``regard models``."""
    rows = json.loads((resources.files("regard") / "checkpoints" / "catalogue.json").read_text(encoding="utf-8"))
    return [Row(**{**row, "converts": tuple(row["converts"])}) for row in rows]
