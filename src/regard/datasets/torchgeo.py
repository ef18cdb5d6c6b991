"""Data sets of samples ``{"image": (c, h, w), "mask": (h, w)}``, as torchgeo's are, as labelled data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from regard.classes import ClassMap
from regard.datasets.labelled_data import LabelledData, Pair
from regard.datasets.mask import labels_of
from regard.errors import BandMismatch, DatasetError
from regard.io.image import PHOTOGRAPH_BANDS, Pixels


@dataclass(frozen=True, eq=False)
class Item(Pair):
    """One sample of a data set; its bands have these names, in this order."""

    items: Any = None
    index: int = 0
    names: tuple[str, ...] = ()

    def band_names(self, bands: Sequence[int | str] | None) -> tuple[str, ...]:
        return self.names

    def read_image(self, bands: Sequence[int | str] | None, expected: Sequence[str] | None) -> Pixels:
        values = np.asarray(self.items[self.index]["image"])
        if len(values) != len(expected or self.names):
            raise BandMismatch(
                f"{self.name} has {len(values)} bands; {len(expected or self.names)} are needed "
                f"({', '.join(expected or self.names)}). Choose bands where the data set is made."
            )
        return Pixels(values, np.isfinite(values).all(axis=0))

    def read_labels(self, classes: ClassMap) -> Int[np.ndarray, "h w"]:
        values = np.asarray(self.items[self.index]["mask"])
        return labels_of(Path(self.name), values.reshape(values.shape[-2:]), classes)


def samples(
    splits: Mapping[str, Any], *, classes: ClassMap | Sequence[str] | None = None, bands: Sequence[str] | None = None
) -> LabelledData:
    """Labelled data from a data set each for train, val, test: of torchgeo (not those of whole scenes) or alike.

    ``classes`` default to the data set's own. A data set whose masks hold other values than 0, 1, 2, ... needs a
    ``ClassMap`` with ``stored``. ``bands`` name the bands in order: red, green, blue or band_1, band_2, ... by default.

    Raises:
        DatasetError: an empty data set, one without image or mask, or without classes.
    """
    made = {split: _items(split, items, bands) for split, items in splits.items()}
    first = next(iter(splits.values()), None)
    named = classes if classes is not None else getattr(first, "classes", None)
    if first is None or not named:
        raise DatasetError(f"{type(first).__name__} does not name its classes. Give them: classes=[...].")
    return LabelledData(Path(type(first).__name__), ClassMap.of(named), made)


def _items(split: str, items: Any, bands: Sequence[str] | None) -> tuple[Pair, ...]:
    what = type(items).__name__
    if not len(items):
        raise DatasetError(f"{what} for {split} is empty. Is it downloaded?")
    sample = items[0]
    lacking = [part for part in ("image", "mask") if part not in sample]
    if lacking:
        raise DatasetError(
            f"a sample of {what} has no {lacking[0]!r}, only {', '.join(sample)}. Give one for semantic "
            "segmentation, in a split that has labels."
        )
    count = len(sample["image"])
    names = tuple(bands or (PHOTOGRAPH_BANDS if count == 3 else (f"band_{number + 1}" for number in range(count))))
    here = Path(what)
    return tuple(
        Item(f"{what} {split} {index}", here, here, items=items, index=index, names=names)
        for index in range(len(items))
    )
