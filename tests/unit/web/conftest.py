"""Viewers of small scenes, and clients of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from regard.models import Segmenter
from regard.web.raster_layer import Sources
from regard.web.viewer import Viewer
from support import save_image, tiny, write_tif
from web_support import TILING, client_of, picture


@pytest.fixture
def viewer_of() -> Iterator[Callable[..., Viewer]]:
    opened: list[Viewer] = []

    def make(scene: Path, model: Segmenter | None = None, **sources: Any) -> Viewer:
        opened.append(Viewer(model or tiny(), Sources(scene, **sources), TILING))
        return opened[-1]

    yield make
    for viewer in opened:
        viewer.close()


@pytest.fixture
def plain(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> Viewer:
    """A raster without a place on Earth, 150 x 300 pixels."""
    return viewer_of(write_tif(tmp_path / "plain.tif", picture((150, 300)), crs=None, transform=None))


@pytest.fixture
def earth(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> Viewer:
    return viewer_of(write_tif(tmp_path / "earth.tif", picture((150, 300))))


@pytest.fixture
def photograph(tmp_path: Path, viewer_of: Callable[..., Viewer]) -> Viewer:
    """A photograph that lies on its side: 60 x 90 pixels in the file, 90 x 60 upright."""
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(path, picture((60, 90)).transpose(1, 2, 0), exif=exif)
    return viewer_of(path)


@pytest.fixture
def client(plain: Viewer) -> TestClient:
    """Of ``plain``; its addresses begin behind the token."""
    return client_of(plain)
