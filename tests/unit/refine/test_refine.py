"""A refined model: better on held-out ground, equal in the session and from its file, and the same again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from support_refine import squares, truth, write_labels, write_scene

import regard
import regard.cli as cli
from regard.errors import ConfigError, OutputError, RegardError, SceneWarning, UnknownName
from regard.inference.scores import scores_of
from regard.io.image import Pixels
from regard.io.raster import Box
from regard.options import Windows
from regard.refine.heads import as_refined
from regard.refine.labels import read_labels
from regard.refine.options import RefineOptions
from regard.refine.refine import refine
from regard.refine.session import session
from support import NAMES, tiny

WINDOWS = {"tile": 96, "overlap": 32}
KINDS = [
    ("linear", None),
    ("linear", "both"),
    ("context", None),
    ("context", "both"),
    ("kernel", None),
    ("kernel", "both"),
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A scene, and a small square of labels in each second of its cells."""
    return write_scene(tmp_path / "scene.tif"), write_labels(tmp_path / "labels.gpkg", *squares(4, every=2))


@pytest.mark.parametrize("architecture", ["danet_ocr", "danet", "danet_ocr_serial", "danet_three_branch"])
def test_a_parted_network_answers_as_before(architecture: str) -> None:
    model = tiny(architecture)
    image = torch.randn(1, 3, 64, 80)
    with torch.inference_mode():
        assert torch.allclose(as_refined(model)(image), model(image), atol=1e-5)


@pytest.mark.parametrize(("head", "inputs"), KINDS)
def test_the_map_of_the_session_is_that_of_the_written_model(files, tmp_path: Path, head: str, inputs: str) -> None:
    options, box = RefineOptions(head=head, inputs=inputs), Box(20, 30, 100, 150)
    with session(tiny(), files[0], options, Windows(**WINDOWS)) as opened:
        model = opened.fit(read_labels(files[1], opened.raster, opened.classes, "class"))
        region = opened.map(model).region(box)
    regard.save(model, tmp_path / "better.safetensors")
    whole = regard.predict(regard.load(tmp_path / "better.safetensors"), files[0], progress=False, **WINDOWS)
    cut = np.s_[box.top : box.top + box.height, box.left : box.left + box.width]
    assert np.array_equal(region.labels, whole.labels[cut])
    assert np.abs(region.confidence - whole.confidence[cut]).max() < 1e-5
    assert not model.config.sees_bands or (whole.labels == truth()).mean() > 0.5


def test_held_out_ground_is_better_and_the_table_says_so(files) -> None:
    found = refine(tiny(), *files, **WINDOWS)
    assert found.trial.kind.head == "kernel"
    before, after = found.trial.means
    assert after > 0.9 > before
    assert f"| mean | 18 | 288 | | {100 * before:.1f} | {100 * after:.1f} |" in found.table()


def test_the_card_says_what_was_learned_and_the_same_is_learned_again(files, tmp_path: Path) -> None:
    written = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for path in written:
        refine(tiny(), *files, path, head="kernel", **WINDOWS)
    assert written[0].read_bytes() == written[1].read_bytes()
    learned = regard.load(written[0]).card.refined_with[-1]
    assert learned["sha256"] == hashlib.sha256(files[1].read_bytes()).hexdigest()
    assert learned["counts"][NAMES[0]] == {"objects": 6, "pixels": 96} and learned["scene"] == "scene.tif"


def test_a_refined_model_is_refined_again(files) -> None:
    once = refine(tiny(), *files, head="kernel", inputs="both", **WINDOWS).model
    twice = refine(once, *files, head="kernel", inputs="both", keep=0.0, **WINDOWS).model
    assert len(twice.card.refined_with) == 2 and twice.config.base == "danet_ocr"


def test_without_a_model_the_classes_are_those_of_the_labels(files) -> None:
    found = refine(None, *files, **WINDOWS)
    assert found.model.classes.names == tuple(sorted(NAMES)) and not found.model.config.base
    assert found.trial.means[1] > 0.9 and np.isnan(found.trial.means[0])


