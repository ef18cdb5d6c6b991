"""A new model's scaling: photographs' where it sees photographs' bands, else left to be measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from regard.card import Card
from regard.checkpoints.create import band_names, build, create
from regard.checkpoints.file import load, save
from regard.errors import BandMismatch, CheckpointError, ConfigError
from regard.models import Segmenter
from support import NAMES, tiny


@pytest.mark.parametrize("bands", [None, ("red", "green", "blue")])
def test_photographs_are_scaled_as_the_backbones_weights_were(bands: tuple[str, ...] | None):
    card = create("danet", classes=NAMES, backbone="test_resnet", width=16, bands=bands).card
    assert list(card.mean) == list(timm.create_model("test_resnet").default_cfg["mean"])


@pytest.mark.parametrize("bands", [("vv", "vh", "dem"), ("blue", "green", "red"), ("near infrared",)])
def test_other_bands_wait_to_be_measured(bands: tuple[str, ...]):
    card = create("danet", classes=NAMES, backbone="test_resnet", width=16, in_channels=len(bands), bands=bands).card
    assert not any(card.mean) and set(card.std) == {1.0}


@pytest.mark.parametrize("channels", [0, -1])
def test_a_network_sees_one_band_at_least(channels: int):
    with pytest.raises(BandMismatch, match=f"in_channels={channels}"):
        create("danet", classes=NAMES, backbone="test_resnet", in_channels=channels)


def test_the_same_model_is_saved_in_the_same_bytes(tmp_path):
    """safetensors writes metadata in an order that changes from file to file."""
    model = tiny(classes=("Straße", 'a "quoted" name', "back\\slash"))
    first, *others = (save(model, tmp_path / f"{number}.safetensors").read_bytes() for number in range(12))
    assert all(other == first for other in others)
    assert load(tmp_path / "3.safetensors").classes == model.classes


def test_a_device_that_is_not_there(tmp_path):
    path = save(tiny(), tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match=r"device 'abacus' cannot be used \(.*Choose cpu"):
        load(path, device="abacus")
    assert next(load(path, device="cpu").parameters()).device.type == "cpu"


def test_pretrained_is_a_name_a_truth_value_or_a_file(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def record(card: Card, *, pretrained: bool | str | Path) -> Segmenter:
        asked.append(pretrained)
        return build(card)

    monkeypatch.setattr("regard.checkpoints.create.build", record)
    for pretrained in (False, "none", True, "imagenet", "weights.pth", Path("weights.pth")):
        create("danet", classes=NAMES, backbone="test_resnet", pretrained=pretrained)
    assert asked == [False, False, True, True, "weights.pth", Path("weights.pth")]


def test_pretrained_weights_of_a_compiled_backbone_in_a_wrapper_and_broken_ones(tmp_path: Path):
    weights = {
        f"module._orig_mod.{name}": value for name, value in timm.create_model("test_resnet").state_dict().items()
    }
    torch.save(weights, tmp_path / "w.pth")
    model = create("danet", classes=NAMES, backbone="test_resnet", pretrained=tmp_path / "w.pth")
    name = "conv1.0.weight"
    assert torch.equal(model.backbone.state_dict()[name], weights[f"module._orig_mod.{name}"])
    weights[f"module._orig_mod.{name}"] *= torch.nan
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth holds nan or infinity in 1 tensor \(conv1\.0\.weight\)"):
        create("danet", classes=NAMES, backbone="test_resnet", pretrained=tmp_path / "w.pth")


@pytest.mark.parametrize(("share", "fits"), [(0.8, False), (0.95, True)])
def test_nine_in_ten_of_a_backbones_pretrained_tensors_must_be_there(share: float, fits: bool, tmp_path: Path):
    whole = timm.create_model("test_resnet", features_only=True).state_dict()
    torch.save(dict(list(whole.items())[: int(share * len(whole))]), tmp_path / "w.pth")
    ask = {"classes": NAMES, "backbone": "test_resnet", "output_stride": None, "pretrained": tmp_path / "w.pth"}
    if fits:
        name = next(iter(whole))
        assert torch.equal(create("danet", **ask).backbone.state_dict()[name], whole[name])
    else:
        with pytest.raises(
            CheckpointError, match=r"w\.pth does not fit backbone test_resnet: it holds \d+ of \d+ tensors"
        ):
            create("danet", **ask)


def test_the_card_holds_imagenets_statistics_and_every_setting():
    with torch.device("meta"):
        card = create("danet", classes=NAMES, backbone="resnet18").card
    assert (card.mean, card.std, card.divisor) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 255.0)
    assert card.config == {
        **{"backbone": "resnet18", "output_stride": 8, "align_corners": False, "multi_grid": None},
        **{"backbone_options": {}, "width": None, "reduction": 8, "dropout": 0.1},
        **{"auxiliary": False, "auxiliary_width": None},
    }


def test_hrnet_keeps_its_own_stride():
    with torch.device("meta"):
        model = create("ocrnet", classes=NAMES, backbone="hrnet_w18")
    assert model.config.output_stride is None and model.stride == 4


def test_bands_are_named_or_numbered():
    assert band_names(3, None) == ("red", "green", "blue") and band_names(2, None) == ("band_1", "band_2")
    assert band_names(3, ["a", "b"]) == ("a", "b") and band_names(2, ["a", "b"]) == ("a", "b")
    with pytest.raises(BandMismatch, match=r"^2 band names \(a, b\) but in_channels=4"):
        band_names(4, ["a", "b"])
    with pytest.raises(BandMismatch, match="one band at least"):
        band_names(3, ())
