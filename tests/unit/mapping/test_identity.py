"""What makes another map, and what does not: the key of the journal, and the tags by which a finished map is kept."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import Affine

from regard.files import digest
from regard.io.source import Source
from regard.mapping import job as job_module
from regard.mapping import write as map_file
from regard.mapping.job import is_complete, model_tags
from regard.mapping.measures import as_bytes
from regard.mapping.predict import opened
from regard.mapping.write import RasterJob
from regard.models import Segmenter
from support import map_options, save_image, tiny, write_tif

VALUES = np.random.default_rng(1).integers(1, 255, size=(4, 70, 90), dtype=np.uint8)
PLAIN: dict[str, Any] = {"tile": 64, "overlap": 32, "bands": (1, 2, 3)}
OTHER: list[dict[str, Any]] = [
    {"tile": 96},
    {"overlap": 0},
    {"bands": (2, 1, 3)},
    {"flip": True},
    {"d4": True},
    {"scales": (1.0, 0.5)},
    {"nodata": 7.0},
    {"gsd": 5.0},
    {"aoi": (500_100.0, 4_999_400.0, 500_600.0, 4_999_900.0)},
]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_tif(tmp_path / "scene.tif", VALUES)


def job(model: Segmenter, source: Path, **options: Any) -> AbstractContextManager[Any]:
    return opened(model, Source.of(source), map_options(source.parent / "map.tif", **options))


def keys(model: Segmenter, source: Path, **options: Any) -> tuple[str, str]:
    """Of the journal, and in the map's tags."""
    with job(model, source, **(PLAIN | options)) as made:
        assert isinstance(made, RasterJob)
        return made.journal.key, made.tags["regard_job"]


@pytest.mark.parametrize("options", OTHER, ids=str)
def test_every_option_that_changes_values_makes_another_map(scene: Path, options: dict[str, Any]) -> None:
    plain, other = keys(tiny(), scene), keys(tiny(), scene, **options)
    assert plain[0] != other[0] and plain[1] != other[1]


def test_what_changes_no_value_makes_the_same_map(scene: Path) -> None:
    options = {"batch": 7, "max_memory": 9000.0, "preview": scene.with_name("map.png"), "overwrite": True}
    assert keys(tiny(), scene) == keys(tiny(), scene, **options)


def test_another_model_makes_another_map(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = keys(tiny(), scene)
    carded = tiny().with_card(tiny().card.model_copy(update={"mean": (0.4, 0.4, 0.4)}))
    weighted = tiny()
    weighted.state_dict()["classify.bias"].add_(1e-3)
    fast = tiny()
    fast.fast = True
    kind = tiny()
    kind.__class__ = type("Other", (type(kind),), {})
    for model in (carded, weighted, fast, kind):
        assert all(one != other for one, other in zip(plain, keys(model, scene), strict=True))
    monkeypatch.setattr(map_file, "__version__", "99.0")
    assert keys(tiny(), scene)[1] != plain[1], "another version may compute other values"


def test_another_place_or_size_makes_another_map_and_another_time_a_new_one(scene: Path) -> None:
    plain = keys(tiny(), scene)
    os.utime(scene, (1, 1))
    assert keys(tiny(), scene)[0] != plain[0] and keys(tiny(), scene)[1] == plain[1], "tags do not tell the time"
    for profile in ({"crs": "EPSG:32634"}, {"transform": Affine(10, 0, 500_010, 0, -10, 5_000_000)}):
        assert keys(tiny(), write_tif(scene, VALUES, **profile))[1] != plain[1]
    assert keys(tiny(), write_tif(scene, VALUES[:, :, :80]))[1] != plain[1]


def test_options_and_model_of_a_photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_image(tmp_path / "a.png", VALUES[:3].transpose(1, 2, 0))

    def key(model: Segmenter, **options: Any) -> str:
        with job(model, path, **options) as made:
            return made.tags["regard_job"]

    plain, fast = key(tiny()), tiny()
    fast.fast = True
    others = [key(tiny(), **options) for options in ({"flip": True}, {"scales": (0.5,)}, {"bands": (2, 1, 3)})]
    others += [key(fast), key(tiny(width=8))]
    assert len({plain, *others}) == 6 and key(tiny(), overwrite=True) == plain
    save_image(path, VALUES[:3, :20].transpose(1, 2, 0))
    assert key(tiny()) != plain
    save_image(path, VALUES[:3].transpose(1, 2, 0))
    monkeypatch.setattr(job_module, "__version__", "99.0")
    assert key(tiny()) != plain


def test_a_map_is_complete_where_each_file_is_there_and_has_the_tags(tmp_path: Path) -> None:
    files = [write_tif(tmp_path / name, VALUES[:1]) for name in ("a.tif", "b.tif")]
    assert is_complete(files, {}) and not is_complete([*files, tmp_path / "c.tif"], {})
    assert not is_complete(files, {"regard_job": "x"})


def test_a_map_is_of_its_source_as_it_was_whatever_the_clock_says(scene: Path) -> None:
    for when in (1, 2**33):  # of a file of 1970, or of one of the year 2242: the clock was set back since
        os.utime(scene, (when, when))
        with job(tiny(), scene, overwrite=True, **PLAIN) as made:
            made.run(progress=False)
        with job(tiny(), scene, **PLAIN) as made:
            assert made.is_done()
        os.utime(scene, (when, when + 1))
        with job(tiny(), scene, **PLAIN) as made:
            assert not made.is_done()


def test_weights_are_told_by_their_values_and_those_of_a_file_by_its_digest() -> None:
    model = tiny()
    assert model_tags(model)["regard_weights_sha256"] == digest(model.state_dict())
    model.saved_sha256 = "of the file"
    assert model_tags(model)["regard_weights_sha256"] == "of the file"
    assert model_tags(model)["regard_parameters"] == str(sum(value.numel() for value in model.parameters()))


def test_shares_are_stored_in_steps_of_a_255th_and_never_as_no_data() -> None:
    share = np.array([[0.0, 0.001, 0.4, 0.5, 0.998, 1.0, 0.7]], np.float32)
    valid = np.array([[True] * 6 + [False]])
    assert as_bytes(share, valid).tolist() == [[1, 1, 102, 128, 254, 255, 0]]
