"""The authors' training recipes as data: each fills the settings that a user leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from regard.errors import unknown
from regard.training.config import TrainConfig


class Recipe(NamedTuple):
    """A network, its settings and its training; where it is from, what it gave there, and what is not as there."""

    architecture: str
    backbone: str
    config: dict[str, Any]
    settings: dict[str, Any]
    source: str
    published: str
    differs: str
    ours: str = "not yet run"


# Source: HRNet-Semantic-Segmentation, lib/datasets/cityscapes.py.
CITYSCAPES_WEIGHTS = (
    *(0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
    *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)
PLAIN = {
    "optimizer": "sgd",
    "warmup": 0,
    "average": 0.0,
    "colour": 0.0,
    "power": 0.9,
    "scale": (0.5, 2.0),
    "flip": True,
}
WIDE = {"crop": 512, "crop_width": 1024}
DANET = {**PLAIN, "backbone_rate": 0.1, "weight_decay": 1e-4}
MMSEG = {
    **PLAIN,
    "class_ratio": 0.75,
    "learning_rate": 0.01,
    "backbone_rate": 1.0,
    "weight_decay": 5e-4,
    "lowest_rate": 1e-4,
    "colour": 0.3,
}
HRNET = {**PLAIN, "backbone_rate": 1.0}
MMSEG_DIFFERS = "colour as ours, not PhotoMetricDistortion; warm-up none"

RECIPES: dict[str, Recipe] = {
    "default": Recipe(
        "danet_ocr",
        "resnet50",
        {},
        {},
        "regard: AdamW, heads 10 times the backbone's rate, warm-up, poly 0.9 a step, averaged weights",
        "none",
        "nothing",
        ours="docs/results.md",
    ),
    "danet-cityscapes": Recipe(
        "danet",
        "resnet101",
        {"multi_grid": (4, 8, 16)},
        {**DANET, "learning_rate": 0.03, "batch": 8, "crop": 768, "scale": (0.75, 2.0), "steps": 89_250},
        "DANet, commit 042693a: --lr 0.003 and heads x10, 240 epochs of 2975 images, crop 768",
        "Cityscapes val 79.93 (flip), 81.49 (scales and flip)",
        "scale is drawn evenly in its logarithm",
    ),
    "danet-pascal-context": Recipe(
        "danet",
        "resnet101",
        {"multi_grid": (4, 8, 16)},
        {**DANET, "learning_rate": 0.04, "batch": 16, "crop": 480, "steps": 24_990},
        "DANet at its head: 0.004 x batch / 16 and heads x10, 80 epochs of 4998 images, long side 0.5 to 2 times 520",
        "PASCAL-Context, 60 classes: 52.6 (paper, scales and flip)",
        "scale is relative to the image's own size",
    ),
    "mmseg-40k": Recipe(
        "danet",
        "resnet50",
        {},
        {**MMSEG, **WIDE, "batch": 8, "steps": 40_000},
        "mmsegmentation 1.2.2, danet_r50-d8_4xb2-40k_cityscapes-512x1024",
        "Cityscapes val 78.74 (DANet R50), 80.52 (DANet R101), 80.09 (OCRNet R101)",
        MMSEG_DIFFERS,
    ),
    "mmseg-80k": Recipe(
        "danet",
        "resnet50",
        {},
        {**MMSEG, **WIDE, "batch": 8, "steps": 80_000},
        "mmsegmentation 1.2.2, danet_r50-d8_4xb2-80k_cityscapes-512x1024",
        "Cityscapes val 79.34 (DANet R50), 80.41 (DANet R101)",
        MMSEG_DIFFERS,
    ),
    "mmseg-ade20k-80k": Recipe(
        "danet",
        "resnet50",
        {},
        {**MMSEG, "crop": 512, "batch": 16, "steps": 80_000},
        "mmsegmentation 1.2.2, danet_r50-d8_4xb4-80k_ade20k-512x512",
        "ADE20K val 41.66, 42.90 (scales and flip)",
        MMSEG_DIFFERS,
    ),
    "mmseg-ocrnet-hr48-160k": Recipe(
        "ocrnet",
        "hrnet_w48",
        {},
        {**MMSEG, **WIDE, "batch": 8, "steps": 160_000},
        "mmsegmentation 1.2.2, ocrnet_hr48_4xb2-160k_cityscapes-512x1024",
        "Cityscapes val 81.35, 82.70 (scales and flip)",
        MMSEG_DIFFERS,
    ),
    "hrnet-ocr-cityscapes": Recipe(
        "ocrnet",
        "hrnet_w48",
        {"align_corners": True},
        {
            **HRNET,
            **WIDE,
            "learning_rate": 0.01,
            "weight_decay": 5e-4,
            "batch": 12,
            "steps": 119_991,
            "class_weights": "cityscapes",
        },
        "HRNet-Semantic-Segmentation, branch HRNet-OCR: 484 epochs of 2975 images",
        "Cityscapes val 81.6 (one scale, no flip), test 82.3",
        "scale is drawn evenly in its logarithm between 0.5 and 2.0, theirs in 17 steps from 0.5 to 2.1",
    ),
    "hrnet-ocr-ade20k": Recipe(
        "ocrnet",
        "hrnet_w48",
        {"align_corners": True},
        {
            **HRNET,
            "crop": 520,
            "learning_rate": 0.02,
            "weight_decay": 1e-4,
            "batch": 16,
            "steps": 151_575,
            "loss": "ohem",
            "hard_below": 0.9,
            "hard_pixels": 131_072,
        },
        "HRNet-Semantic-Segmentation, branch HRNet-OCR: 120 epochs of 20 210 images, OHEM on the main output",
        "ADE20K val 44.5, 45.5 (scales and flip)",
        "the pixels of ohem are counted over the whole batch, theirs on each GPU",
    ),
    "openseg-ocr-cityscapes": Recipe(
        "ocrnet",
        "resnet101",
        {"align_corners": True},
        {
            **HRNET,
            **WIDE,
            "learning_rate": 0.01,
            "weight_decay": 5e-4,
            "batch": 8,
            "steps": 40_000,
            "class_weights": "cityscapes",
        },
        "openseg.pytorch, R_101_D_8: OCR, 40k steps",
        "Cityscapes val 79.63 (one scale)",
        "no change of aspect by 0.9 to 1.1, no brightness of 10 grey levels",
    ),
}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UnknownName: there is none of that name.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def with_recipe(name: str, given: Mapping[str, Any]) -> TrainConfig:
    """The recipe's settings, and over them those that were given.

    Raises:
        UnknownName: there is no such recipe.
        ConfigError: an unknown setting, or the two together are impossible.
    """
    return TrainConfig.of(**{**recipe(name).settings, **given})
