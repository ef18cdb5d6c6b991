"""The loss curve of two processes (CPU, gloo) next to that of one process with twice the batch.

    python -m benchmarks two_processes

Batch norm is frozen, since PyTorch synchronises it on GPUs only, dropout is off, and every pixel is labelled, so that
the mean of the two processes' means is the mean over all pixels.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from benchmarks import parser
from benchmarks.measure import in_fresh_process
from regard.datasets.folder import folder
from regard.training.record import read_metrics
from regard.training.train import train
from tests.support import tiny, write_set


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


def main(arguments: list[str]) -> None:
    options = parser("two_processes", __doc__)
    options.add_argument("--train", nargs=3, help=argparse.SUPPRESS)  # data, out, devices
    given = options.parse_args(arguments)
    if given.train:
        train_here(given.train[0], given.train[1], int(given.train[2]))
    else:
        compare()


def compare() -> None:
    """Print both curves and their largest difference."""
    with tempfile.TemporaryDirectory() as place:
        data = write_set(Path(place) / "toy")
        for mask in (data / "masks").iterdir():
            labels = np.array(Image.open(mask))
            labels[:2] = labels[2:4]
            Image.fromarray(labels).save(mask)
        curves = []
        for devices in (1, 2):
            out = Path(place) / str(devices)
            in_fresh_process("two_processes", "--train", data, out, devices)
            curves.append([line for line in read_metrics(out) if "loss" in line])
        for one, two in zip(*curves, strict=True):
            print(f"step {one['step']:2d}  one process {one['loss']:.6g}  two {two['loss']:.6g}")
        worst = max(abs(one["loss"] - two["loss"]) / one["loss"] for one, two in zip(*curves, strict=True))
        print(f"largest relative difference {worst:.1e}")
        assert worst < 1e-4
