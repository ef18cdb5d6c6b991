"""The rates at which the parts of a network learn."""

from __future__ import annotations

import pytest
import timm

from regard.training.config import TrainConfig
from regard.training.optimizer import optimizer_of, stages_of
from support import tiny


@pytest.mark.parametrize(
    ("name", "stages"),
    [("tf_efficientnet_lite0", 9), ("resnet18", 6), ("convnext_atto", 6), ("vit_tiny_patch16_224", 16)],
)
def test_every_parameter_of_a_backbone_is_in_one_stage_in_order(name: str, stages: int):
    backbone = timm.create_model(name, features_only=not name.startswith("vit"))
    parts = stages_of(backbone)
    assert len(parts) == stages
    listed = [id(parameter) for part in parts for parameter in part]
    assert sorted(listed) == sorted(map(id, backbone.parameters())) and len(set(listed)) == len(listed)


def test_each_stage_learns_at_its_share_of_the_next_ones_rate():
    model = tiny()
    settings = {"learning_rate": 1e-2, "backbone_rate": 0.5, "warmup": 0}
    plain, _ = optimizer_of(model, TrainConfig.of(**settings))
    assert [group["lr"] for group in plain.param_groups] == pytest.approx([5e-3, 1e-2])
    decayed, schedule = optimizer_of(model, TrainConfig.of(**settings, layer_decay=0.8))
    count = len(stages_of(model.backbone))
    expected = [5e-3 * 0.8 ** (count - 1 - stage) for stage in range(count)] + [1e-2]
    assert count > 2 and schedule.get_last_lr() == pytest.approx(expected)
    sizes = [sum(p.numel() for group in one.param_groups for p in group["params"]) for one in (plain, decayed)]
    assert sizes[0] == sizes[1] == sum(parameter.numel() for parameter in model.parameters())
