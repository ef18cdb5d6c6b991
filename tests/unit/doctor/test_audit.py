"""Faults planted in a small set, one by one, and a clean set without findings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from rasterio.transform import Affine

from regard.classes import ClassMap
from regard.datasets.folder import Finding
from regard.doctor.audit import Audit, audit
from regard.reports.audit import as_text
from support import COLOURS, NAMES, save_image, write_set, write_tif

SIDE = 240


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of two coloured patches on a third colour, all with a texture of their own."""
    root = write_set(tmp_path_factory.mktemp("clean") / "set")
    rng = np.random.default_rng(4)
    for index in range(6):
        labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
        for label in (1, 2):
            top, left = rng.integers(10, 150, size=2)
            labels[top : top + 70, left : left + 80] = label
        noise = Image.fromarray(rng.integers(0, 256, size=(SIDE, SIDE), dtype=np.uint8)).filter(
            ImageFilter.GaussianBlur(5)
        )
        texture = (np.asarray(noise, dtype=float)[..., None] - 127) * 5
        save_image(root / "images" / f"tile{index}.png", (COLOURS[labels] + texture).clip(0, 255))
        save_image(root / "masks" / f"tile{index}.png", labels)
    return root


@pytest.fixture
def broken(clean: Path, tmp_path: Path) -> Path:
    """A copy to plant a fault in."""
    return Path(shutil.copytree(clean, tmp_path / "broken"))


