"""The tables of the study from its records, printed or written into its page.

    python -m experiments.fusion.table
    python -m experiments.fusion.table --page docs/study.md    # between the marks <!-- tables --> and <!-- end -->

``a ± b`` is the mean over seeds and half of its 95 % interval (Student's t). A difference is taken seed by seed: with
the same seed all networks see the same crops in the same order.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

from experiments.fusion.arms import ARMS, DESIGNS, PARENTS, RATES
from experiments.fusion.plan import ON_VAL, Run
from experiments.records import Records, read

RECORDS = Path(__file__).with_name("records.csv.gz")
TITLES = {"dubai": "Dubai", "camvid": "CamVid", "buildings": "Kampala", "city": "city"}
MARKS = "<!-- tables -->", "<!-- end -->"
Lines = list[dict[str, Any]]
Found = dict[Run, Lines]
Seeds = dict[int, float]


def runs_of(records: Records) -> Found:
    """The lines of every run."""
    names = Run.__dataclass_fields__
    return {Run(**{name: lines[0][name] for name in names}): lines for lines in records.values()}


def score(lines: Lines) -> float:
    """mIoU of the last step, per cent."""
    return 100 * [line["miou"] for line in lines if "miou" in line][-1]


def finals(found: Found) -> dict[str, dict[str, Seeds]]:
    """mIoU on val by data set, arm and seed."""
    scores: dict[str, dict[str, Seeds]] = defaultdict(lambda: defaultdict(dict))
    for run, lines in found.items():
        if run.stage in ON_VAL:
            scores[run.data][run.arm][run.seed] = score(lines)
    return scores


def interval(values: Iterable[float]) -> tuple[float, float]:
    """The mean and half of its 95 % interval; nan for one value."""
    found = list(values)
    if len(found) < 2:
        return mean(found), float("nan")
    return mean(found), float(stats.t.ppf(0.975, len(found) - 1)) * stdev(found) / len(found) ** 0.5


def shown(values: Iterable[float], sign: str = "") -> str:
    """Mean ± half interval; a lone value as it is."""
    middle, half = interval(values)
    return f"{middle:{sign}.1f}" + ("" if half != half else f" ± {half:.1f}")


def above(scores: Mapping[str, Seeds], arm: str) -> Seeds:
    """mIoU above the better parent's with the same seed: the one with the higher mean over the seeds that all have."""
    seeds = set.intersection(*(set(scores.get(name, {})) for name in (arm, *PARENTS)))
    if not seeds:
        return {}
    better = max(PARENTS, key=lambda parent: mean(scores[parent][seed] for seed in seeds))
    return {seed: scores[arm][seed] - scores[better][seed] for seed in sorted(seeds)}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """As Markdown, numbers to the right."""
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def main_table(found: Found) -> str:
    """mIoU on val, difference to the better parent, and cost."""
    scores, first = finals(found), {run.arm: lines[0] for run, lines in reversed(found.items()) if run.stage in ON_VAL}
    sets = [name for name in TITLES if name in scores]
    rows = []
    for arm in (arm for arm in ARMS if arm in first):
        per_set = {name: scores[name].get(arm, {}) for name in sets}
        gaps = {name: {} if arm in PARENTS else above(scores[name], arm) for name in sets}
        everywhere = sorted(set.intersection(*(set(gap) for gap in gaps.values())))
        overall = [mean(gap[seed] for gap in gaps.values()) for seed in everywhere]
        cells = [ARMS[arm].title, str(max(len(seeds) for seeds in per_set.values()))]
        cells += [shown(seeds.values()) if seeds else "" for seeds in per_set.values()]
        cells += [shown(gap.values(), "+") if gap else "" for gap in [*gaps.values(), dict(enumerate(overall))]]
        cost = first[arm]
        rows.append([*cells, f"{cost['gmac']:.2f}", f"{cost['parameters'] / 1e6:.2f}", f"{cost['window_ms']:.0f}"])
    gaps = [f"{TITLES[name]}, above the better parent" for name in sets]
    head = ["network", "seeds", *(TITLES[name] for name in sets), *gaps, "mean of the sets, above"]
    return table([*head, "GMAC", "parameters, M", "ms a window"], rows)


