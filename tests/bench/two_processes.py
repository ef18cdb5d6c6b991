"""The loss curve of two processes (CPU, gloo) beside that of one process with twice the batch.

python tests/bench/two_processes.py

Batch norm is frozen, since PyTorch synchronises it on GPUs only, dropout is off, and every pixel is labelled, so that
the mean of the two processes' means is the mean over all pixels.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

sys.path.insert(0, str(Path(__file__).parents[1]))
from regard.datasets.folder import folder
from regard.training.record import read_metrics
from regard.training.train import train
from support import tiny, write_set


def make_plain(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        elif isinstance(child, nn.Dropout | nn.Dropout2d):
            child.p = 0.0
        else:
            make_plain(child)


def train_here(data: str, out: str, devices: int) -> None:
    torch.set_num_threads(1)
    model = tiny()
    make_plain(model)
    settings = {"steps": 20, "batch": 4 // devices, "crop": 32, "scale": (1.0, 1.0), "workers": 0}
    train(
        model,
        folder(data),
        out,
        progress=False,
        seed=1,
        learning_rate=1e-5,
        evaluate_every=10,
        devices=devices,
        **settings,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        data = write_set(Path(place) / "toy")
        for mask in (data / "masks").iterdir():
            labels = np.array(Image.open(mask))
            labels[:2] = labels[2:4]
            Image.fromarray(labels).save(mask)
        curves = []
        for devices in (1, 2):
            out = Path(place) / str(devices)
            subprocess.run([sys.executable, __file__, str(data), str(out), str(devices)], check=True)
            curves.append([line for line in read_metrics(out) if "loss" in line])
        for one, two in zip(*curves, strict=True):
            print(f"step {one['step']:2d}  one process {one['loss']:.6g}  two {two['loss']:.6g}")
        worst = max(abs(one["loss"] - two["loss"]) / one["loss"] for one, two in zip(*curves, strict=True))
        print(f"largest relative difference {worst:.1e}")
        assert worst < 1e-4


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train_here(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main()
