"""Training on Lightning: the loop, the checkpoints and the record of a run."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from regard.datasets.labelled_data import LabelledData
from regard.datasets.statistics import check_labels, class_pixels, measure
from regard.errors import ConfigError, TrainingError
from regard.evaluation.evaluate import check_classes
from regard.inference.views import scaling_of
from regard.memory import keep_freed_memory
from regard.models import Segmenter
from regard.progress import Progress
from regard.training.augment import Augmentation
from regard.training.callbacks import Bookkeeping, is_first
from regard.training.config import TrainConfig
from regard.training.faults import WholeCheckpoints, one_line
from regard.training.loader import TrainingStream, training_batches
from regard.training.loggers import loggers_of
from regard.training.optimizer import criterion_of
from regard.training.recipes import with_recipe
from regard.training.record import Record, Run
from regard.training.task import SegmentationTask

PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def train(
    model: Segmenter,
    data: LabelledData,
    out: str | Path,
    *,
    recipe: str = "default",
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Train ``model`` on the split ``train`` of ``data``, score it on ``val``, and leave everything in ``out``.

    ``out`` receives ``best.safetensors`` (highest mIoU on val), ``last.safetensors``, ``last.ckpt`` (to go on from),
    ``metrics.jsonl``, the same as a table, ``metrics.csv``, and ``run.json``. Called again with the same settings, it
    goes on where it stopped. What is scored and saved is the running average of the weights. ``recipe`` names one of
    ``training.recipes``, whose settings hold where none are given. Images of val are scored whole, or in windows as the
    setting ``window`` says; where val is cut from scenes and nothing is said, in windows as large as the crops: a
    network whose attention never saw more ground at once does far worse on all of it. The record and the model's card
    say which it was.

    Raises:
        UnknownName: no such recipe.
        ConfigError: an impossible setting.
        ClassMismatch, DatasetError and others: see ``LabelledData``.
        TrainingError: ``out`` holds a run with other settings; the loss or the weights are no longer numbers; a process
            that reads images died.
        OutputError: ``out`` cannot be written to; what was saved before is whole.
        Stopped: SIGTERM, SIGUSR1 or SIGINT came; called again, the training goes on after the step that it was at.
    """
    config = _with_window(with_recipe(recipe, settings), data)
    check_classes(model, data)
    if data.gsd is not None:
        model.card = model.card.model_copy(update={"ground_resolution": data.gsd})
    record = Record(Path(out), model, data, config)
    if not record.is_finished:
        skip = config.on_bad_image == "skip"
        check_labels(data, skip=skip)
        _measure_bands(model, data, skip=skip)
        with one_line(), quiet():  # a data process may die as late as when it is quiet no more
            _fit(model, data, record, config, progress=progress)
        if is_first():
            record.finish()
    return Run(record.folder, record.best_file, record.best_scores(), record.skipped())


def _with_window(config: TrainConfig, data: LabelledData) -> TrainConfig:
    """The settings with the window that val is scored in; 0 for whole images."""
    if config.window is not None:
        return config
    in_scenes = any(pair.box is not None for pair in data.splits.get("val", ()))
    return config.model_copy(update={"window": max(config.crop, config.crop_width or 0) if in_scenes else 0})


def _fit(model: Segmenter, data: LabelledData, record: Record, config: TrainConfig, *, progress: bool) -> None:
    _prepare_processor(config)
    done = _steps_done(record.resume_file)
    loggers = loggers_of(config.log, record.folder, start=done)
    if is_first():
        record.start(done)
    views = asdict(Augmentation()).keys() - {"width"}
    augmentation = Augmentation(width=config.crop_width, **config.model_dump(include=views))
    skip = config.on_bad_image == "skip"
    pixels = class_pixels(data, skip=skip) if config.balance or config.class_weights == "balanced" else None
    stream = TrainingStream(
        data,
        augmentation=augmentation,
        scaling=scaling_of(model),
        bands=model.bands,
        seed=config.seed,
        length=config.steps * config.batch,
        balance=config.balance,
        pixels=pixels,
        on_bad_image=config.on_bad_image,
    )
    batches = training_batches(stream, batch=config.batch, start=done * config.batch, workers=config.workers)
    keep = ModelCheckpoint(
        record.folder, "last", every_n_train_steps=config.evaluate_every, save_top_k=1, enable_version_counter=False
    )
    task = SegmentationTask(
        model.to(memory_format=torch.channels_last).train(), config, criterion_of(model, config, pixels)
    )
    with Progress("step", config.steps, start=done, enabled=progress) as bar:
        trainer = pl.Trainer(
            max_steps=config.steps,
            precision=PRECISION[config.precision],  # type: ignore[arg-type]
            devices=config.devices,
            use_distributed_sampler=False,  # Onwards does it
            sync_batchnorm=torch.cuda.device_count() > 1,  # there is none for CPUs
            callbacks=[Bookkeeping(data, record, bar), keep],
            plugins=[WholeCheckpoints()],
            logger=loggers or False,
            enable_progress_bar=False,
            enable_model_summary=False,
            deterministic="warn" if torch.cuda.is_available() else True,
        )
        trainer.fit(task, batches, ckpt_path=record.resume_file if done else None, weights_only=True)


def _prepare_processor(config: TrainConfig) -> None:
    if torch.cuda.is_available():
        return
    if config.precision != "32":
        raise ConfigError(
            f"precision {config.precision} on a CPU gives gradients that differ from run to run and can become nan "
            f"(seen with torch 2.15, here {torch.__version__}). Train with precision 32, or on a GPU."
        )
    keep_freed_memory()


def _steps_done(checkpoint: Path) -> int:
    if not checkpoint.is_file():
        return 0
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{checkpoint} is broken ({type(error).__name__}): the run cannot go on. Delete its folder and start again."
        ) from None


def _measure_bands(model: Segmenter, data: LabelledData, *, skip: bool) -> None:
    """Give a fresh model on other bands than red, green, blue the mean and std of the training images."""
    if any(model.card.mean):
        return
    measured = measure(data, model.bands, skip=skip)
    update = {"mean": measured.mean, "std": measured.std, "divisor": measured.divisor}
    model.card = model.card.model_copy(update=update)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's advice (workers, loggers, versions) from the user's terminal; leave no switch of it behind."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    strict = torch.are_deterministic_algorithms_enabled()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
