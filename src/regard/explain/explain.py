"""What a model attends to at a pixel, in a box or for a class. Only the needed rows of the map are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from regard.blocks import ChannelAttention, NonLocal, NonLocalPosition, ObjectAttention, PositionAttention
from regard.errors import ConfigError
from regard.explain.explanation import Explanation, Place
from regard.inference.pictures import visible
from regard.inference.scores import evaluating, scores_of
from regard.io.image import Pixels, image_size, read_image
from regard.io.raster import Box
from regard.io.source import Source, is_photograph
from regard.models import Segmenter
from regard.models.danet_ocr import PositionContext
from regard.ops.attention import Compared, attention_map, to_tokens
from regard.ops.resize import most_likely
from regard.options import ALIGNMENT, TILE, Windows

At = str | Sequence[int]
Context = dict[str, Any]
SHOWN_CHANNELS = 4
WEIGHTS_AT_ONCE = 2**22
COMPARED = "compared"  # the method by which a block says what it compares
NAMES: dict[type[nn.Module], str] = {
    PositionAttention: "position attention",
    NonLocal: "non-local attention",
    NonLocalPosition: "non-local position attention",
    PositionContext: "context of pixels",
    ObjectAttention: "object context",
    ChannelAttention: "channel attention",
}
BLOCKS: tuple[type[nn.Module], ...] = tuple(NAMES)


@dataclass
class Seen:
    """The first pass through a context block: what it compared, its inputs and its output."""

    block: nn.Module
    compared: Compared | None = None
    inputs: tuple[Any, ...] = ()
    output: Any = None

    @property
    def name(self) -> str:
        return next(name for kind, name in NAMES.items() if isinstance(self.block, kind))

    @property
    def gate(self) -> float | None:
        """The learned factor on what the block adds, if it has one."""
        factor = getattr(self.block, "gamma", getattr(self.block, "alpha", None))
        return None if factor is None else factor.item()

    def keep(self, _: nn.Module, inputs: Any, output: Any) -> None:
        """Forward hook of the block."""
        if self.output is None:
            self.inputs, self.output = inputs, output

    def compare(self, *inputs: Any) -> Compared:
        """Stands in for the block's method ``compared`` and keeps what it returns."""
        values: Compared = getattr(type(self.block), COMPARED)(self.block, *inputs)
        self.compared = self.compared or values
        return values


def has_attention(model: nn.Module) -> bool:
    """Whether the model has an attention block."""
    return any(isinstance(module, BLOCKS) for module in model.modules())


def explain(
    model: Segmenter, source: str | Path | Source, at: At, *, bands: Sequence[int | str] | None = None, tile: int = 1024
) -> Explanation:
    """Explain a prediction: the attention weights, object regions and channels behind it.

    Args:
        model: a network with attention, loaded without ``fast``.
        source: a photograph, which is not tiled, or a raster, which is read in one window of ``tile`` pixels around
            ``at``. A map that is blended from other windows may differ a little.
        at: a pixel ``(x, y)`` = (column, row) from 0 at the top left, a box ``(x, y, width, height)``, or the name of a
            class, for all pixels predicted as it.
        bands: the bands of ``source`` that the model takes, by number or name.
        tile: side of the window in pixels, a multiple of 32.

    A model of several scales shows its finest.

    Raises:
        ConfigError: ``at`` is outside the image or without data, or the model has no attention.
        UnknownName: no class of that name.
        UnreadableImage, BandMismatch: the source cannot be read, or not with this model.
    """
    path, place = Source.of(source), at if isinstance(at, str) else Place.of(at)
    if not has_attention(model):
        model.check_plain("explained")
        raise ConfigError(
            f"{model.card.architecture} has no attention to show. Explain a danet, danet_ocr, ocrnet or non_local."
        )
    chosen = model.classes.label_of(place) if isinstance(place, str) else None
    box = _window(path, place, Windows(tile, overlap=0).tile or TILE)
    pixels = read_image(path, bands=bands, expected=model.bands, box=box)
    with evaluating(model), recording(model) as seen:
        scores = scores_of(model, pixels).cpu()
    where, labels = _where(path, place, box, pixels, model, scores)
    probabilities = scores[:, torch.from_numpy(where)].softmax(dim=0).mean(dim=1).numpy()
    label = int(probabilities.argmax()) if chosen is None else chosen
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
    """Parse ``--at``: ``312,840`` is a pixel, ``100,50,40,30`` a box, anything else the name of a class."""
    parts = text.replace(" ", "").split(",")
    numeric = len(parts) > 1 and all(part.removeprefix("-").isdecimal() for part in parts)
    return tuple(map(int, parts)) if numeric else text


