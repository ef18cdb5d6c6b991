"""The Hugging Face Hub: fetch a model by name, publish a folder, and write the README that the hub shows.

Address, token and cache are huggingface_hub's own settings (``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME``).
"""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from regard.card import Card
from regard.errors import CheckpointError, one_line

PREFIX = "hf:"
FILE = "model.safetensors"


def fetch(name: str) -> Path:
    """The file behind ``hf:user/repo``, ``hf:user/repo@revision`` or ``hf:user/repo/folder/file.safetensors``.

    It stays in the hub's cache, so that a second load needs no network. What is not there, or cannot be reached, is a
    CheckpointError.
    """
    from huggingface_hub import hf_hub_download

    repository, file, revision = parse(name)
    try:
        return Path(hf_hub_download(repository, file, revision=revision, endpoint=os.environ.get("HF_ENDPOINT")))
    except Exception as error:  # the hub's client raises its own, its HTTP library's and the system's
        raise CheckpointError(
            f"{name}: {file} of {repository} could not be fetched ({one_line(error, kind=True)}). Check the name, the "
            "network, and HF_TOKEN for private repositories."
        ) from None


def parse(name: str) -> tuple[str, str, str | None]:
    """Repository, file in it, and revision; a CheckpointError if it is not of the form ``hf:user/repo``."""
    path, _, revision = name.removeprefix(PREFIX).partition("@")
    parts = path.split("/")
    if len(parts) < 2 or not all(parts):
        raise CheckpointError(f"{name!r} names no repository. Write hf:user/repo, with @revision or /file after it.")
    return "/".join(parts[:2]), "/".join(parts[2:]) or FILE, revision or None


def upload(folder: str | Path, repository: str, *, private: bool, message: str) -> str:
    """Publish the files of a folder; the address of the commit. A refusal of the hub is a CheckpointError."""
    from huggingface_hub import HfApi

    hub: Any = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=message))
    except Exception as error:
        raise CheckpointError(
            f"{repository} could not be published ({one_line(error, kind=True)}). Log in with `hf auth login` or set "
            "HF_TOKEN."
        ) from None


def readme(card: Card) -> str:
    """A model's card in Markdown, with the hub's front matter: classes, bands, scores, licence, how to use it."""
    from jinja2 import Template

    text = (resources.files("regard.checkpoints") / "readme.md.jinja").read_text(encoding="utf-8")
    licence = json.dumps((card.licence or "not stated").replace("\n", " "), ensure_ascii=False)
    return Template(text, trim_blocks=True, keep_trailing_newline=True).render(card=card, licence=licence)
