"""The result of an explanation: arrays, and a figure of them."""

from __future__ import annotations

import io
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from PIL import Image

from regard.classes import ClassMap
from regard.errors import ConfigError
from regard.files import write_bytes
from regard.inference.pictures import colourise, heat

KINDS = (".png", ".pdf", ".svg")
HEAT = "inferno"
WIDTH = 12.0  # inches
SIDE = 720  # pixels: larger pictures are shrunk for the figure
MOST_REGIONS, MOST_BARS = 6, 10
INK, QUIET = "#222222", "#6b7280"
SMALL: dict[str, Any] = {"fontsize": 8, "color": QUIET}
SERIES = ("#1f4e79", "#6ea4d0", "#c4d8ea")
Grid = Float[np.ndarray, "_ _"]


class Place(NamedTuple):
    """A box of an image by its top left corner and size; a pixel is a box of 1 x 1."""

    x: int
    y: int
    width: int = 1
    height: int = 1

    @classmethod
    def of(cls, at: Sequence[int]) -> Place:
        """From 2 or 4 whole numbers. Raises ConfigError for others."""
        try:
            numbers = [operator.index(value) for value in at]
        except TypeError:
            numbers = []
        if len(numbers) not in (2, 4) or min(numbers[2:], default=1) < 1:
            raise ConfigError(
                f"got at={at!r}; need a pixel (x, y), a box (x, y, width, height) in whole pixels, or a class's name."
            )
        return cls(*numbers)

    def __str__(self) -> str:
        size = "pixel" if self[2:] == (1, 1) else f"box of {self.width} x {self.height} pixels at"
        return f"{size} ({self.x}, {self.y})"


@dataclass(frozen=True)
class Explanation:
    """What a model attends to at a pixel; for a box or a class, the mean over its pixels.

    Attributes:
        picture: (h, w, 3), the input in 8 bits; its top left corner is ``origin`` = (x, y) of the image.
        where: (h, w), the pixels explained. labels: (h, w), the predicted classes.
        probabilities: (k,), of each class. label: the most probable class, or the one asked for.
        attention: by block, attention weights (gh, gw) over the feature map, of sum 1.
        regions: (k, gh, gw) or None: soft object regions, each of sum 1.
        relations: by object context, the attention weights (k,) over the regions, of sum 1.
        channels: by number, the outputs (gh, gw) of channel attention that separate the class best, best first.
        gates: by block, its learned factor (gamma or alpha). It is 0 before training: the block adds nothing.
    """

    name: str
    place: Place | str
    picture: UInt8[np.ndarray, "h w 3"]
    origin: tuple[int, int]
    where: Bool[np.ndarray, "h w"]
    classes: ClassMap
    label: int
    labels: Integer[np.ndarray, "h w"]
    probabilities: Float[np.ndarray, " k"]
    attention: Mapping[str, Grid]
    regions: Float[np.ndarray, "k gh gw"] | None
    relations: Mapping[str, Float[np.ndarray, " k"]]
    channels: Mapping[int, Grid]
    gates: Mapping[str, float]
    align_corners: bool = False

    def on_picture(self, grid: Grid, size: Sequence[int] | None = None) -> Grid:
        """A feature map, resized by bicubic interpolation to the picture's size or another (height, width)."""
        values = torch.from_numpy(np.ascontiguousarray(grid))[None, None]
        target = tuple(size or self.where.shape)
        smooth = F.interpolate(values, target, mode="bicubic", align_corners=self.align_corners)
        return smooth[0, 0].numpy().clip(grid.min(), grid.max())

    @property
    def region_weights(self) -> Float[np.ndarray, " k"]:
        """The attention weights over the regions, the mean over the object contexts; without any, the probabilities."""
        return np.mean(list(self.relations.values()) or [self.probabilities], axis=0)

    def save(self, path: str | Path) -> Path:
        """Write the figure as ``.png``, ``.pdf`` or ``.svg``.

        Raises:
            ConfigError: another ending.
            OutputError: it cannot be written there.
        """
        target = Path(path)
        if target.suffix.lower() not in KINDS:
            raise ConfigError(f"an explanation is saved as {', '.join(KINDS)}; got {target.name}. Name it why.png.")
        picture = io.BytesIO()
        draw(self).savefig(picture, format=target.suffix[1:].lower(), dpi=150)
        return write_bytes(target, picture.getbuffer())

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        draw(self).savefig(buffer, dpi=80)
        return buffer.getvalue()


def draw(why: Explanation) -> Figure:
    """The figure: a row of panels for the prediction, one for the regions and one for the channels."""
    ratio = min(1.5, max(0.5, why.where.shape[0] / why.where.shape[1]))
    rows: list[tuple[Callable[..., None], int]] = [(_answer, 3 + len(why.attention))]
    rows += [] if why.regions is None else [(_regions, 1 + min(MOST_REGIONS, len(why.regions)))]
    rows += [(_channels, len(why.channels))] if why.channels else []
    heights = [min(4.0, WIDTH / count) * ratio + 0.7 for _, count in rows]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.4), layout="constrained")
    where = f"class {why.place}, mean of its pixels" if isinstance(why.place, str) else str(why.place)
    title = f"{why.name}, {where}: {why.classes.names[why.label]} {why.probabilities[why.label]:.2f}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (row, count) in zip(parts, rows, strict=True):
        row(why, part, list(part.subplots(1, count, squeeze=False)[0]))
    return figure


