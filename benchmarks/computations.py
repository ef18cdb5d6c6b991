"""Attention, upsampling, confusion matrices and whole networks, next to the usual way to compute the same.

Both sides run in one process, interleaved, and are compared before they are timed. Processor time counts, so that other
programs disturb little, and the ratio is the median over pairs. Peak memory is taken in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any

import torch

from benchmarks import parser
from benchmarks.cases import CASES, Maker
from benchmarks.measure import compare, extra_memory_mb, machine, peak_above_now_mb, steady
from regard.errors import ConfigError, unknown
from regard.files import check_writable, write_text

ABOUT = {
    "attention": "Position attention with keys of 64 and values of 512 channels, n pixels: the authors' bmm, softmax,"
    " bmm against `regard.ops.attention.attend`. Errors are relative to float64.",
    "upsample": "Logits of 19 classes to labels, images n pixels wide and n/2 high: `argmax` against `most_likely`.",
    "evaluate": "Confusion matrix of 19 classes, images n pixels wide and n/2 high, against `confusion_matrix`.",
    "model": "Whole networks, float32, images n pixels wide and n/2 high. `attention`: the authors' attention against"
    " ours; `fast`: the network as written against `regard.load(..., fast=True)`.",
}
SIZES = {"attention": (1024, 4096, 16384), "upsample": (2048,), "evaluate": (2048,), "model": (1024,)}
WARM_UP = {"attention": 1100, "upsample": 256, "evaluate": 256, "model": 128}


def benchmark(
    what: str, *, threads: int = 1, pairs: int = 5, sizes: Sequence[int] = (), memory: bool = True
) -> dict[str, Any]:
    """One of ``attention``, ``upsample``, ``evaluate`` and ``model``: the machine, and a row per size and case.

    ``sizes`` are pixels for attention and image widths for the others. ``memory=False`` leaves out the peak memory,
    which takes a fresh process per row and side.

    Raises:
        UnknownName: no such benchmark.
        RegardError: a size does not fit into memory.
    """
    if what not in CASES:
        raise unknown("benchmark", what, CASES)
    with steady(threads):
        rows = [
            {"n": size, "case": name, **_measure(what, name, size, pairs, memory)}
            for size in sizes or SIZES[what]
            for name in CASES[what]
        ]
    facts = {"benchmark": what, "about": ABOUT[what], "machine": machine(threads), "rows": rows}
    return facts | ({"growth": growth(rows)} if len({row["n"] for row in rows}) > 1 else {})


def _measure(what: str, name: str, size: int, pairs: int, memory: bool) -> dict[str, Any]:
    case = _make(CASES[what][name], size)
    row = {**compare(case.reference, case.ours, pairs=pairs), **case.facts()}
    if "products alone ms" in row:
        row["possible"] = round(row["reference ms"] / row["products alone ms"], 2)
    if memory:
        row |= {f"{side} extra MB": extra_memory_mb(what, name, size, side) for side in ("reference", "ours")}
    return row


def growth(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """For each case the powers of n that time and memory grow with: slopes of straight lines through the logarithms."""
    measured = [
        name
        for name, value in rows[0].items()
        if name.endswith((" ms", " MB")) and name.startswith(("reference", "ours")) and value is not None
    ]
    return {
        case: {
            name: _slope([(float(row["n"]), float(row[name])) for row in rows if row["case"] == case])
            for name in measured
        }
        for case in dict.fromkeys(row["case"] for row in rows)
    }


def _slope(points: Sequence[tuple[float, float]]) -> float:
    sizes, values = zip(*((math.log(x), math.log(max(y, 0.01))) for x, y in points), strict=True)
    return round(linear_regression(sizes, values).slope, 2)


def _make(maker: Maker, size: int) -> Any:
    """A case from the same random numbers each time; the caller's generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return maker(size)


def _peak_here(what: str, size: int, name: str, side: str) -> float:
    """Peak memory of one side of a case above its inputs, in MB. For a process of its own."""
    with steady(1):
        getattr(_make(CASES[what][name], WARM_UP[what]), side)()
        return round(peak_above_now_mb(getattr(_make(CASES[what][name], size), side)), 1)


def write(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Results as Markdown or JSON, as the suffix says.

    Raises:
        ConfigError: another suffix.
        OutputError: it cannot be written.
    """
    check_target(path)
    text = "\n".join(map(markdown, results)) if path.suffix == ".md" else json.dumps(list(results), indent=1) + "\n"
    write_text(path, text)


def check_target(path: Path) -> None:
    """Whether results can be written there, before anything is measured; errors as of :func:`write`."""
    if path.suffix not in (".md", ".json"):
        raise ConfigError(f"benchmarks are written as .md or .json; got {path.name}. Choose one of these.")
    check_writable(path)


def markdown(result: Mapping[str, Any]) -> str:
    """A result of :func:`benchmark` as a section of Markdown."""
    lines = [
        f"## {result['benchmark'].capitalize()}",
        "",
        result["about"],
        "",
        ", ".join(f"{name} {value}" for name, value in result["machine"].items()) + ".",
        "",
        *_table(result["rows"]),
    ]
    if "growth" in result:
        lines += ["", "Growth, as the exponent of n:", ""]
        lines += _table([{"case": case, **slopes} for case, slopes in result["growth"].items()])
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *cells)]


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:,.4g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def main(arguments: list[str]) -> None:
    """Measure what is named, print tables or JSON, and write them to a file if asked."""
    given = _parser().parse_args(arguments)
    if given.peak:
        print(_peak_here(given.what[0], given.sizes[0], *given.peak))
        return
    if given.out is not None:
        check_target(given.out)
    results = [
        benchmark(name, threads=given.threads, pairs=given.pairs, sizes=given.sizes, memory=not given.no_memory)
        for name in given.what
    ]
    if given.out is not None:
        write(results, given.out)
    print(json.dumps({"benchmarks": results}) if given.json else "\n".join(map(markdown, results)))


def _parser() -> argparse.ArgumentParser:
    options = parser("", __doc__)
    options.add_argument("what", nargs="+", help="attention, upsample, evaluate or model, or several of them")
    options.add_argument("--threads", type=int, default=1, help="threads that both sides may use")
    options.add_argument("--pairs", type=int, default=5, help="how often both sides run; medians count")
    options.add_argument("--sizes", type=int, nargs="*", default=(), help="pixels for attention, else image widths")
    options.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    options.add_argument("--json", action="store_true", help="print JSON")
    options.add_argument("-o", "--out", type=Path, help="a .md or .json file to write")
    options.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)  # case and side
    return options
