"""What a training would cost on this machine (``--dry-run``): two steps of it, measured in a process of their own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch

from regard.datasets.labelled_data import LabelledData
from regard.errors import counted
from regard.evaluation.evaluate import evaluate
from regard.memory import peak_memory_mb
from regard.models import Segmenter
from regard.training.config import TrainConfig
from regard.training.faults import one_line_errors
from regard.training.loader import TrainingStream
from regard.training.record import Record
from regard.training.train import card_of, fit, quiet

STEPS = 2  # the second is timed
LONG = 12 * 60.0  # minutes
SHARE = 0.8  # of the free memory that a training may take
SMALL = "tf_efficientnet_lite0"  # that of the bundled models


class Trial(NamedTuple):
    """Seconds of a step's arithmetic, of loading its batch, and of scoring one image of val; the peak of memory."""

    step: float
    load: float
    score: float
    memory_mb: float

    def seconds(self, config: TrainConfig) -> float:
        """A step with its share of loading: the processes that load work while the step is computed."""
        return max(self.step, self.load / config.workers) if config.workers else self.step + self.load

    def minutes(self, config: TrainConfig, data: LabelledData) -> float:
        """All steps and evaluations."""
        evaluations = math.ceil(config.steps / config.evaluate_every)
        scoring = self.score * len(data.splits.get("val", ())) * evaluations
        return (config.steps * self.seconds(config) + scoring) / 60


def rehearse(
    model: Segmenter, data: LabelledData, config: TrainConfig, smaller: Callable[[str], Segmenter] | None = None
) -> dict[str, Any]:
    """The minutes and memory of a training, and a smaller one where it takes half a day or most of the free memory.

    ``smaller`` makes the same network on another backbone; without it the backbone stays.
    """
    free, threads = free_memory_mb(), torch.get_num_threads()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {counted(threads, 'thread')}"
    facts: dict[str, Any] = {"device": device, "free_memory_mb": round(free), "steps": config.steps}
    asked = in_own_process(model, data, config)
    facts |= _facts(asked, config, data)
    facts["suggestion"] = "as asked"
    if _is_fine(asked, config, data, free):
        return facts
    for name, other in _smaller(model, config, changeable=smaller is not None):
        network = smaller(name) if smaller is not None and name != model.card.config["backbone"] else model
        found = in_own_process(network, data, other)
        facts["suggestion"] = f"--backbone {name} --batch {other.batch} --crop {other.crop}"
        facts |= {f"suggested_{name}": value for name, value in _facts(found, other, data).items()}
        if _is_fine(found, other, data, free):
            break
    return facts


def _smaller(model: Segmenter, config: TrainConfig, *, changeable: bool) -> Iterator[tuple[str, TrainConfig]]:
    """Smaller trainings, the largest first."""
    name = SMALL if changeable else str(model.card.config["backbone"])
    for crop, batch in ((config.crop, min(8, config.batch)), (256, 8), (256, 4)):
        side, count = min(crop, config.crop), min(batch, config.batch)
        yield name, config.model_copy(update={"crop": side, "crop_width": None, "batch": count})


def _facts(trial: Trial | None, config: TrainConfig, data: LabelledData) -> dict[str, Any]:
    if trial is None:
        return {"memory_mb": "more than is free: the process was ended"}
    minutes = trial.minutes(config, data)
    return {
        "seconds_per_step": round(trial.seconds(config), 2),
        "seconds_to_load_a_batch": round(trial.load, 2),
        "minutes": round(minutes, 1),
        "memory_mb": round(trial.memory_mb),
    }


def _is_fine(trial: Trial | None, config: TrainConfig, data: LabelledData, free: float) -> bool:
    return trial is not None and trial.memory_mb <= SHARE * free and trial.minutes(config, data) <= LONG


def in_own_process(model: Segmenter, data: LabelledData, config: TrainConfig) -> Trial | None:
    """:func:`trial` in a fresh process, whose memory is its own; None if the system ended it, for want of memory."""
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(trial, model, data, config, torch.get_num_threads()).result()
    except BrokenProcessPool:
        return None


def trial(model: Segmenter, data: LabelledData, config: TrainConfig, threads: int) -> Trial:
    """Train two steps as :func:`regard.training.train.train` does, with one image of val; nothing of it stays."""
    torch.set_num_threads(threads)
    data = replace(data, splits={name: pairs[:1] if name == "val" else pairs for name, pairs in data.splits.items()})
    update = {"steps": STEPS, "evaluate_every": STEPS, "devices": 1, "log": ("none",), "patience": 0}
    short = config.model_copy(update=update)
    model = model.with_card(card_of(data, config, model.card))
    watch, load = Stopwatch(), _seconds_to_load(model, data, short)
    with TemporaryDirectory() as folder, one_line_errors(), quiet():
        fit(model, data, Record(Path(folder), model, data, short), short, progress=False, before=[watch])
    score = 0.0
    if data.splits.get("val"):
        began = time.perf_counter()
        evaluate(model, data, window=config.window or None, progress=False)
        score = time.perf_counter() - began
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return Trial(watch.seconds, load, score, gpu or peak_memory_mb())


class Stopwatch(pl.Callback):
    """The seconds of the last step's arithmetic."""

    began = seconds = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self.began


def _seconds_to_load(model: Segmenter, data: LabelledData, config: TrainConfig) -> float:
    stream = TrainingStream(data, config, scaling=model.scaling, bands=model.bands)
    began = time.perf_counter()
    for counter in range(config.batch):
        stream[counter]
    return time.perf_counter() - began


def free_memory_mb() -> float:
    """The memory that is free for a training: of the GPU, else of the system; infinite where neither tells."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / 2**20
    table = Path("/proc/meminfo")
    if table.is_file():
        entries = dict(line.split(":", 1) for line in table.read_text(encoding="utf-8").splitlines())
        return int(entries["MemAvailable"].split()[0]) / 1024
    return math.inf
