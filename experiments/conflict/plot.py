"""Figures 1 to 3 of the study and its table of arms, from the records.

python -m experiments.conflict.plot --out docs > table.md
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.conflict.arms import ARMS
from experiments.records import Records, read

HERE = Path(__file__).parent
STYLE = {
    "axes.grid": True,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "font.size": 8.5,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.dpi": 200,
}
BLUE, ORANGE, GREEN, PURPLE, BROWN, GREY = "#3b82c4", "#d9730d", "#2f9e6e", "#b0579b", "#9a8420", "#808890"
KEY = {"seed-danet": (BLUE, "--"), "seed-danet-wd1": (BLUE, "-"), "serial": (ORANGE, "--"), "serial-wd1": (ORANGE, "-")}
NETWORKS = {"danet": BLUE, "ocrnet": GREEN, "serial-right": ORANGE, "fusion": PURPLE}
SMOOTH = 20  # steps of a running mean of the training loss
Run = list[dict[str, Any]]  # the lines of one file, the first describes the run
Runs = dict[str, list[Run]]


def runs_of(records: Records, folder: str = "") -> Runs:
    """The runs by arm; those of CamVid lie in the folder ``camvid``."""
    runs: Runs = defaultdict(list)
    for file, lines in sorted(records.items()):
        if file.endswith(".jsonl") and file.rpartition("/")[0] == folder:
            runs[lines[0]["arm"]].append(lines)
    return runs


def series(runs: Iterable[Run], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the values of every run that has them, one row each."""
    found = [[(line["step"], line[name]) for line in run if name in line and "step" in line] for run in runs]
    steps = np.array([step for step, _ in found[0]])
    return steps, np.array([[value for _, value in pairs] for pairs in found])


def draw(axes: Axes, steps: np.ndarray, rows: np.ndarray, colour: str, line: str = "-", label: str = "") -> None:
    """The mean over seeds, and from the lowest to the highest."""
    axes.plot(steps, rows.mean(0), color=colour, linestyle=line, label=label, linewidth=1.4)
    axes.fill_between(steps, rows.min(0), rows.max(0), color=colour, alpha=0.13, linewidth=0)


def constants(records: Records) -> dict[str, float]:
    """The losses of the best constant predictions, mean over seeds."""
    answers = [lines[0] for file, lines in sorted(records.items()) if file.startswith("constant-")]
    return {name: float(np.mean([answer[name] for answer in answers])) for name in answers[0]} if answers else {}


