"""Converting: what is carried over, what is refused and how, and that nothing is lost on the way."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import fixtures
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from regard.checkpoints.file import load, read_header, save
from regard.checkpoints.foreign.convert import convert
from regard.classes import known_classes
from regard.errors import CheckpointError, ClassMismatch, ConfigError, OutputError, UnknownName

NAME = "sssegmentation_danet_r50"  # narrow: it converts in a moment


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return dict(fixtures.load(NAME).state)


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def as_official(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The narrow network under the authors' names."""
    renamed = {}
    heads = {"pam_in_conv": "conv5a", "pam_out_conv": "conv51", "cam_in_conv": "conv5c", "cam_out_conv": "conv52"}
    heads |= {"decoder_pamcam": "conv8", "decoder_pam": "conv6", "decoder_cam": "conv7"}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        if first == "backbone_net":
            rest = rest.replace("stem.7.", "bn1.").replace("stem.", "conv1.")
            renamed[f"pretrained.{rest}"] = value
        elif first in heads:
            renamed[f"head.{heads[first]}.{rest}"] = value
        elif first == "pam_net" and "project" in rest:
            part = rest.split("_")[0]
            renamed[f"head.sa.{part}_conv.weight"] = value
            renamed[f"head.sa.{part}_conv.bias"] = torch.zeros(len(value))
    return renamed | {
        "head.sa.gamma": state["pam_net.gamma.scale"][None],
        "head.sc.gamma": state["cam_net.gamma.scale"][None],
    }


@pytest.mark.parametrize("wrap", ["flat", "state_dict", "model", "module.", "model._orig_mod.", "safetensors"])
def test_every_container_gives_the_same_tensors(wrap: str, state, tmp_path: Path):
    source = tmp_path / ("x.safetensors" if wrap == "safetensors" else "x.pth")
    if wrap == "safetensors":
        save_file(state, source)
    elif wrap.endswith("."):
        saved({"state_dict": {f"{wrap}{key}": value for key, value in state.items()}}, source)
    else:
        saved(state if wrap == "flat" else {wrap: state, "epoch": 3}, source)
    conversion = convert(source, tmp_path / "ours.safetensors")
    plain = convert(saved(state, tmp_path / "plain.pth"), tmp_path / "plain.safetensors")
    ours, wanted = load(conversion.path).state_dict(), load(plain.path).state_dict()
    assert all(torch.equal(ours[key], wanted[key]) for key in wanted) and conversion.tensors == len(wanted)


