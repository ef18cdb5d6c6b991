"""``python -m benchmarks WHAT ...``: time regard's computations beside the usual ones, in one process."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.benchmark import benchmark, check_target, markdown, write
from regard.errors import RegardError


def main(arguments: list[str]) -> None:
    """Measure what is named, print tables or JSON, and write them to a file if asked."""
    asked = _parser().parse_args(arguments)
    if asked.out is not None:
        check_target(asked.out)
    results = [
        benchmark(name, threads=asked.threads, pairs=asked.pairs, sizes=asked.sizes, memory=not asked.no_memory)
        for name in asked.what
    ]
    if asked.out is not None:
        write(results, asked.out)
    print(json.dumps({"benchmarks": results}) if asked.json else "\n".join(map(markdown, results)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="+", help="attention, upsample, evaluate or model, or several of them")
    parser.add_argument("--threads", type=int, default=1, help="threads that both sides may use")
    parser.add_argument("--pairs", type=int, default=5, help="how often both sides run; medians count")
    parser.add_argument("--sizes", type=int, nargs="*", default=(), help="pixels for attention, else image widths")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("-o", "--out", type=Path, help="a .md or .json file to write")
    return parser


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RegardError as error:
        sys.exit(str(error))
