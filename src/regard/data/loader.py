"""Batches for training: sample number i is the same whenever and wherever it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypedDict

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from regard.data.augment import Augmentation, Scaling, generator, normalise, random_view
from regard.data.sample import LabelledData, Pair, Sample
from regard.errors import DatasetError

CACHED_IMAGES = 64


class Batch(TypedDict):
    """The dict that torchgeo's data modules yield too."""

    image: Float[Tensor, "b c h w"]
    mask: Int[Tensor, "b h w"]


class TrainingStream(Dataset[Batch]):
    """``length`` random views; each pass over the images is a fresh permutation of them.

    A share ``balance`` of the views is of a class instead, drawn evenly among those in ``pixels`` (the pixels of each
    class by image), in an image drawn evenly among those that have it.
    """

    def __init__(
        self,
        data: LabelledData,
        *,
        augmentation: Augmentation,
        scaling: Scaling,
        bands: Sequence[str],
        seed: int,
        length: int,
        balance: float = 0.0,
        pixels: Int[np.ndarray, "i k"] | None = None,
    ) -> None:
        self.data = data
        self.pairs = data.split("train")
        if not self.pairs:
            raise DatasetError(f"{data.root}: the split train is empty. List training images in train.txt.")
        self.augmentation = augmentation
        self.scaling = scaling
        self.bands = tuple(bands)
        self.seed = seed
        self.length = length
        self.balance = balance if pixels is not None else 0.0
        self.images_of = [] if pixels is None else [np.flatnonzero(column) for column in pixels.T if column.any()]
        self.labels = [] if pixels is None else np.flatnonzero(pixels.any(axis=0)).tolist()
        self._read = lru_cache(CACHED_IMAGES)(self._read_uncached)

    def __len__(self) -> int:
        return self.length

    def choose(self, counter: int) -> tuple[Pair, int | None]:
        """The image that sample number ``counter`` is a view of, and the class that it is to show, if any."""
        if self.balance:
            rng = generator(self.seed, 2, counter)
            if rng.random() < self.balance:
                index = int(rng.integers(len(self.labels)))
                return self.pairs[int(rng.choice(self.images_of[index]))], self.labels[index]
        epoch, place = divmod(counter, len(self.pairs))
        order: np.ndarray = generator(self.seed, 0, epoch).permutation(len(self.pairs))
        return self.pairs[int(order[place])], None

    def __getitem__(self, counter: int) -> Batch:
        pair, label = self.choose(counter)
        sample = self._read(pair)
        rng = generator(self.seed, 1, counter)
        ignore = self.data.classes.ignore_index
        values, labels, valid = random_view(
            sample, self.augmentation, rng, ignore_index=ignore, divisor=self.scaling.divisor, on=label
        )
        return {"image": normalise(values, self.scaling, valid), "mask": labels}

    def _read_uncached(self, pair: Pair) -> Sample:
        return self.data.read(pair, expected=self.bands)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_read"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._read = lru_cache(CACHED_IMAGES)(self._read_uncached)


class Onwards(Sampler[int]):
    """The counters from ``start`` to ``stop``; its length is ``stop``: Lightning counts what was done before too.

    Of several processes each takes its own ``batch`` of every step in turn: together they see the counters that one
    process sees with a batch as large as all of theirs.
    """

    def __init__(self, start: int, stop: int, batch: int = 1) -> None:
        self.start, self.stop, self.batch = start, stop, batch

    def __iter__(self) -> Iterator[int]:
        together = distributed.is_available() and distributed.is_initialized()
        rank, size = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        for counter in range(self.start, self.stop):
            step, place = divmod(counter, self.batch)
            yield (step * size + rank) * self.batch + place

    def __len__(self) -> int:
        return self.stop


def training_batches(stream: TrainingStream, *, batch: int, start: int, workers: int) -> DataLoader[Batch]:
    """Batches in the order of the counter, from sample number ``start`` on."""
    return DataLoader(
        stream,
        batch_size=batch,
        sampler=Onwards(start, len(stream), batch),
        num_workers=workers,
        drop_last=True,
        persistent_workers=False,
    )
