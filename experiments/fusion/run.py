"""Train the networks of the study, run after run as ``plan.py`` says; run it again, and it resumes.

    python -m experiments.fusion.run DATA --out runs/fusion             # about 25 hours of one CPU core
    python -m experiments.fusion.run DATA --out runs/fusion --limit 1   # the next run alone
    python -m experiments.fusion.run DATA --out runs/study --short      # one seed on one data set, in minutes

DATA holds `dubai`, `camvid`, `banepa`, `oam_buildings` and `weights/tf_efficientnet_lite0.pth`. A killed run loses at
most 20 steps. Each finished run is a file in OUT/records;
`python -m experiments.records collect OUT/records TABLE` makes the table of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

import experiments.fusion.networks  # noqa: F401  (regard.create knows them from here on)
import regard
from experiments.fusion.arms import ARMS, RECIPE, SHORT_DESIGN
from experiments.fusion.backbone import FiveStages
from experiments.fusion.data import AERIAL, part_of, read
from experiments.fusion.diagnose import Diagnosis, cost, found_by_size, read_lines
from experiments.fusion.plan import Results, Run, Size, next_run, short
from experiments.records import Records
from experiments.records import read as read_records
from regard.checkpoints.file import open_saved
from regard.datasets.labelled_data import LabelledData
from regard.models import Segmenter
from regard.training.config import TrainConfig
from regard.training.faults import one_line_errors
from regard.training.loader import TrainingStream
from regard.training.record import Record, read_metrics
from regard.training.train import card_of, fit, quiet

BUNDLED = Path(regard.__file__).parent / "bundled"
BACKBONE = "tf_efficientnet_lite0"
EVALUATIONS, DIAGNOSES, MEAN_OF = 3, 6, 25  # a run's; MEAN_OF: steps that a recorded loss is the mean of
KEPT_EVERY = 20  # steps
PROBE = 4  # crops of val that the diagnosis looks at


@dataclass(frozen=True)
class Study:
    """Where the data are and where the runs go; ``recipe`` is that of ``arms.py`` but in tests."""

    source: Path
    out: Path
    recipe: dict[str, Any]

    def config(self, run: Run) -> TrainConfig:
        every = -(-run.steps // EVALUATIONS) if run.stage == "full" else run.steps
        own = {"steps": run.steps, "seed": run.seed, "learning_rate": run.rate, "evaluate_every": every}
        return TrainConfig.of(**self.recipe, **own, rot90=run.data in AERIAL)

    def build(self, run: Run, data: LabelledData) -> Segmenter:
        """Random heads by the seed, ImageNet weights below them; without their file, those of a bundled model."""
        arm, weights = ARMS[run.arm], self.source / "weights" / f"{BACKBONE}.pth"
        torch.manual_seed(run.seed)
        settings = {"classes": data.classes, "backbone": BACKBONE, **arm.settings}
        if weights.is_file():
            return regard.create(arm.network, **settings, pretrained=weights)
        model = regard.create(arm.network, **settings)
        model.backbone.load_state_dict(FiveStages(regard.load("dubai-s").float().backbone).state_dict())
        return model

    def train(self, run: Run) -> list[dict[str, Any]]:
        """The lines of a run's record: what it is and cost, losses, scores, diagnoses."""
        began, folder = time.process_time(), self.out / "runs" / run.name
        data, config = part_of(read(run.data, self.source, self.out), run.data, run.stage), self.config(run)
        model = self.build(run, data)
        model = model.with_card(card_of(data, config, model.card))
        record = Record(folder, model, data, config)
        if not record.is_finished:
            every = max(1, run.steps // DIAGNOSES) if run.stage == "full" else run.steps
            watch = Diagnosis(folder / "diagnoses.jsonl", probe(data, config, model), every)
            with record.alone(), one_line_errors(), quiet():
                fit(model, data, record, config, progress=False, before=[watch, Keep(record.resume_file)])
                record.finish()
        last = open_saved(folder / "last.safetensors")
        head = {**asdict(run), "torch": torch.__version__, **cost(last, config.crop)}
        if run.stage == "full":
            head |= found_by_size(last, data, config.crop)
        head["cpu_seconds"] = round(time.process_time() - began, 1)
        return [head, *losses(read_metrics(folder)), *read_lines(folder / "diagnoses.jsonl")]

    def finish(self, run: Run, lines: list[dict[str, Any]]) -> None:
        """The record in one piece; of the run's folder the last model stays, of the stage ``full`` and seed 0."""
        path, folder = self.out / "records" / f"{run.name}.jsonl", self.out / "runs" / run.name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(rounded(line)) + "\n" for line in lines), encoding="utf-8")
        part.rename(path)
        kept = folder / "last.safetensors"
        if run.stage == "full" and run.seed == 0:
            (self.out / "models" / run.name).parent.mkdir(parents=True, exist_ok=True)
            kept.replace(self.out / "models" / f"{run.name}.safetensors")
        shutil.rmtree(folder)


