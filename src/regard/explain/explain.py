"""What a model listens to: at a pixel, in a box, or for a class; the n x n map is never held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from regard.blocks import ChannelAttention, NonLocal, NonLocalPosition, ObjectAttention, PositionAttention
from regard.errors import ConfigError
from regard.explain.explanation import Explanation, Place
from regard.inference.pictures import visible
from regard.inference.views import class_scores, evaluating, scaling_of
from regard.io.image import Pixels, image_size, is_photograph, read_image
from regard.io.raster import Box
from regard.mapping.blend import ALIGNMENT, Tiling
from regard.models import Segmenter
from regard.models.danet_ocr import PositionContext
from regard.ops.attention import attention_map, gather_objects, to_tokens
from regard.ops.normalise import prepare
from regard.ops.resize import most_likely

At = str | Sequence[int]
Context = dict[str, Any]
SHOWN_CHANNELS = 4
WEIGHTS_AT_ONCE = 2**22


class Kind(NamedTuple):
    """A kind of context block: its name, and which of its parts are listened to ("" is the block itself)."""

    name: str
    parts: dict[str, str]


EMBEDDED = {"query": "query", "key": "key"}
KINDS: dict[type[nn.Module], Kind] = {
    PositionAttention: Kind("position attention", EMBEDDED),
    NonLocal: Kind("non-local attention", EMBEDDED),
    NonLocalPosition: Kind("non-local position attention", EMBEDDED),
    PositionContext: Kind("context of pixels", {"query": "query", "embedding": "", "regions": ""}),
    ObjectAttention: Kind("object context", {"query": "pixel", "key": "object", "regions": ""}),
    ChannelAttention: Kind("channel attention", {"attended": ""}),
}
BLOCKS: tuple[type[nn.Module], ...] = tuple(KINDS)


class Seen(NamedTuple):
    """What passed through a block: queries, keys, region logits, attended channels, each as a feature map."""

    block: nn.Module
    maps: dict[str, Float[Tensor, "1 _ _ _"]]

    @property
    def kind(self) -> Kind:
        return next(kind for block, kind in KINDS.items() if isinstance(self.block, block))

    @property
    def asks_regions(self) -> bool:
        """Whether its keys are object regions; else they are pixels."""
        return self.block.by_region if isinstance(self.block, PositionContext) else "regions" in self.maps

    @property
    def keys(self) -> Float[Tensor, "1 m d"]:
        if not isinstance(self.block, PositionContext):
            return to_tokens(self.maps["key"])
        pixels = to_tokens(self.maps["embedding"])
        return gather_objects(pixels, self.maps["regions"].flatten(2)) if self.asks_regions else pixels

    def row(self, where: Bool[np.ndarray, "h w"], align_corners: bool) -> Float[np.ndarray, " m"]:
        """How much the pixels ``where`` listen to each key: the mean of their rows of the attention map."""
        query, keys = self.maps["query"], self.keys
        share = torch.from_numpy(cells(where, query.shape[2:], align_corners)).flatten().to(query)
        asked = share.nonzero()[:, 0]
        total = keys.new_zeros(keys.shape[1])
        for some in asked.split(max(1, WEIGHTS_AT_ONCE // keys.shape[1])):
            weights = attention_map(to_tokens(query)[:, some], keys, scale=getattr(self.block, "scale", 1.0))
            total += (share[some] @ weights[0]) / share.sum()
        return total.cpu().numpy()


def explain(
    model: Segmenter, source: str | Path, at: At, *, bands: Sequence[int | str] | None = None, tile: int = 1024
) -> Explanation:
    """What the model listened to when it chose a class.

    ``at`` is a pixel ``(x, y)`` = (column, row), from 0 at the top left, in the order that image viewers and ``--at``
    have; a box ``(x, y, width, height)``; or the name of a class, for all pixels predicted so. A photograph is looked
    at whole, a raster through one window of ``tile`` pixels around the place: a map made of other windows may differ a
    little. Only the rows asked for are computed. A model that looks at several scales shows the finest.

    Raises:
        ConfigError: the place is outside the image or without data, or the model has no attention.
        UnknownName: no class of that name.
        UnreadableImage, BandMismatch: the source cannot be read, or not with this model.
    """
    path, place = Path(source), at if isinstance(at, str) else Place.of(at)
    if not any(isinstance(module, BLOCKS) for module in model.modules()):
        model.check_plain("explained")
        raise ConfigError(
            f"{model.card.architecture} has no attention to show. Explain a danet, danet_ocr, ocrnet or non_local."
        )
    asked = model.classes.label_of(place) if isinstance(place, str) else None
    box = _window(path, place, Tiling(tile, 0).checked().tile)
    pixels = read_image(path, bands=bands, expected=model.bands, box=box)
    image = prepare(pixels.values, pixels.valid, scaling_of(model))[None].to(next(model.parameters()).device)
    with evaluating(model), recording(model) as seen:
        scores = class_scores(model, image)[0].cpu()
    where, labels = _where(path, place, box, pixels, model, scores)
    probabilities = scores[:, torch.from_numpy(where)].softmax(dim=0).mean(dim=1).numpy()
    label = int(probabilities.argmax()) if asked is None else asked
    return Explanation(
        name=path.name,
        place=place,
        picture=visible(*pixels, model.bands),
        origin=(box.left, box.top),
        where=where,
        classes=model.classes,
        label=label,
        labels=labels,
        probabilities=probabilities,
        align_corners=model.config.align_corners,
        **_context(seen, where, labels == label, pixels.valid, model.config.align_corners),
    )


def parse_at(text: str) -> At:
    """What ``--at`` means: ``312,840`` a pixel, ``100,50,40,30`` a box, anything else the name of a class."""
    parts = text.replace(" ", "").split(",")
    numeric = len(parts) > 1 and all(part.removeprefix("-").isdecimal() for part in parts)
    return tuple(map(int, parts)) if numeric else text


def _window(path: Path, place: Place | str, tile: int) -> Box:
    """The whole photograph; of a raster about ``tile`` pixels around the place, on the network's grid."""
    size, what = image_size(path), f"class {place}" if isinstance(place, str) else str(place)
    if not isinstance(place, str) and (
        min(place[:2]) < 0 or place.x + place.width > size[1] or place.y + place.height > size[0]
    ):
        raise ConfigError(
            f"{what} is outside {path.name}, which is {size[1]} wide and {size[0]} high: x goes from 0 to "
            f"{size[1] - 1}, y from 0 to {size[0] - 1}. Give x (the column) first."
        )
    if is_photograph(path) or max(size) <= tile:
        return Box(0, 0, *size)
    if isinstance(place, str) or max(place[2:]) > max(1, tile - 2 * ALIGNMENT):
        raise ConfigError(
            f"{what} does not fit in one window of {tile} pixels of {path.name} ({size[1]} x {size[0]}). "
            "Give a larger tile, or a pixel or smaller box."
        )
    (top, height), (left, width) = (
        _span(begin + length // 2, full, tile)
        for begin, length, full in ((place.y, place.height, size[0]), (place.x, place.width, size[1]))
    )
    return Box(top, left, height, width)


def _span(middle: int, full: int, tile: int) -> tuple[int, int]:
    """Begin, a multiple of 32, and length of a window around ``middle`` of an axis, moved inwards at its ends."""
    last = -(-max(0, full - tile) // ALIGNMENT) * ALIGNMENT
    begin = min(max(0, middle - tile // 2) // ALIGNMENT * ALIGNMENT, last)
    return begin, min(tile, full - begin)


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, Seen]]:
    """Inside, the first pass through each context block leaves what the block compared, by the block's path."""
    blocks = {path: Seen(block, {}) for path, block in model.named_modules() if isinstance(block, BLOCKS)}

    def keep(maps: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            if name not in maps:
                maps[name] = inputs[1] if name == "regions" else inputs[0].query if name == "embedding" else output

        return hook

    handles = [
        seen.block.get_submodule(part).register_forward_hook(keep(seen.maps, name))
        for seen in blocks.values()
        for name, part in seen.kind.parts.items()
    ]
    try:
        yield blocks
    finally:
        for handle in handles:
            handle.remove()


def _where(
    path: Path, place: Place | str, box: Box, pixels: Pixels, model: Segmenter, scores: Float[Tensor, "k h w"]
) -> tuple[Bool[np.ndarray, "h w"], Integer[np.ndarray, "h w"]]:
    """The pixels asked about, and every pixel's class (the ignore index where there is no data)."""
    names = model.classes.names
    labels = np.where(pixels.valid, most_likely(scores[None])[0].numpy(), model.classes.ignore_index)
    if isinstance(place, str):
        where = labels == model.classes.label_of(place)
        found = [names[label] for label in np.unique(labels[pixels.valid])]
        missing = f"no pixel of {path.name} is predicted as {place}. Ask for {', '.join(found) or 'another image'}."
    else:
        top, left = place.y - box.top, place.x - box.left
        where = np.zeros_like(pixels.valid)
        where[top : top + place.height, left : left + place.width] = True
        where &= pixels.valid
        missing = f"{place} of {path.name} holds no data. Choose a place with data."
    if not where.any():
        raise ConfigError(missing)
    return where, labels


def cells(where: Bool[np.ndarray, "h w"], grid: Sequence[int], align_corners: bool) -> Float[np.ndarray, "_ _"]:
    """How many of the pixels ``where`` lie in each cell of a network's grid."""
    counts = np.zeros(tuple(grid))
    places = []
    for index, length, count in zip(np.nonzero(where), where.shape, grid, strict=True):
        place = index * (count - 1) / max(1, length - 1) if align_corners else (index + 0.5) * count / length - 0.5
        places.append(np.floor(place + 0.5).astype(int).clip(0, count - 1))
    np.add.at(counts, tuple(places), 1)
    return counts


def _context(seen: dict[str, Seen], where: np.ndarray, same: np.ndarray, valid: np.ndarray, align: bool) -> Context:
    """The arrays of every block, for the pixels ``where``, whose class is predicted at the pixels ``same``."""
    found: Context = {"attention": {}, "relations": {}, "regions": None, "channels": {}, "gates": {}}
    for path, block in seen.items():
        name = block.kind.name if block.kind.name not in found["attention"] else f"{block.kind.name} of {path}"
        if "attended" in block.maps:
            inside, outside = same if same.any() else where, valid & ~same
            found["channels"] = _channels(block.maps["attended"][0].float().cpu().numpy(), inside, outside, align)
        elif block.asks_regions:
            found["relations"][path] = block.row(where, align)
        else:
            found["attention"][name] = block.row(where, align).reshape(block.maps["query"].shape[2:])
        gate = getattr(block.block, "gamma", getattr(block.block, "alpha", None))
        found["gates"] |= {} if gate is None else {name: gate.item()}
        if found["regions"] is None and "regions" in block.maps:
            logits = block.maps["regions"][0].float()
            found["regions"] = logits.flatten(1).softmax(dim=1).unflatten(1, logits.shape[1:]).cpu().numpy()
    return found


def _channels(
    maps: Float[np.ndarray, "c gh gw"], inside: np.ndarray, outside: np.ndarray, align: bool
) -> dict[int, Float[np.ndarray, "gh gw"]]:
    """The maps that are highest inside, against outside, in units of their own spread."""
    near, far = (cells(pixels, maps.shape[1:], align) for pixels in (inside, outside))
    mean = [(maps * count).sum(axis=(1, 2)) / max(1, count.sum()) for count in (near, far)]
    contrast = (mean[0] - mean[1]) / (maps.std(axis=(1, 2)) + 1e-12)
    return {int(number): maps[number] for number in np.argsort(-contrast, kind="stable")[:SHOWN_CHANNELS]}
