"""Lines and branches that tests reach, by subpackage, as a Markdown table: from the data of ``make coverage``."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path


def table(files: dict[str, dict[str, dict[str, int]]]) -> str:
    """The table, of the part ``files`` of coverage's JSON."""
    totals: dict[str, Counter[str]] = {}
    for name, facts in sorted(files.items()):
        room, *inside = name.partition("src/regard/")[2].split("/")
        totals.setdefault(f"`{room}`" if inside else "files above the subpackages", Counter()).update(facts["summary"])
    rows = [f"| {room} | {_share(sums, 'lines', 'num_statements')} | {_share(sums, 'branches', 'num_branches')} |\n"
            for room, sums in totals.items()]  # fmt: skip
    return "".join(["| part of `src/regard` | lines, % | branches, % |\n", "| --- | ---: | ---: |\n", *rows])


def _share(sums: Counter[str], what: str, whole: str) -> str:
    return f"{100 * sums[f'covered_{what}'] / sums[whole]:.1f}" if sums[whole] else "100.0"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", report], check=True)
        print(table(json.loads(report.read_text())["files"]), end="")
