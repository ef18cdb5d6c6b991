"""Who may ask the model, and what is kept."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from cachetools import LRUCache

from regard.io.raster import Box
from regard.mapping.predict import predict
from regard.options import Windows
from regard.web.grid import Address
from regard.web.live_prediction import Busy, Disconnected, Gate
from regard.web.raster_layer import Sources
from regard.web.viewer import Answer, Viewer
from support import tiny, write_tif
from web_support import always, picture


def test_one_at_a_time_few_wait_and_who_leaves_is_let_go() -> None:
    gate = Gate(waiting=3)
    inside, most, log, all_came = 0, 0, [], threading.Event()

    def work() -> None:
        nonlocal inside, most
        try:
            with gate.turn(always):
                inside += 1
                most = max(most, inside)
                all_came.wait(20)
                inside -= 1
            log.append("done")
        except Busy:
            log.append("busy")
            if log.count("busy") == 5:
                all_came.set()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and sorted(log) == ["busy"] * 5 + ["done"] * 3
    with gate.turn(always), pytest.raises(Disconnected), gate.turn(lambda: False):
        raise AssertionError("let through")
    with gate.turn(always):
        pass


def test_not_too_many_in_a_short_time() -> None:
    gate = Gate(burst=3, per_second=50.0)
    for _ in range(3):
        with gate.turn(always):
            pass
    with pytest.raises(Busy), gate.turn(always):
        pass
    time.sleep(0.05)
    with gate.turn(always):
        pass


def test_a_tile_that_nobody_waits_for_is_given_up_between_two_windows(plain: Viewer) -> None:
    asked = []

    def for_a_while() -> bool:
        asked.append(1)
        return len(asked) < 3

    with pytest.raises(Disconnected):
        plain.live.region(Box(0, 0, 150, 256), for_a_while)
    assert plain.live.regions.window.cache_info().currsize == 2


def test_the_oldest_answers_are_dropped(plain: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Address] = []
    nothing = Answer(np.zeros((256, 256), np.int16), np.zeros((256, 256), np.uint8))
    monkeypatch.setattr(plain, "_maps", LRUCache(2))
    monkeypatch.setattr(plain, "_from_file", lambda tile, grid: made.append(tile) or nothing)
    plain.layers["labels_map"] = plain.layers["scene"]
    a, b, c = (Address(2, x, 0) for x in range(3))
    for tile in (a, b, a, c, a, b):
        plain.answer(tile, always)
    assert made == [a, b, c, b] and {tile for _, tile in plain._maps} == {a, b}


@pytest.mark.parametrize(("scored", "windows"), [(64, Windows(64, 0)), (None, Windows(512, 128))])
def test_windows_are_those_that_the_model_was_scored_in(tmp_path: Path, scored: int | None, windows: Windows) -> None:
    model, scene = tiny(), write_tif(tmp_path / "plain.tif", picture((150, 256)), crs=None, transform=None)
    model.card = model.card.model_copy(update={"window": scored})
    with closing(Viewer(model, Sources(scene), Windows())) as viewer:
        assert viewer.windows == windows and viewer.live.regions.tile == windows.tile
        labels = viewer.answer(Address(viewer.grid.finest, 0, 0), always).labels[:150]
    if scored:  # the map of predict, whose windows are chosen alike
        np.testing.assert_array_equal(labels, predict(model, scene).labels)
