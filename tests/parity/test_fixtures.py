"""The authors' own programs against ours, through the file that their program saves."""

from __future__ import annotations

from pathlib import Path

import fixtures
import pytest
import torch
import torch.nn.functional as F

from regard.checkpoints.file import load
from regard.checkpoints.foreign.convert import FAMILIES, convert
from regard.checkpoints.foreign.rename import translate
from regard.models import Segmenter

NAMES = (*fixtures.FULL, *fixtures.SSSEG, *fixtures.NARROW)


def fixture_or_skip(name: str) -> fixtures.Fixture:
    if fixtures.available(name) is None:
        pytest.skip(f"fixture {name} is not in this clone, and ../shared is absent")
    return fixtures.load(name)


def converted(fixture: fixtures.Fixture, folder: Path, **config: object) -> Segmenter:
    return load(convert(fixtures.save(fixture, folder), folder / "ours.safetensors", **config).path)


LARGE = [pytest.param(name, marks=pytest.mark.slow) if name.endswith("_full") else name for name in NAMES]


@pytest.mark.parametrize("name", LARGE)
def test_every_output_is_that_of_the_authors_program(name: str, tmp_path: Path):
    fixture = fixture_or_skip(name)
    model = converted(fixture, tmp_path)
    rows = [row for case in fixture.cases for row in fixtures.compare(model, fixture, case)]
    assert len(rows) >= 2 * len(fixtures.expected(fixture, "case0"))
    assert [row for row in rows if not row.difference <= row.tolerance] == []


@pytest.mark.parametrize("name", fixtures.SSSEG)
def test_forward_gives_the_main_output(name: str, tmp_path: Path):
    fixture = fixture_or_skip(name)
    model, image = converted(fixture, tmp_path), fixture.tensors["case0/input"][:1, :, :50, :57]
    with torch.inference_mode():
        torch.testing.assert_close(model(image), model.outputs(image)["main"], rtol=0, atol=0)


@pytest.mark.parametrize("name", fixtures.NARROW)
def test_training_losses_and_gradients_are_those_of_the_authors_program(name: str, tmp_path: Path):
    fixture = fixture_or_skip(name)
    losses, gradients = training_step(fixture, tmp_path, torch.float32)
    _, exact = training_step(fixture, tmp_path, torch.float64)
    peer = {key: value for key, value in fixture.meta["train_losses"].items() if key.endswith("loss_ce")}
    assert sorted(losses) == pytest.approx(sorted(peer.values()), rel=2e-5)
    noise = abs(norm(gradients) - norm(exact))
    assert norm(gradients) == pytest.approx(fixture.meta["train_total_grad_norm"], rel=1e-5, abs=10 * noise)
    family = next(family for family in FAMILIES if family.fits(fixture.state))
    for key, wanted in fixtures.under("train/grad/", fixture.tensors).items():
        ours, exactly = (found[translate(key, family.table)].reshape(wanted.shape) for found in (gradients, exact))
        # Batch norm over few pixels blows rounding up: it is measured, as the distance to our own float64.
        rounding = float((ours - exactly).abs().max())
        assert float((ours - wanted).abs().max()) <= 10 * rounding + 1e-5 * float(wanted.abs().max()), key


def training_step(
    fixture: fixtures.Fixture, folder: Path, dtype: torch.dtype
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The weighted cross-entropy of every output in training mode without dropout, and the gradients of their sum."""
    dropout = {"dropout": 0.0} | ({} if "danet" in fixture.name else {"regions_dropout": 0.0})
    model = converted(fixture, folder, **dropout).train().to(dtype)
    outputs = model.outputs(fixture.tensors["train/input"].to(dtype))
    assert outputs.keys() == model.loss_weights.keys()
    target = fixture.tensors["train/target"].squeeze(1).long()
    losses = [model.loss_weights[key] * F.cross_entropy(outputs[key], target, ignore_index=255) for key in outputs]
    torch.stack(losses).sum().backward()
    return [loss.item() for loss in losses], {key: value.grad for key, value in model.named_parameters()}


def norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt())
