"""Settings of a training run: what is refused, and that the message names it."""

from __future__ import annotations

from typing import Any

import pytest

from regard.errors import ConfigError
from regard.training.config import TrainConfig


def test_defaults_hold_and_every_setting_is_explained():
    config = TrainConfig.of()
    assert (config.steps, config.batch, config.crop, config.seed) == (20_000, 8, 512, 0)
    assert all(field.description for field in TrainConfig.model_fields.values())


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
        ({"scale": (2.0, 0.5)}, "two rising numbers above 0"),
        ({"scale": (0.0, 1.0)}, "two rising numbers above 0"),
        ({"ema": 1.0}, "ema: .* got 1.0"),
        ({"average": 0.9}, "the training setting 'average' is now 'ema'"),
        ({"overhead": True}, "the training setting 'overhead' is now 'rot90'"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        TrainConfig.of(**settings)
    assert "\n" not in str(caught.value)
