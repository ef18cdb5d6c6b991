"""A model as one file: what is stored, what is refused, and how it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from regard.checkpoints.file import find, fit, load, load_to_predict, read_header, save
from regard.checkpoints.hub import readme
from regard.errors import CheckpointError, ConfigError, UnknownName
from regard.files import digest
from regard.options import Compute
from regard.tensor_files import read_tensors, write_tensors
from support import tiny


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save(tiny("danet", width=8), tmp_path / "model.safetensors")


def test_it_comes_back_ready_to_predict_with_the_asked_settings(path: Path):
    model = load(path)
    assert not any(part.training for part in model.modules())
    assert (model.config.align_corners, load(path, align_corners=True).config.align_corners) == (False, True)


def test_tensors_that_changed_since_they_were_saved_are_refused(path: Path):
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*SHA-256 differs.* Fetch the file again"):
        load(path)


def test_a_file_without_a_digest_is_refused(path: Path):
    header = {name: text for name, text in read_header(path).items() if name != "sha256"}
    write_tensors(path, load_file(path), header)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        load(path)


def test_half_precision_is_that_of_the_file_alone(path: Path):
    whole = load(path)
    half = save(whole, path.with_name("half.safetensors"), half=True)
    stored = load_file(half)
    kinds = {"num_batches_tracked": torch.int64}
    assert {name: value.dtype for name, value in stored.items()} == {
        name: kinds.get(name.rpartition(".")[2], torch.float16) for name in stored
    }
    assert read_header(half)["sha256"] == digest(stored)
    for name, value in load(half).state_dict().items():
        before = whole.state_dict()[name]
        assert value.dtype == before.dtype and torch.equal(value, before.half().to(before.dtype))


def test_what_does_not_fit_is_named(path: Path):
    model, tensors = load(path), load_file(path)
    first = next(iter(tensors))
    with pytest.raises(CheckpointError, match=rf"1 missing \({first}, \.\.\.\)\. Its card"):
        fit(model, {name: value for name, value in tensors.items() if name != first}, path)
    with pytest.raises(CheckpointError, match=r"1 unused \(stray, \.\.\.\)\. Its card"):
        fit(model, {**tensors, "stray": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=r"position\.1\.value\.bias is \(9,\), expected \(8,\)"):
        fit(model, {**tensors, "position.1.value.bias": torch.ones(9)}, path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_numbers_are_named(number: float, path: Path):
    tensors = load_file(path)
    tensors["position.1.value.bias"][3] = number
    with pytest.raises(CheckpointError, match=r"nan or infinity in 1 tensor \(position\.1\.value\.bias\)"):
        fit(load(path), tensors, path)


def test_a_folder_gets_a_readme_as_the_hub_shows_it(path: Path):
    model = load(path)
    saved = save(model, path.with_name("published"))
    assert saved == path.with_name("published") / "model.safetensors"
    assert (saved.parent / "README.md").read_text() == readme(model.card)


def test_other_suffixes_and_fast_models_are_not_saved(path: Path):
    with pytest.raises(ConfigError, match=r"got model\.pth\. Name it model\.safetensors"):
        save(load(path), path.with_suffix(".pth"))
    with pytest.raises(ConfigError, match="cannot be saved"):
        save(load(path, fast=True), path.with_name("fast.safetensors"))
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_commands_predict_with_a_fast_network_unless_it_is_asked_for_plain(path: Path):
    assert load_to_predict(path).fast and not load_to_predict(path, Compute(plain=True)).fast


def test_a_name_is_a_file_or_a_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"^buildings\.safetensors does not exist"):
        find("buildings.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        find("runs/buildings-s")
    with pytest.raises(UnknownName, match="no model 'buildings'"):
        find("buildings")
    assert find("buildings-s").name == "buildings-s.safetensors"


def test_everyone_may_read_what_any_new_file_lets_them_read(path: Path):
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_weights_may_lie_in_memory_in_any_way(path: Path):
    model = load(path).to(memory_format=torch.channels_last)
    again = load(save(model, path.with_name("again.safetensors")))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_header_is_sorted(path: Path):
    with safe_open(path, framework="pt") as file:
        assert set(file.metadata()) == {"format", "regard", "sha256"}
    places = [path.read_bytes().index(name) for name in (b'"format":', b'"regard":', b'"sha256":')]
    assert places == sorted(places)


def test_a_state_dict_comes_before_a_model(tmp_path: Path):
    torch.save({"model": {"a": torch.zeros(1)}, "state_dict": {"b": torch.ones(1)}}, tmp_path / "w.pth")
    assert list(read_tensors(tmp_path / "w.pth")) == ["b"]
