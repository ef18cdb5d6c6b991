"""The sums over pixels that a network takes, and sums over a scene in their places: which there are, in what order.

A network may sum over what it has computed from other sums, as the object regions behind DANet do.
Such sums are added in a pass over the scene of their own, when the others are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from regard.blocks import (
    ASPP,
    ChannelAttention,
    NonLocal,
    NonLocalPosition,
    ObjectAttention,
    PositionAttention,
    SqueezeExcite,
)
from regard.errors import ConfigError
from regard.models import Segmenter
from regard.models.danet_ocr import DANetOCR, PositionContext
from regard.ops.scene_sums import Place, SceneChannels, SceneMean, SceneRegions, SceneSum, SceneSummary

PROBE = 128  # pixels of the image that shows which sums depend on which
Passes = list[list[SceneSum]]
Replaced = list[tuple[nn.Module, str, object]]

# Which functions of which modules sum over pixels, and what stands in their place.
SUMS: dict[type[nn.Module], dict[str, type[SceneSum]]] = {
    ObjectAttention: {"over_pixels": SceneRegions},
    PositionContext: {"keys_of": SceneRegions, "values_of": SceneRegions},
    ChannelAttention: {"mix": SceneChannels},
    PositionAttention: {"attend": SceneSummary},
    NonLocal: {"attend": SceneSummary},
    NonLocalPosition: {"attend": SceneSummary},
}
MEANS = {ASPP: "image", SqueezeExcite: "excite"}  # what begins with the mean over the pixels


@contextmanager
def summing_over_scene(model: Segmenter) -> Iterator[Passes]:
    """The sums of a model over a scene, pass by pass, which stand in the places of those over an image meanwhile.

    Raises:
        ConfigError: the model has no such sums, or takes them at several sizes of the image.
    """
    place, replaced = Place(), Replaced()
    try:
        sums = list(_replace(model, place, replaced))
        if not sums:
            raise ConfigError(
                f"this {model.card.architecture} computes nothing over all pixels of an image, or is an exported file. "
                "Omit the context of the scene, or give the model's .safetensors."
            )
        yield passes_of(model, sums)
    finally:
        for owner, name, old in replaced:
            if old is None:
                delattr(owner, name)
            else:
                setattr(owner, name, old)


def _replace(model: Segmenter, place: Place, replaced: Replaced) -> Iterator[SceneSum]:
    """Put sums over the scene in the places of those over an image; what stood there is added to ``replaced``."""
    for module in list(model.modules()):
        kinds = next((kinds for kind, kinds in SUMS.items() if isinstance(module, kind)), {})
        if isinstance(module, PositionContext) and not module.by_region:
            kinds = {"attend": SceneSummary}
        for name, kind in kinds.items():
            replaced.append((module, name, None))
            setattr(module, name, found := kind(place))
            yield found
        pooled = getattr(module, MEANS.get(type(module), ""), None)
        if pooled is not None:
            replaced.append((pooled, "0", pooled[0]))
            pooled[0] = mean = SceneMean(place)
            yield mean


@torch.inference_mode()
def passes_of(model: Segmenter, sums: Sequence[SceneSum]) -> Passes:
    """The sums in the order in which they can be added: a pass for those that depend on none, or on earlier ones.

    The network itself tells: noise in what one sum gives changes the arguments of those that depend on it.

    Raises:
        ConfigError: a sum is taken several times for one image.
    """
    image = torch.randn(1, len(model.bands), PROBE, PROBE, generator=torch.Generator().manual_seed(0))
    image = image.to(model.device)
    plain = _arguments(model, sums, image)
    used = [each for each in sums if plain[each]]
    if any(len(plain[each]) > 1 for each in used):
        raise ConfigError(
            f"{model.card.architecture} computes its context at several sizes of an image. Omit the context of the "
            "scene."
        )
    needs: dict[SceneSum, set[SceneSum]] = {each: set() for each in used}
    _link(model)
    for each in used:
        each.shaken = 1.0
        shaken = _arguments(model, used, image)
        each.shaken = 0.0
        for other in used:
            if not all(map(torch.equal, shaken[other][0], plain[other][0])):
                needs[other].add(each)
    for each in used:
        if isinstance(each, SceneRegions) and each.behind is not None:
            needs[each].discard(each.behind[0])
    passes: Passes = []
    while used:
        passes.append([each for each in used if not needs[each] & set(used)])
        used = [each for each in used if each not in passes[-1]]
    return passes


def _link(model: Segmenter) -> None:
    """Tell the regions of the fusion's channel branch which attention they are behind."""
    for network in model.modules():
        if isinstance(network, DANetOCR) and isinstance(attention := network.channel[1], ChannelAttention):
            regions: Any = network.channel_context.over_pixels
            regions.behind = (attention.mix, attention.gamma)


def _arguments(model: Segmenter, sums: Sequence[SceneSum], image: Tensor) -> dict[SceneSum, list[tuple[Tensor, ...]]]:
    """What each sum is taken of in an image, each time that it is taken."""
    for each in sums:
        each.seen = []
    with torch.random.fork_rng([]):
        model.logits(image)
    found = {each: each.seen or [] for each in sums}
    for each in sums:
        each.seen = None
    return found
