"""What all tests share: one thread, one seed, and a check of every shape that regard's functions declare."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import lightning.pytorch  # noqa: F401
import numpy as np
import pytest
import scipy.stats  # noqa: F401
import timm  # noqa: F401
import torch

# Before the first import of regard. What regard imports is imported above: under the hook it would be compiled anew.
jaxtyping.install_import_hook("regard", "beartype.beartype")

from regard.datasets.folder import folder  # noqa: E402
from regard.datasets.labelled_data import LabelledData  # noqa: E402
from regard.models import Segmenter  # noqa: E402
from support import tiny, write_set, write_tif  # noqa: E402

# The same examples at every run, more of them with REGARD_EXAMPLES=1000.
hypothesis.settings.register_profile(
    "regard",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=int(os.environ.get("REGARD_EXAMPLES", "30")),
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("regard")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20_260)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """No check of shapes and types: where sizes are symbols in an export, or a caller's error is what is tested."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def tiny_model() -> Segmenter:
    return tiny()


@pytest.fixture
def set_folder(tmp_path: Path) -> Path:
    """A folder of labelled images, as files."""
    return write_set(tmp_path / "toy")


@pytest.fixture
def toy(set_folder: Path) -> LabelledData:
    """The same, opened."""
    return folder(set_folder)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A georeferenced RGB scene of 70 x 90 pixels."""
    values = np.random.default_rng(5).integers(0, 256, size=(3, 70, 90), dtype=np.uint8)
    return write_tif(tmp_path / "scene.tif", values)
