"""Loading from and publishing to the hub, against a stand-in of its HTTP interface; our own code is not replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hub_server import COMMIT, Files, serve

from regard.checkpoints.file import load, push_to_hub, save
from regard.checkpoints.hub import parse, readme
from regard.errors import CheckpointError
from support import NAMES, tiny


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hub with one repository, and the client's settings that point to it."""
    model = tiny("ocrnet", key_width=8)
    folder = save(model, tmp_path / "published").parent
    files: Files = {("ann/streets", path.name): path.read_bytes() for path in folder.iterdir()}
    files["ann/streets", "old/best.safetensors"] = files["ann/streets", "model.safetensors"]
    files["ann/broken", "model.safetensors"] = files["ann/streets", "model.safetensors"][:-50]
    with serve(files) as (address, requests):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
        yield model, files, requests


@pytest.mark.parametrize(
    "name", ["hf:ann/streets", "hf:ann/streets@main", f"hf:ann/streets@{COMMIT}", "hf:ann/streets/old/best.safetensors"]
)
def test_load(hub, name: str):
    model, _, requests = hub
    loaded = load(name)
    assert loaded.card == model.card and requests
    image = torch.randn(1, 3, 40, 40)
    with torch.inference_mode():
        assert torch.equal(loaded(image), model(image))


def test_a_second_load_fetches_no_weights(hub):
    _, _, requests = hub
    load("hf:ann/streets")
    requests.clear()
    load("hf:ann/streets")
    assert not any(request.startswith("GET") and "model.safetensors" in request for request in requests)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:ann/nothing", "could not be fetched"),
        ("hf:ann/streets@lost", "could not be fetched"),
        ("hf:ann/streets/lost.safetensors", r"lost\.safetensors of ann/streets could not be fetched"),
        ("hf:ann", "names no repository"),
        ("hf:ann//x", "names no repository"),
        ("hf:ann/broken", "is not a model of regard"),
    ],
)
def test_errors(hub, name: str, words: str):
    with pytest.raises(CheckpointError, match=words) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries five times
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="could not be fetched"):
        load("hf:ann/streets")


@pytest.mark.filterwarnings("ignore:Use 'content=")  # huggingface_hub's call of its own HTTP library
def test_publish_and_load_again(hub):
    _, files, requests = hub
    model = tiny("danet", width=16)
    address = push_to_hub(model, "ann/fresh")
    assert "create ann/fresh public" in requests
    assert "ann/fresh" in address
    assert files["ann/fresh", "README.md"].decode() == readme(model.card)
    assert load("hf:ann/fresh").card == model.card


@pytest.mark.filterwarnings("ignore:Use 'content=")
def test_publish_privately(hub):
    _, _, requests = hub
    push_to_hub(tiny("danet", width=16), "ann/own", private=True)
    assert "create ann/own private" in requests


def test_the_readme_states_classes_scores_and_licence():
    card = tiny().card.model_copy(update={"scores": {"miou": 0.70394}, "licence": 'CC BY 4.0 "x"'})
    text = readme(card)
    assert text.startswith("---\nlibrary_name: regard\n") and text.count("---\n") >= 2
    assert '\nlicense_name: "CC BY 4.0 \\"x\\""\n' in text and "| miou | 0.7039 |" in text
    assert all(f"| {label} | {name} | `#" in text for label, name in enumerate(NAMES))


def test_parse():
    assert parse("hf:a/b") == ("a/b", "model.safetensors", None)
    assert parse("hf:a/b/c/d.safetensors@v1") == ("a/b", "c/d.safetensors", "v1")