def key_figure(runs: Runs, constant: dict[str, float]) -> Figure:
    figure = Figure(figsize=(7.2, 5.0))
    (training, validation), (temperature, miou) = figure.subplots(2, 2, sharex=True)
    panels = {
        "val_loss": (validation, "Validation loss, nats"),
        "val_loss_best_temperature": (temperature, "Validation loss at the best temperature, nats"),
        "val_miou": (miou, "Validation mIoU, %"),
    }
    training.set_title(f"Training loss, nats (mean of {SMOOTH} steps)")
    for arm, (colour, line) in KEY.items():
        if arm not in runs:
            continue
        steps, rows = series(runs[arm], "loss")
        smooth = np.array([np.convolve(row, np.ones(SMOOTH) / SMOOTH, "valid") for row in rows])
        draw(training, steps[SMOOTH - 1 :] + 1, smooth, colour, line, ARMS[arm].title)
        for name, (axes, title) in panels.items():
            steps, rows = series(runs[arm], name)
            draw(axes, steps, 100 * rows if name == "val_miou" else rows, colour, line)
            axes.set_title(title)
    for axes, split in ((training, "train"), (validation, "val")) if constant else ():
        axes.axhline(
            constant[f"decay1_{split}"], color=GREY, linestyle=":", label="best constant prediction, weight decay 1"
        )
    for axes in (temperature, miou):
        axes.set_xlabel("step")
    figure.legend(*training.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def networks_figure(runs: Runs) -> Figure:
    """Validation mIoU, the cosine of the two gradients, and the entropies, of regard's networks."""
    figure = Figure(figsize=(7.2, 5.0))
    (miou, cosine), (position, objects) = figure.subplots(2, 2, sharex=True)
    panels = {
        "val_miou": (miou, "Validation mIoU, %"),
        "gradient_cosine": (cosine, "Cosine of the two gradients"),
        "entropy_position": (position, "Entropy of position attention, of its maximum"),
        "entropy_objects": (objects, "Entropy of attention to regions, of its maximum"),
    }
    for arm, colour in {**NETWORKS, "serial": GREY, "serial-wd1": BROWN}.items():
        for name, (axes, title) in panels.items():
            axes.set_title(title)
            if arm in runs and name in {key for line in runs[arm][0] for key in line}:
                steps, rows = series(runs[arm], name)
                draw(axes, steps, 100 * rows if name == "val_miou" else rows, colour, label=ARMS[arm].title)
    cosine.axhline(0, color="black", linewidth=0.6)
    for axes in (position, objects):
        axes.set_xlabel("step")
    figure.legend(*miou.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def final(run: Run) -> dict[str, Any]:
    return [line for line in run if "val_loss" in line][-1]


def rise(run: Run) -> tuple[float, float]:
    """The lowest validation loss of the run, and how far the last one is above it."""
    losses = [line["val_loss"] for line in run if "val_loss" in line]
    return min(losses), losses[-1] - min(losses)


def rises_figure(runs: Runs) -> Figure:
    """How far the validation loss ends above its lowest point, by arm and seed, and the final mIoU."""
    names = [name for name in ARMS if name in runs and not ARMS[name].falling]
    figure = Figure(figsize=(7.2, 0.7 + 0.19 * len(names)))
    left, right = figure.subplots(1, 2, sharey=True)
    for row, name in enumerate(reversed(names)):
        colour = ORANGE if ARMS[name].weight_decay == 1 else BLUE
        left.plot([rise(run)[1] for run in runs[name]], [row] * len(runs[name]), "o", color=colour, markersize=3.5)
        scores = [100 * final(run)["val_miou"] for run in runs[name]]
        right.plot(scores, [row] * len(scores), "o", color=colour, markersize=3.5)
    left.set_yticks(range(len(names)), [ARMS[name].title for name in reversed(names)])
    left.set_xlabel("validation loss, last above lowest, nats")
    right.set_xlabel("validation mIoU at the end, %")
    return figure


def table(runs: Runs) -> str:
    head = ["arm", "seeds", "head parameters, k", "head GMAC", "lowest val loss", "last above it"]
    head += ["last at best temperature", "logit std", "last accuracy", "last mIoU", "best mIoU"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for name in [name for name in ARMS if name in runs and not ARMS[name].falling]:
        last = [final(run) for run in runs[name]]
        about = next((line for line in runs[name][0] if "head_gmac" in line), {})
        cells = [ARMS[name].title, ", ".join(str(run[0]["seed"]) for run in runs[name])]
        cells += [f"{about['head_parameters'] / 1e3:.0f}", f"{about['head_gmac']:.2f}"] if about else ["–", "–"]
        cells += [spread([rise(run)[part] for run in runs[name]], 3) for part in (0, 1)]
        cells += [spread([line[k] for line in last], 2) for k in ("val_loss_best_temperature", "logit_std")]
        cells += [spread([100 * line[k] for line in last], 1) for k in ("val_accuracy", "val_miou")]
        cells.append(spread([100 * max(line.get("val_miou", 0) for line in run) for run in runs[name]], 1))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return f"{np.mean(values):.{digits}f}" + (f" ({low} to {high})" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=HERE / "records.csv.gz", help="a table or a folder of runs")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "docs")
    parser.add_argument("--only", choices=("key",), help="the key figure alone")
    given = parser.parse_args()
    records = read(given.records)
    runs = runs_of(records)
    given.out.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context(["default", STYLE]):
        key_figure(runs, constants(records)).savefig(given.out / "study-key.png")
        if given.only is None:
            networks_figure(runs).savefig(given.out / "study-networks.png")
            rises_figure(runs).savefig(given.out / "study-arms.png")
    print(table(runs))


if __name__ == "__main__":
    main()
