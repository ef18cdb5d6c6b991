"""What ``python -m benchmarks`` compares: the usual way to compute something, and regard's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attention_formula import KEY, SAMPLED, VALUE, authors_attention
from benchmarks.measure import Work, difference, product_rate
from regard.blocks import self_attention
from regard.checkpoints.create import create
from regard.inference.optimise import make_fast
from regard.models import Segmenter
from regard.ops.attention import attend
from regard.ops.metrics import confusion_matrix
from regard.ops.resize import most_likely

CLASSES = 19


@dataclass(frozen=True)
class Case:
    """Two ways to one result; ``facts`` are what comparing them gives and what bounds them."""

    reference: Work
    ours: Work
    facts: Callable[[], dict[str, Any]] = field(default=dict)


def attention(pixels: int, *, dtype: torch.dtype, train: bool) -> Case:
    """Position attention of an image of that many pixels; ``train`` adds the backward pass."""
    inputs = _tokens(pixels, dtype, train)
    run = _gradients if train else _result
    reference, ours = partial(run, authors_attention, inputs), partial(run, attend, inputs)
    return Case(reference, ours, lambda: _attention_facts(inputs, reference, ours, train))


def _tokens(pixels: int, dtype: torch.dtype, train: bool) -> tuple[Tensor, ...]:
    """Query, key and value as a 1x1 convolution leaves them; the energies' standard deviation is 1."""
    sizes = ((KEY, KEY**-0.25), (KEY, KEY**-0.25), (VALUE, 1.0))
    made = [(torch.randn(1, width, pixels) * size).to(dtype).mT for width, size in sizes]
    return tuple(tensor.requires_grad_(train) for tensor in made)


