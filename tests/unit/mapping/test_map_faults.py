"""Faults in the middle of a map: each ends in one line, leaves no half-written file, and the same command goes on."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import Affine

from regard.errors import OutputError, UnreadableImage
from regard.mapping import blend as scene_engine
from regard.mapping.journal import Journal
from regard.mapping.predict import predict
from regard.models import Segmenter
from support import tiny, write_tif

VIEW: dict[str, Any] = {"tile": 64, "overlap": 0}
VALUES = np.random.default_rng(7).integers(0, 256, size=(3, 250, 200), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> Segmenter:
    return tiny()


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_tif(tmp_path / "scene.tif", VALUES, compress="deflate", tiled=True, blockxsize=64, blockysize=64)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: what a write then gets is what a full disk gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_full_disk_is_told_and_what_is_done_is_kept(
    share: float, scene: Path, model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "maps"
    expected = predict(model, scene, tmp_path / "a.tif", confidence=tmp_path / "b.tif", **VIEW)
    made = {"out": folder / "a.tif", "confidence": folder / "b.tif"}
    windows: list[int] = []
    scores = scene_engine.grid_scores
    monkeypatch.setattr(scene_engine, "grid_scores", lambda *given: (windows.append(1), scores(*given))[1])
    size = (tmp_path / "b.tif").stat().st_size  # at 0.2 a finished part has no room, at 0.9 the map
    with room_for(int(size * share)), pytest.raises(OutputError, match=r"cannot write .*\.tif") as caught:
        predict(model, scene, **made, **VIEW)
    assert "\n" not in str(caught.value)
    assert not [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    before = len(windows)
    predict(model, scene, **made, **VIEW)
    assert bool(len(windows) - before) is (share < 0.5)
    for path, known in ((made["out"], expected), (made["confidence"], tmp_path / "b.tif")):
        assert path.read_bytes() == Path(str(known)).read_bytes()
    assert not list(folder.glob(".*"))


def test_a_damaged_block_in_the_middle_ends_the_map_by_name(scene: Path, model: Segmenter, tmp_path: Path) -> None:
    content = bytearray(scene.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    scene.write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"scene.tif: a part of .* cannot be read \(scene.tif, band") as caught:
        predict(model, scene, tmp_path / "maps" / "map.tif", **VIEW)
    assert "See previous" not in str(caught.value)
    assert not list((tmp_path / "maps").iterdir())


@pytest.mark.parametrize("many", [False, True])
def test_a_source_that_vanishes_is_told(
    many: bool, scene: Path, model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_tif(tmp_path / "below.tif", VALUES, transform=Affine(10, 0, 500_000, 0, -10, 5_000_000 - 2500))
    keep = Journal.keep
    monkeypatch.setattr(Journal, "keep", lambda journal, layers: (other.unlink(missing_ok=True), keep(journal, layers)))
    words = r"below.tif: No such file|below.tif.* is gone" if many else "was changed while it was read, or is gone"
    with pytest.raises(UnreadableImage, match=words):
        predict(model, [scene, other] if many else other, tmp_path / "maps" / "map.tif", mosaic=many, **VIEW)
    assert not list((tmp_path / "maps").iterdir())
