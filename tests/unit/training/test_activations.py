"""The same gradients and statistics from fewer kept activations."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from regard.checkpoints.file import load
from regard.datasets.labelled_data import LabelledData
from regard.training.activations import lean, residual_blocks
from regard.training.train import train
from support import tiny


def step(backbone: str, recompute: bool | None) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients and buffers after one forward and backward pass, and the bytes that autograd kept in between."""
    model = tiny("danet", backbone=backbone, output_stride=8).train()
    kept: dict[int, int] = {}
    weights = {parameter.data_ptr() for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(7)
    image = torch.randn(2, 3, 64, 64)
    with nullcontext() if recompute is None else lean(model.backbone, recompute=recompute):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(image).square().mean()
        loss.backward()
    assert not any("forward" in vars(module) for module in model.modules())
    found = {name: value for name, value in model.named_parameters() if value.grad is not None}
    return {name: value.grad for name, value in found.items()} | dict(model.named_buffers()), sum(kept.values())


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet18"])
def test_less_is_kept_and_nothing_else_changes(backbone: str):
    plain, most = step(backbone, None)
    for recompute, at_most in ((False, 0.9 if "lite" in backbone else 1.0), (True, 0.5)):
        found, kept = step(backbone, recompute)
        assert found.keys() == plain.keys() and all(torch.equal(value, plain[name]) for name, value in found.items())
        assert kept <= at_most * most, (recompute, kept / most)


def test_blocks_are_the_innermost_with_two_convolutions():
    def block() -> nn.Module:
        return nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), nn.Conv2d(1, 1, 1))

    stages = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(block(), block()))
    assert residual_blocks(stages) == [stages[1][0], stages[1][1]]


def test_a_training_with_recompute_ends_with_the_same_weights(toy: LabelledData, tmp_path: Path):
    for name, recompute in (("plain", False), ("again", True)):
        settings = {"steps": 3, "batch": 2, "crop": 32, "workers": 0, "log": ("none",), "recompute": recompute}
        train(tiny(), toy, tmp_path / name, progress=False, **settings)
    plain, again = (load(tmp_path / name / "last.safetensors").state_dict() for name in ("plain", "again"))
    assert all(torch.equal(value, again[name]) for name, value in plain.items())
