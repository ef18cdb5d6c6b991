"""Context over a whole scene: what a network sums over pixels is summed over all windows first, then given to each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from regard.errors import ConfigError
from regard.files import digest, json_of, replacing, writing
from regard.inference.scores import prepare
from regard.inference.whole_scene import Passes, summing_over_scene
from regard.io.image import Pixels
from regard.io.raster import Box, Raster
from regard.io.window_reader import read_windows
from regard.mapping.blend import READ_BYTES, axes
from regard.models import Segmenter
from regard.ops.scene_sums import Enough
from regard.options import MapOptions, Views, Windows
from regard.progress import Progress

States = list[dict[str, Tensor]]
Keep = Callable[[tuple[int, int], States], None]  # the sums so far, with the pass and its row that come next


class WindowContext:
    """The context of an image is the image itself: there is nothing to tell the network."""

    def look_at(self, row: int, columns: Sequence[int], windows: Sequence[Pixels]) -> None:
        """These windows are scored next."""

    def look_at_box(self, box: Box, pixels: Pixels) -> None:
        """A part of the scene is scored next."""


class SceneContext(WindowContext):
    """The sums of a model over a scene, and the windows that they are added over."""

    def __init__(self, model: Segmenter, raster: Raster, windows: Windows, passes: Passes) -> None:
        self.model, self.raster, self.passes = model, raster, passes
        self.vertical, self.horizontal = axes(raster.size, windows, model.stride)
        self.place = passes[0][0].place
        self.place.size = (-(-raster.size[0] // model.stride), -(-raster.size[1] // model.stride))

    def look_at(self, row: int, columns: Sequence[int], windows: Sequence[Pixels]) -> None:
        begins = [self.horizontal.begins[column] for column in columns]
        self._look_at(self.vertical.begins[row], begins, windows)
        blend = [self.vertical.weights[row][:, None] * self.horizontal.weights[column] for column in columns]
        self.place.weight = self.place.inside * torch.stack(blend).to(self.place.inside)

    def look_at_box(self, box: Box, pixels: Pixels) -> None:
        self._look_at(box.top // self.model.stride, [box.left // self.model.stride], [pixels])

    def _look_at(self, top: int, lefts: Sequence[int], windows: Sequence[Pixels]) -> None:
        """Where windows lie, in cells, and how much of each cell is of the scene and holds data."""
        device, (height, width) = self.model.device, self.place.size
        valid = torch.stack([torch.from_numpy(pixels.valid) for pixels in windows]).to(device, torch.float32)
        inside = F.avg_pool2d(valid, self.model.stride)
        rows, columns = (torch.arange(length, device=device) for length in inside.shape[1:])
        self.place.rows = rows.expand(len(lefts), -1) + top
        self.place.columns = columns + torch.tensor(lefts, device=device)[:, None]
        inside *= (self.place.rows < height)[:, :, None] & (self.place.columns < width)[:, None]
        self.place.inside = inside

    @torch.inference_mode()
    def gather(self, first: tuple[int, int], keep: Keep, advance: Callable[[int], None]) -> None:
        """Add all sums, pass by pass, from the pass and row ``first`` on; ``keep`` gets them after each row."""
        for number, sums in enumerate(self.passes):
            if number >= first[0]:
                for each in sums:
                    each.adding = True
                self._add(number, first[1] if number == first[0] else 0, keep, advance)
            for each in sums:
                each.adding, each.given = False, True

    def _add(self, number: int, first: int, keep: Keep, advance: Callable[[int], None]) -> None:
        stride, rows = self.model.stride, len(self.vertical.begins)
        tops, lefts = ([begin * stride for begin in axis.begins] for axis in (self.vertical, self.horizontal))
        size = (self.vertical.window * stride, self.horizontal.window * stride)
        cuts = read_windows(self.raster, tops[first:], lefts, size, at_most=READ_BYTES) if first < rows else iter(())
        for row in range(first, rows):
            for column, pixels in enumerate(islice(cuts, len(lefts))):
                if pixels.valid.any():
                    self.look_at(row, [column], [pixels])
                    self.place.left = len(self.passes[number])
                    with suppress(Enough):
                        self.model.logits(prepare(*pixels, self.model.scaling)[None].to(self.model.device))
                advance(1)
            keep((number, row + 1), self.states)

    @property
    def states(self) -> States:
        """The numbers of all sums so far."""
        return [each.state for sums in self.passes for each in sums]

    @states.setter
    def states(self, states: States) -> None:
        for each, state in zip((each for sums in self.passes for each in sums), states, strict=True):
            each.state = state


def passes_over(model: Segmenter, options: MapOptions) -> int:
    """How often a scene is read for its map.

    Raises:
        ConfigError: see :func:`in_context`.
    """
    if options.windows.context == "window":
        return 1
    _check_views(options.views)
    with summing_over_scene(model) as passes:
        return len(passes) + 1


def _check_views(views: Views) -> None:
    if not views.single:
        raise ConfigError(
            "the context of the scene is that of one view, at the raster's own resolution. Omit scales, flip, d4 and "
            "gsd (gdalwarp -tr resamples a raster)."
        )


@contextmanager
def in_context(
    model: Segmenter, raster: Raster, options: MapOptions, *, kept: Path | None = None, progress: bool = False
) -> Iterator[WindowContext]:
    """The network with the context that is asked for; ``look_at`` windows before they are scored.

    The sums over a scene are added first; with a file ``kept`` a killed run resumes.

    Raises:
        ConfigError: the model has no context of the scene, or several views are asked for.
        OutputError: the sums cannot be kept.
    """
    if options.windows.context == "window":
        yield WindowContext()
        return
    _check_views(options.views)
    with summing_over_scene(model) as passes:
        context, first = SceneContext(model, raster, options.windows, passes), (0, 0)
        if kept is not None and (known := _read(kept, len(context.states))) is not None:
            first, context.states = known
        across, down = len(context.horizontal.begins), len(context.vertical.begins)
        done = across * (first[0] * down + first[1])
        with Progress("context", len(context.passes) * down * across, start=done, enabled=progress) as bar:
            context.gather(first, _nothing if kept is None else partial(_write, kept), bar.advance)
        yield context


def _nothing(following: tuple[int, int], states: States) -> None:
    """Keep no sums."""


def _write(kept: Path, following: tuple[int, int], states: States) -> None:
    tensors = {f"{number}.{name}": value for number, state in enumerate(states) for name, value in state.items()}
    tensors["next"] = torch.tensor(following)
    with writing(kept.parent), replacing(kept, sync=True) as part:
        part.write_bytes(save(tensors, {"sha256": digest(tensors)}))


def _read(kept: Path, count: int) -> tuple[tuple[int, int], States] | None:
    """The ``count`` sums that a killed run has kept, with the pass and row that come next; None where they are not."""
    try:
        content = kept.read_bytes()
        tensors = load(content)
        header = json_of(content[8 : 8 + int.from_bytes(content[:8], "little")])
        if header["__metadata__"]["sha256"] != digest(tensors):
            return None
    except (OSError, SafetensorError, LookupError, TypeError, ValueError):
        return None
    number, row = tensors.pop("next").tolist()
    states: States = [{} for _ in range(count)]
    for name, value in tensors.items():
        index, _, part = name.partition(".")
        states[int(index)][part] = value
    return (number, row), states
