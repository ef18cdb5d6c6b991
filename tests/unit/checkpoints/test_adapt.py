"""What another class list and other bands take over from a trained model, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regard.checkpoints.adapt import adapt
from regard.checkpoints.file import save
from regard.classes import ClassMap
from support import NAMES, tiny

RGB = ("red", "green", "blue")


@pytest.mark.parametrize("architecture", ["danet", "ocrnet", "danet_ocr"])
def test_rows_follow_their_class_by_name(architecture: str, tmp_path: Path):
    old = tiny(architecture)
    save(old, tmp_path / "old.safetensors")
    names = ["blue thing", "new thing", "red thing", "other thing"]
    model, notes = adapt(tmp_path / "old.safetensors", classes=ClassMap.of(names), bands=RGB)
    before, after = old.state_dict(), model.state_dict()
    changed = [name for name in before if before[name].shape != after[name].shape]
    assert any(name.endswith("weight") for name in changed) and len(changed) >= 4
    for name in before:
        if name not in changed:
            assert torch.equal(before[name], after[name]), name
            continue
        for row, known in ((0, 2), (2, 0)):
            assert torch.equal(after[name][row], before[name][known])
        assert not any(torch.equal(after[name][1], before[name][known]) for known in range(3))
    said = "\n".join(notes)
    assert notes[0] == f"old.safetensors: {len(before) - len(changed)} of {len(before)} tensors kept as they are"
    assert f"rows of {len(changed)} tensors" in said and all(name in said for name in changed)
    assert "classes kept: blue thing, red thing" in said and "re-initialised: new thing, other thing" in said
    assert "left out: green thing" in said


def test_the_same_classes_in_another_order_answer_in_that_order(tmp_path: Path):
    old = tiny("ocrnet")
    save(old, tmp_path / "old.safetensors")
    order = [2, 0, 1]
    model, _ = adapt(tmp_path / "old.safetensors", classes=ClassMap.of([NAMES[i] for i in order]), bands=RGB)
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model.eval()(image), old(image)[:, order], rtol=1e-4, atol=1e-4)


def test_the_same_classes_and_bands_are_the_same_model(tmp_path: Path):
    old = tiny()
    save(old, tmp_path / "old.safetensors")
    model, notes = adapt(tmp_path / "old.safetensors", classes=old.classes, bands=old.bands)
    count = len(old.state_dict())
    assert notes == (f"old.safetensors: {count} of {count} tensors kept as they are",)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in old.state_dict().items())
    assert model.card.mean == old.card.mean


def test_bands_are_inflated_by_name(tmp_path: Path):
    old = tiny()
    save(old, tmp_path / "old.safetensors")
    bands = ("nir", "red", "green", "blue", "swir")
    model, notes = adapt(tmp_path / "old.safetensors", classes=old.classes, bands=bands)
    before, after = old.state_dict(), model.state_dict()
    (name,) = [name for name in before if before[name].shape != after[name].shape]
    torch.testing.assert_close(after[name][:, 1:4], before[name] * 3 / 5)
    torch.testing.assert_close(after[name][:, 0], before[name].mean(dim=1) * 3 / 5)
    torch.testing.assert_close(after[name].sum(dim=1), before[name].sum(dim=1))  # a grey image is felt as before
    assert model.bands == bands and not any(model.card.mean)
    assert notes[1:] == ("bands kept: red, green, blue; from the mean of red, green, blue: nir, swir",)
    turned, _ = adapt(tmp_path / "old.safetensors", classes=old.classes, bands=RGB[::-1])
    assert turned.card.mean == old.card.mean[::-1]
    torch.testing.assert_close(turned.state_dict()[name], before[name].flip(1))


def test_known_classes_keep_their_colours_unless_the_data_give_some(tmp_path: Path):
    old = ClassMap(names=("other", "roof"), palette=((1, 2, 3), (220, 20, 60)))
    path = save(tiny(classes=old), tmp_path / "old.safetensors")
    kept = adapt(path, classes=ClassMap.of(["roof", "tree"]), bands=RGB).model.card.classes
    assert kept.palette[0] == (220, 20, 60) and kept.palette[1] == ClassMap.of(["roof", "tree"]).palette[1]
    given = ClassMap(names=("roof", "tree"), palette=((9, 9, 9), (8, 8, 8)))
    assert adapt(path, classes=given, bands=RGB).model.card.classes == given


def with_data(path: Path) -> Path:
    """A saved model whose bands have statistics of their own, trained on something."""
    model = tiny()
    own = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "origin": "a city", "licence": "CC BY 4.0", "credit": "us"}
    scored = {"scores": {"miou": 0.7}, "protocol": "val", "window": 256, "ground_resolution": 0.3}
    return save(model.with_card(model.card.model_copy(update=own | scored)), path)


@pytest.mark.parametrize(
    ("bands", "mean", "std"),
    [
        (("blue", "red", "green"), (0.3, 0.1, 0.2), (0.6, 0.4, 0.5)),
        (("green", "blue"), (0.2, 0.3), (0.5, 0.6)),
        (("red", "nir"), (0.0, 0.0), (1.0, 1.0)),
    ],
)
def test_known_bands_keep_their_statistics(bands: tuple[str, ...], mean: tuple, std: tuple, tmp_path: Path):
    source = with_data(tmp_path / "old.safetensors")
    card = adapt(source, classes=ClassMap.of(NAMES), bands=bands).model.card
    assert (card.bands, card.mean, card.std) == (bands, mean, std)


def test_nothing_is_said_of_the_old_data_and_given_settings_count(tmp_path: Path):
    source = with_data(tmp_path / "old.safetensors")
    card = adapt(source, classes=ClassMap.of(NAMES), bands=RGB, align_corners=True).model.card
    assert card == card.without_data() and (card.origin, card.scores, card.ground_resolution) == ("", {}, None)
    assert (card.mean, card.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert card.config["align_corners"] is True
