"""The table and the curves of the three networks, from the records beside this file.

python experiments/three_networks/plot.py docs/three-networks.png > table.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

RECORDS = Path(__file__).parent / "records"
SETS = {"camvid": "CamVid", "dubai": "Dubai"}
NETWORKS = {"danet": "#3b82c4", "ocrnet": "#2f9e6e", "danet_ocr": "#b0579b"}
SMOOTH = 20  # steps of the running mean of the training loss


def scores(place: Path, name: str) -> str:
    found: dict[str, Any] = json.loads((place / f"{name}.json").read_text(encoding="utf-8"))
    low, high = found["intervals"]["mean"]
    return f"{100 * found['miou']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def table() -> str:
    lines = ["| data | network | mIoU, one scale | mIoU, scales 1 and 1.5, flip |", "| --- | --- | ---: | ---: |"]
    for data, title in SETS.items():
        for network in NETWORKS:
            place = RECORDS / f"{data}-{network}"
            lines.append(f"| {title} | `{network}` | {scores(place, 'one')} | {scores(place, 'many')} |")
    return "\n".join(lines)


def curves() -> Figure:
    figure = Figure(figsize=(7.2, 2.6))
    for plot, (data, title) in zip(figure.subplots(1, 2), SETS.items(), strict=True):
        for network, colour in NETWORKS.items():
            text = (RECORDS / f"{data}-{network}" / "metrics.jsonl").read_text(encoding="utf-8")
            losses = [line["main"] for line in map(json.loads, text.splitlines()) if "main" in line]
            mean = np.convolve(losses, np.ones(SMOOTH) / SMOOTH, "valid")
            plot.plot(np.arange(SMOOTH, SMOOTH + len(mean)), mean, color=colour, label=network, linewidth=1.2)
        plot.set_title(f"{title}: loss of the result, mean of {SMOOTH} steps", fontsize=9, loc="left")
        plot.set_xlabel("step", fontsize=8)
        plot.tick_params(labelsize=8)
        plot.spines[["top", "right"]].set_visible(False)
        plot.grid(axis="y", alpha=0.25)
        plot.set_ylim(bottom=0)
    plot.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    curves().savefig(sys.argv[1], dpi=130)
    print(table())