def test_a_new_class_is_learned_and_a_split_one_begins_as_its_parent(files, tmp_path: Path) -> None:
    shapes, names = squares(4)
    names = ["blue roof" if name == NAMES[2] else name for name in names]
    path = write_labels(tmp_path / "new.gpkg", shapes, names)
    found = refine(tiny(), files[0], path, add_class=["blue roof=blue thing"], inputs="both", head="kernel", **WINDOWS)
    assert found.model.classes.names == (*NAMES, "blue roof")
    labels = regard.predict(found.model, files[0], progress=False, **WINDOWS).labels
    assert (labels[truth() == 2] == 3).mean() > 0.9
    assert len({*found.model.classes.palette}) == 4


def test_what_was_not_labelled_is_kept(files, tmp_path: Path) -> None:
    """One wrong label: the more the present answers weigh, the fewer pixels change."""
    path = write_labels(tmp_path / "one.gpkg", [shapely.Point(50.5, 50.5)], [NAMES[2]])
    before = regard.predict(tiny(), files[0], progress=False, **WINDOWS).labels
    changed = []
    for keep in (0.0, 1.0, 1e5):
        with session(tiny(), files[0], RefineOptions(head="linear", keep=keep), Windows(**WINDOWS)) as opened:
            model = opened.fit(read_labels(path, opened.raster, opened.classes, "class"))
        changed.append((regard.predict(model, files[0], progress=False, **WINDOWS).labels != before).mean())
    assert changed[0] > changed[1] >= changed[2] and changed[2] < 0.01


def test_labels_in_one_place_are_learned_with_a_warning(files, tmp_path: Path) -> None:
    path = write_labels(tmp_path / "one.gpkg", [shapely.Point(50.5, 50.5)], [NAMES[2]])
    with pytest.warns(SceneWarning, match="nothing says how good this is"):
        found = refine(tiny(), files[0], path, **WINDOWS)
    assert np.isnan(found.trial.means[1])


FAULTS: dict[str, tuple[dict[str, object], type[RegardError], str]] = {
    "even squares": ({"squares": (4,)}, ConfigError, "need odd sides"),
    "a negative weight": ({"keep": -1.0}, ConfigError, "need 0 or above"),
    "both lists": ({"add_class": ["a"], "classes": ["a", "b"]}, ConfigError, "Omit one of the two"),
    "no such parent": ({"add_class": ["a=tree"]}, UnknownName, "no class 'tree'"),
    "no model's name": ({"out": "better.pth"}, ConfigError, "one .safetensors file"),
    "an existing file": ({"out": "there.safetensors"}, OutputError, "already exists"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_one_message(files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.safetensors").touch()
    how, kind, message = FAULTS[fault]
    with pytest.raises(kind) as error:
        refine(tiny(), *files, **how, **WINDOWS)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_feature_file_is_computed_again_and_the_budget_holds(files, tmp_path: Path) -> None:
    options = RefineOptions(head="linear", cache=tmp_path / "cache", budget=0.01)
    with session(tiny(), files[0], options, Windows(**WINDOWS)) as opened:
        labels = read_labels(files[1], opened.raster, opened.classes, "class")
        first = opened.map(opened.fit(labels)).region(Box(0, 0, 160, 224))
        kept = sorted((tmp_path / "cache").rglob("*.npy"))
        assert kept and sum(path.stat().st_size for path in kept) <= 1e4 + 128 * len(kept)
        for path in kept:
            path.write_bytes(path.read_bytes()[:-5])
        second = opened.map(opened.fit(labels)).region(Box(0, 0, 160, 224))
    assert np.array_equal(first.confidence, second.confidence)


def test_the_command_prints_the_table_and_writes_the_model(files, tmp_path: Path, capsys) -> None:
    out = tmp_path / "better.safetensors"
    arguments = ["refine", "none", *map(str, files), "-o", str(out), "--tile", "96", "--overlap", "32", "--json"]
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    facts = json.loads(capsys.readouterr().out)
    assert end.value.code == 0 and facts["files"] == [str(out)] and facts["after"] > 0.9
    pixels = Pixels(np.full((3, 40, 40), 200, np.uint8), np.ones((40, 40), bool))
    assert scores_of(regard.load(out), pixels).shape == (3, 40, 40)
