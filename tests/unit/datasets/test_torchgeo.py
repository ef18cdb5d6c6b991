"""Data sets in torchgeo's shape: trained on and scored like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regard.classes import ClassMap
from regard.datasets.torchgeo import samples
from regard.errors import BandMismatch, ClassMismatch, DatasetError
from regard.training.train import train
from support import tiny


class Fake:
    """As torchgeo's NonGeoDataset: float values, int64 labels, classes as an attribute."""

    classes = ("ash", "elm", "oak")

    def __init__(self, count: int = 4, bands: int = 4, first: int = 0) -> None:
        rng = np.random.default_rng(count)
        labels = rng.integers(3, size=(count, 1, 5, 6)).repeat(8, axis=2).repeat(8, axis=3)
        values = labels * 60 + rng.integers(0, 40, size=(count, bands, 40, 48))
        self.mask = torch.from_numpy(labels + first)
        self.image = torch.from_numpy(values).float()

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.image[index], "mask": self.mask[index]}


def test_samples_are_read_as_they_are():
    fake = Fake(first=1)
    classes = ClassMap.of(Fake.classes).model_copy(update={"stored": (1, 2, 3), "stored_ignored": (0,)})
    fake.mask[0, :, :3], fake.image[0, 2, 5, 7] = 0, float("nan")
    data = samples({"train": fake}, classes=classes)
    sample = data.read(data.split("train")[0])
    assert sample.image.shape == (4, 40, 48) and not sample.valid[5, 7] and sample.valid.sum() == 40 * 48 - 1
    expected = fake.mask[0, 0].numpy() - 1
    expected[:3], expected[5, 7] = 255, 255
    assert np.array_equal(sample.labels, expected)
    assert data.band_names() == ("band_1", "band_2", "band_3", "band_4") and len(set(data.split("train"))) == 4


def test_each_pair_is_a_sample_of_its_own():
    fake = Fake()
    data = samples({"train": fake})
    read = [data.read(pair) for pair in data.split("train")]
    for sample, image, mask in zip(read, fake.image, fake.mask, strict=True):
        assert np.array_equal(sample.image, image) and np.array_equal(sample.labels, mask[0])


def test_a_network_learns_from_them(tmp_path: Path):
    data = samples({"train": Fake(), "val": Fake(3)}, bands=("r", "g", "b", "nir"))
    model = tiny(classes=Fake.classes, in_channels=4, bands=data.band_names())
    quick = {"steps": 3, "batch": 2, "crop": 32, "workers": 0, "evaluate_every": 3, "warmup": 1, "balance": 0.5}
    result = train(model, data, tmp_path / "run", progress=False, **quick)
    assert result.scores is not None and result.scores.confusion.sum() == 3 * 40 * 48


def test_what_does_not_fit_is_refused():
    bare = [{"image": torch.zeros(3, 8, 8)}]
    unnamed = [{"image": torch.zeros(3, 8, 8), "mask": torch.zeros(8, 8).long()}]
    for items, message in (
        (Fake(0), "Fake for train is empty"),
        (bare, "no 'mask', only image"),
        (unnamed, "classes="),
    ):
        with pytest.raises(DatasetError, match=message):
            samples({"train": items})
    data = samples({"train": Fake(first=1)})
    with pytest.raises(ClassMismatch, match="Fake train 0 holds label 3"):
        [data.read(pair) for pair in data.split("train")]
    data = samples({"train": Fake()})
    with pytest.raises(BandMismatch, match="has 4 bands; 2 are needed"):
        data.read(data.split("train")[0], expected=("a", "b"))