def choosing_table(found: Found) -> str:
    """What chose designs and rates: mIoU on the held-out part of train, mean of the data sets."""
    columns = [("rung 1", RATES[0]), ("rung 2", RATES[0]), *(("rates", rate) for rate in RATES[1:])]
    cells: dict[str, list[str]] = {}
    for arm in ARMS:
        row = []
        for stage, rate in columns:
            values = {
                run.data: score(x) for run, x in found.items() if (run.arm, run.stage, run.rate) == (arm, stage, rate)
            }
            parts = ", ".join(f"{values[name]:.1f}" for name in TITLES if name in values)
            row.append(f"{mean(values.values()):.1f} ({parts})" if len(values) > 1 else parts)
        if any(row):
            cells[arm] = row
    head = ["network", "300 steps, 1e-3", "600 steps, 1e-3", *(f"300 steps, {rate:g}" for rate in RATES[1:])]
    return table(head, [[ARMS[arm].title, *row] for arm, row in cells.items()])


def diagnosis_table(found: Found) -> str:
    """Attention and gradients at the end of the full runs, means over seeds; the cosine over the whole training."""
    groups: dict[tuple[str, str], list[Lines]] = defaultdict(list)
    for run, lines in found.items():
        if run.stage in ON_VAL:
            groups[run.data, run.arm].append(lines)
    head = ["network", "data", "entropy, pixels", "entropy, regions", "share, pixels", "share, regions", "cosine"]
    head += ["small", "middle", "large"]
    rows = [
        [ARMS[arm].title, TITLES[data], *diagnosis(groups[data, arm])]
        for data in TITLES
        for arm in ARMS
        if (data, arm) in groups
    ]
    return table(head, rows)


def diagnosis(runs: list[Lines]) -> list[str]:
    """The cells of one network on one data set."""

    def cell(name: str, of: Callable[[list[float]], float], form: str, scale: float = 1) -> str:
        values = [[line[name] for line in lines if name in line] for lines in runs]
        return format(scale * mean(of(each) for each in values), form) if all(values) else ""

    ends = [cell(f"entropy_{kind}", lambda x: x[-1], ".2f") for kind in ("position", "objects")]
    ends += [cell(f"share_{kind}", lambda x: x[-1], ".1f", 100) for kind in ("position", "objects")]
    sizes = [cell(f"found_{size}", lambda x: x[-1], ".1f", 100) for size in ("small", "middle", "large")]
    return [*ends, cell("gradient_cosine", mean, ".2f"), *sizes]


def class_table(found: Found, data: str) -> str:
    """IoU by class of a data set, mean over seeds."""
    ious: dict[str, list[dict[str, float]]] = defaultdict(list)
    for run, lines in found.items():
        if run.stage in ON_VAL and run.data == data:
            ious[run.arm].append([line["iou"] for line in lines if "iou" in line][-1])
    names = list(next(iter(ious.values()))[0])
    rows = [
        [ARMS[arm].title, *(f"{100 * mean(iou[name] or 0 for iou in ious[arm]):.1f}" for name in names)]
        for arm in ARMS
        if arm in ious
    ]
    return table([TITLES[data], *names], rows)


def hours(found: Found) -> str:
    """CPU time spent, by stage."""
    spent: dict[str, list[float]] = defaultdict(list)
    for run, lines in found.items():
        spent[run.stage].append(lines[0]["cpu_seconds"] / 3600)
    parts = [f"{stage}: {len(times)} runs, {sum(times):.1f} h" for stage, times in spent.items()]
    total = sum(sum(times) for times in spent.values())
    return f"CPU time so far: {total:.1f} h ({'; '.join(parts)})."


def tried(found: Found) -> str:
    """How many designs were looked at."""
    arms = {run.arm for run in found} & DESIGNS.keys()
    return f"Designs tried so far: {len(arms)} of {len(DESIGNS)}."


def page(records: Records) -> str:
    """Everything that the study's page takes from the records."""
    found = runs_of(records)
    parts = [f"{tried(found)} {hours(found)}"]
    if any(run.stage not in ON_VAL for run in found):
        parts.append(f"### Choice of design and rate\n\n{choosing_table(found)}")
    if full := {run.data for run in found if run.stage in ON_VAL}:
        parts.insert(0, f"### Main table\n\n{main_table(found)}")
        parts.append(f"### Diagnosis\n\n{diagnosis_table(found)}")
        classes = "\n\n".join(class_table(found, data) for data in TITLES if data in full)
        parts.append(f"### IoU by class\n\n{classes}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS, help="a table or a folder of records")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    text = page(read(given.records))
    if given.page is None:
        print(text)
        return
    begin, end = MARKS
    whole = given.page.read_text(encoding="utf-8")
    written = re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n\n{text}\n\n{end}", whole, flags=re.DOTALL)
    given.page.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
