"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from regard.errors import OutputError
from regard.files import check_writable, replacing, sweep, write_bytes, write_text


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path):
    target = write_text(tmp_path / "a.txt", "für")
    assert target.read_text(encoding="utf-8") == "für"
    assert write_bytes(target, memoryview(b"new")).read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("sync", [True, False])
def test_a_failure_leaves_the_old_file_as_it_was(tmp_path: Path, sync: bool):
    target = write_text(tmp_path / "a.xml", "old")
    with pytest.raises(RuntimeError), replacing(target, sync=sync, side=".bin") as part:
        part.write_text("half of the new")
        part.with_suffix(".bin").write_text("weights")
        raise RuntimeError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.xml": "old"}


def test_a_writer_gets_a_hidden_name_with_the_suffix_and_may_leave_a_second_file(tmp_path: Path):
    target = write_text(tmp_path / "a.xml", "old")
    with replacing(target, sync=True, side=".bin") as part:
        assert part.suffix == ".xml"
        assert part.name.startswith(".a.xml.")
        part.write_text("new")
        part.with_suffix(".bin").write_text("weights")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.xml": "new", "a.bin": "weights"}


def test_the_content_is_on_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), replace(*names)))
    with replacing(tmp_path / "a", sync=True) as part:
        part.write_text("all")
    assert done == ["fsync", "replace"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = write_text(tmp_path / "a.txt", "old")

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"cannot write to .* \(No space left on device\). Make room"):
        write_text(target, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "old"}


def test_a_folder_that_is_a_file_and_a_file_that_is_a_folder_are_refused(tmp_path: Path):
    write_text(tmp_path / "file", "")
    with pytest.raises(OutputError, match="it is a file, not a folder"):
        check_writable(tmp_path / "file" / "map.tif")
    with pytest.raises(OutputError, match=r"is a folder\. Give the name of a file"):
        check_writable(tmp_path)
    check_writable(tmp_path / "new" / "map.tif")
    assert not list((tmp_path / "new").iterdir())


def test_what_killed_runs_left_of_a_file_is_swept(tmp_path: Path):
    for name in (".a[1].txt.0a1b.part.txt", ".a[1].txt.part", "a[1].txt", ".b.txt.0a1b.part.txt"):
        (tmp_path / name).touch()
    sweep(tmp_path / "a[1].txt")
    assert {path.name for path in tmp_path.iterdir()} == {"a[1].txt", ".b.txt.0a1b.part.txt"}