def relabel(root: Path, stem: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = root / "masks" / f"{stem}.png"
    save_image(path, change(np.array(Image.open(path))))


def extra(root: Path, stem: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """A changed copy of tile0 (train) as a further image of val."""
    for place in ("images", "masks"):
        save_image(root / place / f"{stem}.png", change(np.array(Image.open(root / place / "tile0.png"))))
    with (root / "val.txt").open("a") as file:
        file.write(stem)


def has(found: Audit, grade: str, kind: str, name: str, words: str = "") -> bool:
    return any(
        one.grade == grade and one.kind == kind and name in (*one.files, "") and words in one.message
        for one in found.findings
    )


def test_lines_for_a_terminal(tmp_path: Path) -> None:
    findings = tuple(Finding("note", "size", f"number {number}") for number in range(10))
    found = Audit(tmp_path, ClassMap.of(["a", "b"]), {"train": 2}, {"train": np.array([30, 10])}, findings)
    first, shares, *notes = as_text(found).splitlines()
    assert first.endswith("2 train: 10 notes") and shares == "train: a 75.0 %, b 25.0 %"
    assert notes[7:] == ["note (size): number 7", "note (size): and 2 more; --json lists them all."]


def test_a_clean_set_has_no_findings(clean: Path) -> None:
    found = audit(clean)
    assert not found.findings
    assert found.images == {"train": 4, "val": 2}
    masks = [np.array(Image.open(clean / f"masks/tile{index}.png")) for index in range(4)]
    assert found.pixels["train"].tolist() == [sum(int((mask == label).sum()) for mask in masks) for label in range(3)]


@pytest.mark.parametrize(
    ("change", "grade", "kind", "words"),
    [
        (lambda x: np.where(x == 0, 255, 0), "error", "labels", "255 rewritten as 1"),
        (lambda x: x + 1, "error", "labels", "subtract 1"),
        (lambda x: COLOURS[x] + 3, "error", "labels", "holds colour"),
        (lambda x: x[::2, ::2], "error", "size", "120 x 120"),
        (lambda x: x[:100].T, "error", "size", ""),
        (lambda x: np.full_like(x, 255), "warning", "no label", ""),
        (lambda x: np.array(Image.fromarray(x * 1).filter(ImageFilter.BoxBlur(1))), "warning", "labels", "smooth"),
    ],
)
def test_faults_of_masks(
    broken: Path, change: Callable[[np.ndarray], np.ndarray], grade: str, kind: str, words: str
) -> None:
    relabel(broken, "tile1", change)
    found = audit(broken)
    assert has(found, grade, kind, "tile1.png", words)
    assert len(found.findings) == 1


def test_masks_of_0_and_255_are_told_also_where_one_is_all_255(broken: Path) -> None:
    for number in range(6):
        relabel(broken, f"tile{number}", lambda x: np.where(x == 0, 0, 255))
    relabel(broken, "tile2", lambda x: np.full_like(x, 255))
    assert has(audit(broken), "error", "labels", "tile1.png", "255 rewritten as 1")


@pytest.mark.parametrize("holds_0", [False, True])
def test_labels_that_begin_at_1_all_over_the_set(broken: Path, holds_0: bool) -> None:
    for number in range(6):
        relabel(broken, f"tile{number}", lambda labels: labels + 1)
    if holds_0:
        relabel(broken, "tile3", lambda labels: np.where(labels == 3, 0, labels))
    assert has(audit(broken, progress=False), "error", "labels", "tile1.png", "Subtract 1 everywhere") != holds_0


def test_a_split_without_a_label_is_an_error_but_for_test(broken: Path) -> None:
    for number in (4, 5):
        relabel(broken, f"tile{number}", lambda x: np.full_like(x, 255))
    assert has(audit(broken), "error", "no label", "", "the split val has no labelled pixel")
    (broken / "val.txt").rename(broken / "test.txt")
    assert not audit(broken).count("error")


def test_black_and_white_colour_masks_where_black_is_a_class(broken: Path) -> None:
    """Each white pixel would be no class."""
    names = {"names": NAMES, "palette": [[0, 0, 0], *COLOURS[1:].tolist()]}
    (broken / "classes.json").write_text(json.dumps(names))
    for number in range(6):
        relabel(broken, f"tile{number}", lambda x: np.where(x == 0, 0, 255)[..., None].repeat(3, axis=2))
    assert has(audit(broken), "error", "labels", "tile1.png", "255 rewritten as 1")


def test_a_mask_of_one_class_with_the_usual_border_is_no_0_255_mask(broken: Path) -> None:
    for index in range(6):
        relabel(
            broken,
            f"tile{index}",
            lambda x, kept=index > 0: np.pad(x[9:] * kept, ((9, 0), (0, 0)), constant_values=255),
        )
    assert not any(one.kind == "labels" for one in audit(broken).findings)


def test_faults_of_files(broken: Path) -> None:
    image = broken / "images/tile0.png"
    image.write_bytes(image.read_bytes()[:2000])
    (broken / "masks/tile1.png").write_bytes(b"")
    (broken / "masks/tile2.png").rename(broken / "masks/stray.png")
    save_image(broken / "images/tile3.png", np.full((SIDE, SIDE, 3), 7))
    with Image.open(broken / "images/tile4.png") as colour:
        grey = np.array(colour.convert("L"))
    save_image(broken / "images/tile4.png", grey)
    Image.fromarray(grey.astype(np.uint16) * 200).save(broken / "images/tile5.png")
    found = audit(broken)
    for grade, kind, name in (
        ("error", "unreadable", "tile0.png"),
        ("error", "unreadable", "tile1.png"),
        ("error", "no mask", "tile2.png"),
        ("warning", "no image", "stray.png"),
        ("warning", "blank", "tile3.png"),
        ("warning", "bands", "tile4.png"),
        ("error", "bit depth", "tile5.png"),
    ):
        assert has(found, grade, kind, name), kind


def test_faults_of_lists(broken: Path) -> None:
    (broken / "train.txt").write_text("tile0\ntile1.png\ntile1\nnowhere\ntile4\n")
    found = audit(broken)
    assert has(found, "error", "splits", "tile1", "2 times")
    assert has(found, "error", "no image", "nowhere")
    assert has(found, "error", "leak", "tile4", "train and val")
    assert has(found, "note", "splits", "tile2.png", "2 images in no split")
    (broken / "val.txt").write_text("")
    (broken / "train.txt").unlink()
    (broken / "classes.json").write_text("{")
    found = audit(broken)
    assert has(found, "error", "splits", "val.txt", "empty") and has(found, "error", "classes", "classes.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x, "same file"),
        (lambda x: x[:, ::-1], "mirrored or rotated"),
        (lambda x: np.rot90(x), "mirrored or rotated"),
        (lambda x: np.rot90(x, 2)[:, ::-1], "mirrored or rotated"),
        (lambda x: x[::2, ::2], "copies of one image: scores would be inflated"),
    ],
)
def test_leaks_between_splits(broken: Path, change: Callable[[np.ndarray], np.ndarray], words: str) -> None:
    extra(broken, "again", change)
    assert has(audit(broken), "error", "leak", "again.png", words)


@pytest.mark.parametrize("quality", [30, 75])
def test_a_mirrored_copy_compressed_as_jpeg_is_a_leak(broken: Path, quality: int) -> None:
    extra(broken, "again", lambda x: x[:, ::-1])
    with Image.open(broken / "images/again.png") as image:
        image.save(broken / "images/again.jpg", quality=quality)
    (broken / "images/again.png").unlink()
    assert has(audit(broken), "error", "leak", "again.jpg", "mirrored or rotated")


def test_a_noisy_copy_of_a_third_of_the_size_is_a_leak(broken: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 80, (SIDE, SIDE, 3))
    extra(broken, "again", lambda x: x)
    with Image.open(broken / "images/again.png") as image:
        small = image.resize((SIDE // 3, SIDE // 3)).resize((SIDE, SIDE))
    save_image(broken / "images/again.png", (np.asarray(small) + noise).clip(0, 255))
    assert has(audit(broken), "error", "leak", "again.png", "copies of one image")


def test_no_leak_where_only_one_has_labels(broken: Path) -> None:
    extra(broken, "again", lambda x: x[:, ::-1])
    relabel(broken, "again", lambda x: np.full_like(x, 255))
    assert not any(one.kind == "leak" for one in audit(broken).findings)


def test_faults_on_the_ground(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    root = tmp_path / "geo"
    places = {"a": (0, 0), "b": (2000, 0), "c": (5000, 300), "d": (5200, 300)}
    for stem, (east, north) in places.items():
        at = Affine(10, 0, 500_000 + east, 0, -10, 5_000_000 + north)
        write_tif(root / f"images/{stem}.tif", rng.integers(0, 256, size=(3, 50, 50), dtype=np.uint8), transform=at)
        other = Affine(10, 0, 500_030 + east, 0, -10, 5_000_000 + north) if stem == "a" else at
        crs = "EPSG:32632" if stem == "b" else "EPSG:32633"
        write_tif(
            root / f"masks/{stem}.tif", rng.integers(0, 2, size=(1, 50, 50), dtype=np.uint8), transform=other, crs=crs
        )
    (root / "classes.json").write_text(json.dumps({"names": NAMES}))
    (root / "train.txt").write_text("a\nb\nc")
    (root / "val.txt").write_text("d")
    found = audit(root)
    assert has(found, "error", "coordinates", "a.tif", "3.0 right")
    assert has(found, "error", "coordinates", "b.tif", "EPSG:32632")
    assert has(found, "error", "leak", "d.tif", "59 %")
    assert has(found, "warning", "absent class", "", "blue thing")
    relabel_tif = np.full((1, 50, 50), 255, dtype=np.uint8)
    at = Affine(10, 0, 505_200, 0, -10, 5_000_300)
    write_tif(root / "masks/d.tif", relabel_tif, transform=at)
    assert not any(one.kind == "leak" for one in audit(root).findings)


def test_classes_missing_from_a_split(broken: Path) -> None:
    for index in range(4):
        relabel(broken, f"tile{index}", lambda x: np.where(x == 2, 0, x))
    found = audit(broken)
    assert has(found, "error", "absent class", "", "'blue thing' (2) is scored but never in train")


def test_a_training_without_validation_is_named(broken: Path) -> None:
    assert not any(one.kind == "no val" for one in audit(broken).findings)
    (broken / "val.txt").unlink()
    assert has(audit(broken), "warning", "no val", "", "there is no split val")


def test_gradients_of_one_class_are_no_mirrored_copies(broken: Path) -> None:
    """Open sea, brighter to the south-east in one image and to the south-west in another."""
    down, right = np.mgrid[:SIDE, :SIDE, :3][:2]
    for name, image in (("tile0", down + right), ("tile5", down - right + SIDE)):  # of train and of val
        save_image(broken / "images" / f"{name}.png", image / 3)
        save_image(broken / "masks" / f"{name}.png", np.zeros((SIDE, SIDE)))
    assert not any(finding.kind == "leak" for finding in audit(broken).findings)
    save_image(broken / "masks" / "tile0.png", np.eye(SIDE))
    save_image(broken / "masks" / "tile5.png", np.eye(SIDE))
    assert has(audit(broken), "error", "leak", "tile5.png", "mirrored or rotated")