class Keep(pl.Callback):
    """Saves what a killed run resumes from; at the start of a step everything of the one before is done."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step and trainer.global_step % KEPT_EVERY == 0:
            trainer.save_checkpoint(self.path)


def probe(data: LabelledData, config: TrainConfig, model: Segmenter) -> tuple[Tensor, Tensor]:
    """A fixed batch of plain crops of val."""
    shown = replace(data, splits={"train": data.split("val")})
    plain = config.model_copy(update={"scale": (1.0, 1.0), "colour": 0.0, "flip": False, "rot90": False, "seed": 0})
    stream = TrainingStream(shown, plain, scaling=model.scaling, bands=model.bands)
    crops = [stream[index] for index in range(min(PROBE, len(stream)))]
    return torch.stack([crop["image"] for crop in crops]), torch.stack([crop["mask"] for crop in crops])


def losses(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The main loss, mean of some steps a line, and the scores."""
    steps = [line for line in lines if "loss" in line]
    parts = [steps[start : start + MEAN_OF] for start in range(0, len(steps), MEAN_OF)]
    found = [{"step": part[-1]["step"], "train_loss": mean(line["main"] for line in part)} for part in parts]
    names = ("step", "miou", "accuracy", "iou", "confusion")
    return found + [{name: line[name] for name in names if name in line} for line in lines if "miou" in line]


def rounded(line: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in line.items()}


def results_of(records: Records) -> dict[Run, float]:
    """mIoU of the last step by run."""
    names = Run.__dataclass_fields__
    return {
        Run(**{name: head[name] for name in names}): [line for line in lines if "miou" in line][-1]["miou"]
        for head, *lines in records.values()
    }


def results_in(out: Path) -> Results:
    return results_of(read_records(out / "records"))


def work(study: Study, size: Size, limit: int | None) -> None:
    """The runs of the schedule that are not finished."""
    for _ in range(10**6 if limit is None else limit):
        run = next_run(results_in(study.out), size)
        if run is None:
            return
        carry_out(study, run)


def carry_out(study: Study, run: Run) -> None:
    study.finish(run, lines := study.train(run))
    scores = [line["miou"] for line in lines if "miou" in line]
    print(
        f"{time.strftime('%H:%M')} {run.name} mIoU {100 * scores[-1]:.2f}, {lines[0]['cpu_seconds']:.0f} s", flush=True
    )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/fusion"))
    parser.add_argument("--limit", type=int, help="runs, of those that are left")
    parser.add_argument(
        "--short", action="store_true", help="the key comparison with one seed; without DATA/dubai on `city`"
    )
    parser.add_argument("--steps", type=int, default=200, help="of the short form")
    return parser.parse_args()


def main() -> None:
    given = options()
    (given.out / "records").mkdir(parents=True, exist_ok=True)
    if not given.short:
        work(Study(given.data, given.out, RECIPE), Size(), given.limit)
        return
    there = (given.data / "dubai").is_dir()
    study = Study(given.data if there else BUNDLED, given.out, RECIPE)
    done = results_in(given.out)
    for run in short("dubai" if there else "city", SHORT_DESIGN, given.steps):
        if run not in done:
            carry_out(study, run)


if __name__ == "__main__":
    main()
