"""Everything that needs a GPU, in one run of less than ten minutes: ``make gpu``.

    python -m benchmarks gpu -o runs/gpu                results in runs/gpu/gpu.json and gpu.md
    python -m benchmarks gpu --toy -o runs/toy          every step at toy size on the CPU, in seconds

Position attention by the authors' formula, by PyTorch's ways and by regard's; a step of training; the map of a scene of
20,000 x 20,000 pixels that is written here; short runs of the study of the fusion. Each part is a process with a time
limit: what it measured before it ended, for whatever reason, is kept, and the others run. Nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import parser
from regard.errors import ConfigError, RegardError
from regard.files import check_writable, write_text

LIMITS = {  # seconds
    "machine": 40,
    "attention, regard": 120,
    "attention, PyTorch": 90,
    "attention, flex": 100,
    "training step": 80,
    "scene": 110,
    "study": 120,
}
ALL = 540  # seconds, all parts together
NEEDED = ("torch", "jaxtyping", "numpy")
NEEDED_BY_SOME = (
    "triton",
    "timm",
    "rasterio",
    "pyogrio",
    "pyproj",
    "shapely",
    "antimeridian",
    "pydantic",
    "safetensors",
    "PIL",
)
SAME = (
    "part",
    "n",
    "precision",
    "backward",
    "way",
    "network",
    "images",
    "model",
    "side",
    "arm",
    "seed",
)  # what a row is about
Row = dict[str, Any]


def run_part(command: Sequence[str], seconds: float) -> Row:
    """The rows that a command prints as lines of JSON, and how it ended if not well or not within its time."""
    began, note = time.monotonic(), ""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, process_group=0, cwd=Path(__file__).parents[1])
        try:
            code = process.wait(seconds)
            note = f"ended with {code}: {last_line(errors)}" if code else ""
        except subprocess.TimeoutExpired:
            note = f"stopped after {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        rows = merged(out)
    return {"seconds": round(time.monotonic() - began, 1), "note": note, "rows": rows}


def merged(lines: Iterable[str]) -> list[Row]:
    """Rows from lines of JSON; lines about the same thing make one row, the latest values count."""
    found: dict[tuple[Any, ...], Row] = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # the last line of a process that was killed
            continue
        found.setdefault(tuple(row.get(name) for name in SAME), {}).update(row)
    return list(found.values())


def last_line(file: Any) -> str:
    file.seek(0)
    lines = [line.strip() for line in file if line.strip()]
    return lines[-1][:200] if lines else ""


def missing(names: Iterable[str]) -> list[str]:
    return [name for name in names if find_spec(name) is None]


def run_all(out: Path, *, toy: bool, seconds: float) -> dict[str, Any]:
    """All parts, the files written again after each."""
    if absent := missing(NEEDED):
        raise ConfigError(f"{sys.executable} has no {', '.join(absent)}. Give make gpu a PYTHON that has PyTorch.")
    out.mkdir(parents=True, exist_ok=True)
    check_writable(out / "gpu.json")
    end, results = time.monotonic() + seconds, {"missing": missing(NEEDED_BY_SOME), "parts": {}}
    command = [sys.executable, "-m", "benchmarks", "gpu", *(["--toy"] if toy else []), "--part"]
    for names in (
        [list(LIMITS)] if toy else [[name] for name in LIMITS]
    ):  # at toy size one process, imports take longest
        left = end - time.monotonic()
        limit = min(left, sum(LIMITS[name] for name in names))
        found = run_part([*command, *names], limit) if left > 5 else {"note": "no time left", "rows": [], "seconds": 0}
        for name in names:
            results["parts"][name] = {**found, "rows": [row for row in found["rows"] if row["part"] == name]}
        write_text(out / "gpu.json", json.dumps(results, indent=1) + "\n")
        write_text(out / "gpu.md", markdown(results))
        print(f"{', '.join(names)}: {found['seconds']} s {found['note']}", file=sys.stderr, flush=True)
        if names[0] == "machine" and not found["rows"]:
            raise RegardError(f"no GPU can be used here ({found['note']}). For a dry run on the CPU use --toy.")
    return results


def markdown(results: dict[str, Any]) -> str:
    """One table for all ways of attention, and one for each other part."""
    parts = results["parts"]
    lines = [f"Missing packages: {', '.join(results['missing']) or 'none'}.", ""]
    shared = [row for name in parts if name.startswith("attention") for row in parts[name]["rows"]]
    compared = [row for row in shared if "backward" in row and not row["way"].endswith(")")]
    for name, part in parts.items():
        attention = name.startswith("attention")
        lines += [f"## {name[0].upper()}{name[1:]}", "", f"{part['seconds']} s. {part['note']}".strip(), ""]
        lines += table([row for row in part["rows"] if not attention or row not in compared])
    return "\n".join([*lines, "## Position attention", "", *table(pivoted(compared))])


def pivoted(rows: list[Row]) -> list[Row]:
    """A row for each size and precision, a column for each way: milliseconds, memory and error."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        about = {name: row[name] for name in ("n", "precision", "backward")}
        cell = row["result"][:60] if "result" in row else f"{row['ms']:.4g} ms"
        cell += f", {row['GB']:.2f} GB" if row.get("GB") is not None else ""
        cell += f", {row['error']:.0e}" if "error" in row else ""
        found.setdefault(tuple(about.values()), about)[row["way"]] = cell
    return list(found.values())


def table(rows: list[Row]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row if name != "part"))
    cells = [[shown(row.get(name, "")) for name in names] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in ([names, ["---"] * len(names), *cells] if rows else [])] + [""]


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "/")


def print_rows(names: Sequence[str], *, toy: bool) -> None:
    """The rows of some parts as lines of JSON, each as soon as it is measured."""
    if toy:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    from benchmarks.gpu_measure import FULL, TOY
    from benchmarks.gpu_parts import PARTS

    for name in names:
        for row in PARTS[name](TOY if toy else FULL):
            print(json.dumps({"part": name} | row), flush=True)


def main(arguments: list[str]) -> None:
    options = parser("gpu", __doc__)
    options.add_argument("-o", "--out", type=Path, default=Path("runs/gpu"), help="folder for gpu.json and gpu.md")
    options.add_argument("--toy", action="store_true", help="every step at toy size on the CPU")
    options.add_argument("--seconds", type=float, default=ALL, help="all parts together")
    options.add_argument(
        "--part", nargs="+", choices=LIMITS, help="print the rows of these parts, without a time limit"
    )
    given = options.parse_args(arguments)
    if given.part:
        print_rows(given.part, toy=given.toy)
    else:
        print(markdown(run_all(given.out, toy=given.toy, seconds=given.seconds)))
