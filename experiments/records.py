"""The records of a study as one compressed table in its folder.

    python -m experiments.records collect RUNS experiments/STUDY/records.csv.gz    # adds or replaces the runs of RUNS
    python -m experiments.records unpack experiments/STUDY/records.csv.gz RUNS     # the files again

A run leaves JSON files (one object) and JSONL files (an object a line) in the folder RUNS. In the table, each object
is a row: `file` is its file's path in RUNS, the other columns are its keys. A cell holds a word as it is and everything
else as JSON; an empty cell is a missing key. `read` gives the objects back, equal to those of the files.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Records = dict[str, list[Row]]  # file name (posix path in the folder of runs) -> its objects

csv.field_size_limit(2**24)


def read(source: Path) -> Records:
    """The records of a table, or of a folder of runs."""
    if source.is_dir():
        files = [path for path in source.rglob("*") if path.suffix in (".json", ".jsonl")]
        return {path.relative_to(source).as_posix(): _objects(path) for path in sorted(files)}
    records: Records = {}
    with gzip.open(source, "rt", encoding="utf-8", newline="") as table:
        for cells in csv.DictReader(table):
            row = {key: _value(cell) for key, cell in cells.items() if key != "file" and cell}
            records.setdefault(cells["file"], []).append(row)
    return records


def write(records: Records, table: Path) -> None:
    """Write the table; equal records give equal bytes."""
    columns = dict.fromkeys(key for rows in records.values() for row in rows for key in row)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["file", *columns], lineterminator="\n")
    writer.writeheader()
    for file, rows in sorted(records.items()):
        writer.writerows({"file": file, **{key: _cell(value) for key, value in row.items()}} for row in rows)
    table.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def unpack(records: Records, folder: Path) -> None:
    """Write the files that a run leaves; formatting is that of `json.dumps`."""
    for file, rows in records.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _objects(path: Path) -> list[Row]:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]


def _cell(value: Any) -> str:
    text = json.dumps(value)
    return value if isinstance(value, str) and value and _value(value) == value else text


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return cell


def main() -> None:
    what, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if what == "collect":
        known = read(target) if target.is_file() else {}
        write(known | read(source), target)
    elif what == "unpack":
        unpack(read(source), target)
    else:
        raise SystemExit(f"'{what}' is not a command. Use collect or unpack.")


if __name__ == "__main__":
    main()
