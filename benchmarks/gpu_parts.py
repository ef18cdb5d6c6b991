"""The parts of ``python -m benchmarks gpu``: what fails becomes a row that says why."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from benchmarks.gpu_attention import attention
from benchmarks.gpu_measure import Row, Size, measured, milliseconds


def machine(size: Size) -> Iterator[Row]:
    """Versions, the device, and its two ceilings: a large product in 16 bits and a large copy."""
    row: Row = {"torch": torch.__version__, "python": sys.version.split()[0], "device": size.device}
    with contextlib.suppress(ImportError):
        row["triton"] = __import__("triton").__version__
    if size.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        row |= {"device": properties.name, "memory GB": round(properties.total_memory / 1e9, 1)}
    square = torch.randn(size.product, size.product, device=size.device, dtype=size.half)
    copy = torch.empty_like(square)
    row["TFLOP/s of a product"] = 2e-9 * size.product**3 / milliseconds(lambda: torch.mm(square, square), size)
    row["TB/s of a copy"] = 2e-9 * square.nbytes / milliseconds(lambda: copy.copy_(square), size)
    yield row


def step(size: Size) -> Iterator[Row]:
    """A step of training: forward, losses, backward, update; with the authors' attention and with ours."""
    from benchmarks.cases import _authors_way
    from regard.checkpoints.create import create

    images = torch.randn(size.batch, 3, *size.image, device=size.device)
    labels = torch.randint(19, (size.batch, *size.image), device=size.device)
    for network in ("danet", "danet_ocr"):
        names = [str(index) for index in range(19)]
        model = create(network, classes=names, backbone=size.backbone, width=size.width, output_stride=8)
        model = model.to(size.device).train()
        update = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        for precision in ("bfloat16", "float32"):
            for way, around in (("regard", nullcontext), ("authors", _authors_way)):
                with around():
                    row = measured(partial(take_step, model, update, images, labels, precision), size)
                loss = row.pop("value", None)
                row |= {} if loss is None else {"loss": float(loss), "Mpx/s": labels.numel() / row["ms"] / 1e3}
                shape = "x".join(map(str, images.shape))
                yield {
                    "network": f"{network} {size.backbone}",
                    "images": shape,
                    "precision": precision,
                    "way": way,
                } | row


def take_step(model: nn.Module, update: torch.optim.Optimizer, images: Tensor, labels: Tensor, how: str) -> Tensor:
    from regard.ops.losses import weighted_sum

    with torch.autocast(images.device.type, torch.bfloat16, enabled=how == "bfloat16"):
        loss = weighted_sum(model.outputs(images), labels, model.loss_weights)["loss"]
    update.zero_grad()
    loss.backward()
    update.step()
    return loss.detach()


def scene(size: Size) -> Iterator[Row]:
    """Maps of a scene written here, from file to published map; a row every ten seconds while one is made."""
    from benchmarks.stand_ins import stand_in_for_pyogrio

    stand_in_for_pyogrio()
    from benchmarks.scenes import model_named, write_scene
    from regard.checkpoints.file import load
    from regard.mapping.predict import predict

    with tempfile.TemporaryDirectory() as folder:
        for name, side, precision in size.scenes:
            path = Path(folder) / f"{side}.tif"
            if not path.exists():
                write_scene(path, side, side)
            given: Row = {"model": name, "side": side, "precision": precision}
            try:
                network = model_named(name) if name == "danet-r50" else load(name, fast=True, precision=precision)
                network = network.to(size.device)
                counted = network.logits = Counted(network.logits)
                out = Path(folder) / f"{name}-{side}-{precision}.map.tif"
                work = partial(predict, network, path, out, progress=False, **size.windows)
                with gpu_use() as use:
                    yield from (given | row for row in watched(work, side, counted))
                yield given | {"GPU use %": use()}
            except Exception as error:
                yield given | {"result": f"{type(error).__name__}: {str(error)[:150]}"}


class Counted:
    """A network's logits; counts the windows."""

    def __init__(self, logits: Callable[[Tensor], dict[str, Tensor]]) -> None:
        self.logits = logits
        self.windows = 0

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self.windows += len(images)
        return self.logits(images)


def watched(work: Callable[[], object], side: int, counted: Counted) -> Iterator[Row]:
    """Run it in a thread: the windows that were done, every ten seconds, and the whole speed at the end."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    began, thread = time.perf_counter(), threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(10)
        spent = time.perf_counter() - began
        yield {"seconds": round(spent, 1), "windows": counted.windows, "complete": False}
    if failed:
        raise failed[0]
    seconds = time.perf_counter() - began
    yield {"seconds": round(seconds, 1), "Mpx/s": round(side * side / 1e6 / seconds, 3), "complete": True}


@contextlib.contextmanager
def gpu_use() -> Iterator[Callable[[], float | None]]:
    """Inside, nvidia-smi is asked twice a second; afterwards the mean use of the GPU in per cent, None without one."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "500"]
    with tempfile.TemporaryFile("w+") as file:
        try:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
        except OSError:
            yield lambda: None
            return
        samples: list[float] = []
        try:
            yield lambda: round(mean(samples), 1) if samples else None
        finally:
            process.terminate()
            process.wait()
            file.seek(0)
            samples += [float(line) for line in file if line.strip().isdigit()]


def study(size: Size) -> Iterator[Row]:
    """Short runs of the study of the fusion, on the images that come with regard: scores at the end of each."""
    from benchmarks.stand_ins import stand_in_for_pyogrio

    stand_in_for_pyogrio()
    from experiments.conflict.arms import ARMS
    from experiments.conflict.run import BUNDLED, Study

    steps = size.steps or ARMS[size.arms[0]].steps
    runs = Study(BUNDLED / "city", Path("none"), steps=steps, every=min(40, steps), device=size.device)
    for seed in range(size.seeds):
        for arm in size.arms:
            began = time.perf_counter()
            last = [line for line in runs.train(ARMS[arm], seed) if "val_loss" in line][-1]
            row = {"arm": arm, "seed": seed, "steps": last["step"], "seconds": round(time.perf_counter() - began, 1)}
            yield row | {name: last[name] for name in ("val_loss", "val_miou", "val_accuracy")}


PARTS: dict[str, Callable[[Size], Iterator[Row]]] = {
    "machine": machine,
    "attention, regard": partial(attention, which="regard"),
    "attention, PyTorch": partial(attention, which="PyTorch"),
    "attention, flex": partial(attention, which="flex"),
    "training step": step,
    "scene": scene,
    "study": study,
}
