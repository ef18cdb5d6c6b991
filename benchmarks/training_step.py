"""One training step of a network on a CPU: with PyTorch's convolutions, and as ``regard train`` computes it.

Both train the same network on the same crops, in turns; their losses are compared first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor

import regard
from regard.memory import keep_freed_memory
from regard.models import Segmenter
from regard.training.activations import lean, with_forwards
from regard.training.convolutions import faster_forwards

CLASSES = 5


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks training_step", description=__doc__)
    parser.add_argument("--architecture", default="danet_ocr")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--crop", type=int, default=384)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args(arguments)
    keep_freed_memory()
    torch.manual_seed(0)
    model = regard.create(
        given.architecture, backbone=given.backbone, classes=[f"class {n}" for n in range(CLASSES)], output_stride=8
    )
    model.to(memory_format=torch.channels_last).train()
    image = torch.randn(given.batch, 3, given.crop, given.crop).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (given.batch, given.crop, given.crop))
    losses, seconds = zip(
        *(_timed(model, image, labels, ours) for _ in range(1 + given.pairs) for ours in (False, True)), strict=True
    )
    plain, ours = (statistics.median(seconds[2 + side :: 2]) for side in (0, 1))
    print(f"losses {losses[0]:.6f} and {losses[1]:.6f}; {torch.get_num_threads()} threads")
    print(f"PyTorch's convolutions {plain:.2f} s, regard train {ours:.2f} s a step: {plain / ours:.2f}x")


def _timed(model: Segmenter, image: Tensor, labels: Tensor, ours: bool) -> tuple[float, float]:
    """Loss and seconds of forward and backward; dropout is the same at every call."""
    torch.manual_seed(1)
    model.zero_grad(set_to_none=True)
    with ExitStack() as ways:
        if ours:
            ways.enter_context(lean(model.backbone, recompute=False))
            ways.enter_context(with_forwards(faster_forwards(model)))
        start = time.perf_counter()
        outputs = model.logits(image).values()
        loss = sum(F.cross_entropy(F.interpolate(out, labels.shape[1:], mode="bilinear"), labels) for out in outputs)
        assert isinstance(loss, Tensor)
        loss.backward()
        return float(loss.detach()), time.perf_counter() - start
