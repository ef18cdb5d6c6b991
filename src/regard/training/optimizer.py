"""What a run optimises and how: the loss, the frozen parts, the optimiser and its rates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from regard.datasets.statistics import balanced_weights
from regard.errors import ConfigError
from regard.models import Segmenter
from regard.ops.losses import Criterion
from regard.training.config import TrainConfig
from regard.training.recipes import CITYSCAPES_WEIGHTS

LISTS = ("blocks", "stages", "layers")


def optimizer_of(
    model: Segmenter, config: TrainConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimiser, with the backbone's parameters (each stage's, where their rates differ) and the heads' as its
    groups, and their schedule by step.
    """
    rate = config.learning_rate * config.backbone_rate
    stages = [list(model.backbone.parameters())] if config.layer_decay == 1 else stages_of(model.backbone)
    mine = {id(parameter) for parameter in model.backbone.parameters()}
    heads = [parameter for parameter in model.parameters() if id(parameter) not in mine]
    rates = [rate * config.layer_decay**above for above in reversed(range(len(stages)))]
    wanted = [[parameter for parameter in part if parameter.requires_grad] for part in (*stages, heads)]
    parts = [(part, its) for part, its in zip(wanted, (*rates, config.learning_rate), strict=True) if part]
    groups = [{"params": part, "lr": rate} for part, rate in parts]
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=config.weight_decay)
    else:
        optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    follow = partial(poly, steps=config.steps, warmup=config.warmup, power=config.power)
    factors: list[Callable[[int], float]] = [
        partial(follow, lowest=min(1.0, config.lowest_rate / rate) if rate else 0.0) for _, rate in parts
    ]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    return optimizer, schedule


def stages_of(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a backbone of timm, stage by stage: its own (position embeddings), those of its children, and
    of theirs where timm lists the stages in one.
    """
    stages = [list(backbone.parameters(recurse=False))]
    for name, child in backbone.named_children():
        stages += [list(part.parameters()) for part in (child.children() if name in LISTS else [child])]
    return [stage for stage in stages if stage]


def freeze(model: Segmenter, what: str) -> list[nn.Module]:
    """Stop the gradients of the backbone or of its batch norms; the modules that must stay in evaluation mode."""
    if what == "nothing":
        return []
    norms = [module for module in model.backbone.modules() if isinstance(module, _BatchNorm)]
    for parameter in model.backbone.parameters() if what == "backbone" else (p for n in norms for p in n.parameters()):
        parameter.requires_grad_(False)
    return [model.backbone] if what == "backbone" else list(norms)


def criterion_of(model: Segmenter, config: TrainConfig, pixels: Int[np.ndarray, "i k"] | None) -> Criterion:
    """The loss that the settings name; ``pixels`` of each class by training image give balanced weights.

    Raises:
        ConfigError: the weights of Cityscapes for other than its 19 classes.
    """
    weights = None
    if config.class_weights == "balanced" and pixels is not None:
        weights = balanced_weights(pixels)
    elif config.class_weights == "cityscapes":
        weights = CITYSCAPES_WEIGHTS
        if len(model.classes) != len(weights):
            raise ConfigError(
                f"class weights 'cityscapes' are for its {len(weights)} classes; the model has {len(model.classes)}. "
                "Use 'balanced' or 'equal'."
            )
    return Criterion(
        config.loss,
        model.classes.ignore_index,
        weights,
        focal_power=config.focal_power,
        hard_below=config.hard_below,
        hard_pixels=config.hard_pixels,
    )


def poly(step: int, *, steps: int, warmup: int = 0, power: float = 0.9, lowest: float = 0.0) -> float:
    """The factor ``(1 - step/steps)^power``, after a linear rise over ``warmup`` steps; it falls to ``lowest``.

    Source: DeepLab, section 4; ``lowest`` as mmengine's PolyLR has it: ``(1 - lowest) × poly + lowest``.
    """
    rise = min(1.0, (step + 1) / (warmup + 1))
    return rise * ((1 - lowest) * max(0.0, 1 - step / steps) ** power + lowest)
