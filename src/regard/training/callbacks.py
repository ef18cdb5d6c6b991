"""What happens after each step of a training: the EMA, the record, the scores and models; and the end by a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.optim.lr_scheduler import LambdaLR

from regard.datasets.labelled_data import LabelledData
from regard.distributed import share_buffers
from regard.errors import MissingExtra, Stopped
from regard.evaluation.evaluate import evaluate
from regard.models import Segmenter
from regard.progress import Progress
from regard.training.faults import check_weights
from regard.training.loader import END_SIGNALS
from regard.training.record import Record
from regard.training.task import SegmentationTask


class Bookkeeping(pl.Callback):
    """Updates the EMA and records each step; every ``evaluate_every`` steps and at the end, scores and saves."""

    def __init__(self, data: LabelledData, record: Record, progress: Progress) -> None:
        self.data, self.record, self.progress = data, record, progress
        self.skipped = set(record.skipped())
        self.stop = GracefulStop()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        self.stop.install()
        step = trainer.global_step
        for optimizer, scheduler in zip(trainer.optimizers, trainer.lr_scheduler_configs, strict=True):
            schedule = cast(LambdaLR, scheduler.scheduler)  # of a resumed run that is to take more steps, a new one
            for group, rate, factor in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
                group["lr"] = rate * factor(schedule.last_epoch)
        if step and step % pl_module.config.evaluate_every == 0 and not self.record.is_scored(step):
            self._evaluate(pl_module, step, interruptible=False)  # a signal interrupted it
        trainer.should_stop = self._has_stalled(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SegmentationTask)
        step, config = trainer.global_step, pl_module.config
        self._record_skipped(step, batch["faults"])
        check_weights(pl_module.model, step, batch["names"])
        pl_module.ema.update_parameters(pl_module.model)  # here: Lightning calls the module after its callbacks
        if trainer.is_global_zero:
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.record.add_step(step, values)
            self._log(trainer, values, step)
            self.progress.advance(facts=f"loss {values['loss']:.3f}")
        last = step == config.steps
        if step % config.evaluate_every == 0 or last:
            self._evaluate(pl_module, step, interruptible=trainer.world_size == 1 and not last)
            if self._has_stalled(trainer, pl_module):
                self.progress.note(f"stopped early: mIoU has not risen for {config.patience} evaluations")
                trainer.should_stop = last = True
        if last:
            trainer.save_checkpoint(self.record.resume_file)  # to resume with more steps
        elif trainer.strategy.reduce_boolean_decision(self.stop.received is not None, all=False):
            self._save_and_stop(trainer, step)

    def _has_stalled(self, trainer: pl.Trainer, task: SegmentationTask) -> bool:
        """What the process that writes the record says, in every process."""
        return bool(trainer.strategy.broadcast(is_first() and self.record.has_stalled(task.config.patience)))

    def _log(self, trainer: pl.Trainer, values: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(values, step)

    def _save_and_stop(self, trainer: pl.Trainer, step: int) -> None:
        trainer.save_checkpoint(self.record.resume_file)
        received = self.stop.received or signal.SIGTERM  # another process may have received it
        if not is_first():
            raise SystemExit(128 + received)
        stopped = Stopped(f"{received.name} after step {step} of {trainer.max_steps}. Progress saved.")
        stopped.signal = received
        raise stopped

    def _record_skipped(self, step: int, faults: dict[str, str]) -> None:
        fresh = {name: fault for name, fault in faults.items() if name not in self.skipped}
        if fresh:
            self.skipped |= fresh.keys()
            self.record.add_skipped(step, fresh)
            self.progress.note("\n".join(f"step {step}: skipped {name}: {fault}" for name, fault in fresh.items()))

    def _evaluate(self, task: SegmentationTask, step: int, *, interruptible: bool) -> None:
        model, scores = task.ema.module, None
        assert isinstance(model, Segmenter)
        share_buffers(model)
        try:
            with self.stop.interrupting(allowed=interruptible):
                if "val" in self.data.splits:
                    scores = evaluate(model, self.data, window=task.config.window or 0, progress=self.progress.enabled)
        except SignalReceived:
            return
        if not is_first():
            return
        self.record.add_scores(step, model, scores)
        if scores is not None:
            self._log(task.trainer, {f"val/{name}": value for name, value in scores.summary().items()}, step)
            self.progress.note(f"step {step}: val mIoU {100 * scores.miou:.1f}, accuracy {100 * scores.accuracy:.1f}")


def is_first() -> bool:
    """Whether this is the process that writes, of those that train together."""
    return getattr(rank_zero_only, "rank", 0) == 0


class SignalReceived(Exception):
    """A signal came while work was under way that may be interrupted."""


class GracefulStop:
    """Notes the first signal that asks this process to end, so that the step can be saved; a second Ctrl-C ends it."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._interruptible = False

    def install(self) -> None:
        """Replace Lightning's signal handlers; when it ends, it restores those that were there before its own."""
        if threading.current_thread() is threading.main_thread():
            for number in END_SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, _: Any) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)
        if self._interruptible:
            raise SignalReceived

    @contextmanager
    def interrupting(self, *, allowed: bool) -> Iterator[None]:
        """Leave the ``with`` block with SignalReceived as soon as a signal comes, or has come, if ``allowed``."""
        if allowed and self.received is not None:
            raise SignalReceived
        self._interruptible = allowed
        try:
            yield
        finally:
            self._interruptible = False


def open_logger(name: str, folder: Path, *, start: int) -> Logger:
    """Lightning's logger by name. A run resumed after step ``start`` replaces what TensorBoard has from later steps.

    Weights & Biases and MLflow find their server as they always do: ``wandb login``, ``MLFLOW_TRACKING_URI``.
    A package that is not installed is a MissingExtra.
    """
    try:
        if name == "tensorboard":
            # The start is in the file's name too: by its clock alone, two sessions in one second would share a file.
            return TensorBoardLogger(
                folder, name="", version="tensorboard", purge_step=start + 1, filename_suffix=f".{start:08}"
            )
        if name == "wandb":
            return WandbLogger(name=folder.name, project="regard", save_dir=folder)
        return MLFlowLogger(experiment_name="regard", run_name=folder.name)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"--log {name}: {error.name or name} is not installed. Do: pip install {name}.") from None
