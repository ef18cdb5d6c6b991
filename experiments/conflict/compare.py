"""mIoU against cost, each network at its best rate, and the forms of the fusion: figures 4 and 5 and their tables.

python -m experiments.conflict.compare --out docs > tables.md
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from experiments.conflict.arms import ARMS, PARENTS, RATES, VARIANTS
from experiments.conflict.plot import BLUE, BROWN, GREEN, GREY, HERE, NETWORKS, STYLE, Run, Runs, final, runs_of
from experiments.records import Records, read

STREET = ("tuned-danet-1e-3", "tuned-ocrnet-3e-4", "tuned-ocrnet-1e-3", "tuned-serial-right-1e-3", "tuned-fusion-3e-4")
STREET = (*STREET, "tuned-fusion-1e-3", "tuned-fusion-gated-middle")
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % quantile by number of values


def ends(runs: list[Run]) -> dict[int, float]:
    """mIoU at the end, per cent, by seed."""
    return {run[0]["seed"]: 100 * final(run)["val_miou"] for run in runs}


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t."""
    found = np.array(list(values))
    if len(found) < 2:
        return float(found.mean()), float("nan")
    return float(found.mean()), float(STUDENT[len(found)] * found.std(ddof=1) / len(found) ** 0.5)


def best_rate(runs: Runs, network: str) -> str:
    """The rate with the highest mean mIoU at the end, over the seeds that all rates have."""
    grid = {rate: ends(runs[f"tuned-{network}-{rate}"]) for rate in RATES}
    common = set.intersection(*(set(found) for found in grid.values()))
    return max(grid, key=lambda rate: np.mean([grid[rate][seed] for seed in common]))


def against(runs: Runs, name: str, other: str) -> list[float]:
    """mIoU of one arm above that of another with the same seed: the same crops, the same order."""
    ours, theirs = ends(runs[name]), ends(runs[other])
    return [ours[seed] - theirs[seed] for seed in sorted(set(ours) & set(theirs))]


def chosen(runs: Runs) -> dict[str, str]:
    """The arms that are compared, by title: the four networks at their best rates, and the forms of the fusion."""
    arms = {ARMS[name].title: f"tuned-{name}-{best_rate(runs, name)}" for name in PARENTS}
    others = [f"tuned-{name}-wide" for name in ("danet", "ocrnet")] + [f"tuned-fusion-{name}" for name in VARIANTS]
    return arms | {ARMS[name].title: name for name in others if name in runs}


def costs(run: Run) -> tuple[float, float]:
    """Thousands of parameters and GMAC of the head."""
    about = next(line for line in run if "head_gmac" in line)
    return about["head_parameters"] / 1e3, about["head_gmac"]


