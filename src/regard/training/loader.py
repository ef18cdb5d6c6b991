"""Batches for training: sample number i is the same whenever and wherever it is asked for."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, TypedDict

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from regard.datasets.labelled_data import LabelledData, Pair, Sample
from regard.distributed import processes
from regard.errors import DatasetError, RegardError
from regard.ops.normalise import Scaling, check_depth, normalise
from regard.training.augment import Augmentation, generator, random_view, without_a_band

CACHED_IMAGES = 64
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
ATTEMPTS = 16  # images in place of one that cannot be used

OnBadImage = Literal["stop", "skip"]


class Batch(TypedDict):
    """The dict that torchgeo's data modules yield too, with the images' names, and why others were left out."""

    image: Float[Tensor, "b c h w"]
    mask: Int[Tensor, "b h w"]
    names: list[str]
    faults: dict[str, str]


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
        on_bad_image: OnBadImage = "stop",
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
        self.on_bad_image = on_bad_image
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
        sample, faults = self._read_or_other(pair, counter)
        rng = generator(self.seed, 1, counter)
        ignore = self.data.classes.ignore_index
        values, labels, valid = random_view(
            sample, self.augmentation, rng, ignore_index=ignore, divisor=self.scaling.divisor, on=label
        )
        image = normalise(values, self.scaling, valid)
        image = without_a_band(image, self.augmentation.band_dropout, rng)
        return {"image": image, "mask": labels, "names": [sample.name], "faults": faults}

    def _read_or_other(self, pair: Pair, counter: int) -> tuple[Sample, dict[str, str]]:
        """One image with its labels or, where bad ones are skipped, another that follows from the counter."""
        rng, faults = generator(self.seed, 3, counter), dict[str, str]()
        for _ in range(ATTEMPTS):
            try:
                return self._read(pair), faults
            except RegardError as error:
                if self.on_bad_image == "stop":
                    raise type(error)(f"{error} Or train without such images: --on-bad-image skip.") from None
                faults[pair.name] = str(error)
                pair = self.pairs[int(rng.integers(len(self.pairs)))]
        raise DatasetError(f"{ATTEMPTS} images in a row cannot be used; the last: {[*faults.values()][-1]}")

    def _read_uncached(self, pair: Pair) -> Sample:
        sample = self.data.read(pair, expected=self.bands)
        check_depth(np.where(sample.valid, sample.image, 0), self.scaling.divisor, pair.image.name)
        return sample

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
        rank, size = processes()
        for counter in range(self.start, self.stop):
            step, place = divmod(counter, self.batch)
            yield (step * size + rank) * self.batch + place

    def __len__(self) -> int:
        return self.stop


def _together(samples: list[Batch]) -> Batch:
    """Samples as one batch."""
    return {
        "image": default_collate([one["image"] for one in samples]),
        "mask": default_collate([one["mask"] for one in samples]),
        "names": [name for one in samples for name in one["names"]],
        "faults": {name: fault for one in samples for name, fault in one["faults"].items()},
    }


def _leave_the_end_to_the_training(_: int) -> None:
    """Ignore the signals that a batch system sends to all processes: the training ends this one when it has saved."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def training_batches(stream: TrainingStream, *, batch: int, start: int, workers: int) -> DataLoader[Batch]:
    """Batches in the order of the counter, from sample number ``start`` on."""
    return DataLoader(
        stream,
        batch_size=batch,
        sampler=Onwards(start, len(stream), batch),
        num_workers=workers,
        worker_init_fn=_leave_the_end_to_the_training,
        collate_fn=_together,
        drop_last=True,
        persistent_workers=False,
    )
