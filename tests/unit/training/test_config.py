"""Settings of a training run: what is refused, and that the message names it."""

from __future__ import annotations

from typing import Any

import pytest

from regard.errors import ConfigError
from regard.training.config import TrainConfig

DEFAULTS = {
    **{"steps": 20_000, "epochs": None, "batch": 8, "optimizer": "adamw", "learning_rate": 1e-3, "backbone_rate": 0.1},
    **{"layer_decay": 1.0, "weight_decay": 0.01, "warmup": 50, "power": 0.9, "lowest_rate": 0.0, "ema": 0.99},
    **{"loss": "ce", "class_weights": "equal", "focal_power": 2.0, "hard_below": 0.9, "hard_pixels": 131_072},
    **{"freeze": "nothing", "crop": 512, "crop_width": None, "scale": (0.5, 2.0), "flip": True, "rot90": False},
    **{"colour": 0.3, "blur": 0.0, "class_ratio": 1.0, "balance": 0.0, "band_jitter": 0.0, "band_dropout": 0.0},
    **{"evaluate_every": 500, "patience": 0, "window": None, "seed": 0, "workers": 1, "devices": 1, "precision": "32"},
    **{"recompute": False, "on_bad_image": "stop", "origin": None, "licence": None, "credit": None},
    "log": ("tensorboard",),
}


def test_defaults_hold_and_every_setting_is_explained():
    config = TrainConfig.of()
    assert all(field.description for field in TrainConfig.model_fields.values())
    assert config.model_dump() == DEFAULTS, "whoever trains with other numbers than before must be told"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.1}, "no setting 'lr'. Settings: steps, epochs, batch"),
        ({"learning_rat": 0.1}, "no setting 'learning_rat'"),
        ({"steps": 0}, "steps: .* got 0"),
        ({"batch": -1}, "batch: .* got -1"),
        ({"crop": 16}, "crop: .* got 16"),
        ({"crop": "big"}, "crop: .* got 'big'"),
        ({"learning_rate": 0}, "learning_rate: .* got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: .* got nan"),
        ({"optimizer": "adam"}, "optimizer: .* got 'adam'"),
        ({"precision": "8"}, "precision: .* got '8'"),
        ({"scale": (2.0, 0.5)}, "two rising numbers from"),
        ({"scale": (0.0, 1.0)}, "two rising numbers from"),
        ({"scale": (1.0, 1e300)}, "two rising numbers from"),
        ({"learning_rate": float("inf")}, "learning_rate: .* got inf"),
        ({"steps": 10**30}, "steps: .*at most"),
        ({"warmup": 10**400}, "warmup: .*at most"),
        ({"batch": 10**30}, "batch: .*65536"),
        ({"crop": 10**30}, "crop: .*65536"),
        ({"workers": 10**30}, "workers: .*1024"),
        ({"ema": 1.0}, "ema: .* got 1.0"),
        ({"average": 0.9}, "the training setting 'average' is now 'ema'"),
        ({"overhead": True}, "the training setting 'overhead' is now 'rot90'"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        TrainConfig.of(**settings)
    assert "\n" not in str(caught.value)
