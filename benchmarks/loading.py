"""The share of its time that a training waits for data: EfficientNet-Lite0, crops of 512 x 512.

    python -m benchmarks loading DATA [--batch 4] [--steps 30] [--workers 1] [--threads 2]

With more than one thread, set OMP_NUM_THREADS to as many.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from benchmarks import parser
from regard.checkpoints.create import create
from regard.datasets.folder import folder
from regard.training import train as module


class Timed:
    """Batches, with the time that each was waited for and the time until the next was asked for."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches
        self.waited: list[float] = []
        self.worked: list[float] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        source = iter(self.batches)
        asked = time.perf_counter()
        for batch in source:
            got = time.perf_counter()
            self.waited.append(got - asked)
            yield batch
            asked = time.perf_counter()
            self.worked.append(asked - got)


def main(arguments: list[str]) -> None:
    options = parser("loading", __doc__)
    options.add_argument("data")
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--warm", type=int, default=3, help="first steps that do not count: the workers start")
    measure(options.parse_args(arguments))


def measure(given: argparse.Namespace) -> None:
    """Train for a few steps and print the time spent waiting and working."""
    torch.set_num_threads(given.threads)
    data = folder(given.data)
    data = type(data)(data.root, data.classes, {"train": data.split("train")}, data.bands)  # no evaluation in between
    model = create("danet_ocr", classes=data.classes, backbone="tf_efficientnet_lite0", width=128, output_stride=16)
    made, original = list[Timed](), module.training_batches

    def timed(*arguments: Any, **settings: Any) -> Timed:
        made.append(Timed(original(*arguments, **settings)))
        return made[0]

    settings = {"steps": given.steps, "batch": given.batch, "crop": 512, "workers": given.workers}
    before = time.process_time()
    with tempfile.TemporaryDirectory() as out, mock.patch.object(module, "training_batches", timed):
        module.train(model, data, out, progress=False, evaluate_every=given.steps, **settings)
    used = time.process_time() - before
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    reading = children.ru_utime + children.ru_stime
    waited, worked = sum(made[0].waited[given.warm :]), sum(made[0].worked[given.warm :])
    counted = given.steps - given.warm
    print(
        f"{data.root.name}: {counted} steps of {given.batch} crops of 512 x 512, {given.threads} threads, "
        f"{given.workers} worker: {1000 * worked / counted:.0f} ms of work and {1000 * waited / counted:.0f} ms of "
        f"waiting a step; waiting is {100 * waited / (waited + worked):.1f} % of the time; CPU time a step: "
        f"{1000 * used / given.steps:.0f} ms of the training, {1000 * reading / given.steps:.0f} ms of the loading "
        "(which also starts and ends the workers)"
    )
