"""Batches for training: sample number i is the same whenever and wherever it is asked for."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from regard.card import Scaling
from regard.datasets.labelled_data import LabelledData, Pair, Sample
from regard.distributed import rank_and_size
from regard.errors import DatasetError, RegardError
from regard.inference.scores import normalise
from regard.inference.values import check_image
from regard.training.augment import drop_band, generator, random_view
from regard.training.config import TrainConfig

CACHED_IMAGES = 64
END_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
ATTEMPTS = 16  # images in place of one that cannot be used or has no label


class Batch(TypedDict):
    """What torchgeo's data modules yield too, with the images' names, and why others were skipped."""

    image: Float[Tensor, "b c h w"]
    mask: Int[Tensor, "b h w"]
    names: list[str]
    faults: dict[str, str]


class TrainingStream(Dataset[Batch]):
    """``steps * batch`` random views; each pass over the images is a fresh permutation of them.

    A share ``balance`` of the views is of a class instead, drawn evenly among those in ``pixels`` (the pixels of each
    class by image), in an image drawn evenly among those that have it. ``scaling`` normalises the values of ``bands``.
    """

    def __init__(
        self,
        data: LabelledData,
        config: TrainConfig,
        *,
        scaling: Scaling,
        bands: Sequence[str],
        pixels: Int[np.ndarray, "i k"] | None = None,
    ) -> None:
        self.data, self.config, self.scaling, self.bands = data, config, scaling, tuple(bands)
        self.pairs = data.split("train")
        if not self.pairs:
            raise DatasetError(f"{data.root}: the split train is empty. List training images in train.txt.")
        self.balance = config.balance if pixels is not None else 0.0
        self.images_of = [] if pixels is None else [np.flatnonzero(column) for column in pixels.T if column.any()]
        self.labels = [] if pixels is None else np.flatnonzero(pixels.any(axis=0)).tolist()

    def __len__(self) -> int:
        return self.config.steps * self.config.batch

    def choose(self, counter: int) -> tuple[Pair, int | None]:
        """The image that sample number ``counter`` is a view of, and the class that it is to show, if any."""
        if self.balance:
            rng = generator(self.config.seed, 2, counter)
            if rng.random() < self.balance:
                index = int(rng.integers(len(self.labels)))
                return self.pairs[int(rng.choice(self.images_of[index]))], self.labels[index]
        epoch, position = divmod(counter, len(self.pairs))
        order: np.ndarray = generator(self.config.seed, 0, epoch).permutation(len(self.pairs))
        return self.pairs[int(order[position])], None

    def __getitem__(self, counter: int) -> Batch:
        pair, label = self.choose(counter)
        sample, faults = self._read_or_other(pair, counter)
        rng, ignore = generator(self.config.seed, 1, counter), self.data.classes.ignore_index
        values, labels, valid = random_view(
            sample, self.config, rng, ignore_index=ignore, divisor=self.scaling.divisor, label=label
        )
        image = drop_band(normalise(values, self.scaling, valid), self.config.band_dropout, rng)
        return {"image": image, "mask": labels, "names": [sample.name], "faults": faults}

    def _read_or_other(self, pair: Pair, counter: int) -> tuple[Sample, dict[str, str]]:
        """An image with its labels or, if it has none or is bad and to be skipped, another that follows from the
        counter.
        """
        rng, faults, unlabelled = generator(self.config.seed, 3, counter), dict[str, str](), None
        for _ in range(ATTEMPTS):
            try:
                sample = self._read(pair)
                if (sample.labels != self.data.classes.ignore_index).any():
                    return sample, faults
                unlabelled = sample
            except RegardError as error:
                if self.config.on_bad_image == "stop":
                    raise type(error)(f"{error} Or train without such images: --on-bad-image skip.") from None
                faults[pair.name] = str(error)
            pair = self.pairs[int(rng.integers(len(self.pairs)))]
        if unlabelled is not None:
            return unlabelled, faults
        raise DatasetError(f"{ATTEMPTS} images in a row cannot be used; the last: {[*faults.values()][-1]}")

    @cached_property
    def _read(self) -> Callable[[Pair], Sample]:
        """Reads a training image and its labels, with a cache of its own in each process."""

        @lru_cache(CACHED_IMAGES)
        def read(pair: Pair) -> Sample:
            sample = self.data.read(pair, expected=self.bands)
            check_image(sample.pixels, self.scaling, pair.image.name)
            return sample

        return read

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_read"}


def draw_batch(stream: TrainingStream, path: Path) -> None:
    """The crops of the first batch, eight at most, as they are and with their labels over them, as one PNG."""
    from regard.inference.pictures import blend, colourise, panel, visible

    pictures = []
    for counter in range(min(8, stream.config.batch)):
        sample = stream[counter]
        mean, std = (torch.tensor(values)[:, None, None] for values in (stream.scaling.mean, stream.scaling.std))
        values = (sample["image"] * std + mean).numpy()
        values = (255 * values).clip(0, 255).astype(np.uint8) if stream.scaling.divisor == 255 else values
        labels = sample["mask"].numpy()
        image = visible(values, np.ones(labels.shape, bool), stream.bands)
        known = (labels != stream.data.classes.ignore_index)[..., None]
        drawn = np.where(known, blend(image, colourise(labels, stream.data.classes)), image)
        pictures += [(sample["names"][0], image), ("", drawn)]
    panel(pictures, stream.data.classes, path, columns=min(4, len(pictures)))


class ResumableSampler(Sampler[int]):
    """The counters from ``start`` to ``stop``; its length is ``stop``: Lightning counts the resumed steps too.

    Several processes take the batches interleaved: together they see the counters that one process sees with a batch as
    large as all of theirs.
    """

    def __init__(self, start: int, stop: int, batch: int = 1) -> None:
        self.start, self.stop, self.batch = start, stop, batch

    def __iter__(self) -> Iterator[int]:
        rank, size = rank_and_size()
        for counter in range(self.start, self.stop):
            step, position = divmod(counter, self.batch)
            yield (step * size + rank) * self.batch + position

    def __len__(self) -> int:
        return self.stop


def training_batches(stream: TrainingStream, *, start: int) -> DataLoader[Batch]:
    """Batches in the order of the counter, from step ``start`` on."""
    batch = stream.config.batch
    return DataLoader(
        stream,
        batch_size=batch,
        sampler=ResumableSampler(start * batch, len(stream), batch),
        num_workers=stream.config.workers,
        worker_init_fn=_ignore_signals,
        collate_fn=_collate,
        drop_last=True,
    )


def _collate(samples: list[Batch]) -> Batch:
    return {
        "image": default_collate([sample["image"] for sample in samples]),
        "mask": default_collate([sample["mask"] for sample in samples]),
        "names": [name for sample in samples for name in sample["names"]],
        "faults": {name: fault for sample in samples for name, fault in sample["faults"].items()},
    }


def _ignore_signals(_: int) -> None:
    """Ignore the signals that a batch system sends to all processes: the training ends this one when it has saved."""
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
