"""The table of docs/results.md that comes from the records of these runs.

python -m experiments.landsat.table
"""

from __future__ import annotations

from pathlib import Path

from experiments.records import Records, read

HERE = Path(__file__).parent
PROTOCOLS = {"": "windows of 96 pixels", "_whole": "the whole image"}


def rows(records: Records) -> list[str]:
    """Per cent mIoU, pixel accuracy in brackets, a column for each seed."""
    lines = []
    for suffix, protocol in PROTOCOLS.items():
        for which in ("best", "last"):
            scores = [records[f"seed{seed}/{which}{suffix}.json"][0] for seed in range(3)]
            cells = [f"{100 * score['miou']:.1f} ({100 * score['accuracy']:.1f})" for score in scores]
            lines.append(f"| `{which}` | {protocol} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(rows(read(HERE / "records.csv.gz"))))
