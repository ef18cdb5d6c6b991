"""What a run writes down while it trains: losses, scores, models; and its end by a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only

from regard.datasets.labelled_data import LabelledData
from regard.distributed import share_buffers
from regard.errors import Stopped
from regard.evaluation.evaluate import evaluate
from regard.models import Segmenter
from regard.progress import Progress
from regard.training.faults import check_weights
from regard.training.loader import ENDING
from regard.training.record import Record
from regard.training.task import SegmentationTask


class Bookkeeping(pl.Callback):
    """Averages the weights, records each step; every ``evaluate_every`` steps and at the end, scores and saves."""

    def __init__(self, data: LabelledData, record: Record, progress: Progress) -> None:
        self.data = data
        self.record = record
        self.progress = progress
        self.skipped = set(record.skipped())
        self.stopping = Stopping()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        self.stopping.listen()
        step = trainer.global_step
        if step and step % pl_module.config.evaluate_every == 0 and not self.record.is_scored(step):
            self._evaluate(pl_module, step, may_leave=False)  # a signal had it left out

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SegmentationTask)
        self._list_skipped(trainer.global_step, batch["faults"])
        check_weights(pl_module.model, trainer.global_step, batch["names"])
        pl_module.averaged.update_parameters(pl_module.model)  # here: Lightning calls the module after its callbacks
        step, config = trainer.global_step, pl_module.config
        if trainer.is_global_zero:
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.record.training(step, values)
            self._show(trainer, values, step)
            self.progress.advance(facts=f"loss {values['loss']:.3f}")
        last = step == config.steps
        if step % config.evaluate_every == 0 or last:
            self._evaluate(pl_module, step, may_leave=trainer.world_size == 1 and not last)
        if not last and trainer.strategy.reduce_boolean_decision(self.stopping.told is not None, all=False):
            self._stop(trainer, step)

    def _show(self, trainer: pl.Trainer, values: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(values, step)

    def _stop(self, trainer: pl.Trainer, step: int) -> None:
        trainer.save_checkpoint(self.record.resume_file)
        told = self.stopping.told or signal.SIGTERM  # it may have come to another process
        if not is_first():
            raise SystemExit(128 + told)
        stopped = Stopped(
            f"{told.name} after step {step} of {trainer.max_steps}; {self.record.resume_file} has all of it. The same "
            "command goes on from there."
        )
        stopped.signal = told
        raise stopped

    def _list_skipped(self, step: int, faults: dict[str, str]) -> None:
        fresh = {name: fault for name, fault in faults.items() if name not in self.skipped}
        if fresh:
            self.skipped |= fresh.keys()
            self.record.left_out(step, fresh)
            self.progress.note("\n".join(f"step {step}: skipped {name}: {fault}" for name, fault in fresh.items()))

    def _evaluate(self, task: SegmentationTask, step: int, *, may_leave: bool) -> None:
        model = task.averaged.module
        assert isinstance(model, Segmenter)
        share_buffers(model)
        window = task.config.window or None
        try:
            with self.stopping.leaving(allowed=may_leave):
                scores = evaluate(model, self.data, window=window) if "val" in self.data.splits else None
        except Told:
            return
        if not is_first():
            return
        self.record.validation(step, model, scores)
        if scores is not None:
            self._show(task.trainer, {f"val/{name}": value for name, value in scores.summary().items()}, step)
            self.progress.note(f"step {step}: val mIoU {100 * scores.miou:.1f}, accuracy {100 * scores.accuracy:.1f}")


def is_first() -> bool:
    """Whether this is the process that writes, of those that train together."""
    return getattr(rank_zero_only, "rank", 0) == 0


class Told(Exception):
    """A signal came in the midst of what may be left out."""


class Stopping:
    """The first signal that told this process to end, in place of what signals do; a second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self.told: signal.Signals | None = None
        self._may_leave = False

    def listen(self) -> None:
        """From here on; Lightning, whose own handlers this replaces, brings back those from before it when it ends."""
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        if self.told is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.told = self.told or signal.Signals(number)
        if self._may_leave:
            raise Told

    @contextmanager
    def leaving(self, *, allowed: bool) -> Iterator[None]:
        """Leave the ``with`` block as soon as a signal comes, or has come, if ``allowed``.

        Raises:
            Told: it was left.
        """
        if allowed and self.told is not None:
            raise Told
        self._may_leave = allowed
        try:
            yield
        finally:
            self._may_leave = False
