"""A training that a signal ends saves first, says how to go on, and goes on bit for bit."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import regard.cli as cli
from regard.checkpoints.file import load
from regard.training import callbacks as bookkeeping
from regard.training.callbacks import Bookkeeping
from regard.training.record import read_metrics
from support import write_set

pytestmark = pytest.mark.slow

STEPS = 6


def command(data: Path, out: Path, workers: int = 0) -> list[str]:
    network = "--backbone test_resnet --config.width 16 --config.output-stride 16"
    settings = f"--steps {STEPS} --batch 2 --crop 32 --evaluate-every 2 --seed 4 --workers {workers}"
    return ["train", str(data), "-o", str(out), *network.split(), *settings.split()]


def outcome(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, str]:
    """The exit code and the last line of what was said."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return int(end.value.code or 0), capsys.readouterr().err.splitlines()[-1]


def signal_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int, *, where: str) -> None:
    """Send a signal to all processes before the bookkeeping of a step, or in the midst of its scoring."""

    def send() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, number)
        os.kill(os.getpid(), number)

    def first(original: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        if steps[-1:] == [step]:
            send()
        return original(*arguments, **more)

    steps: list[int] = []
    keeping, scoring = Bookkeeping.on_train_batch_end, bookkeeping.evaluate

    def at_batch(self: Bookkeeping, trainer: Any, *rest: Any) -> None:
        steps.append(trainer.global_step)
        first(keeping, self, trainer, *rest) if where == "step" else keeping(self, trainer, *rest)

    monkeypatch.setattr(Bookkeeping, "on_train_batch_end", at_batch)
    if where == "scoring":
        monkeypatch.setattr(bookkeeping, "evaluate", lambda *a, **m: first(scoring, *a, **m))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The data, and the run that nothing stopped."""
    place = tmp_path_factory.mktemp("whole")
    data = write_set(place / "toy")
    with pytest.raises(SystemExit):
        cli.main(command(data, place / "run"))
    return data, place / "run"


@pytest.mark.parametrize(
    ("step", "number", "where", "workers"),
    [
        (3, signal.SIGTERM, "step", 0),
        (1, signal.SIGUSR1, "step", 1),
        (4, signal.SIGINT, "scoring", 0),
    ],
)
def test_a_signal_saves_first_and_the_command_that_is_told_goes_on_bit_for_bit(
    whole: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
    number: signal.Signals,
    where: str,
    workers: int,
):
    data, out = whole[0], tmp_path / "a run"
    before = [signal.getsignal(one) for one in (signal.SIGUSR1, signal.SIGINT)]
    with monkeypatch.context() as patched:
        signal_at(patched, step, number, where=where)
        code, said = outcome(capsys, command(data, out, workers))
    assert code == 128 + number and said.startswith(
        f"Stopped: {number.name} after step {step} of {STEPS}. Progress saved. Run this to resume: "
    )
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == step
    assert step not in [line["step"] for line in read_metrics(out) if "miou" in line]  # left out, and made up for below
    assert [signal.getsignal(one) for one in (signal.SIGUSR1, signal.SIGINT)] == before
    told = shlex.split(said)
    code, _ = outcome(capsys, told[told.index("regard") + 1 :])
    assert code == 0
    assert read_metrics(out) == read_metrics(whole[1])
    for name in ("best", "last"):
        mine, theirs = (load(place / f"{name}.safetensors").state_dict() for place in (out, whole[1]))
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_a_second_ctrl_c_ends_it_at_once_unsaved(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    keeping = Bookkeeping.on_train_batch_end

    def at_batch(self: Bookkeeping, trainer: Any, *rest: Any) -> None:
        for _ in range(2 * (trainer.global_step == 3)):
            signal.raise_signal(signal.SIGINT)
        keeping(self, trainer, *rest)

    monkeypatch.setattr(Bookkeeping, "on_train_batch_end", at_batch)
    code, said = outcome(capsys, command(whole[0], tmp_path / "run"))
    assert code == 130 and said.startswith("Interrupted: stopped; no incomplete file was left.")
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_a_signal_at_the_last_step_lets_the_run_end(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    signal_at(monkeypatch, STEPS, signal.SIGTERM, where="scoring")
    assert outcome(capsys, command(whole[0], tmp_path / "run"))[0] == 0
    assert read_metrics(tmp_path / "run") == read_metrics(whole[1])
