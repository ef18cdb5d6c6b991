"""Change between two dates: two class maps of one grid as one, whose classes are pairs such as "forest > town"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from regard.classes import ClassMap
from regard.errors import ConfigError, SizeMismatch
from regard.io.class_map_file import LabelMap, open_label_map
from regard.io.raster import Box, to_map

TO = " > "  # between the two classes of a pair
MOST = 2**16 - 1


class PairMap(LabelMap):
    """Two class maps of one grid; a pixel has data where both have."""

    def __init__(self, earlier: LabelMap, later: LabelMap) -> None:
        names = tuple(f"{first}{TO}{second}" for first in earlier.classes.names for second in later.classes.names)
        super().__init__(earlier.raster, ClassMap(names=names, palette=later.classes.palette * len(earlier.classes)))
        self.earlier, self.later, self.nodata = earlier, later, len(names)
        self.name = f"{earlier.name}{TO}{later.name}"

    def read_box(self, box: Box) -> Shaped[np.ndarray, "h w"]:
        """The pairs of a box."""
        first, second = (part.read_box(box).astype(np.uint16) for part in (self.earlier, self.later))
        none = (first >= len(self.earlier.classes)) | (second >= len(self.later.classes))
        return np.where(none, np.uint16(self.nodata or 0), first * np.uint16(len(self.later.classes)) + second)


@contextmanager
def open_maps(path: Path, later: Path | None) -> Iterator[LabelMap]:
    """A class map or, with a later one, the map of their pairs.

    Raises:
        UnreadableImage, ClassMismatch: one is missing, broken, or none of regard.
        SizeMismatch: they are not on one grid.
        ConfigError: more pairs of classes than a map can show.
    """
    with open_label_map(path) as earlier:
        if later is None:
            yield earlier
            return
        with open_label_map(later) as second:
            _check(earlier, second)
            yield PairMap(earlier, second)


def _check(earlier: LabelMap, later: LabelMap) -> None:
    ends = [np.array([(0, 0), part.size[::-1]], float) for part in (earlier, later)]
    corners = [to_map(each, part.transform) for each, part in zip(ends, (earlier, later), strict=True)]
    pixel = max(abs(earlier.transform.a), abs(earlier.transform.b))
    same = earlier.size == later.size and earlier.crs == later.crs
    if not same or np.abs(corners[0] - corners[1]).max() > pixel / 100:
        raise SizeMismatch(
            f"{later.name} is not on the grid of {earlier.name}: need the same size, place and CRS. Warp one to the "
            "other with gdalwarp -r near, its -t_srs, -te and -ts."
        )
    if len(earlier.classes) * len(later.classes) > MOST:
        raise ConfigError(f"{earlier.name} and {later.name} have too many classes: their pairs exceed {MOST}.")


def parts(names: Sequence[str]) -> list[tuple[str, str]] | None:
    """The two classes of each pair; None where the classes are not all pairs."""
    found = [tuple(name.split(TO)) for name in names]
    return [(first, second) for first, second in found] if all(len(pair) == 2 for pair in found) else None


def changed(names: Sequence[str]) -> Float[np.ndarray, " k"] | None:
    """1 for the classes that are a change, else 0; None where the classes are not all pairs."""
    pairs = parts(names)
    return None if pairs is None else np.array([float(first != second) for first, second in pairs])


def nested(names: Sequence[str], values: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Values by class, first by the earlier and then by the later."""
    table: dict[str, dict[str, Any]] = {}
    for (first, second), value in zip(parts(names) or [], values, strict=True):
        table.setdefault(first, {})[second] = value
    return table
