"""What explains a score: how selective attention is, how much context changes the output, whether gradients agree."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.fusion.designs import RegionPosition
from regard.blocks import object_context
from regard.blocks.object_context import ObjectAttention
from regard.blocks.self_attention import NonLocalPosition, PositionAttention
from regard.datasets.labelled_data import LabelledData
from regard.inference.scores import evaluating, scores_of
from regard.models import Segmenter
from regard.models.danet_ocr import PositionContext
from regard.ops.attention import attend, attention_map
from regard.ops.losses import weighted_sum
from regard.ops.resize import most_likely
from regard.options import Views

Attend = Callable[..., Tensor]
SMALL, MIDDLE = 32**2, 96**2  # pixels of an object: COCO's limits
SIZES = ("small", "middle", "large")
BRANCH = ("position_in", "position.0")  # first module of the position branch
TRIES = 10  # of the time of a window


def kind_of(module: nn.Module) -> str | None:
    """``position`` for attention to pixels, ``objects`` for attention to regions."""
    if isinstance(module, ObjectAttention | RegionPosition):
        return "objects"
    if isinstance(module, PositionContext):
        return "objects" if module.by_region else "position"
    return "position" if isinstance(module, PositionAttention | NonLocalPosition) else None


@contextmanager
def with_attention(model: nn.Module, make: Callable[[str], Attend]) -> Iterator[None]:
    """Inside, every attention to pixels or regions computes by ``make(kind)``."""
    own = {module: kind for module in model.modules() if (kind := kind_of(module)) and hasattr(module, "attend")}
    for module, kind in own.items():
        module.attend = make(kind)
    try:
        with mock.patch.object(object_context, "attend", make("objects")):
            yield
    finally:
        for module in own:
            del module.attend


def entropies(model: Segmenter, image: Tensor) -> dict[str, float]:
    """Mean entropy of the weights over log(number of keys) by kind: 1 is uniform attention, 0 is one key."""
    found: dict[str, list[float]] = defaultdict(list)

    def make(kind: str) -> Attend:
        def noting(query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0) -> Tensor:
            entropy = torch.special.entr(attention_map(query, key, scale=scale)).sum(-1).mean()
            found[kind].append(float(entropy) / math.log(key.shape[1]))
            return attend(query, key, value, scale=scale)

        return noting

    with with_attention(model, make):
        model.logits(image)
    return {f"entropy_{kind}": float(np.mean(values)) for kind, values in found.items()}


def context_shares(model: Segmenter, image: Tensor) -> dict[str, float]:
    """By kind: the share of the logits' variance over pixels that goes if every pixel gets the mean of its context."""
    whole, found = model.logits(image)["main"], dict[str, float]()

    def make(wanted: str, kind: str) -> Attend:
        def flat(query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0) -> Tensor:
            context = attend(query, key, value, scale=scale)
            return context.mean(1, keepdim=True).expand_as(context) if kind == wanted else context

        return flat

    for wanted in {kind for module in model.modules() if (kind := kind_of(module))}:
        with with_attention(model, partial(make, wanted)):
            changed = whole - model.logits(image)["main"]
        share = changed.var(dim=(0, 2, 3)).sum() / whole.var(dim=(0, 2, 3)).sum()
        found[f"share_{wanted}"] = float(share)
    return found


def conflict(model: Segmenter, image: Tensor, labels: Tensor) -> dict[str, float]:
    """The cosine of two parts of the loss's gradient in the backbone's last map, where a network has both.

    One is of the paths through the position branch and no object context, the other of those through an object context
    and not the position branch. A part is what is missing when the modules on its paths pass no gradient on.
    """
    modules = dict(model.named_modules())
    branch = [modules[name] for name in BRANCH if name in modules]
    contexts = [module for name, module in modules.items() if name.endswith(".up")]
    if not branch or not contexts:
        return {}

    def gradient(cut: list[nn.Module]) -> Tensor:
        leaves: list[Tensor] = []

        def begin(_: nn.Module, __: Any, maps: list[Tensor]) -> list[Tensor]:
            leaves.append(maps[-1].detach().requires_grad_())
            return [*maps[:-1], leaves[0]]

        hooks = [module.register_forward_hook(lambda _, __, output: output.detach()) for module in cut]
        hooks.append(model.backbone.register_forward_hook(begin))
        loss = weighted_sum(model.outputs(image), labels, model.loss_weights)["loss"]
        for hook in hooks:
            hook.remove()
        return torch.autograd.grad(loss, leaves[0])[0].flatten().double()

    with torch.enable_grad():
        neither = gradient(branch + contexts)
        position, objects = gradient(contexts) - neither, gradient(branch) - neither
    return {"gradient_cosine": float(torch.cosine_similarity(position, objects, dim=0))}


def diagnose(model: Segmenter, image: Tensor, labels: Tensor) -> dict[str, float]:
    """All of the above."""
    with evaluating(model):
        with torch.no_grad():
            found = entropies(model, image) | context_shares(model, image)
        return found | conflict(model, image, labels)


class Diagnosis(pl.Callback):
    """Writes the diagnosis of the averaged weights to a file of lines every ``every`` steps."""

    def __init__(self, path: Path, batch: tuple[Tensor, Tensor], every: int) -> None:
        self.path, self.batch, self.every = path, batch, every

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        kept = [line for line in read_lines(self.path) if line["step"] <= trainer.global_step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        if not kept:
            self.note(0, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            self.note(trainer.global_step, pl_module)

    def note(self, step: int, task: Any) -> None:
        model = task.ema.module
        line = {"step": step, **diagnose(model, *(part.to(model.device) for part in self.batch))}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a kill may leave half a one."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def found_by_size(model: Segmenter, data: LabelledData, window: int) -> dict[str, float]:
    """Of the pixels of small, middle and large objects of val, the share that has the right class.

    An object is a connected part of one class in the labels.
    """
    hit, total = np.zeros(3), np.zeros(3)
    with evaluating(model), torch.inference_mode():
        for pair in data.split("val"):
            sample = data.read(pair)
            right = most_likely(scores_of(model, sample.pixels, Views(window=window))[None])[0].numpy() == sample.labels
            sizes = object_sizes(sample.labels, len(data.classes))
            for index in range(3):
                hit[index] += right[sizes == index].sum()
                total[index] += (sizes == index).sum()
    return {f"found_{name}": float(h / t) for name, h, t in zip(SIZES, hit, total, strict=True) if t}


def object_sizes(labels: np.ndarray, classes: int) -> np.ndarray:
    """0, 1 or 2 for each pixel by the size of its object; -1 without a label."""
    sizes = np.full(labels.shape, -1)
    for label in range(classes):
        parts, count = ndimage.label(labels == label)
        pixels = np.bincount(parts.ravel(), minlength=count + 1)
        inside = parts > 0
        sizes[inside] = np.digitize(pixels, (SMALL, MIDDLE))[parts[inside]]
    return sizes


def cost(model: Segmenter, side: int) -> dict[str, float]:
    """Parameters, GMAC of one window, and its time on one CPU core: the shortest of ten, in ms."""
    image = torch.zeros(1, 3, side, side)
    with evaluating(model), torch.inference_mode(), ExitStack() as stack:
        with FlopCounterMode(display=False) as counter:
            model.logits(image)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        stack.callback(torch.set_num_threads, threads)
        times = []
        for _ in range(TRIES):
            began = time.process_time()
            model.logits(image)
            times.append(time.process_time() - began)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "gmac": counter.get_total_flops() / 2e9, "window_ms": 1e3 * min(times)}
