"""How long a training is: epochs, more steps than first asked for, early stopping; and what it shows on the way."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from regard import progress
from regard.checkpoints.file import load
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.errors import ConfigError, TrainingError
from regard.training.callbacks import Bookkeeping
from regard.training.optimizer import poly
from regard.training.record import Record, Run, best_line, read_metrics, read_run
from regard.training.train import completed, train
from support import tiny

pytestmark = pytest.mark.slow

QUICK: dict[str, Any] = {"steps": 6, "batch": 2, "crop": 32, "workers": 0, "evaluate_every": 2, "seed": 1, "warmup": 2}


def run(data: LabelledData, out: Path, *, resume: bool = False, **settings: Any) -> Run:
    return train(tiny(), data, out, progress=False, resume=resume, **(QUICK | {"log": ("none",)} | settings))


def rates(out: Path) -> list[float]:
    return [line["rate"] for line in read_metrics(out) if "rate" in line]


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = (load(out / "last.safetensors").state_dict() for out in (one, other))
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize(("epochs", "devices", "steps"), [(3, 1, 6), (2.5, 1, 5), (0.1, 1, 1), (3, 2, 3)])
def test_epochs_are_passes_over_the_training_images(toy: LabelledData, epochs: float, devices: int, steps: int):
    """Four images in batches of two."""
    config = completed("default", {"epochs": epochs, "batch": 2, "devices": devices}, toy)
    assert (config.steps, config.epochs) == (steps, None)
    assert completed("mmseg-40k", {"epochs": 1}, toy).steps == 1  # in place of the recipe's


def test_settings_that_exclude_each_other_are_refused(toy: LabelledData, set_folder: Path):
    with pytest.raises(ConfigError, match=r"got epochs 2 and steps 9\. Omit one"):
        completed("default", {"epochs": 2, "steps": 9}, toy)
    (set_folder / "val.txt").unlink()
    with pytest.raises(ConfigError, match=r"patience 3 needs scores, but .* has no split val"):
        completed("default", {"patience": 3}, folder(set_folder))


@pytest.mark.parametrize("first", [4, 5])
def test_a_complete_run_goes_on_with_more_steps(toy: LabelledData, tmp_path: Path, first: int):
    run(toy, tmp_path / "run", steps=first)
    assert not run(toy, tmp_path / "run", steps=first).skipped and len(rates(tmp_path / "run")) == first
    with pytest.raises(TrainingError, match=rf"settings steps={first}, now 8\. .* More steps alone: --resume"):
        run(toy, tmp_path / "run", steps=8)
    with pytest.raises(TrainingError, match=rf"settings steps={first}, now 3"):
        run(toy, tmp_path / "run", steps=3, resume=True)
    done = run(toy, tmp_path / "run", steps=8, resume=True)
    lines = read_metrics(done.folder)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 9))
    assert [line["step"] for line in lines if "miou" in line] == sorted({2, 4, first, 6, 8})
    expected = [poly(step, steps=first if step < first else 8, warmup=2) * 1e-3 for step in range(8)]
    np.testing.assert_allclose(rates(done.folder), expected, rtol=1e-5)
    facts, _ = read_run(done.folder)
    assert facts["settings"]["steps"] == 8 and facts["finished"]


def test_nothing_to_resume_is_told(toy: LabelledData, tmp_path: Path):
    with pytest.raises(TrainingError, match="holds no run to resume"):
        run(toy, tmp_path / "run", resume=True)


def test_all_differing_settings_are_named_at_once(toy: LabelledData, tmp_path: Path):
    run(toy, tmp_path / "run", steps=2)
    with pytest.raises(TrainingError, match=r"settings batch=2, now 3; settings flip=True, now False; .*seed=1, now 7"):
        run(toy, tmp_path / "run", steps=2, batch=3, flip=False, seed=7)


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that rise to step 4 and fall from there on."""
    original = Record.add_scores

    def add(self: Record, step: int, model: Any, scores: Any) -> None:
        good = 10 * step if step <= 4 else 0
        scores.__dict__["confusion"] = np.diag([good] * 3) + 10
        original(self, step, model, scores)

    monkeypatch.setattr(Record, "add_scores", add)


@pytest.mark.usefixtures("falling")
def test_a_run_stops_early_where_its_score_no_longer_rises(toy: LabelledData, tmp_path: Path):
    done = run(toy, tmp_path / "run", steps=20, patience=2)
    scored = [line["step"] for line in read_metrics(done.folder) if "miou" in line]
    assert scored == [2, 4, 6, 8] and read_run(done.folder)[0]["finished"]
    best = best_line(read_metrics(done.folder))
    assert best is not None and best["step"] == 4
    before = (done.folder / "metrics.jsonl").read_bytes()
    run(toy, tmp_path / "run", steps=20, patience=2)
    assert (done.folder / "metrics.jsonl").read_bytes() == before
    longer = run(toy, tmp_path / "run", steps=20, patience=3, resume=True)
    assert [line["step"] for line in read_metrics(longer.folder) if "miou" in line] == [2, 4, 6, 8, 10]


@pytest.mark.usefixtures("falling")
@pytest.mark.parametrize("step", [5, 8])
def test_early_stopping_is_the_same_after_a_stop(
    toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
):
    """Also right after the last evaluation, before the run was marked as complete."""
    run(toy, tmp_path / "whole", steps=20, patience=2)
    original = Bookkeeping.on_train_batch_end

    def then_stop(self: Bookkeeping, trainer: Any, *rest: Any) -> None:
        original(self, trainer, *rest)
        if trainer.global_step == step:
            raise KeyError("killed")

    with monkeypatch.context() as patched, pytest.raises(KeyError):
        patched.setattr(Bookkeeping, "on_train_batch_end", then_stop)
        run(toy, tmp_path / "run", steps=20, patience=2)
    run(toy, tmp_path / "run", steps=20, patience=2)
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "run/metrics.jsonl").read_bytes()
    assert same_weights(tmp_path / "whole", tmp_path / "run")


def test_the_first_batch_is_drawn_with_its_labels(toy: LabelledData, tmp_path: Path):
    run(toy, tmp_path / "run", steps=1)
    with Image.open(tmp_path / "run/batch.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    for colour in toy.classes.palette:  # in the legend at least, and half of it over the images
        assert (abs(colours - colour).max(axis=1) < 3).any()


def test_a_bar_within_a_bar_is_a_line_of_it(monkeypatch: pytest.MonkeyPatch):
    shown = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=shown, force_terminal=True, width=80))
    with progress.Progress("step", 4) as outer:
        outer.advance()
        with progress.Progress("evaluate", 2, unit=" images") as inner:
            inner.advance(2)
        outer.advance(3)
    assert "evaluate" in shown.getvalue() and "step" in shown.getvalue()
    with progress.Progress("again", 1) as after:
        after.advance()
    assert "again" in shown.getvalue()