def _window(path: Source, place: Place | str, tile: int) -> Box:
    """The whole photograph, or a window of a raster of ``tile`` pixels around the place, aligned."""
    size, name = image_size(path), f"class {place}" if isinstance(place, str) else str(place)
    if not isinstance(place, str) and (
        min(place[:2]) < 0 or place.x + place.width > size[1] or place.y + place.height > size[0]
    ):
        raise ConfigError(
            f"{name} is outside {path.name}, which is {size[1]} wide and {size[0]} high: x goes from 0 to "
            f"{size[1] - 1}, y from 0 to {size[0] - 1}. Give x (the column) first."
        )
    if is_photograph(path) or max(size) <= tile:
        return Box(0, 0, *size)
    if isinstance(place, str) or max(place[2:]) > max(1, tile - 2 * ALIGNMENT):
        raise ConfigError(
            f"{name} does not fit in one window of {tile} pixels of {path.name} ({size[1]} x {size[0]}). "
            "Give a larger tile, or a pixel or smaller box."
        )
    top, height = _span(place.y + place.height // 2, size[0], tile)
    left, width = _span(place.x + place.width // 2, size[1], tile)
    return Box(top, left, height, width)


def _span(middle: int, full: int, tile: int) -> tuple[int, int]:
    """Start (a multiple of 32) and length of a window around ``middle`` of an axis, moved inwards at its ends."""
    last = -(-max(0, full - tile) // ALIGNMENT) * ALIGNMENT
    begin = min(max(0, middle - tile // 2) // ALIGNMENT * ALIGNMENT, last)
    return begin, min(tile, full - begin)


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, Seen]]:
    """Inside, the first pass through each context block is kept, by the block's path."""
    found = {path: Seen(block) for path, block in model.named_modules() if isinstance(block, BLOCKS)}
    with ExitStack() as after:
        for seen in found.values():
            after.callback(seen.block.register_forward_hook(seen.keep).remove)
            vars(seen.block)[COMPARED] = seen.compare
            after.callback(vars(seen.block).pop, COMPARED)
        yield found


def weights_of(compared: Compared, where: Bool[np.ndarray, "h w"], align_corners: bool) -> Float[np.ndarray, " m"]:
    """The weight on each key, as the mean over the pixels ``where``; only their rows of the map are computed."""
    query, key, scale, _ = compared
    share = torch.from_numpy(cells(where, query.shape[2:], align_corners)).flatten().to(query)
    total = key.new_zeros(key.shape[1])
    for chunk in share.nonzero()[:, 0].split(max(1, WEIGHTS_AT_ONCE // key.shape[1])):
        weights = attention_map(to_tokens(query)[:, chunk], key, scale=scale)
        total += (share[chunk] @ weights[0]) / share.sum()
    return total.cpu().numpy()


def _where(
    path: Source, place: Place | str, box: Box, pixels: Pixels, model: Segmenter, scores: Float[Tensor, "k h w"]
) -> tuple[Bool[np.ndarray, "h w"], Integer[np.ndarray, "h w"]]:
    """The pixels to explain, and every pixel's class (the ignore index where there is no data)."""
    names = model.classes.names
    labels = np.where(pixels.valid, most_likely(scores[None])[0].numpy(), model.classes.ignore_index)
    if isinstance(place, str):
        where = labels == model.classes.label_of(place)
        found = [names[label] for label in np.unique(labels[pixels.valid])]
        missing = f"no pixel of {path.name} is predicted as {place}. Name {', '.join(found) or 'another image'}."
    else:
        top, left = place.y - box.top, place.x - box.left
        where = np.zeros_like(pixels.valid)
        where[top : top + place.height, left : left + place.width] = True
        where &= pixels.valid
        missing = f"{place} of {path.name} holds no data. Choose a pixel with data."
    if not where.any():
        raise ConfigError(missing)
    return where, labels


def cells(where: Bool[np.ndarray, "h w"], grid: Sequence[int], align_corners: bool) -> Float[np.ndarray, "_ _"]:
    """Count the pixels ``where`` in each cell of a feature map."""
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
        name = block.name if block.name not in found["attention"] else f"{block.name} of {path}"
        if block.gate is not None:
            found["gates"][name] = block.gate
        if block.compared is None:
            inside, outside = same if same.any() else where, valid & ~same
            found["channels"] = _channels(block.output[0].float().cpu().numpy(), inside, outside, align)
        elif block.compared.by_region:
            found["relations"][path] = weights_of(block.compared, where, align)
            logits = block.inputs[1][0].float()
            found["regions"] = logits.flatten(1).softmax(dim=1).unflatten(1, logits.shape[1:]).cpu().numpy()
        else:
            weights = weights_of(block.compared, where, align)
            found["attention"][name] = weights.reshape(block.compared.query.shape[2:])
    return found


def _channels(
    maps: Float[np.ndarray, "c gh gw"], inside: np.ndarray, outside: np.ndarray, align: bool
) -> dict[int, Float[np.ndarray, "gh gw"]]:
    """The channels with the largest mean inside minus mean outside, in their own standard deviations."""
    near, far = (cells(pixels, maps.shape[1:], align) for pixels in (inside, outside))
    mean = [(maps * count).sum(axis=(1, 2)) / max(1, count.sum()) for count in (near, far)]
    contrast = (mean[0] - mean[1]) / (maps.std(axis=(1, 2)) + 1e-12)
    return {int(number): maps[number] for number in np.argsort(-contrast, kind="stable")[:SHOWN_CHANNELS]}