def cost_figure(runs: Runs) -> Figure:
    """mIoU at the end against the rate, and against both costs."""
    figure = Figure(figsize=(7.2, 3.1))
    rate_axes, gmac_axes, parameter_axes = figure.subplots(1, 3, sharey=True)
    for network, colour in NETWORKS.items():
        grid = [ends(runs[f"tuned-{network}-{rate}"]) for rate in RATES]
        means = [np.mean([found[seed] for seed in (0, 1)]) for found in grid]
        rate_axes.plot(list(RATES.values()), means, "o-", color=colour, markersize=3.5, linewidth=1.2)
    colours = dict(zip((ARMS[name].title for name in NETWORKS), NETWORKS.values(), strict=True))
    shapes = {
        "DANet, wider": (BLUE, "s"),
        "OCRNet, wider": (GREEN, "s"),
        "fusion of two, middle map, gate from 0": (BROWN, "D"),
    }
    for title, name in chosen(runs).items():
        if title not in colours and title not in shapes:
            continue
        colour, shape = (colours[title], "o") if title in colours else shapes[title]
        values, (parameters, gmac) = ends(runs[name]).values(), costs(runs[name][0])
        middle, half = interval(values)
        for axes, x in ((gmac_axes, gmac), (parameter_axes, parameters)):
            axes.errorbar(x, middle, half, color=colour, marker=shape, markersize=5, linewidth=1, label=title)
            axes.plot([x] * len(values), list(values), ".", color=colour, alpha=0.35, markersize=4)
    rate_axes.set_xscale("log")
    rate_axes.set_xticks(list(RATES.values()), list(RATES))
    rate_axes.minorticks_off()
    rate_axes.set_xlabel("first learning rate")
    rate_axes.set_ylabel("validation mIoU at the end, %")
    gmac_axes.set_xlabel("head GMAC")
    parameter_axes.set_xlabel("head parameters, thousands")
    figure.legend(*gmac_axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def forms_figure(runs: Runs) -> Figure:
    """mIoU above DANet's with the same seed, by form."""
    rows = chosen(runs)
    reference = rows["DANet"]
    height = {title: np.mean(against(runs, name, reference)) for title, name in rows.items() if name != reference}
    rows = {title: rows[title] for title in sorted(height, key=height.__getitem__, reverse=True)}
    figure = Figure(figsize=(7.2, 0.7 + 0.23 * len(rows)))
    axes = figure.subplots()
    for row, (title, name) in enumerate(reversed(rows.items())):
        values = against(runs, name, reference)
        colour = BLUE if title.startswith("fusion") else GREY
        axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.4, markersize=3.5)
        middle, half = interval(values)
        width = {"xerr": half} if len(values) > 2 else {}
        axes.errorbar(middle, row, color=colour, marker="|", markersize=9, linewidth=1.2, **width)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yticks(range(len(rows)), list(reversed(rows)))
    axes.set_xlabel("validation mIoU above DANet's of the same seed, points")
    return figure


def compared_table(runs: Runs, arms: list[tuple[str, str]]) -> str:
    """Arms, given as title and name, with mIoU above that of the first one."""
    reference = arms[0][1]
    head = ["arm", "first rate", "seeds", "head parameters, k", "head GMAC", "val loss", "accuracy", "mIoU"]
    lines = [f"| {' | '.join([*head, 'above DANet'])} |", f"| --- |{' ---: |' * len(head)}"]
    for title, name in arms:
        last, (parameters, gmac) = [final(run) for run in runs[name]], costs(runs[name][0])
        cells = [title, f"{ARMS[name].learning_rate:g}", ", ".join(str(seed) for seed in sorted(ends(runs[name])))]
        cells += [f"{parameters:.0f}", f"{gmac:.2f}", f"{np.mean([line['val_loss'] for line in last]):.3f}"]
        cells += [f"{np.mean([100 * line['val_accuracy'] for line in last]):.1f}"]
        above = [] if name == reference else [against(runs, name, reference)]
        for values in (list(ends(runs[name]).values()), *above):
            middle, half = interval(values)
            sign = "+" if len(cells) == len(head) else ""
            cells.append(f"{middle:{sign}.1f}" + (f" ± {half:.1f}" if len(values) > 2 else ""))
        cells += [] if above else ["–"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def grid_table(runs: Runs) -> str:
    head = ["mIoU at the end, seeds 0 and 1", *RATES]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * len(RATES)}"]
    for network in PARENTS:
        grid = [ends(runs[f"tuned-{network}-{rate}"]) for rate in RATES]
        cells = [f"{np.mean([found[0], found[1]]):.1f} ({found[0]:.1f}, {found[1]:.1f})" for found in grid]
        lines.append(f"| {' | '.join([ARMS[network].title, *cells])} |")
    return "\n".join(lines)


def tables(records: Records) -> list[str]:
    """By learning rate, the compared arms, and street scenes."""
    runs, street = runs_of(records), [(re.sub(r", \de-\d falling$", "", ARMS[name].title), name) for name in STREET]
    compared = compared_table(runs, list(chosen(runs).items()))
    return [grid_table(runs), compared, compared_table(runs_of(records, "camvid"), street)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=HERE / "records.csv.gz", help="a table or a folder of runs")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "docs")
    given = parser.parse_args()
    records = read(given.records)
    runs = runs_of(records)
    with matplotlib.style.context(["default", STYLE]):
        cost_figure(runs).savefig(given.out / "study-cost.png")
        forms_figure(runs).savefig(given.out / "study-forms.png")
    print("\n\n".join(tables(records)))


if __name__ == "__main__":
    main()