def test_the_second_set_of_weights_of_mmcvs_ema_is_left_out(state, tmp_path: Path):
    both = state | {f"ema_{key.replace('.', '_')}": value + 1 for key, value in state.items()}
    conversion = convert(saved({"state_dict": both}, tmp_path / "x.pth"), tmp_path / "ours.safetensors")
    plain = convert(saved(state, tmp_path / "plain.pth"), tmp_path / "plain.safetensors")
    ours, wanted = load(conversion.path).state_dict(), load(plain.path).state_dict()
    assert all(torch.equal(ours[key], wanted[key]) for key in wanted)
    assert len(conversion.dropped) == len(plain.dropped) + len(state)
    assert f"{len(state)} tensors ema_* left out: the other set of weights of mmcv's EMAHook" in conversion.notes
    stray = state | {"ema_of_something": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"1 tensors have no place.*ema_of_something"):
        convert(saved(stray, tmp_path / "stray.pth"), tmp_path / "stray.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused_by_name(value: float, state, tmp_path: Path):
    name = next(key for key in state if key.endswith("weight"))
    state[name] = state[name].clone()
    state[name].view(-1)[3] = value
    with pytest.raises(CheckpointError, match=r"x\.pth holds nan or infinity in 1 tensor \(\S+weight\)"):
        convert(saved(state, tmp_path / "x.pth"), tmp_path / "ours.safetensors")
    assert not (tmp_path / "ours.safetensors").exists()


def test_a_converted_file_round_trips_bit_for_bit(state, tmp_path: Path):
    first = load(convert(saved(state, tmp_path / "x.pth"), tmp_path / "first.safetensors").path)
    second = load(save(first, tmp_path / "second.safetensors"))
    headers = [read_header(tmp_path / f"{name}.safetensors") for name in ("first", "second")]
    assert headers[0] == headers[1] and headers[0]["sha256"]
    image = torch.randn(1, 3, 47, 60)
    with torch.inference_mode():
        ours, again = first.outputs(image), second.outputs(image)
    assert all(torch.equal(ours[name], again[name]) for name in ours)


def test_the_card_says_where_it_came_from(state, tmp_path: Path):
    conversion = convert(saved(state, tmp_path / "danet.pth"), tmp_path / "ours.safetensors")
    card = load(conversion.path).card
    assert card.origin.startswith("converted from danet.pth (sssegmentation DANet; SHA-256 ")
    assert "Apache-2.0" in card.licence and card.classes == known_classes("cityscapes")
    assert "regard" in read_header(conversion.path)
    assert "classes: cityscapes, by their number" in conversion.notes


@pytest.mark.parametrize("version", ["0.x", "1.x"])
def test_classes_and_colours_in_the_file_are_carried(version: str, state, tmp_path: Path):
    names, colours = [f"kind {i}" for i in range(19)], [[i, 2 * i, 255 - i] for i in range(19)]
    meta = {"CLASSES": tuple(names), "PALETTE": colours}
    meta = (
        meta
        if version == "0.x"
        else {"dataset_meta": {"classes": names, "palette": colours}, "cfg": "align_corners=True"}
    )
    card = convert(saved({"meta": meta, "model": state}, tmp_path / "x.pth"), tmp_path / "ours.safetensors").card
    assert card.classes.names == tuple(names) and card.classes.palette == tuple(tuple(c) for c in colours)
    assert card.config["align_corners"] == (version == "1.x")


@pytest.mark.parametrize("given", [list("abcdefghijklmnopqrs"), "cityscapes"])
def test_given_classes_win(given, state, tmp_path: Path):
    card = convert(saved(state, tmp_path / "x.pth"), tmp_path / "ours.safetensors", classes=given).card
    assert card.classes.names[0] == ("road" if given == "cityscapes" else "a")


def test_names_of_data_sets_count_only_if_the_number_fits(state, tmp_path: Path):
    for key in [key for key in state if key.startswith("decoder_") or key.startswith("auxiliary_decoder.4")]:
        state[key] = state[key][:6]
    cards = [
        convert(saved(state, tmp_path / f"{name}.pth"), tmp_path / f"{name}.safetensors").card
        for name in ("danet_potsdam", "danet_cityscapes")
    ]
    assert [card.classes.names[0] for card in cards] == ["impervious_surface", "class_0"]


@pytest.mark.parametrize(
    ("content", "file", "stated", "expected"),
    [
        ({}, "danet.pth.tar", {}, None),
        ({}, "danet_multigrid.pth", {}, [4, 8, 16]),
        ({"args": argparse.Namespace(multi_grid=True, multi_dilation=[2, 4, 8])}, "danet.pth", {}, [2, 4, 8]),
        ({"args": argparse.Namespace(multi_grid=False)}, "danet_mg.pth", {}, None),
        ({}, "danet.pth", {"multi_grid": (1, 2, 3)}, [1, 2, 3]),
    ],
)
def test_multi_grid_is_taken_from_what_is_said(content, file: str, stated, expected, state, tmp_path: Path):
    content = {**content, "state_dict": as_official(state), "best_pred": np.float64(0.8), "epoch": 240}
    card = convert(saved(content, tmp_path / file), tmp_path / "ours.safetensors", **stated).card
    assert card.config["multi_grid"] == expected and card.config["align_corners"] is True


def test_the_published_stem_means_multi_grid(state, tmp_path: Path):
    official = {key: value for key, value in as_official(state).items() if not key.startswith("pretrained.conv1")}
    official["pretrained.conv1.weight"] = torch.randn(16, 3, 7, 7)
    with pytest.raises(CheckpointError, match="does not fit danet"):  # a narrow 7x7 stem is not among timm's
        convert(saved(official, tmp_path / "x.pth"), tmp_path / "ours.safetensors")
    wide = official | {"pretrained.conv1.weight": torch.randn(64, 3, 7, 7), "pretrained.fc.weight": torch.randn(10, 9)}
    for key in ("weight", "bias", "running_mean", "running_var"):
        wide[f"pretrained.bn1.{key}"] = torch.ones(64)
    for key in ("conv1.weight", "downsample.0.weight"):
        old = wide[f"pretrained.layer1.0.{key}"]
        wide[f"pretrained.layer1.0.{key}"] = torch.randn(len(old), 64, 1, 1)
    conversion = convert(saved(wide, tmp_path / "y.pth"), tmp_path / "ours.safetensors")
    assert conversion.card.config["multi_grid"] == [4, 8, 16] and conversion.dropped == ("pretrained.fc.weight",)


class Harmful:
    """Reading this back with plain pickle would create a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_file_is_never_run(state, tmp_path: Path):
    marker = tmp_path / "pwned"
    source = saved({"state_dict": state, "meta": Harmful(marker)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"would run code \(posix\.mkdir\).*refused.*torch\.save") as caught:
        convert(source, tmp_path / "ours.safetensors")
    assert not marker.exists() and not (tmp_path / "ours.safetensors").exists()
    assert "\n" not in str(caught.value)


def test_old_pickles_without_torchs_envelope_are_refused_too(tmp_path: Path):
    for protocol, words in ((2, r"would run code \(posix\.mkdir\)"), (4, "broken or no weights file")):
        content = {"state_dict": Harmful(tmp_path / "pwned")}
        (tmp_path / "x.pth").write_bytes(pickle.dumps(content, protocol=protocol))
        with pytest.raises(CheckpointError, match=words) as caught:
            convert(tmp_path / "x.pth", tmp_path / "ours.safetensors")
        assert protocol == 2 or "weights_only" not in str(caught.value)  # torch's advice to read it unsafely
    assert not (tmp_path / "pwned").exists()


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-4096])
    return path


def test_broken_foreign_and_mislabelled_files_give_one_clear_error(state, tmp_path: Path):
    text, pictures = tmp_path / "text.pth", tmp_path / "picture.safetensors"
    text.write_text("not weights")
    pictures.write_bytes(b"\x89PNG\r\n" + bytes(100))
    relabelled = tmp_path / "relabelled.safetensors"
    relabelled.write_bytes(saved(state, tmp_path / "y.pth").read_bytes())
    cases = {
        tmp_path / "missing.pth": "does not exist",
        text: "broken or no weights file",
        pictures: "broken or no weights file",
        relabelled: "broken or no weights file",
        cut(saved(state, tmp_path / "cut.pth")): "broken or no weights file",
        saved({"epoch": 3}, tmp_path / "empty.pth"): "holds no tensors",
        saved([1, 2], tmp_path / "list.pth"): "holds a list",
        saved(
            {"layer.weight": torch.ones(3)}, tmp_path / "other.pth"
        ): r"of no family.*layer\.weight.*Known: mmseg DANet",
    }
    for source, words in cases.items():
        with pytest.raises(CheckpointError, match=words) as caught:
            convert(source, tmp_path / "ours.safetensors")
        assert "\n" not in str(caught.value) and not (tmp_path / "ours.safetensors").exists()


def test_tensors_too_many_too_few_or_misshapen_are_named(state, tmp_path: Path):
    wrong = {
        "one more": (state | {"extra.thing": torch.ones(2)}, r"1 tensors have no place .*: extra\.thing\."),
        "one less": (
            {k: v for k, v in state.items() if k != "cam_out_conv.0.weight"},
            r"1 missing \(channel\.2\.0\.weight",
        ),
        "reshaped": (
            state | {"cam_out_conv.0.weight": torch.ones(64, 64, 1, 1)},
            r"channel\.2\.0\.weight is \(64, 64, 1, 1\)",
        ),
        "no stage": ({k: v for k, v in state.items() if ".layer4." not in k}, r"\(3, 4, 6, 0\) residual blocks"),
    }
    for name, (tensors, words) in wrong.items():
        with pytest.raises(CheckpointError, match=words):
            convert(saved(tensors, tmp_path / f"{name}.pth"), tmp_path / "ours.safetensors")
        assert not (tmp_path / "ours.safetensors").exists()


def test_other_refusals(state, tmp_path: Path):
    source = saved(state, tmp_path / "x.pth")
    with pytest.raises(ClassMismatch, match=r"2 classes given, but x\.pth has 19 outputs"):
        convert(source, tmp_path / "ours.safetensors", classes=["a", "b"])
    with pytest.raises(UnknownName, match="no class list 'city'"):
        convert(source, tmp_path / "ours.safetensors", classes="city")
    with pytest.raises(ConfigError, match="no_such"):
        convert(source, tmp_path / "ours.safetensors", no_such=1)
    with pytest.raises(ConfigError, match=r"saved as one \.safetensors"):
        convert(source, tmp_path / "ours.pth")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        convert(source, tmp_path / "file" / "ours.safetensors")


def test_a_card_with_another_number_of_classes_than_the_weights_is_refused(state, tmp_path: Path):
    model = load(convert(saved(state, tmp_path / "x.pth"), tmp_path / "ours.safetensors").path)
    model.card = model.card.model_copy(update={"classes": known_classes("voc")})
    with pytest.raises(
        CheckpointError, match=r"auxiliary\.2\.bias is \(19,\), expected \(21,\).*card and weights disagree"
    ):
        load(save(model, tmp_path / "wrong.safetensors"))


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("cityscapes", 19, ("road", (128, 64, 128)), ("bicycle", (119, 11, 32))),
        ("ade20k", 150, ("wall", (120, 120, 120)), ("flag", (92, 0, 255))),
        ("voc", 21, ("background", (0, 0, 0)), ("tvmonitor", (0, 64, 128))),
        ("pascal_context_59", 59, ("aeroplane", (180, 120, 120)), None),
        ("pascal_context_60", 60, ("background", (120, 120, 120)), None),
        ("coco_stuff", 171, ("person", (0, 192, 64)), None),
        ("loveda", 7, ("background", (255, 255, 255)), ("agricultural", (255, 195, 128))),
        ("potsdam", 6, ("impervious_surface", (255, 255, 255)), ("clutter", (255, 0, 0))),
        ("vaihingen", 6, ("impervious_surface", (255, 255, 255)), ("clutter", (255, 0, 0))),
    ],
)
def test_known_class_lists(name: str, count: int, first, last):
    classes = known_classes(name)
    assert len(classes) == count and (classes.names[0], classes.palette[0]) == first
    assert last is None or (classes.names[-1], classes.palette[-1]) == last
