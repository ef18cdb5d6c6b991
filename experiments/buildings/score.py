"""IoU of buildings by city and by ground resolution, of a trained model.

    python -m experiments.buildings.score MODEL DATA/banepa DATA/oam_buildings [--ground 0.1] [--save SCORES.json]

Kampala, which training never sees, at zoom levels 19, 20 and 21 (0.30, 0.15, 0.075 m), and Banepa's validation tiles
(0.13 m). Each set is scored at its own size and resampled to one ground resolution, as `--gsd` does.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import regard
from regard.datasets.labelled_data import LabelledData

GROUND = {"kampala_19": 0.30, "kampala_20": 0.15, "kampala_21": 0.075, "OAM-": 0.13}  # metres a pixel, by file name
TITLES = {"kampala_19": "Kampala, z19", "kampala_20": "Kampala, z20", "kampala_21": "Kampala, z21", "OAM-": "Banepa"}


def only(data: LabelledData, prefix: str) -> LabelledData:
    """The validation images whose names begin so."""
    pairs = tuple(pair for pair in data.split("val") if pair.name.startswith(prefix))
    return replace(data, splits={"val": pairs})


def score(model: Any, data: LabelledData, scale: float) -> dict[str, float]:
    scores = regard.evaluate(model, data, scales=(scale,))
    confusion = scores.confusion
    return {
        "building_iou": scores.iou["building"],
        "miou": scores.miou,
        "precision": float(confusion[1, 1] / confusion[:, 1].sum()),
        "recall": float(confusion[1, 1] / confusion[1].sum()),
    }


def table(rows: list[dict[str, Any]], wanted: float) -> str:
    """Per cent, as Markdown."""
    lines = [f"| set | m a pixel | images | IoU of building | precision | recall | IoU at {wanted:g} m |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        own, resampled = row["own"], row["resampled"]
        cells = [f"{100 * own[name]:.1f}" for name in ("building_iou", "precision", "recall")]
        cells.append(f"{100 * resampled['building_iou']:.1f}")
        lines.append(f"| {row['set']} | {row['ground']:g} | {row['images']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("banepa", type=Path)
    parser.add_argument("kampala", type=Path)
    parser.add_argument("--ground", type=float, default=0.15, help="metres a pixel that the sets are resampled to")
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    model, rows = regard.load(given.model), []
    for prefix, ground in GROUND.items():
        data = only(regard.folder(given.banepa if prefix == "OAM-" else given.kampala), prefix)
        row = {"set": TITLES[prefix], "ground": ground, "images": len(data.split("val"))}
        row["own"] = score(model, data, 1.0)
        row["resampled"] = row["own"] if ground == given.ground else score(model, data, ground / given.ground)
        rows.append(row)
    if given.save:
        record = {"model": Path(given.model).name, "resampled_to": given.ground, "rows": rows}
        given.save.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(table(rows, given.ground))


if __name__ == "__main__":
    main()
