"""The training stream: sample number i is the same in any process, in any order, after any stop."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regard.card import Scaling
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.datasets.statistics import class_pixels
from regard.errors import BandMismatch, DatasetError
from regard.training.config import TrainConfig
from regard.training.loader import TrainingStream, training_batches
from support import NAMES, save_image, write_set, write_tif

SCALING = Scaling((0.5,) * 3, (0.25,) * 3)


def stream(data: LabelledData, *, pixels: np.ndarray | None = None, scaling: Scaling = SCALING, **more: Any) -> Any:
    """A stream of 12 samples, unless ``steps`` says otherwise."""
    settings = {"crop": 32, "rot90": True, "seed": 4, "steps": 6, "batch": 2, "workers": 0} | more
    config = TrainConfig.model_construct(**settings)  # unchecked: tests take crops smaller than a network can
    return TrainingStream(data, config, scaling=scaling, bands=("red", "green", "blue"), pixels=pixels)


def same(one: dict, other: dict) -> bool:
    return torch.equal(one["image"], other["image"]) and torch.equal(one["mask"], other["mask"])


def test_a_sample_depends_on_seed_and_counter_alone(toy: LabelledData):
    forward = [stream(toy)[counter] for counter in range(12)]
    backward_stream = stream(toy)
    backward = [backward_stream[counter] for counter in reversed(range(12))][::-1]
    sent = pickle.loads(pickle.dumps(backward_stream))  # as a worker gets it
    assert all(same(forward[i], backward[i]) and same(forward[i], sent[i]) for i in range(12))
    assert not same(forward[0], stream(toy, seed=5)[0])
    again = [(one, other) for one, other in combinations(forward, 2) if one["names"] == other["names"]]
    assert len(again) == 12 and not any(same(*pair) for pair in again), "the next pass sees other views of an image"


def test_the_length_does_not_change_the_samples(toy: LabelledData):
    assert same(stream(toy, steps=4)[3], stream(toy, steps=400)[3])


def test_every_pass_sees_every_image_once_in_a_new_order(toy: LabelledData):
    passes = [[stream(toy).choose(4 * epoch + place)[0].name for place in range(4)] for epoch in range(6)]
    assert all(Counter(names) == Counter(f"tile{i}" for i in range(4)) for names in passes)
    assert len({tuple(names) for names in passes}) > 3


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_follow_the_counter_from_any_start(toy: LabelledData, workers: int):
    samples = stream(toy, workers=workers)
    batches, later = (list(training_batches(samples, start=step)) for step in (0, 3))
    assert len(batches) == 6 and len(later) == 3
    for number, batch in enumerate(batches):
        expected = [samples[2 * number], samples[2 * number + 1]]
        assert torch.equal(batch["image"], torch.stack([one["image"] for one in expected]))
        assert torch.equal(batch["mask"], torch.stack([one["mask"] for one in expected]))
    assert all(same(a, b) for a, b in zip(batches[3:], later, strict=True))


def test_values_are_scaled_as_told(toy: LabelledData):
    plain = {"colour": 0.0, "rot90": False}
    raw = stream(toy, scaling=Scaling((0.0,) * 3, (1.0,) * 3), **plain)[0]["image"]
    scaled = stream(toy, scaling=Scaling((0.1, 0.2, 0.3), (0.5, 0.25, 2.0)), **plain)[0]["image"]
    expected = (raw - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.25, 2.0])[:, None, None]
    inside = raw.sum(dim=0) > 0
    torch.testing.assert_close(scaled[:, inside], expected[:, inside])


def test_an_empty_training_part_is_refused(toy: LabelledData):
    empty = LabelledData(toy.root, toy.classes, {"train": ()})
    with pytest.raises(DatasetError, match="the split train is empty"):
        stream(empty)
    assert toy.classes.names == NAMES


def test_balanced_views_show_the_class_that_was_drawn(toy: LabelledData):
    pixels = class_pixels(toy)
    settings: dict[str, Any] = {"pixels": pixels, "balance": 1.0, "steps": 150, "rot90": False, "scale": (0.7, 1.5)}
    balanced = stream(toy, **settings)
    chosen = [balanced.choose(counter) for counter in range(300)]
    occurring = np.flatnonzero(pixels.any(axis=0)).tolist()
    shares = Counter(label for _, label in chosen)
    assert sorted(shares) == occurring and min(shares.values()) > 0.8 * 300 / len(occurring)
    for counter, (pair, label) in list(enumerate(chosen))[:20]:
        assert pixels[toy.split("train").index(pair), label]
        assert (balanced[counter]["mask"] == label).any()
    assert same(balanced[7], stream(toy, **settings)[7])
    half = stream(toy, balance=0.5, pixels=pixels, steps=150)
    assert 110 < sum(half.choose(counter)[1] is None for counter in range(300)) < 190


def test_crops_that_are_wider_than_high(toy: LabelledData):
    sample = stream(toy, crop_width=64, rot90=False)[3]
    assert sample["image"].shape == (3, 32, 64) and sample["mask"].shape == (32, 64)


def test_the_depth_of_an_image_is_judged_by_all_of_it(tmp_path: Path):
    """A dark part of a float image of 0 to 255 is no image of 0 to 1; a deep image is told, or skipped by choice."""
    write_set(tmp_path / "set", count=4)
    image = np.full((3, 40, 48), 0.5, np.float32)
    image[:, :2] = 200
    (tmp_path / "set/images/tile0.png").unlink()
    write_tif(tmp_path / "set/images/tile0.tif", image)
    data = folder(tmp_path / "set")
    views = [stream(data, crop=8, rot90=False)[index]["image"] for index in range(6)]
    assert all(view.isfinite().all() for view in views)
    write_tif(tmp_path / "set/images/tile0.tif", image * 50)
    with pytest.raises(BandMismatch, match=r"tile0\.tif holds values from .* to 10000"):
        [stream(data)[index] for index in range(2)]
    assert {name for index in range(2) for name in stream(data, on_bad_image="skip")[index]["faults"]} == {"tile0"}


def test_crops_and_images_without_a_label_are_replaced(tmp_path: Path):
    """Few pixels are labelled, of one image none: every view has a label, the same one at every call."""
    write_set(tmp_path / "set", count=6)
    for number in range(6):
        labels = np.full((40, 48), 255, np.uint8)
        labels[19:22, 22:26] = 255 if number == 1 else 1
        save_image(tmp_path / f"set/masks/tile{number}.png", labels)
    data = folder(tmp_path / "set")
    settings = {"crop": 16, "scale": (1.0, 1.0), "steps": 20}
    samples = [stream(data, **settings)[counter] for counter in range(40)]
    assert all((sample["mask"] == 1).any() for sample in samples)
    assert not any(name == "tile1" for sample in samples for name in sample["names"])
    again = stream(data, **settings)
    assert all(same(again[counter], samples[counter]) for counter in reversed(range(40)))
    shown = np.stack([sample["mask"] == 1 for sample in samples]).any(axis=0)
    assert shown.mean() > 0.6  # anywhere in the crop
    bare = LabelledData(data.root, data.classes, {"train": data.split("train")[1:2]})
    assert (stream(bare, **settings)[0]["mask"] == 255).all()  # there is no other
