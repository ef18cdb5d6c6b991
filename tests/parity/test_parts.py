"""The authors' attention modules and heads, alone."""

from __future__ import annotations

import fixtures
import pytest
import torch

from regard.blocks import ChannelAttention, ObjectContext, PositionAttention
from regard.checkpoints.create import create
from regard.checkpoints.foreign.danet import DANET
from regard.checkpoints.foreign.rename import Family, rename, spatial_ocr


def worst(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, in units of the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_position_and_channel_attention_and_their_gradients():
    fixture = fixtures.load("official_pam_cam_c64")
    position, channel = PositionAttention(64), ChannelAttention()
    names = {f"{part}_conv": part for part in ("query", "key", "value")} | {"gamma": "gamma"}
    family = Family("pam", "danet", (), names, "")
    position.load_state_dict(rename(fixtures.under("pam.", fixture.state), family)[0])
    channel.load_state_dict(fixtures.under("cam.", fixture.state))
    for case in fixture.cases:
        x = fixture.tensors[f"{case}/input"]
        assert worst(position(x), fixture.tensors[f"{case}/pam"]) <= 2e-6
        assert worst(channel(x), fixture.tensors[f"{case}/cam"]) <= 2e-6
    x = fixture.tensors["case0/input"].clone().requires_grad_()
    (position(x).square().mean() + channel(x).square().mean()).backward()
    theirs = rename(fixtures.under("case0/grad/pam.", fixture.tensors), family)[0]
    pairs = [(x.grad, fixture.tensors["case0/grad_input"])]
    pairs += [(channel.gamma.grad, fixture.tensors["case0/grad/cam.gamma"])]
    pairs += [(dict(position.named_parameters())[name].grad, value) for name, value in theirs.items()]
    assert len(pairs) == 9
    for ours, wanted in pairs:
        # A key's bias moves all energies of a row alike, which a softmax cannot see: its gradient is rounding.
        assert float((ours - wanted).abs().max()) <= 2e-5 * float(wanted.abs().max()) + 1e-7


class Maps(torch.nn.Module):
    """A backbone whose last two maps are its input."""

    def forward(self, deep: torch.Tensor) -> list[torch.Tensor]:
        return [deep, deep]


def test_danet_head():
    fixture = fixtures.load("official_danethead")
    options = {"channels": [16, 32, 64, 128]}
    model = create("danet", classes=list("abcdefg"), backbone="resnet18", width=32, backbone_options=options).eval()
    state, dropped = rename({f"head.{key}": value for key, value in fixture.state.items()}, DANET)
    incompatible = model.load_state_dict(state, strict=False)
    assert incompatible.unexpected_keys == [] and dropped == []
    assert all(name.startswith("backbone.") or "num_batches" in name for name in incompatible.missing_keys)
    model.backbone = Maps()
    for case in fixture.cases:
        with torch.inference_mode():
            ours = model.logits(fixture.tensors[f"{case}/input"], auxiliary=True)
            for name, theirs in fixtures.expected(fixture, case).items():
                assert worst(ours[name], theirs) <= 1e-5


@pytest.mark.parametrize("case", ["case0", "case1"])
def test_object_context(case: str):
    fixture = fixtures.load("official_ocr_modules")
    block = ObjectContext(64, 32).eval()
    table = {old.removeprefix("."): new.removeprefix(".") for old, new in spatial_ocr("", "").items()}
    family = Family("ocr", "ocrnet", (), table, "")
    incompatible = block.load_state_dict(rename(fixtures.under("distri.", fixture.state), family)[0], strict=False)
    assert not incompatible.unexpected_keys and all("num_batches" in name for name in incompatible.missing_keys)
    pixels, regions = fixture.tensors[f"{case}/feats"], fixture.tensors[f"{case}/probs"]
    with torch.inference_mode():
        objects = block.gather(pixels, regions)
        assert worst(objects, fixture.tensors[f"{case}/gather"]) <= 1e-5
        assert worst(block.distribute(pixels, objects), fixture.tensors[f"{case}/object_context"]) <= 1e-5
        assert worst(block(pixels, regions), fixture.tensors[f"{case}/output"]) <= 1e-5
