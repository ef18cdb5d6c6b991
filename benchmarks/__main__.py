"""Speed and memory of regard, next to the usual ways to compute the same.

``python -m benchmarks NAME ...`` from the root of the repository; ``NAME --help`` says what a benchmark takes.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from regard.errors import RegardError, unknown

COMPUTATIONS = ("attention", "upsample", "evaluate", "model")
PROGRAMS = dict.fromkeys(COMPUTATIONS, "computations") | {
    name: name
    for name in (
        "complexity",
        "denormals",
        "gpu",
        "loading",
        "mmseg",
        "peers",
        "polygons",
        "qgis_tiles",
        "scenes",
        "training_step",
        "two_processes",
        "viewer",
    )
}


def help_text() -> str:
    """What this is, and a line for each name."""
    purposes = {module: _first_line(module) for module in PROGRAMS.values()}
    lines = [f"  {', '.join(COMPUTATIONS)}", f"{'':17}{purposes.pop('computations')}"]
    lines += [f"  {name:<15}{purpose}" for name, purpose in purposes.items()]
    return "\n".join([str(__doc__), *lines])


def _first_line(module: str) -> str:
    """Read from the source: an import would take seconds."""
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    return str(ast.get_docstring(ast.parse(source))).splitlines()[0]


def main(arguments: list[str]) -> None:
    """Run what the first argument names, with the other arguments."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(help_text())
        return
    name, *rest = arguments
    if name not in PROGRAMS:
        raise unknown("benchmark", name, PROGRAMS)
    run: Callable[[list[str]], None] = importlib.import_module(f"benchmarks.{PROGRAMS[name]}").main
    run(arguments if name in COMPUTATIONS else rest)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RegardError as error:
        sys.exit(str(error))
