"""What goes wrong in the middle of a training: said in one line, and what was saved before stays whole."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from regard.checkpoints.file import load
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData, Pair
from regard.datasets.statistics import class_pixels, measure
from regard.errors import DatasetError, OutputBusy, OutputError, RegardError, TrainingError, UnreadableImage
from regard.training import task
from regard.training.callbacks import Bookkeeping
from regard.training.faults import one_line_errors
from regard.training.record import Run, read_metrics
from regard.training.train import train
from support import tiny, write_set

QUICK: dict[str, Any] = {"steps": 6, "batch": 2, "crop": 32, "workers": 0, "evaluate_every": 2, "seed": 1, "warmup": 2}
QUICK["log"] = ("none",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing stopped."""
    place = tmp_path_factory.mktemp("whole")
    return run(folder(write_set(place / "toy")), place / "run").folder


def run(data: LabelledData, out: Path, **settings: Any) -> Run:
    return train(tiny(), data, out, progress=False, **(QUICK | settings))


def at(monkeypatch: pytest.MonkeyPatch, step: int, what: Callable[[], object]) -> None:
    """Let something happen just before the bookkeeping of this step."""
    original = Bookkeeping.on_train_batch_end

    def first(self: Bookkeeping, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == step:
            what()
        original(self, trainer, *rest)

    monkeypatch.setattr(Bookkeeping, "on_train_batch_end", first)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return dict(load(out / "last.safetensors").state_dict())


def same_end(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return all(torch.equal(mine[name], theirs[name]) for name in mine) and read_metrics(one) == read_metrics(other)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_stops_the_run_and_is_named(toy: LabelledData, tmp_path: Path, workers: int):
    cut(toy.root / "images" / "tile2.png")
    with pytest.raises(UnreadableImage) as caught:
        run(toy, tmp_path / "run", workers=workers)
    said = str(caught.value)
    assert "tile2.png is broken" in said and "--on-bad-image skip" in said and "\n" not in said


def test_a_broken_image_is_skipped_by_choice_and_listed(toy: LabelledData, tmp_path: Path, capsys: Any):
    cut(toy.root / "images" / "tile2.png")
    out = tmp_path / "run"
    result = train(tiny(), toy, out, **(QUICK | {"on_bad_image": "skip"}))
    assert list(result.skipped) == ["tile2"] and "tile2.png is broken" in result.skipped["tile2"]
    assert json.loads((out / "run.json").read_text())["skipped"] == result.skipped
    assert [list(line["skipped"]) for line in read_metrics(out) if "skipped" in line] == [["tile2"]]
    assert capsys.readouterr().err.count("skipped tile2: ") == 1
    assert len([line for line in read_metrics(out) if "loss" in line]) == 6


def test_a_run_that_a_broken_image_stopped_goes_on_without_it(
    toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The image breaks at step 2; the run stops, is let go on with ``skip``, stops again and goes on again."""
    broken = {"at": 1}
    original = LabelledData.read

    def read(self: LabelledData, pair: Pair, **more: Any) -> Any:
        if pair.name == "tile2" and broken["at"] <= 0:
            raise UnreadableImage("tile2.png is broken.")
        return original(self, pair, **more)

    monkeypatch.setattr(LabelledData, "read", read)
    monkeypatch.setattr("regard.training.loader.CACHED_IMAGES", 0)
    with monkeypatch.context() as patched, pytest.raises(UnreadableImage):
        at(patched, 2, lambda: broken.update(at=0))
        run(toy, tmp_path / "run")
    with monkeypatch.context() as patched, pytest.raises(KeyError):
        at(patched, 5, lambda: {}["stop"])
        run(toy, tmp_path / "run", on_bad_image="skip")
    result = run(toy, tmp_path / "run", on_bad_image="skip")
    assert list(result.skipped) == ["tile2"]
    assert [line["step"] for line in read_metrics(tmp_path / "run") if "loss" in line] == list(range(1, 7))
    assert sum("skipped" in line for line in read_metrics(tmp_path / "run")) == 1


def test_what_is_read_before_the_first_step_may_be_skipped_too(toy: LabelledData):
    (toy.root / "masks" / "tile0.png").write_bytes(b"\x89PNG")
    for read in (class_pixels, lambda data: measure(data, ("red", "green", "blue"))):
        with pytest.raises(UnreadableImage):
            read(toy)
    found = class_pixels(toy, skip=True)
    assert found.shape == (4, 3) and not found[0].any() and found[1:].any(axis=1).all()
    cut(toy.root / "images" / "tile1.png")
    rest = LabelledData(toy.root, toy.classes, {"train": toy.split("train")[2:]})
    bands = ("red", "green", "blue")
    assert measure(toy, bands, skip=True) == measure(rest, bands)


def test_images_that_are_all_broken_end_the_run_also_when_skipped(toy: LabelledData, tmp_path: Path):
    for index in range(4):
        cut(toy.root / "images" / f"tile{index}.png")
    with pytest.raises(DatasetError, match=r"16 images in a row cannot be used; the last: .*is broken"):
        run(toy, tmp_path / "run", on_bad_image="skip")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyTorch, interrupted, leaves one open
def test_a_data_process_that_dies_is_told_in_one_line(
    toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
):
    def kill() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)

    with monkeypatch.context() as patched, pytest.raises(TrainingError) as caught:
        at(patched, 3, kill)
        run(toy, tmp_path / "run", workers=1)
    assert "a process that reads images died (" in str(caught.value) and "\n" not in str(caught.value)
    gc.collect()
    run(toy, tmp_path / "run", workers=0)
    assert same_end(whole, tmp_path / "run")


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_no_number_ends_the_run_names_the_images_and_keeps_what_was_saved(
    toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    """At step 4, when a checkpoint would be written: the one of step 2 stays, and so do the models."""
    original, seen, calls = task.weighted_sum, list[str](), list[int]()

    def poisoned(*arguments: Any) -> Any:
        losses = original(*arguments)
        calls.append(1)
        if len(calls) == 4:
            losses["loss"] = losses["loss"] * float("nan") if what == "loss" else _NoGradient.apply(losses["loss"])
        return losses

    read = LabelledData.read
    monkeypatch.setattr(LabelledData, "read", lambda *a, **m: (seen.append(a[1].name), read(*a, **m))[1])
    monkeypatch.setattr("regard.training.loader.CACHED_IMAGES", 0)
    monkeypatch.setattr(task, "weighted_sum", poisoned)
    saved, out = dict[str, bytes](), tmp_path / "run"
    at(monkeypatch, 3, lambda: saved.update({path.name: path.read_bytes() for path in out.glob("[!.]*")}))
    with pytest.raises(TrainingError, match=rf"the {what} .* at step 4 \(images tile\d, tile\d\).*--init") as caught:
        run(toy, out)
    trained = [name for name in seen if name in {pair.name for pair in toy.split("train")}]
    drawn = 2  # for the picture of the first batch
    assert f"(images {', '.join(trained[6 + drawn : 8 + drawn])})" in str(caught.value)
    kept = {name: (out / name).read_bytes() for name in saved if not name.startswith("metrics.")}
    assert "last.ckpt" in kept and kept == {name: saved[name] for name in kept}


class _NoGradient(torch.autograd.Function):
    """A number whose gradient is none."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("nan")


@pytest.mark.parametrize("full", ["last.safetensors", "last.ckpt"])
def test_a_full_disk_leaves_the_last_checkpoint_whole_and_the_run_goes_on(
    toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path, full: str
):
    """At step 4 no file may grow beyond just less than the model, or the checkpoint, needs."""
    limit = (whole / full).stat().st_size - 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before: dict[str, bytes] = {}

    def fill() -> None:
        before.update({path.name: path.read_bytes() for path in (tmp_path / "run").glob("[!.]*")})
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))

    with monkeypatch.context() as patched, pytest.raises(OutputError) as caught:
        at(patched, 4, fill)
        try:
            run(toy, tmp_path / "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write" in str(caught.value) and "File too large" in str(caught.value)
    assert "\n" not in str(caught.value) and isinstance(caught.value, RegardError)
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before["last.ckpt"]
    assert {path.name for path in (tmp_path / "run").iterdir()} == before.keys()
    run(toy, tmp_path / "run")
    assert same_end(whole, tmp_path / "run")


def test_the_death_of_another_process_of_the_training_is_one_line() -> None:
    said = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242"
    words = "another process of this training died.* The same command resumes"
    with pytest.raises(TrainingError, match=words), one_line_errors():
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="shapes differ"), one_line_errors():
        raise RuntimeError("shapes differ")


def test_a_second_run_in_a_folder_is_refused_while_the_first_trains(
    toy: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
):
    """The second is another process: the lock is one of processes."""
    said = multiprocessing.get_context("fork").Queue()

    def another() -> None:
        try:
            run(toy, tmp_path / "run")
        except OutputBusy as busy:
            said.put(str(busy))

    def start() -> None:
        process = multiprocessing.get_context("fork").Process(target=another)
        process.start()
        process.join()

    at(monkeypatch, 3, start)
    run(toy, tmp_path / "run")
    assert "another run is training in" in said.get(timeout=60)
    assert same_end(whole, tmp_path / "run") and not list((tmp_path / "run").glob(".*"))
