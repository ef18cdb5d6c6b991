"""The journal of a map: what was synced counts, all else is done again."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from regard.errors import OutputBusy, OutputError
from regard.mapping.journal import Journal

JOB = {"source": "scene.tif", "tile": 64}


def layers(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "labels": rng.integers(0, 9, size=(5 + seed, 7), dtype=np.uint8),
        "entropy": rng.integers(0, 999, size=(5 + seed, 7), dtype=np.uint16),
    }


def interrupted(folder: Path, count: int) -> Journal:
    journal = Journal(folder / "map.tif", JOB)
    with pytest.raises(KeyboardInterrupt), journal:
        for number in range(count):
            journal.keep([layers(number)])
        raise KeyboardInterrupt
    return journal


@pytest.mark.parametrize("at_once", [1, 4, 100])
@pytest.mark.parametrize("count", [1, 3])
def test_an_interrupted_run_keeps_its_parts(tmp_path: Path, count: int, at_once: int) -> None:
    interrupted(tmp_path, count)
    with Journal(tmp_path / "map.tif", JOB) as again:
        assert again.done == count
        last = layers(count)
        again.keep({name: values[rows] for name, values in last.items()} for rows in (slice(2), slice(2, None)))
        for name in last:
            expected = np.concatenate([layers(number)[name] for number in range(count + 1)])
            found = [rows.copy() for rows in again.rows(name, at_once)]
            assert {len(rows) for rows in found[:-1]} <= {at_once}
            assert found[0].dtype == expected.dtype and np.array_equal(np.concatenate(found), expected)
    assert not list(tmp_path.iterdir())


def test_a_part_is_on_the_disk_before_its_line_and_that_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    with Journal(tmp_path / "map.tif", JOB) as journal:
        monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_ino, journal.done)))
        journal.keep([layers(0)])
        inodes = {path.stat().st_ino: path.name for path in journal.folder.iterdir()}
    names = [inodes[number] for number, _ in synced]
    assert names == ["000000.labels.gz", "000000.entropy.gz", "journal.jsonl"] and {done for _, done in synced} == {0}


def test_parts_without_a_layer_that_is_wanted_are_done_again(tmp_path: Path) -> None:
    interrupted(tmp_path, 2)
    with Journal(tmp_path / "map.tif", JOB, ["labels", "entropy", "confidence"]) as wanting:
        assert wanting.done == 0
    interrupted(tmp_path, 2)
    with Journal(tmp_path / "map.tif", JOB, ["labels"]) as fewer:
        assert fewer.done == 2


@pytest.mark.parametrize(("error", "kept"), [(OutputError("full"), 1), (KeyboardInterrupt(), 1), (ValueError(), 0)])
def test_parts_are_kept_after_a_full_disk_or_a_signal(tmp_path: Path, error: BaseException, kept: int) -> None:
    with pytest.raises(type(error)), Journal(tmp_path / "map.tif", JOB) as journal:
        journal.keep([layers(0)])
        raise error
    with Journal(tmp_path / "map.tif", JOB) as again:
        assert again.done == kept


def test_another_job_starts_anew(tmp_path: Path) -> None:
    interrupted(tmp_path, 2)
    with Journal(tmp_path / "map.tif", {**JOB, "tile": 96}) as other:
        assert other.done == 0


@pytest.mark.parametrize(
    "damage", ["torn line", "flipped byte", "another part", "missing file", "no journal", "nonsense"]
)
def test_what_is_damaged_is_done_again(tmp_path: Path, damage: str) -> None:
    folder = interrupted(tmp_path, 3).folder
    journal, part = folder / "journal.jsonl", folder / "000002.labels.gz"
    if damage == "torn line":
        journal.write_bytes(journal.read_bytes()[:-9])
    elif damage == "flipped byte":
        part.write_bytes(bytes([part.read_bytes()[0] ^ 1]) + part.read_bytes()[1:])
    elif damage == "another part":  # whole and of the right size
        with gzip.open(part, "wb") as file:
            file.write(bytes(layers(2)["labels"].size))
    elif damage == "missing file":
        part.unlink()
    elif damage == "no journal":
        journal.unlink()
    else:
        journal.write_text("[1]\n")
    with Journal(tmp_path / "map.tif", JOB) as again:
        assert again.done == (0 if damage in ("no journal", "nonsense") else 2)
        assert len(list(folder.glob("0*"))) == 2 * again.done


def test_nothing_is_kept_after_an_error_of_the_source(tmp_path: Path) -> None:
    with pytest.raises(ValueError), Journal(tmp_path / "map.tif", JOB) as journal:
        journal.keep([layers(0)])
        raise ValueError
    assert not list(tmp_path.iterdir())


def test_two_runs_of_one_map_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "map.tif", JOB) as first:
        first.keep([layers(0)])
        with pytest.raises(OutputError, match="another run is making"), Journal(tmp_path / "map.tif", JOB):
            pass
        assert len(list(first.rows("labels", 9))) == 1


def test_a_lock_in_a_folder_that_the_run_before_took_away_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, take, took_away = tmp_path / ".map.tif.parts", Journal._take, []

    def take_late(journal: Journal, lock: IO[str]) -> None:
        take(journal, lock)
        if len(took_away) < 2:  # once nothing is in its place, once another folder
            shutil.rmtree(folder)
            took_away.append(folder)
            if len(took_away) == 2:
                folder.mkdir()
                (folder / "lock").touch()

    monkeypatch.setattr(Journal, "_take", take_late)
    with Journal(tmp_path / "map.tif", JOB) as journal:
        journal.keep([layers(0)])
        with pytest.raises(OutputBusy), Journal(tmp_path / "map.tif", JOB):
            pass
    assert len(took_away) == 2 and not folder.exists()


def test_the_lock_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that waits must not begin while the one before still deletes what lies there."""
    left, remove = [], shutil.rmtree

    def noted(folder: Path, **options: bool) -> None:
        left.append([path.name for path in folder.iterdir()])
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", noted)
    with Journal(tmp_path / "map.tif", JOB) as journal:
        journal.keep([layers(0)])
    assert left == [["lock"]] and not list(tmp_path.iterdir())
