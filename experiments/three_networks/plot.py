"""Losses and val mIoU of the six runs, as one picture, from the records.

python -m experiments.three_networks.plot docs/three-networks.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments.records import read

HERE = Path(__file__).parent
NETWORKS = {"danet": "tab:blue", "ocrnet": "tab:orange", "danet_ocr": "tab:green"}


def main() -> None:
    records = read(HERE / "records.csv.gz")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, (name, title) in zip(axes, {"camvid": "CamVid", "dubai": "Dubai"}.items(), strict=True):
        for network, colour in NETWORKS.items():
            lines = records[f"{name}-{network}/metrics.jsonl"]
            losses = np.array([line["main"] for line in lines if "main" in line])
            smooth = np.convolve(losses, np.ones(20) / 20, mode="valid")
            final = next(100 * line["miou"] for line in reversed(lines) if "miou" in line)
            axis.plot(np.arange(20, 20 + len(smooth)), smooth, color=colour, label=f"{network} (val mIoU {final:.1f})")
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.legend(frameon=False)
    axes[0].set_ylabel("loss of the main output, mean of 20 steps")
    figure.savefig(sys.argv[1], dpi=110)


if __name__ == "__main__":
    main()
