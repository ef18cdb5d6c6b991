"""What a training run leaves behind: run.json, metrics.jsonl, the best and the last model."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from regard._version import __version__
from regard.checkpoints.file import save
from regard.classes import ClassMap
from regard.datasets.labelled_data import LabelledData
from regard.datasets.source_text import STATED
from regard.errors import TrainingError
from regard.evaluation.evaluate import Scores
from regard.files import checked_name, in_use, json_of, sweep, unlink, write_text, writing
from regard.locks import lock_alone, taken_lock
from regard.models import Segmenter
from regard.training.config import RENAMED, TrainConfig

TIME = "%Y-%m-%dT%H:%M:%S%z"
MAY_CHANGE = ("workers", "on_bad_image", "log", "patience", "recompute", *STATED)  # when a run is resumed


@dataclass(frozen=True)
class Run:
    """A finished run.

    ``best`` is the file of its best model, ``scores`` are that model's on the split val, and ``skipped`` gives the
    training images that were skipped, with the reason.
    """

    folder: Path
    best: Path
    scores: Scores | None
    skipped: Mapping[str, str] = field(default_factory=dict)


class Record:
    """The folder of one run; a folder that holds the same run is resumed; with ``resume``, for more steps too.

    Raises:
        TrainingError: the folder holds a run with other settings, or a broken one.
        OutputError: the folder cannot be made.
    """

    def __init__(
        self, folder: Path, model: Segmenter, data: LabelledData, config: TrainConfig, *, resume: bool = False
    ) -> None:
        self.folder, self.window, self.classes = folder, config.window, data.classes
        self.best_file, self.resume_file = folder / "best.safetensors", folder / "last.ckpt"
        self.lock_file = folder / ".lock"
        self.facts = {
            "model": {"architecture": model.card.architecture, **model.card.config, "bands": list(model.bands)},
            "data": {"root": data.root.name, **{name: len(pairs) for name, pairs in data.splits.items()}},
            "settings": config.model_dump(mode="json"),
        }
        with writing(folder):
            checked_name(folder).mkdir(parents=True, exist_ok=True)
        self._check_same(resume)
        self.is_finished = self._stored().get("finished") is not None and not resume

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out of the folder; an OutputBusy if one is there.

        The lock is the process's own: processes that read images, which may outlive it a while, do not have it.
        """
        busy = f"another run is training in {self.folder}. Wait until it is done, or choose another folder."
        with writing(self.folder):
            lock = taken_lock(self.lock_file, partial(lock_alone, busy=busy, of_process=True))
        with lock, in_use(self.folder), ExitStack() as after:
            after.callback(unlink, self.lock_file)
            sweep(self.resume_file)  # of a run that was killed after its last step, no more is written
            yield

    def start(self, step: int) -> None:
        """Begin after ``step``: write run.json, and drop the lines of metrics.jsonl from later steps."""
        kept = [json.dumps(line) + "\n" for line in read_metrics(self.folder) if line["step"] <= step]
        write_text(self.folder / "metrics.jsonl", "".join(kept))
        self._write_run(started=self._stored().get("started") or time.strftime(TIME))

    def finish(self) -> None:
        """Mark the run as complete."""
        self._write_table()
        self._write_run(started=self._stored().get("started"), finished=time.strftime(TIME), skipped=self.skipped())

    def add_step(self, step: int, values: dict[str, float]) -> None:
        """Append the losses and the learning rate of one step."""
        self._append({"step": step, **{name: float(f"{value:.6g}") for name, value in values.items()}})

    def add_skipped(self, step: int, faults: dict[str, str]) -> None:
        """Append the images that were skipped, and why."""
        self._append({"step": step, "skipped": faults})

    def skipped(self) -> dict[str, str]:
        """The images that were skipped, and why."""
        return {name: fault for line in read_metrics(self.folder) for name, fault in line.get("skipped", {}).items()}

    def add_scores(self, step: int, model: Segmenter, scores: Scores | None) -> None:
        """Append the scores of one step, and save the model as last and, if it is the best so far, as best.

        The saved files' cards have the scores; the card of ``model`` stays as it is.
        """
        best = best_line(read_metrics(self.folder))
        is_best = scores is None or best is None or scores.miou >= best["miou"]
        if scores is not None:
            rounded = {name: round(value, 4) for name, value in scores.summary().items()}
            protocol = f"val, windows of {self.window} pixels" if self.window else "val, whole images"
            facts = {"scores": rounded, "protocol": protocol, "window": self.window}
            model = model.with_card(model.card.model_copy(update=facts))
            facts = {name: value for name, value in scores.as_dict().items() if name != "classes"}
            self._append({"step": step, "window": self.window, **facts})
            self._write_table()
        save(model, self.folder / "last.safetensors")
        if is_best:
            save(model, self.best_file)

    def is_scored(self, step: int) -> bool:
        """Whether the scores of this step, and so its models, are written."""
        return any(line["step"] == step and "miou" in line for line in read_metrics(self.folder))

    def best_scores(self) -> Scores | None:
        """The scores of the best model on the split val; None if there is no such split."""
        line = best_line(read_metrics(self.folder))
        return None if line is None else Scores.of({**line, "classes": self.classes.model_dump(mode="json")})

    def _append(self, line: dict[str, Any]) -> None:
        with writing(self.folder), (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _write_table(self) -> None:
        """The numbers of metrics.jsonl as metrics.csv, a row a step.

        Lightning's CSVLogger writes a step's losses and scores as two rows, and keeps what a resumed run repeats.
        """
        rows: dict[int, dict[str, float]] = {}
        for line in read_metrics(self.folder):
            numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
            rows.setdefault(line["step"], {}).update(numbers)
        text, names = io.StringIO(), dict.fromkeys(name for row in rows.values() for name in row)
        table = csv.DictWriter(text, list(names), lineterminator="\n")
        table.writeheader()
        table.writerows(rows.values())
        write_text(self.folder / "metrics.csv", text.getvalue())

    def _stored(self) -> dict[str, Any]:
        path = self.folder / "run.json"
        return _read(path) if path.is_file() else {}

    def _check_same(self, resume: bool) -> None:
        """Refuse another run in this folder; all its differences are named at once."""
        stored, differing = self._stored(), list[str]()
        if resume and not stored:
            raise TrainingError(f"{self.folder} holds no run to resume. Omit --resume, or give the folder of the run.")
        for part, facts in self.facts.items():
            for name, value in facts.items():
                before = stored.get(part, {}).get(name, value)
                longer = resume and name == "steps" and value > before
                if before != value and name not in MAY_CHANGE and not longer:
                    differing.append(f"{part} {name}={before}, now {value}")
        if differing:
            hint = "" if resume else " More steps alone: --resume."
            raise TrainingError(
                f"{self.folder} holds a run with {'; '.join(differing)}. Choose another folder, or delete it.{hint}"
            )

    def has_stalled(self, patience: int) -> bool:
        """Whether the mIoU on val has not risen in the last ``patience`` evaluations; never with 0."""
        scores = [line["miou"] for line in read_metrics(self.folder) if "miou" in line]
        return 0 < patience < len(scores) and max(scores[-patience:]) <= max(scores[:-patience])

    def _write_run(self, **more: Any) -> None:
        machine = {
            "regard": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        }
        facts = {**self.facts, "classes": self.classes.model_dump(mode="json"), "machine": machine, **more}
        write_text(self.folder / "run.json", json.dumps(facts, indent=1) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, without a line that a crash left incomplete."""
    path, lines = folder / "metrics.jsonl", list[dict[str, Any]]()
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with suppress(ValueError):
            lines.append(json_of(text))
    return lines


def best_line(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The line of the highest mIoU, the last of equals; None if nothing was scored."""
    scored = [line for line in lines if "miou" in line]
    return max(scored, key=lambda line: (line["miou"], line["step"])) if scored else None


def read_run(folder: Path) -> tuple[dict[str, Any], ClassMap]:
    """A run's run.json, and the classes in it; a TrainingError if the folder holds no run, or a broken one."""
    path = folder / "run.json"
    if not path.is_file():
        raise TrainingError(f"{folder} holds no run (no run.json). Give the folder that regard train wrote.")
    facts = _read(path)
    return facts, ClassMap(**facts["classes"])


def _read(path: Path) -> dict[str, Any]:
    try:
        facts = json_of(path.read_text(encoding="utf-8"))
        ClassMap(**facts["classes"])
        facts["settings"] = {RENAMED.get(name, name): value for name, value in facts["settings"].items()}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(
            f"{path} is broken ({type(error).__name__}). Delete the folder and train again, or choose another."
        ) from None
    return facts
