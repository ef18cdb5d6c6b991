"""The share of its time that a training waits for data: the lite backbone at 512 x 512.

python tests/bench/loading.py DATA [--batch 4] [--steps 30] [--workers 1] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--workers", type=int, default=1)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--warm", type=int, default=3, help="first steps that do not count: the workers start")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import torch  # noqa: E402

from regard.checkpoints.create import create  # noqa: E402
from regard.datasets.folder import folder  # noqa: E402
from regard.training import train as module  # noqa: E402


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


torch.set_num_threads(options.threads)
data = folder(options.data)
data = type(data)(data.root, data.classes, {"train": data.split("train")}, data.bands)  # no evaluation in between
model = create("danet_ocr", classes=data.classes, backbone="tf_efficientnet_lite0", width=128, output_stride=16)
made, original = list[Timed](), module.training_batches


def timed(*arguments: Any, **settings: Any) -> Timed:
    made.append(Timed(original(*arguments, **settings)))
    return made[0]


module.training_batches = timed  # type: ignore[assignment]
settings = {"steps": options.steps, "batch": options.batch, "crop": 512, "workers": options.workers}
before = time.process_time()
with tempfile.TemporaryDirectory() as out:
    module.train(model, data, out, progress=False, evaluate_every=options.steps, **settings)
used = time.process_time() - before
children = resource.getrusage(resource.RUSAGE_CHILDREN)
reading = children.ru_utime + children.ru_stime
waited, worked = sum(made[0].waited[options.warm :]), sum(made[0].worked[options.warm :])
print(
    f"{data.root.name}: {options.steps - options.warm} steps of {options.batch} crops of 512 x 512, {options.threads} "
    f"threads, {options.workers} worker: {1000 * worked / (options.steps - options.warm):.0f} ms of work and "
    f"{1000 * waited / (options.steps - options.warm):.0f} ms of waiting a step; waiting is "
    f"{100 * waited / (waited + worked):.1f} % of the time; CPU time a step: {1000 * used / options.steps:.0f} ms of "
    f"the training, {1000 * reading / options.steps:.0f} ms of the loading (which also starts and ends the workers)"
)
