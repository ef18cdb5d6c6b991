"""Blocks of ground, classes that begin as others, and scores on what was not fitted."""

from __future__ import annotations

import numpy as np
import torch

from regard.card import Card
from regard.classes import ClassMap
from regard.models.refined import Refined
from regard.refine.heads import Task
from regard.refine.labels import Labels
from regard.refine.options import RefineOptions
from regard.refine.samples import Samples
from regard.refine.session import new_classes
from regard.refine.trials import Kind, blocks_of, try_on_blocks
from support import NAMES

CLASSES = ClassMap.of(NAMES)


def test_pixels_of_an_object_are_in_one_block_and_far_ones_in_others() -> None:
    rows, columns = np.indices((160, 160)).reshape(2, -1)[:, ::7]
    objects = rows // 10 * 16 + columns // 10
    block = blocks_of(Labels("", "", rows, columns, 0 * rows, objects))
    assert all(len(np.unique(block[objects == number])) == 1 for number in np.unique(objects))
    assert block.max() + 1 == 64
    assert all(np.ptp(values[block == 5]) < 30 for values in (rows, columns))


def test_a_class_that_is_split_begins_as_its_parent_and_shares_with_it() -> None:
    names, like = new_classes(CLASSES, RefineOptions(add_class=(f"shed={NAMES[1]}", "dome")))
    assert names.names == (*NAMES, "shed", "dome") and like == (0, 1, 2, 1, -1)
    assert names.palette[:3] == CLASSES.palette and len({*names.palette}) == 5
    present = torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64)
    samples = Samples(torch.zeros(1, 0).double(), torch.zeros(1, 3).double(), present, torch.tensor([0]))
    kept = Task(names, samples, torch.tensor([0]), samples, like, 1.0, (), 0, lambda model: (present, present)).kept
    old = present[0].softmax(dim=0)
    assert torch.allclose(kept[0], torch.stack([old[0], old[1] / 2, old[2], old[1] / 2, 0 * old[0]]))


def test_classes_that_are_listed_take_the_place_of_the_present_ones() -> None:
    names, like = new_classes(CLASSES, RefineOptions(classes=("water", NAMES[2])))
    assert names.names == ("water", NAMES[2]) and like == (-1, 2) and names.palette[1] == CLASSES.palette[2]


def test_pixels_of_a_class_that_is_dropped_are_not_kept_as_another() -> None:
    present = torch.tensor([[30.0, 0.0, 0.0], [0.0, 0.0, 30.0]], dtype=torch.float64)
    samples = Samples(torch.zeros(2, 0).double(), torch.zeros(2, 3).double(), present, torch.arange(2))
    task = Task(CLASSES, samples, torch.arange(2), samples, (-1, -1, 2), 1.0, (), 0, lambda model: (present, present))
    assert torch.allclose(task.kept, torch.tensor([[0.0, 0, 0], [0, 0, 1]]).double(), atol=1e-6)


def test_noise_is_not_learned_on_held_out_blocks() -> None:
    """A kernel machine fits noise; its score where it was not fitted is that of chance."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((160, 160)).reshape(2, -1)[:, rng.permutation(160 * 160)[:60]]
    labels = Labels("", "", rows, columns, rng.integers(3, size=60), np.arange(60))
    values = torch.from_numpy(rng.normal(size=(60, 40)))
    nothing, zeros = torch.zeros(60, 0).double(), torch.zeros(60, 3).double()
    samples = Samples(nothing, values, zeros, torch.arange(60))
    known = torch.from_numpy(labels.labels)
    task = Task(CLASSES, samples, known, samples, (-1,) * 3, 0.0, (), 0, lambda model: (nothing, nothing))
    bands = tuple(map(str, range(40)))
    start = Refined(
        Card(
            architecture="refined",
            config={"backbone": "none"},
            classes=CLASSES,
            bands=bands,
            mean=(0.0,) * 40,
            std=(1.0,) * 40,
        )
    )
    found = try_on_blocks(start, task, labels, Kind("kernel", False, True))
    assert found.means[1] < 0.35
