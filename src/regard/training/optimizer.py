"""What a run optimises and how: the loss, the frozen parts, the optimizer and its learning rates."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from regard.datasets.statistics import balanced_weights
from regard.errors import ConfigError
from regard.models import Segmenter
from regard.models.any_size import network_of
from regard.ops.losses import Criterion
from regard.training.config import TrainConfig

STAGE_LISTS = ("blocks", "stages", "layers")  # children of timm's backbones that hold the stages
# Source: HRNet-Semantic-Segmentation, lib/datasets/cityscapes.py.
CITYSCAPES_WEIGHTS = (
    *(0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
    *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)


def optimizer_of(
    model: Segmenter, config: TrainConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimizer and its schedule by step.

    Its parameter groups are the backbone's parameters (by stage, where their rates differ), then the heads'.
    """
    rate, backbone = config.learning_rate * config.backbone_rate, network_of(model.backbone)
    stages = [list(backbone.parameters())] if config.layer_decay == 1 else stages_of(backbone)
    in_backbone = {id(parameter) for parameter in backbone.parameters()}
    heads = [parameter for parameter in model.parameters() if id(parameter) not in in_backbone]
    rates = [*(rate * config.layer_decay**above for above in reversed(range(len(stages)))), config.learning_rate]
    trained = [[parameter for parameter in part if parameter.requires_grad] for part in (*stages, heads)]
    pairs = [(part, rate) for part, rate in zip(trained, rates, strict=True) if part]
    groups = [{"params": part, "lr": rate} for part, rate in pairs]
    make: Any = partial(torch.optim.SGD, momentum=0.9) if config.optimizer == "sgd" else torch.optim.AdamW
    optimizer = make(groups, weight_decay=config.weight_decay)
    factor = partial(poly, steps=config.steps, warmup=config.warmup, power=config.power)
    lowest = [min(1.0, config.lowest_rate / rate) if rate else 0.0 for _, rate in pairs]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, [partial(factor, lowest=low) for low in lowest])


def stages_of(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a backbone of timm, stage by stage.

    First its own (position embeddings), then those of its children, or of theirs where a child lists the stages.
    """
    backbone = getattr(backbone, "model", backbone)  # timm's getter of maps holds the network so
    stages = [list(backbone.parameters(recurse=False))]
    for name, child in backbone.named_children():
        stages += [list(part.parameters()) for part in (child.children() if name in STAGE_LISTS else [child])]
    return [stage for stage in stages if stage]


def freeze(model: Segmenter, what: Literal["nothing", "norms", "backbone"]) -> list[nn.Module]:
    """Stop the gradients of the backbone or of its batch norms; the modules that must stay in evaluation mode."""
    if what == "nothing":
        return []
    backbone = network_of(model.backbone)
    norms: list[nn.Module] = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    frozen = norms if what == "norms" else [backbone]
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def criterion_of(model: Segmenter, config: TrainConfig, pixels: Int[np.ndarray, "i k"] | None) -> Criterion:
    """The loss that the settings name; ``pixels`` of each class by training image give balanced weights.

    The weights of Cityscapes for other than its 19 classes are a ConfigError.
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
    """The factor of the learning rate: ``(1 - step/steps)^power`` after a linear warm-up; it falls to ``lowest``.

    Source: DeepLab, section 4; ``lowest`` as mmengine's PolyLR has it: ``(1 - lowest) × poly + lowest``.
    """
    rise = min(1.0, (step + 1) / (warmup + 1))
    return rise * ((1 - lowest) * max(0.0, 1 - step / steps) ** power + lowest)
