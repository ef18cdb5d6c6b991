"""What a run shows elsewhere is what its own record holds."""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import wandb
from tensorboardX import event_file_writer
from tensorboardX.proto.event_pb2 import Event

from regard.datasets.labelled_data import LabelledData
from regard.errors import ConfigError, MissingExtra
from regard.training.callbacks import Bookkeeping
from regard.training.record import read_metrics
from regard.training.train import train
from support import tiny

QUICK: dict[str, Any] = {
    "steps": 6,
    "batch": 2,
    "crop": 32,
    "workers": 0,
    "evaluate_every": 3,
    "seed": 1,
    "progress": False,
}


def events(folder: Path) -> Iterator[Event]:
    """The events of a run in the order of its files: length, sum, message, sum."""
    for path in sorted((folder / "tensorboard").glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def shown(folder: Path) -> dict[tuple[str, int], float]:
    """Values by name and step; a new session takes away what is later than its start."""
    found: dict[tuple[str, int], float] = {}
    for event in events(folder):
        if event.session_log.status == 1:
            found = {key: value for key, value in found.items() if key[1] < event.step}
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


def recorded(folder: Path) -> dict[tuple[str, int], float]:
    """The same of metrics.jsonl."""
    scores = ("miou", "accuracy", "mean_f1")
    return {
        (f"val/{name}" if name in scores else name, line["step"]): value
        for line in read_metrics(folder)
        for name, value in line.items()
        if (name in scores or "miou" not in line) and name != "step"
    }


@pytest.mark.parametrize("stopped", [2, 5])  # before the first checkpoint, and after it
def test_tensorboard_and_the_table_hold_the_record_also_of_a_run_that_was_stopped(
    toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int
):
    same_second = SimpleNamespace(time=lambda: 1_700_000_000.5)
    monkeypatch.setattr(event_file_writer, "time", same_second)
    with monkeypatch.context() as patched:
        original = Bookkeeping.on_train_batch_end

        def fail(self: Bookkeeping, trainer: Any, *rest: Any) -> None:
            original(self, trainer, *rest)
            if trainer.global_step == stopped:
                raise ArithmeticError

        patched.setattr(Bookkeeping, "on_train_batch_end", fail)
        with pytest.raises(ArithmeticError):
            train(tiny(), toy, tmp_path / "run", **QUICK)
    run = train(tiny(), toy, tmp_path / "run", **QUICK)
    expected = recorded(run.folder)
    assert {name for name, _ in expected} > {"loss", "rate", "val/miou"} and ("loss", 6) in expected
    assert shown(run.folder) == pytest.approx(expected, rel=1e-4)
    with (run.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        for name, text in row.items():
            key = (f"val/{name}" if f"val/{name}" in {its for its, _ in expected} else name, int(row["step"]))
            assert key not in expected or float(text) == expected[key]


def test_nothing_is_shown_where_nothing_is_asked_for(toy: LabelledData, tmp_path: Path):
    train(tiny(), toy, tmp_path / "run", **QUICK, log=("none",))
    assert not (tmp_path / "run" / "tensorboard").exists() and (tmp_path / "run" / "metrics.csv").is_file()


def test_a_logger_that_is_not_there_is_named(toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", False)
    with pytest.raises(MissingExtra, match=r"--log wandb: .*pip install wandb"):
        train(tiny(), toy, tmp_path / "run", **QUICK, log=("wandb",))
    assert not list((tmp_path / "run").iterdir())
    with pytest.raises(ConfigError, match="log"):
        train(tiny(), toy, tmp_path / "run", **QUICK, log=("paper",))