def _answer(why: Explanation, part: SubFigure, axes: Sequence[Axes]) -> None:
    photograph, predicted, *attended, bars = axes
    picture, colours = (_small(image) / 255 for image in (why.picture, colourise(why.labels, why.classes)))
    light = np.where(why.where | isinstance(why.place, Place), 255, 80).astype(np.uint8)
    _show(why, photograph, picture * _small(np.stack([light] * 3, axis=2)) / 255, "explained", mark=True)
    _show(why, predicted, 0.35 * picture + 0.65 * colours, "prediction")
    gates = {name: f"{name}, gate {gate:.2f}" for name, gate in why.gates.items()}
    grids = {gates.get(name, name): weights for name, weights in why.attention.items()}
    _heat_maps(why, part, attended, grids)
    _bars(bars, why.classes, {"": why.probabilities}, "probability")


def _regions(why: Explanation, part: SubFigure, axes: Sequence[Axes]) -> None:
    if why.regions is None:
        return
    *maps, bars = axes
    chosen = sorted(np.argsort(-why.region_weights, kind="stable")[: len(maps)])
    grids = {f"region: {why.classes.names[k]}": why.regions[k] for k in chosen}
    _heat_maps(why, part, maps, grids)
    series = {path.removesuffix("_context"): weights for path, weights in why.relations.items()}
    _bars(bars, why.classes, series or {"": why.region_weights}, "weight of each region")


def _channels(why: Explanation, part: SubFigure, axes: Sequence[Axes]) -> None:
    """Each channel in standard deviations from its mean."""
    channels = {f"channel {number}": values for number, values in why.channels.items()}
    grids = {title: (values - values.mean()) / (values.std() + 1e-12) for title, values in channels.items()}
    _heat_maps(why, part, axes, grids, shares=False)


def _heat_maps(
    why: Explanation, part: SubFigure, axes: Sequence[Axes], grids: Mapping[str, Grid], *, shares: bool = True
) -> None:
    """Maps over the dimmed picture on one colour scale, clipped at the 99th percentile.

    ``shares`` add up to 1 and are shown as multiples of uniform attention, on a scale from 0 to 2 at least, so that
    uniform attention looks uniform.
    """
    if not grids:
        return
    grids = {title: grid * grid.size if shares else grid for title, grid in grids.items()}
    low, high = np.percentile(np.concatenate([grid.ravel() for grid in grids.values()]), (1, 99))
    scale = Normalize(0 if shares else low, max(high, 2 if shares else low + 1e-6), clip=True)
    grey = _small(why.picture).mean(axis=2, keepdims=True) / 255
    for axis, (title, grid) in zip(axes, grids.items(), strict=True):
        strength = np.asarray(scale(why.on_picture(grid, grey.shape[:2])))
        opacity = (0.4 + 0.45 * strength)[..., None]
        _show(why, axis, (1 - opacity) * grey + opacity * heat(strength, HEAT) / 255, title, mark=True)
    place: dict[str, Any] = {"location": "bottom", "aspect": 70, "shrink": 0.4, "pad": 0.02}
    bar = part.colorbar(ScalarMappable(scale, HEAT), ax=list(part.axes), **place)
    bar.set_label("× uniform attention" if shares else "standard deviations from the channel's mean", **SMALL)
    bar.ax.tick_params(labelsize=7, color=QUIET, labelcolor=QUIET)
    bar.outline.set_visible(False)


def _show(why: Explanation, axis: Axes, image: np.ndarray, title: str, *, mark: bool = False) -> None:
    height, width = why.where.shape
    axis.imshow(image, extent=(0, width, height, 0), interpolation="bilinear")
    axis.set_title(title, fontsize=9, loc="left", color=INK)
    axis.set_axis_off()
    if not mark or isinstance(why.place, str):
        return
    left, top = why.place.x - why.origin[0], why.place.y - why.origin[1]
    for thick, colour in ((3.6, "black"), (1.6, "white")):
        if why.place[2:] == (1, 1):
            axis.plot(left + 0.5, top + 0.5, "o", ms=11, mfc="none", mec=colour, mew=thick)
        else:
            axis.add_patch(Rectangle((left, top), *why.place[2:], fill=False, ec=colour, lw=thick))


def _bars(axis: Axes, classes: ClassMap, series: Mapping[str, Float[np.ndarray, " k"]], title: str) -> None:
    """Horizontal bars of the ``MOST_BARS`` largest classes; a single series has the classes' colours."""
    values = np.stack(list(series.values()))
    chosen = sorted(np.argsort(-values.mean(axis=0), kind="stable")[:MOST_BARS])
    places, thick = np.arange(len(chosen)), 0.8 / len(values)
    colours = [np.array(classes.palette)[chosen] / 255] if len(values) == 1 else SERIES * len(values)
    for index, (name, row, colour) in enumerate(zip(series, values[:, chosen], colours, strict=False)):
        drawn = axis.barh(places + (index + 0.5) * thick - 0.4, row, thick * 0.9, color=colour, label=name)
        if len(values) == 1:
            axis.bar_label(drawn, fmt="%.2f", padding=3, **SMALL)
    axis.tick_params(length=0, labelsize=7, labelcolor=QUIET)
    axis.set_yticks(places, [classes.names[k] for k in chosen], fontsize=8, color=INK)
    axis.set(xlim=(0, 1.15 * max(float(values.max()), len(values) == 1)), ylim=(len(chosen) - 0.4, -0.6))
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_title(title, fontsize=9, loc="left", color=INK)
    if len(values) > 1:
        axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(-0.1, -0.1), ncols=3)


def _small(values: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    image = Image.fromarray(values)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image)
