"""Deep features of a scene, window by window, kept on disk: what heads are fitted to and then answer from."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from regard.files import digest, replacing, writing
from regard.inference.scores import prepare
from regard.io.image import Pixels
from regard.io.raster import Box, Raster
from regard.io.window_reader import padded
from regard.mapping.blend import axes
from regard.mapping.region import Regions, Window
from regard.models.refined import Refined
from regard.ops.windows import Axis
from regard.options import Views, Windows

Deep = Float[Tensor, "1 d _ _"]


class Samples(NamedTuple):
    """Some pixels of a scene: their deep features, their bands and means around them, and the present logits."""

    deep: Float[Tensor, "n d"]
    seen: Float[Tensor, "n c"]
    present: Float[Tensor, "n k"]
    valid: Int[Tensor, " m"]  # the places of those that hold data among all that were asked for

    def chosen(self, which: Tensor) -> Samples:
        """Some of them."""
        return Samples(*(values[which] for values in self))


class Store:
    """Arrays in a folder, at most ``budget`` bytes of them: the ones that were not used for longest are deleted."""

    def __init__(self, folder: Path, budget: float) -> None:
        self.folder, self.budget = folder, budget
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str) -> np.ndarray | None:
        """An array; None where it is not kept, or its file is damaged."""
        path = self.folder / f"{name}.npy"
        try:
            found = np.load(path, allow_pickle=False)
            os.utime(path)
        except (OSError, ValueError, EOFError):
            return None
        return found

    def put(self, name: str, values: np.ndarray) -> None:
        """Keep an array, if it fits into the budget at all."""
        if values.nbytes > self.budget:
            return
        files = sorted(self.folder.rglob("*.npy"), key=lambda path: path.stat().st_mtime_ns)
        used = sum(path.stat().st_size for path in files)
        for path in files:
            if used + values.nbytes <= self.budget:
                break
            used -= path.stat().st_size
            path.unlink(missing_ok=True)
        target = self.folder / f"{name}.npy"
        with writing(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as part, part.open("wb") as file:
                np.save(file, values)


class Layout:
    """The windows of a scene at a stride, as :func:`regard.predict` takes them, and the base's features of each."""

    def __init__(
        self, start: Refined, raster: Raster, windows: Windows, stride: int, squares: tuple[int, ...], store: Store
    ) -> None:
        self.start, self.raster, self.windows, self.stride, self.store = start, raster, windows, stride, store
        self.squares = squares
        self._known: dict[tuple[int, int], tuple[Tensor, ...] | None] = {}  # by row and column; None without data
        self.vertical, self.horizontal = axes(raster.size, windows, stride)
        identity: list[Any] = [
            raster.fingerprints,
            raster.bands,
            raster.no_data,
            vars(windows),
            stride,
            start.card.mean,
        ]
        identity += [start.card.std, start.config.base, start.config.base_config, start.config.output_stride]
        weights = digest({name: value for name, value in start.state_dict().items() if name.startswith("base.")})
        text = json.dumps([*identity, weights], default=str)
        self.key = digest({"text": torch.tensor(list(text.encode()), dtype=torch.uint8)})[:16]

    def pixels(self, window: Window) -> Pixels:
        """The pixels of a window."""
        box = (self.vertical.begins[window[0]], self.horizontal.begins[window[1]])
        size = (self.vertical.window, self.horizontal.window)
        return padded(self.raster, Box(*(self.stride * length for length in (*box, *size))))

    def image(self, pixels: Pixels) -> Float[Tensor, "1 c h w"]:
        """They as the network takes them."""
        return prepare(*pixels, self.start.scaling)[None].to(self.start.device)

    @torch.inference_mode()
    def deep(self, window: Window, image: Float[Tensor, "1 c h w"]) -> Deep | None:
        """The deep features of a window, from the disk if they are there; None without a base."""
        if not self.start.config.base:
            return None
        name = f"{self.key}/{window[0]}_{window[1]}"
        kept = self.store.get(name)
        if kept is not None and kept.ndim == 4 and kept.dtype == np.float32:
            return torch.from_numpy(kept).to(self.start.device)
        found = self.start.deep(image)
        assert found is not None
        self.store.put(name, found.cpu().numpy())
        return found

    def nearest(self, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n 2"]:
        """The window that weighs most in each pixel's blend."""
        cells = (rows // self.stride, columns // self.stride)
        return np.stack(
            [_heaviest(*each) for each in zip((self.vertical, self.horizontal), cells, strict=True)], axis=1
        )

    def by_window(
        self, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]
    ) -> Iterator[tuple[Window, Int[np.ndarray, " m"], Int[np.ndarray, " m"], Int[np.ndarray, " m"]]]:
        """Each window that some pixels are taken from: the numbers of these, and their rows and columns in it."""
        windows, which = np.unique(self.nearest(rows, columns), axis=0, return_inverse=True)
        for number, (row, column) in enumerate(windows.tolist()):
            here = np.flatnonzero(which.ravel() == number)
            top, left = self.vertical.begins[row] * self.stride, self.horizontal.begins[column] * self.stride
            yield (row, column), here, rows[here] - top, columns[here] - left

    def samples(self, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]) -> Samples:
        """What a head may get of some pixels of the scene, those that hold data. A pixel is read once."""
        pixels = list(zip(rows.tolist(), columns.tolist(), strict=True))
        new = [place for place, pixel in enumerate(pixels) if pixel not in self._known]
        self._read(rows[new], columns[new])
        held = {place: known for place, pixel in enumerate(pixels) if (known := self._known[pixel]) is not None}
        if not held:
            width, classes = len(self.start.bands) * (1 + len(self.squares)), len(self.start.classes)
            deep, seen, present = (torch.zeros(0, size).double() for size in (0, width, classes))
        else:
            deep, seen, present = (torch.stack(values) for values in zip(*held.values(), strict=True))
        return Samples(deep, seen, present, torch.tensor([*held], dtype=torch.int64))

    @torch.inference_mode()
    def _read(self, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]) -> None:
        looking = looking_at_bands(self.start, self.squares)
        self._known.update(dict.fromkeys(zip(rows.tolist(), columns.tolist(), strict=True)))
        for window, here, y, x in self.by_window(rows, columns):
            pixels = self.pixels(window)
            held = pixels.valid[y, x]
            if not held.any():
                continue
            image, at = self.image(pixels), (torch.from_numpy(y[held]), torch.from_numpy(x[held]))
            deep, size = self.deep(window, image), image.shape[-2:]
            seen = _all(looking.seen(image))[0, :, at[0], at[1]].T
            features = torch.zeros(len(seen), 0) if deep is None else at_pixels(deep, at, size)
            parts = (features, seen, at_pixels(self.start.answer(image, deep), at, size))
            places = zip(rows[here[held]].tolist(), columns[here[held]].tolist(), strict=True)
            self._known.update(zip(places, zip(*(values.double().cpu() for values in parts), strict=True), strict=True))

    @torch.inference_mode()
    def in_context(
        self, model: Refined, rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " n"]
    ) -> Float[Tensor, "n e"]:
        """The deep features of pixels with those of the object regions that a model with a context head finds."""
        found: dict[int, Tensor] = {}
        for window, here, y, x in self.by_window(rows, columns):
            image = self.image(self.pixels(window))
            deep = self.deep(window, image)
            assert deep is not None
            values = at_pixels(model.in_context(deep), (torch.from_numpy(y), torch.from_numpy(x)), image.shape[-2:])
            found.update(zip(here.tolist(), values.double(), strict=True))
        return torch.stack([found[place] for place in range(len(rows))])

    def spread(self, count: int, windows: int, seed: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Rows and columns of ``count`` pixels of the scene, drawn at random in some windows that are drawn first."""
        rng, (height, width) = np.random.default_rng([seed, 1]), self.raster.size
        every = [(row, column) for row in self.vertical.begins for column in self.horizontal.begins]
        picked = rng.permutation(len(every))[:windows]
        corners = self.stride * np.array(every)[picked[rng.integers(len(picked), size=count)]]
        sizes = self.stride * np.array([self.vertical.window, self.horizontal.window])
        ends = np.minimum(corners + sizes, (height, width))
        places = (corners + rng.random((count, 2)) * (ends - corners)).astype(np.int64)
        return places[:, 0], places[:, 1]


class RefinedRegions(Regions):
    """The map of a refined model, box by box, from the features that are kept: equal to that of the model itself."""

    def __init__(self, model: Refined, layout: Layout) -> None:
        self.layout = layout
        super().__init__(copy.copy(model), layout.raster, layout.windows, Views())

    def _window(self, window: Window) -> Float[Tensor, "k _ _"]:
        if self.model.config.base:  # type: ignore[attr-defined]
            self.model.deep = lambda image: self.layout.deep(window, image)  # type: ignore[assignment]
        return super()._window(window)


def at_pixels(
    maps: Float[Tensor, "1 d _ _"], at: tuple[Int[Tensor, " n"], Int[Tensor, " n"]], size: tuple[int, ...]
) -> Float[Tensor, "n d"]:
    """The values at some pixels (rows, columns) of an image, of maps that are resized to its ``size`` bilinearly."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps[0, :, at[0], at[1]].T
    centres = torch.stack([(2 * at[1] + 1) / size[1] - 1, (2 * at[0] + 1) / size[0] - 1], dim=1)
    grid = centres.to(maps)[None, None]
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0].T


def _all(seen: Tensor | None) -> Tensor:
    assert seen is not None
    return seen


def looking_at_bands(start: Refined, squares: tuple[int, ...]) -> Refined:
    """The same network, with bands and squares in its config."""
    looking = copy.copy(start)
    looking.config = start.config.model_copy(update={"sees_bands": True, "squares": squares})
    return looking


def _heaviest(axis: Axis, cells: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    weights = np.zeros((len(axis.begins), axis.cells))
    for number, (begin, weight) in enumerate(zip(axis.begins, axis.weights, strict=True)):
        weights[number, begin : begin + axis.window] = weight.numpy()
    return weights.argmax(axis=0)[cells]