def _result(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
    with torch.inference_mode():
        return function(*inputs)


def _gradients(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
    out = function(*inputs)
    return torch.cat([gradient.mT.flatten() for gradient in torch.autograd.grad(out, inputs, inputs[2].detach())])


def _attention_facts(inputs: tuple[Tensor, ...], reference: Work, ours: Work, train: bool) -> dict[str, Any]:
    pixels, dtype = inputs[0].shape[1], inputs[2].dtype
    rates = [product_rate(512, KEY, 4096, torch.float32), product_rate(VALUE, 4096, 512, dtype)]
    products = (3 if train else 1) * 2 * pixels**2 * (KEY / rates[0] + VALUE / rates[1])
    floor = {"products alone ms": round(1e3 * products, 1)}
    if train:  # in blocks: the authors' way would take 8 bytes for every pair of pixels, several times
        exact = _gradients(attend, tuple(tensor.detach().double().requires_grad_() for tensor in inputs))
        return {f"{side} error": difference(work(), exact) for side, work in _sides(reference, ours)} | floor
    sampled = torch.randperm(pixels)[:SAMPLED]
    query, key, value = (tensor.double() for tensor in inputs)
    exact = authors_attention(query[:, sampled], key, value)
    return {f"{side} error": difference(work()[:, sampled], exact) for side, work in _sides(reference, ours)} | floor


def _sides(reference: Work, ours: Work) -> tuple[tuple[str, Work], tuple[str, Work]]:
    return ("reference", reference), ("ours", ours)


def highest(width: int) -> Case:
    """Full-size logits to labels."""
    scores = torch.randn(1, CLASSES, width // 2, width)
    return _labels(lambda: scores.argmax(dim=1), lambda: most_likely(scores))


def _labels(reference: Work, ours: Work) -> Case:
    return Case(reference, ours, lambda: {"labels that differ": int((reference() != ours()).sum())})


def confusion(width: int, *, reference: str) -> Case:
    """A confusion matrix of int64 labels, 5 % of them ignored and 20 % of the others wrong."""
    size = (width // 2, width)
    truth = (
        torch.randint(CLASSES, (size[0] // 16 + 1, size[1] // 16 + 1)).repeat_interleave(16, 0).repeat_interleave(16, 1)
    )
    truth = truth[: size[0], : size[1]].contiguous()
    predicted = torch.where(torch.rand(size) < 0.2, torch.randint(CLASSES, size), truth)
    truth[torch.rand(size) < 0.05] = 255
    theirs = partial(CONFUSIONS[reference], truth, predicted)
    ours = partial(confusion_matrix, truth, predicted, classes=CLASSES)
    return Case(theirs, ours, lambda: {"counts that differ": int((theirs() != ours()).sum())})


def _torchmetrics(truth: Tensor, predicted: Tensor, *, validate: bool) -> Tensor:
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    return multiclass_confusion_matrix(predicted, truth, CLASSES, ignore_index=255, validate_args=validate)


def _bincount(truth: Tensor, predicted: Tensor) -> Tensor:
    codes = (truth.to(torch.int32) * CLASSES).add_(predicted)
    return torch.bincount(codes.flatten(), minlength=256 * CLASSES)[: CLASSES**2].reshape(CLASSES, CLASSES)


CONFUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "torchmetrics": partial(_torchmetrics, validate=True),
    "torchmetrics, validation off": partial(_torchmetrics, validate=False),
    "one bare bincount": _bincount,
}


def network(width: int, *, architecture: str, backbone: str) -> Case:
    """A network with random weights on one image, with the authors' position attention and with ours."""
    model, image = _network(architecture, backbone), torch.randn(1, 3, width // 2, width)

    def ours() -> Tensor:
        with torch.inference_mode():
            return model(image)

    def reference() -> Tensor:
        with _authors_way():
            return ours()

    return Case(reference, ours, lambda: {"difference": difference(ours(), reference())})


def fast_network(width: int, *, architecture: str, backbone: str) -> Case:
    """A network with random weights on one image, as it is written and as ``make_fast`` rebuilds it."""
    plain, image = _network(architecture, backbone), torch.randn(1, 3, width // 2, width)
    reference, ours = partial(_result, plain, (image,)), partial(_result, make_fast(deepcopy(plain)), (image,))
    return Case(reference, ours, lambda: {"difference": difference(ours(), reference())})


def _network(architecture: str, backbone: str) -> Segmenter:
    """Random weights, open gates, and norms with the statistics of one batch of noise."""
    model = create(architecture, classes=[str(index) for index in range(CLASSES)], backbone=backbone)
    open_gates(model, lambda: model(torch.randn(2, 3, 64, 64)))
    return model


def open_gates(model: nn.Module, forward: Callable[[], object]) -> None:
    """Make random weights behave like trained ones: attention counts, and norms have the statistics of one forward."""
    for name, parameter in model.train().named_parameters():
        if "gamma" in name:
            nn.init.constant_(parameter, 0.5)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0
    with torch.no_grad():
        forward()
    model.eval()


@contextmanager
def _authors_way() -> Iterator[None]:
    setattr(self_attention, "attend", authors_attention)  # noqa: B010
    try:
        yield
    finally:
        setattr(self_attention, "attend", attend)  # noqa: B010


Maker = Callable[[int], Case]
CASES: dict[str, dict[str, Maker]] = {
    "attention": {
        "float32 forward": partial(attention, dtype=torch.float32, train=False),
        "bfloat16 forward": partial(attention, dtype=torch.bfloat16, train=False),
        "float32 forward and backward": partial(attention, dtype=torch.float32, train=True),
    },
    "upsample": {"logits to labels": highest},
    "evaluate": {name: partial(confusion, reference=name) for name in CONFUSIONS},
    "model": {
        "danet resnet50, attention": partial(network, architecture="danet", backbone="resnet50"),
        "danet resnet50, fast": partial(fast_network, architecture="danet", backbone="resnet50"),
        "ocrnet hrnet_w18, fast": partial(fast_network, architecture="ocrnet", backbone="hrnet_w18"),
        "ocrnet hrnet_w48, fast": partial(fast_network, architecture="ocrnet", backbone="hrnet_w48"),
    },
}
