"""What is recorded in addition to the loss: scores, attention's entropy, norms, and the likeness of two gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.conflict import seed_model
from regard.blocks import object_context, self_attention
from regard.blocks.self_attention import NonLocalPosition, PositionAttention
from regard.models.danet_ocr import PositionContext
from regard.ops.attention import attend, attention_map
from regard.ops.losses import cross_entropy, weighted_sum
from regard.ops.metrics import confusion_matrix, intersection_over_union

TEMPERATURES = [2 ** (power / 2) for power in range(-12, 5)]
POSITION, OBJECTS = "position", "objects"
CALLERS = {self_attention: POSITION, object_context: OBJECTS}  # modules, and blocks that keep the function themselves
BLOCKS = {PositionAttention: POSITION, NonLocalPosition: POSITION, PositionContext: OBJECTS}


def scores(logits: Tensor, labels: Tensor, classes: int) -> dict[str, float]:
    """Loss in nats; loss at the best single temperature, which no shrinking of the logits changes; mIoU, accuracy."""
    known = labels != 255
    confusion = confusion_matrix(labels, logits.argmax(1), classes=classes)
    return {
        "val_loss": float(cross_entropy(logits, labels)),
        "val_loss_best_temperature": min(float(cross_entropy(logits / t, labels)) for t in TEMPERATURES),
        "val_miou": float(intersection_over_union(confusion).nanmean()),
        "val_accuracy": float(confusion.diagonal().sum() / confusion.sum()),
        "confidence": float(logits.softmax(1).amax(1)[known].mean()),
        "logit_std": float(logits.std(1)[known].mean()),
    }


def norms(model: nn.Module) -> dict[str, float]:
    """Root mean square of the weights of convolutions with a norm behind them, and of the last convolution."""
    convs = [m for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and not name.startswith("backbone")]
    inner = torch.cat([conv.weight.detach().flatten() for conv in convs if conv.bias is None])
    last = model.head.scores if isinstance(model, seed_model.SeedDANet) else last_conv(model)
    return {
        "weight_rms": float(inner.square().mean().sqrt()),
        "last_rms": float(last.weight.detach().square().mean().sqrt()),
    }


def last_conv(model: Any) -> nn.Conv2d:
    if hasattr(model, "classify_pixels"):
        return model.classify_pixels
    return model.classify["main"][-1] if isinstance(model.classify, nn.ModuleDict) else model.classify


@contextmanager
def watched() -> Iterator[dict[str, list[float]]]:
    """Inside, every attention over pixels or regions notes the entropy of its weights over log(number of keys)."""
    found: dict[str, list[float]] = defaultdict(list)

    def watch(kind: str) -> Any:
        def attend_and_note(query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0) -> Tensor:
            over_channels = query.shape[2] > query.shape[1] and kind == POSITION
            weights = attention_map(query, key, scale=scale)
            entropy = torch.special.entr(weights).sum(-1).mean() / torch.tensor(float(key.shape[1])).log()
            found["channel" if over_channels else kind].append(float(entropy))
            return attend(query, key, value, scale=scale)

        return attend_and_note

    with ExitStack() as stack:
        for module, kind in {**CALLERS, seed_model: OBJECTS}.items():
            stack.enter_context(mock.patch.object(module, "attend", watch(kind)))
        for block, kind in BLOCKS.items():
            stack.enter_context(mock.patch.object(block, "attend", staticmethod(watch(kind))))
        yield found


def entropies(model: nn.Module, image: Tensor) -> dict[str, float]:
    """Mean normalised entropy by kind of attention: 1 is uniform attention, 0 is attention to one place."""
    with watched() as found, torch.no_grad():
        model.outputs(image)
    return {f"entropy_{kind}": sum(values) / len(values) for kind, values in found.items()}


def conflict(model: nn.Module, deep: Tensor, image: Tensor, labels: Tensor) -> dict[str, float]:
    """The loss's gradients in the shared features, by two disjoint sets of paths, and their cosine.

    ``position``: paths through the position branch and not through an object context; ``objects``: the reverse. A set
    is what is missing from the gradient when the modules on it pass no gradient on.
    """
    modules = dict(model.named_modules())
    branch = [m for n, m in modules.items() if n in ("position.0", "position_in", "head.position.0")]
    contexts = [m for name, m in modules.items() if name.endswith(".up")]
    if not branch or not contexts:
        return {}

    def gradient(cut: list[nn.Module]) -> Tensor:
        handles = [module.register_forward_hook(lambda _, __, output: output.detach()) for module in cut]
        loss = weighted_sum(model.outputs(image), labels, model.loss_weights)["loss"]
        for handle in handles:
            handle.remove()
        return torch.autograd.grad(loss, deep)[0].flatten()

    neither = gradient(branch + contexts)
    position, objects = gradient(contexts) - neither, gradient(branch) - neither
    cosine = torch.cosine_similarity(position.double(), objects.double(), dim=0)
    return {
        "gradient_cosine": float(cosine),
        "gradient_position": float(position.norm()),
        "gradient_objects": float(objects.norm()),
    }


def cost(model: nn.Module, image: Tensor) -> dict[str, float]:
    """Parameters and GMAC of the head alone, for one crop."""
    head = [p for name, p in model.named_parameters() if not name.startswith("backbone")]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.outputs(image)
    return {"head_parameters": sum(p.numel() for p in head), "head_gmac": counter.get_total_flops() / 2e9}
