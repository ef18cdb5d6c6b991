"""Where to label next: places of doubt that are new, no object twice, and whether more labels pay."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import label as components
from support_refine import squares, truth, write_labels, write_scene

from regard.errors import ConfigError
from regard.options import Windows
from regard.refine.heads import Block
from regard.refine.labels import Labels, read_labels
from regard.refine.options import RefineOptions
from regard.refine.session import Session, session
from regard.refine.suggest import advice, component, in_order, suggest
from support import NAMES


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Session, Labels]]:
    """A session on a scene of squares of three classes, nine of which are labelled."""
    scene, path = write_scene(tmp_path / "scene.tif"), write_labels(tmp_path / "labels.gpkg", *squares(4, every=4))
    with session(None, scene, RefineOptions(squares=(3,)), Windows(96, 32), names=NAMES) as found:
        yield found, read_labels(path, found.raster, found.classes, "class")


def test_no_object_gets_two_places_or_one_that_is_labelled(opened: tuple[Session, Labels]) -> None:
    found, labels = opened
    places = suggest(found, found.fit(labels), labels, 12).places
    parts = np.array([components(truth() == label)[0] for label in range(3)])
    cells = (parts + 1000 * np.arange(3)[:, None, None])[truth(), *np.indices(truth().shape)]
    objects = [cells[place.row, place.column] for place in places]
    assert len(places) == 12 == len(set(objects))
    assert not {*objects} & {*cells[labels.rows, labels.columns].tolist()}
    for a, b in combinations(places, 2):
        assert max(abs(a.row - b.row), abs(a.column - b.column)) >= 16
    assert [places[0].x, places[0].y] == [500_005 + 10 * places[0].column, 4_999_995 - 10 * places[0].row]


def test_places_come_in_the_order_of_doubt_times_distance() -> None:
    rng = np.random.default_rng(0)
    candidates, labelled = torch.from_numpy(rng.random((60, 3))), torch.from_numpy(rng.random((5, 3)))
    doubt = torch.from_numpy(rng.random(60))
    block = Block(candidates, labelled, None, torch.zeros(3), torch.ones(3))
    known, wanted = labelled.numpy().tolist(), []
    for _ in range(4):  # by loops
        pairs = zip(candidates.numpy(), doubt.tolist(), strict=True)
        score = [unsure * min(np.linalg.norm(values - one) for one in known) for values, unsure in pairs]
        wanted.append(int(np.argmax(score)))
        known.append(candidates[wanted[-1]].tolist())
    assert [*in_order(doubt, block, 4, lambda number: True)] == wanted
    assert wanted[0] not in [*in_order(doubt, block, 4, lambda number: number != wanted[0])]


def test_a_component_is_that_of_scipy() -> None:
    same = np.random.default_rng(3).random((40, 50)) < 0.6
    labels = components(same)[0]
    row, column = np.argwhere(same)[300]
    assert np.array_equal(component(same, (int(row), int(column))), labels == labels[row, column])


def test_the_worth_of_more_labels_is_said(opened: tuple[Session, Labels]) -> None:
    found, labels = opened
    suggestions = suggest(found, found.fit(labels), labels, 1)
    assert suggestions.gain is not None and f"{100 * suggestions.gain:+.1f} points" in suggestions.advice
    assert advice(0.001).endswith("more will add little.") and advice(0.02).endswith("more will pay.")
    with pytest.raises(ConfigError, match="got 0 places"):
        suggest(found, found.fit(labels), labels, 0)
