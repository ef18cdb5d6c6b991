"""Labelled data from data sets of samples ``{"image": (c, h, w), "mask": (h, w)}``, such as those of torchgeo."""

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
class DatasetItem(Pair):
    """One sample of a data set; ``names`` are those of its bands, in order."""

    dataset: Any = None
    index: int = 0
    names: tuple[str, ...] = ()

    def band_names(self, bands: Sequence[int | str] | None) -> tuple[str, ...]:
        return self.names

    def read_image(self, bands: Sequence[int | str] | None, expected: Sequence[str] | None) -> Pixels:
        values, needed = np.asarray(self.dataset[self.index]["image"]), expected or self.names
        if len(values) != len(needed):
            raise BandMismatch(
                f"{self.name} has {len(values)} bands; {len(needed)} are needed ({', '.join(needed)}). "
                "Choose bands where the data set is made."
            )
        return Pixels(values, np.isfinite(values).all(axis=0))

    def read_labels(self, classes: ClassMap) -> Int[np.ndarray, "h w"]:
        values = np.asarray(self.dataset[self.index]["mask"])
        return labels_of(Path(self.name), values.reshape(values.shape[-2:]), classes)


def samples(
    splits: Mapping[str, Any], *, classes: ClassMap | Sequence[str] | None = None, bands: Sequence[str] | None = None
) -> LabelledData:
    """Labelled data from one data set per split: of torchgeo (single images, not whole scenes) or of the same form.

    Args:
        splits: Data sets by ``train``, ``val``, ``test``.
        classes: By default the data set's own; masks with other values than 0, 1, 2, ... need a ``ClassMap`` with
            ``stored``.
        bands: Names of the bands in order; by default red, green, blue, or band_1, band_2, ...

    Raises:
        DatasetError: an empty data set, one without image or mask, or without classes.
    """
    pairs = {split: _pairs(split, dataset, bands) for split, dataset in splits.items()}
    first = next(iter(splits.values()), None)
    named = classes if classes is not None else getattr(first, "classes", None)
    if first is None or not named:
        raise DatasetError(f"{type(first).__name__} does not name its classes. Give them: classes=[...].")
    return LabelledData(Path(type(first).__name__), ClassMap.of(named), pairs)


def _pairs(split: str, dataset: Any, bands: Sequence[str] | None) -> tuple[Pair, ...]:
    name = type(dataset).__name__
    if not len(dataset):
        raise DatasetError(f"{name} for {split} is empty. Is it downloaded?")
    sample = dataset[0]
    missing = [part for part in ("image", "mask") if part not in sample]
    if missing:
        raise DatasetError(
            f"a sample of {name} has no {missing[0]!r}, only {', '.join(sample)}. Give one for semantic "
            "segmentation, in a split that has labels."
        )
    count, path = len(sample["image"]), Path(name)
    names = tuple(bands or (PHOTOGRAPH_BANDS if count == 3 else (f"band_{number + 1}" for number in range(count))))
    return tuple(
        DatasetItem(f"{name} {split} {index}", path, path, dataset=dataset, index=index, names=names)
        for index in range(len(dataset))
    )
