"""The three figures of the study.

    python -m experiments.fusion.figures --out docs                                      # 1 and 2, from the records
    python -m experiments.fusion.figures --out docs --models runs/fusion/models DATA     # 3 too, from the models

1: mIoU above the better parent with the same seed. 2: entropy of both attentions and the context's share over the
training. 3: the same pixels of val under each network.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import matplotlib.style
import numpy as np
import torch
from matplotlib.figure import Figure

import experiments.fusion.networks  # noqa: F401  (the architectures of the models)
from experiments.conflict.plot import BLUE, BROWN, GREEN, GREY, ORANGE, PURPLE, STYLE, draw
from experiments.fusion.arms import ARMS, DESIGNS
from experiments.fusion.data import read as read_data
from experiments.fusion.plan import ON_VAL
from experiments.fusion.table import RECORDS, TITLES, Found, Lines, above, finals, interval, runs_of
from experiments.records import read
from regard.checkpoints.file import open_saved
from regard.inference.pictures import colourise
from regard.inference.scores import evaluating, scores_of
from regard.options import Views

COLOURS = {"fcn": GREY, "danet": BLUE, "ocrnet": GREEN, "r2": PURPLE, "r1": PURPLE, "serial": GREY}
DESIGN_COLOURS = (ORANGE, BROWN)
DASHED = ("r1", "serial")
WATCHED = {
    "entropy_position": "entropy, pixels",
    "entropy_objects": "entropy, regions",
    "share_position": "share, pixels",
    "share_objects": "share, regions",
}


def colours_of(found: Found) -> dict[str, str]:
    """A colour for each network that was scored on val."""
    designs = [arm for arm in DESIGNS if any(run.arm == arm and run.stage in ON_VAL for run in found)]
    return COLOURS | dict(zip(designs, DESIGN_COLOURS, strict=False))


def forest(found: Found) -> Figure:
    """A dot a seed, the mean, and its 95 % interval from three seeds on."""
    scores, colours = finals(found), colours_of(found)
    sets = [name for name in TITLES if name in scores]
    arms = [arm for arm in ARMS if any(arm in scores[name] for name in sets)]
    figure = Figure(figsize=(7.2, 0.9 + 0.28 * len(arms)))
    for axes, name in zip(figure.subplots(1, len(sets), sharey=True, squeeze=False)[0], sets, strict=True):
        for row, arm in enumerate(reversed(arms)):
            values = list(above(scores[name], arm).values())
            if not values:
                continue
            colour = colours[arm]
            middle, half = interval(values)
            axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.4, markersize=3.5)
            width = {"xerr": half} if len(values) > 2 else {}
            axes.errorbar(middle, row, color=colour, marker="|", markersize=9, linewidth=1.2, **width)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_title(TITLES[name])
        axes.set_yticks(range(len(arms)), [ARMS[arm].title for arm in reversed(arms)])
    figure.supxlabel("mIoU above the better parent with the same seed, points", fontsize=8.5)
    return figure


def over_training(found: Found) -> Figure:
    """Mean over seeds, and from the lowest to the highest."""
    runs: dict[str, dict[str, list[Lines]]] = defaultdict(lambda: defaultdict(list))
    for run, lines in found.items():
        if run.stage in ON_VAL:
            runs[run.data][run.arm].append([line for line in lines if "step" in line])
    sets = [name for name in TITLES if name in runs]
    figure = Figure(figsize=(7.2, 1.8 * len(sets) + 0.5))
    grid = figure.subplots(len(sets), len(WATCHED), squeeze=False)
    labels, colours = {}, colours_of(found)
    for row, name in zip(grid, sets, strict=True):
        for axes, (key, title) in zip(row, WATCHED.items(), strict=True):
            for arm, of_seeds in runs[name].items():
                values = [[line[key] for line in lines if key in line] for lines in of_seeds]
                if all(values):
                    steps = [line["step"] for line in of_seeds[0] if key in line]
                    style = "--" if arm in DASHED else "-"
                    draw(axes, np.array(steps), np.array(values), colours[arm], style)
                    labels[ARMS[arm].title] = axes.lines[-1]
            if name == sets[0]:
                axes.set_title(title)
        row[0].set_ylabel(TITLES[name])
    figure.legend(labels.values(), labels, loc="outside lower center", ncols=6)
    return figure


def pictures(models: Path, source: Path, out: Path) -> Figure:
    """One image of val a data set: photograph, labels, and the classes of every network of seed 0."""
    files = {name: sorted((models / "full" / name).glob("*-0.safetensors")) for name in TITLES}
    sets = {name: paths for name, paths in files.items() if paths}
    columns = 2 + max(len(paths) for paths in sets.values())
    figure = Figure(figsize=(7.2, 1.3 * len(sets)))
    for row, (name, paths) in zip(figure.subplots(len(sets), columns, squeeze=False), sets.items(), strict=True):
        data = read_data(name, source, out)
        pairs = data.split("val")
        sample = data.read(pairs[len(pairs) // 2])
        part = np.s_[:256, :256]
        labels = np.where(sample.labels == data.classes.ignore_index, 0, sample.labels)
        shown = {"image": sample.image.transpose(1, 2, 0)[part], "labels": colourise(labels, data.classes)[part]}
        for path in paths:
            model = open_saved(path)
            with evaluating(model), torch.inference_mode():
                found = scores_of(model, sample.pixels, Views(window=256)).argmax(0).numpy()
            shown[ARMS[path.name.rsplit("-", 2)[0]].title] = colourise(found, data.classes)[part]
        for axes in row:
            axes.set_axis_off()
        for axes, (title, picture) in zip(row, shown.items(), strict=False):
            axes.imshow(picture)
            axes.set_title(title, fontsize=7)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--records", type=Path, default=RECORDS, help="a table or a folder of records")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    found = runs_of(read(given.records))
    with matplotlib.style.context(["default", STYLE]):
        forest(found).savefig(given.out / "study-forest.png")
        over_training(found).savefig(given.out / "study-attention.png")
        if given.models:
            pictures(given.models, given.data, given.models.parent).savefig(given.out / "study-pictures.png", dpi=150)


if __name__ == "__main__":
    main()
