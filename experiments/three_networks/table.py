"""The tables of docs/results.md that come from the records of these runs.

python -m experiments.three_networks.table
"""

from __future__ import annotations

from pathlib import Path

from experiments.records import Records, Row, read

HERE = Path(__file__).parent
NETWORKS = ("danet", "ocrnet", "danet_ocr")


def score(records: Records, file: str) -> str:
    """Per cent mIoU, with its 95 % interval over images."""
    if file not in records:
        return "not run"
    scores = records[file][0]
    low, high = scores["intervals"]["mean"]
    return f"{100 * scores['miou']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def alike(records: Records) -> list[str]:
    """A row for each network: both data sets, at one scale and at two with flip."""
    files = [f"{data}-{{}}/{views}.json" for data in ("camvid", "dubai") for views in ("one", "many")]
    return [f"| `{name}` | {' | '.join(score(records, file.format(name)) for file in files)} |" for name in NETWORKS]


def longer(records: Records) -> list[str]:
    """A row for each network on CamVid: the evaluations during training, then the result's scores."""
    rows = []
    for name in NETWORKS:
        run = f"camvid-longer-{name}"
        during: list[Row] = [line for line in records[f"{run}/metrics.jsonl"] if "miou" in line]
        cells = [f"{100 * line['miou']:.1f}" for line in during[:-1]]
        cells += [score(records, f"{run}/{views}.json") for views in ("one", "many")]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return rows


def main() -> None:
    records = read(HERE / "records.csv.gz")
    print("\n".join([*alike(records), "", *longer(records), "", score(records, "dubai_s_many.json")]))


if __name__ == "__main__":
    main()
