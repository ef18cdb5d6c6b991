"""Training on Lightning: the loop, the checkpoints and the record of a run."""

from __future__ import annotations

import logging
import math
import pickle
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from regard.card import Card
from regard.datasets.labelled_data import LabelledData
from regard.datasets.source_text import STATED, stated
from regard.datasets.statistics import check_labels, check_val, class_pixels, measure, measured_resolution
from regard.errors import ConfigError, TrainingError
from regard.evaluation.evaluate import check_classes
from regard.files import unlink
from regard.memory import keep_freed_memory
from regard.models import Segmenter
from regard.progress import Progress
from regard.training.activations import lean, with_forwards
from regard.training.callbacks import Bookkeeping, is_first, open_logger
from regard.training.config import TrainConfig, with_recipe
from regard.training.convolutions import faster_forwards
from regard.training.faults import AtomicCheckpoints, one_line_errors
from regard.training.loader import TrainingStream, draw_batch, training_batches
from regard.training.optimizer import criterion_of
from regard.training.record import Record, Run
from regard.training.task import SegmentationTask

PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def train(
    model: Segmenter,
    data: LabelledData,
    out: str | Path,
    *,
    recipe: str = "default",
    resume: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Train ``model`` on the split ``train`` of ``data``, score it on ``val``, and write everything to ``out``.

    ``out`` receives ``best.safetensors`` (highest mIoU on val), ``last.safetensors``, ``last.ckpt`` (to resume from),
    ``metrics.jsonl``, the same as a table, ``metrics.csv``, ``run.json``, and ``batch.png``, the first crops with their
    labels. Called again with the same settings, it resumes where it stopped. With ``resume`` it may take more steps
    than before, even where it was complete: from there on the learning rate is that of a run of so many steps. What is
    scored and saved is the exponential moving average (EMA) of the weights. The weights of ``model`` change, its card
    does not: mean and std of the bands, scores and protocol are on the cards of the saved files.

    ``settings`` are those of ``TrainConfig``; ``recipe`` names an entry of ``recipes()``, whose settings hold where
    none are given. Images of val are scored whole, or in windows as the setting ``window`` says. Where val is cut from
    scenes, windows as large as the crops are the default: attention that spans more than it was trained on scores far
    worse.

    Raises:
        UnknownName: no such recipe.
        ConfigError: an impossible setting.
        ClassMismatch, DatasetError and others: see ``LabelledData``.
        TrainingError: ``out`` holds a run with other settings; the loss or the weights are no longer numbers; a process
            that reads images died.
        OutputError: ``out`` cannot be written to; what was saved before is intact. Or another run trains there
            (OutputBusy).
        Stopped: SIGTERM, SIGUSR1 or SIGINT came; called again, the training resumes after the step that it was at.
    """
    config = completed(recipe, settings, data)
    check_classes(model, data)
    record = Record(Path(out), model, data, config, resume=resume)
    if not record.is_finished:
        skip = config.on_bad_image == "skip"
        check_labels(data, skip=skip)
        check_val(data, model.bands, progress=progress)
        model = model.with_card(card_of(data, config, model.card))
        sole = record.alone() if is_first() else nullcontext()
        with sole, one_line_errors(), quiet():  # a data process may die as late as when Lightning is no longer quiet
            fit(model, data, record, config, progress=progress)
            if is_first():
                record.finish()
    elif is_first():
        unlink(record.lock_file)  # where the run was killed at its very end
    return Run(record.folder, record.best_file, record.best_scores(), record.skipped())


def completed(recipe: str, given: Mapping[str, Any], data: LabelledData) -> TrainConfig:
    """The recipe's settings and those given, with the steps that the epochs are, and the window that val is scored in.

    Both steps and epochs, or patience without a split val, are a ConfigError.
    """
    config, update = with_recipe(recipe, given), dict[str, Any]()
    if config.epochs is not None:
        if "steps" in given:
            raise ConfigError(f"got epochs {config.epochs:g} and steps {config.steps}. Omit one of the two.")
        samples = config.epochs * len(data.split("train"))
        update = {"epochs": None, "steps": math.ceil(samples / (config.batch * config.devices))}
    if config.patience and not data.splits.get("val"):
        raise ConfigError(f"patience {config.patience} needs scores, but {data.root} has no split val. Omit patience.")
    if config.window is None:
        in_scenes = any(pair.box is not None for pair in data.splits.get("val", ()))
        update["window"] = max(config.size) if in_scenes else 0
    return config.model_copy(update=update)


def card_of(data: LabelledData, config: TrainConfig, card: Card) -> Card:
    """The card of a model of these data: their resolution and origin, and for bands without published ones their mean
    and std. What an initial model was trained on is not said of it.
    """
    skip = config.on_bad_image == "skip"
    given = {name: value for name in STATED if (value := getattr(config, name)) is not None}
    update: dict[str, Any] = {"ground_resolution": data.gsd or measured_resolution(data), **stated(data.root), **given}
    if not any(card.mean):
        measured = measure(data, card.bands, skip=skip)
        update |= {"mean": measured.mean, "std": measured.std, "divisor": measured.divisor}
    return card.without_data().model_copy(update=update)


def fit(
    model: Segmenter,
    data: LabelledData,
    record: Record,
    config: TrainConfig,
    *,
    progress: bool,
    before: Sequence[pl.Callback] = (),
) -> None:
    """Train to the last step; ``before`` are called ahead of what keeps the record."""
    _prepare_processor(config)
    done = _steps_done(record.resume_file)
    loggers = [open_logger(name, record.folder, start=done) for name in config.log if name != "none"]
    if is_first():
        record.start(done)
    balanced = config.balance or config.class_weights == "balanced"
    pixels = class_pixels(data, skip=config.on_bad_image == "skip") if balanced else None
    stream = TrainingStream(data, config, scaling=model.scaling, bands=model.bands, pixels=pixels)
    if progress and done and is_first():
        print(f"resuming after step {done} of {config.steps}", file=sys.stderr, flush=True)
    if is_first() and not done:
        draw_batch(stream, record.folder / "batch.png")
    keep = ModelCheckpoint(
        record.folder, "last", every_n_train_steps=config.evaluate_every, save_top_k=1, enable_version_counter=False
    )
    model = model.to(memory_format=torch.channels_last).train()
    task = SegmentationTask(model, config, criterion_of(model, config, pixels))
    bar = Progress("step", config.steps, start=done, enabled=progress)
    faster = {} if torch.cuda.is_available() else faster_forwards(model)
    with bar, lean(model.backbone, recompute=config.recompute), with_forwards(faster):
        trainer = pl.Trainer(
            max_steps=config.steps,
            precision=PRECISION[config.precision],  # type: ignore[arg-type]
            devices=config.devices,
            use_distributed_sampler=False,  # ResumableSampler does it
            sync_batchnorm=torch.cuda.device_count() > 1,  # there is none for CPUs
            callbacks=[*before, Bookkeeping(data, record, bar), keep],
            plugins=[AtomicCheckpoints()],
            logger=loggers or False,
            enable_progress_bar=False,
            enable_model_summary=False,
            deterministic="warn" if torch.cuda.is_available() else True,
        )
        resume = record.resume_file if done else None
        trainer.fit(task, training_batches(stream, start=done), ckpt_path=resume, weights_only=True)


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
        reason = f"{checkpoint} is broken ({type(error).__name__})"
        raise TrainingError(f"{reason}: the run cannot be resumed. Delete its folder and start again.") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's advice (workers, loggers, versions) from the terminal; then restore every switch."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    strict = torch.are_deterministic_algorithms_enabled()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of 1x1 kernels; no gradient differs
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
