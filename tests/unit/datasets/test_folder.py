"""The three layouts of a data folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from regard.checkpoints.file import load
from regard.datasets.folder import folder, scan
from regard.errors import CheckpointError, ConfigError, DatasetError, SizeMismatch, UnknownName, UnreadableImage
from regard.io.image import read_image
from support import NAMES, save_image, write_set, write_tif


def names_of(root: Path, split: str) -> list[str]:
    return [pair.name for pair in folder(root).split(split)]


def test_regards_own_layout(set_folder: Path):
    data = folder(set_folder)
    assert names_of(set_folder, "train") == ["tile0", "tile1", "tile2", "tile3"]
    assert names_of(set_folder, "val") == ["tile4", "tile5"]
    sample = data.read(data.split("val")[0])
    assert sample.image.shape == (3, 40, 48) and sample.labels.shape == (40, 48)
    assert set(np.unique(sample.labels)) <= {0, 1, 2, 255} and (sample.labels[:2] == 255).all()


def test_lists_may_carry_suffixes_folders_blank_lines_and_a_byte_order_mark(set_folder: Path):
    text = "tile1.png\n\n  tile0  \r\nimages/tile3.jpg\n"
    (set_folder / "train.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert names_of(set_folder, "train") == ["tile1", "tile0", "tile3"]


def test_a_stem_with_dots_is_kept_whole(set_folder: Path):
    for part in ("images", "masks"):
        shutil.copy(set_folder / part / "tile0.png", set_folder / part / "n50.5_e13.2.png")
    (set_folder / "val.txt").write_text("n50.5_e13.2\n")
    assert names_of(set_folder, "val") == ["n50.5_e13.2"]


@pytest.mark.parametrize("suffix", ["_labelTrainIds", "_mask", "_label", "_gt"])
def test_masks_may_carry_the_usual_endings(set_folder: Path, suffix: str):
    for mask in list((set_folder / "masks").iterdir()):
        mask.rename(mask.with_name(f"{mask.stem}{suffix}.png"))
    assert folder(set_folder).split("train")[0].mask.name == f"tile0{suffix}.png"


def test_other_files_in_the_folders_are_let_be(set_folder: Path):
    (set_folder / "images" / "Thumbs.db").write_bytes(b"x")
    (set_folder / "masks" / "tile0.png.aux.xml").write_text("<PAMDataset/>")
    assert len(names_of(set_folder, "train")) == 4


def test_two_images_of_one_stem_are_refused(set_folder: Path):
    save_image(set_folder / "images" / "tile0.jpg", np.zeros((40, 48, 3)))
    with pytest.raises(DatasetError, match=r"images/ holds both tile0\.jpg and tile0\.png"):
        folder(set_folder)


def test_classes_given_by_hand_go_before_the_file(set_folder: Path):
    (set_folder / "classes.json").unlink()
    assert folder(set_folder, classes=["a", "b", "c"]).classes.names == ("a", "b", "c")


def test_an_unknown_split_is_named_with_those_that_are_there(toy):
    with pytest.raises(UnknownName, match=r"no split 'vall'. Did you mean 'val'\? Known: train, val"):
        toy.split("vall")


def mmseg(root: Path, *, listed: bool = False) -> Path:
    write_set(root / "flat")
    for part, name in (("images", "img_dir"), ("masks", "ann_dir")):
        for split, stems in (("train", range(4)), ("val", range(4, 6))):
            (root / name / split).mkdir(parents=True)
            for index in stems:
                shutil.copy(root / "flat" / part / f"tile{index}.png", root / name / split)
    (root / "classes.json").write_text(json.dumps({"names": NAMES}))
    if listed:
        (root / "split").mkdir()
        (root / "split" / "train.txt").write_text("tile2\ntile0\n")
    return root


def test_mmsegmentations_layout(tmp_path: Path):
    root = mmseg(tmp_path / "plain")
    assert names_of(root, "train") == ["tile0", "tile1", "tile2", "tile3"]
    assert names_of(root, "val") == ["tile4", "tile5"]
    data = folder(root)
    assert data.read(data.split("val")[1]).labels.shape == (40, 48)
    assert names_of(mmseg(tmp_path / "listed", listed=True), "train") == ["tile2", "tile0"]


def scene_folder(root: Path, *, mask_size: tuple[int, int] = (1000, 950), codes: bool = True) -> Path:
    """A scene of 1000 x 950 pixels: left block column train, the top of the middle val, the rest mixed or test."""
    rng = np.random.default_rng(0)
    write_tif(root / "image.tif", rng.integers(0, 255, size=(3, 1000, 950), dtype=np.uint8))
    write_tif(root / "mask.tif", rng.integers(0, 3, size=(1, *mask_size), dtype=np.uint8))
    (root / "classes.json").write_text(json.dumps({"names": NAMES}))
    if codes:
        split = np.full((1, 1000, 950), 2, dtype=np.uint8)
        split[:, :, :450], split[:, :450, 450:900] = 0, 1
        split[:, 900:, 0] = 2  # one pixel of another split: the window belongs to none
        write_tif(root / "split.tif", split)
    return root


def test_a_scene_is_cut_into_windows_that_lie_wholly_in_one_split(tmp_path: Path):
    root = scene_folder(tmp_path / "scene")
    data = folder(root)
    assert names_of(root, "train") == ["scene_0_0", "scene_450_0"]
    assert names_of(root, "val") == ["scene_0_450"]
    assert data.split("test")[-1].box == (900, 900, 100, 50)  # the corner is what is left
    sample = data.read(data.split("val")[0])
    whole = data.read(data.split("val")[0].__class__("all", root / "image.tif", root / "mask.tif"))
    np.testing.assert_array_equal(sample.image, whole.image[:, :450, 450:900])
    np.testing.assert_array_equal(sample.labels, whole.labels[:450, 450:900])


def test_a_scene_without_splits_is_all_training(tmp_path: Path):
    assert len(names_of(scene_folder(tmp_path / "scene", codes=False), "train")) == 9


def test_training_windows_of_one_label_are_left_out(tmp_path: Path):
    root = scene_folder(tmp_path / "scene")
    mask = np.random.default_rng(0).integers(0, 3, size=(1, 1000, 950), dtype=np.uint8)
    mask[:, :450, :900] = 1  # the first training window, and the one of val, which stays
    write_tif(root / "mask.tif", mask)
    assert names_of(root, "train") == ["scene_450_0"]
    mask[:, 24:, :450] = 1  # 94.7 % of it
    mask[:, :24, :450] = 0
    write_tif(root / "mask.tif", mask)
    assert names_of(root, "train")[0] == "scene_0_0"
    assert names_of(root, "val") == ["scene_0_450"]


@pytest.mark.parametrize("size", [(900, 950), (1200, 950)])
def test_a_scene_whose_mask_has_another_size_is_refused_at_once(tmp_path: Path, size: tuple[int, int]):
    root = scene_folder(tmp_path / "scene", mask_size=size)
    with pytest.raises(SizeMismatch, match=rf"mask.tif is 950 x {size[0]} pixels, image.tif 950 x 1000"):
        folder(root)


def test_a_scene_whose_blocks_are_smaller_than_a_window_is_refused(tmp_path: Path):
    root = scene_folder(tmp_path / "scene")
    write_tif(root / "split.tif", np.indices((1000, 950)).sum(axis=0, keepdims=True).astype(np.uint8) % 2)
    with pytest.raises(DatasetError, match=r"no window of 450 x 450 pixels wholly in train"):
        folder(root)


def test_classes_are_not_given_to_data_that_say_theirs(tmp_path: Path):
    (tmp_path / "fields.json").write_text("{}")
    for root in ("voc:nowhere", tmp_path / "fields.json"):
        with pytest.raises(ConfigError, match="has classes of its own"):
            folder(root, classes=["a", "b"])


def test_a_public_data_set_that_is_not_known_is_told_with_those_that_are():
    with pytest.raises(UnknownName, match=r"no data set 'cityscape'. Did you mean 'cityscapes'"):
        folder("cityscape:somewhere")
    with pytest.raises(DatasetError, match="is not a folder"):
        folder("C:somewhere")


@pytest.mark.parametrize(("place", "words"), [("images", "inside a data set"), ("..", "above data sets")])
def test_a_folder_a_level_too_low_or_too_high_is_told(set_folder: Path, place: str, words: str):
    with pytest.raises(DatasetError, match=rf"lies {words}\. Give .*{set_folder.name}"):
        folder(set_folder / place)


@pytest.mark.parametrize("name", ["valid", "Validation", "VAL"])
def test_a_list_of_val_under_another_name_is_an_error(set_folder: Path, name: str):
    (set_folder / "val.txt").rename(set_folder / f"{name}.txt")
    with pytest.raises(DatasetError, match=rf"{name}\.txt is not read\. Name it val\.txt"):
        folder(set_folder)


def test_data_without_val_are_warned_of(set_folder: Path):
    assert not scan(set_folder).findings
    (set_folder / "val.txt").unlink()
    warned = [finding.message for finding in scan(set_folder).findings if finding.grade == "warning"]
    assert warned == ["there is no val.txt: no training is scored, and the last model is the best."]


def test_names_of_missing_files_are_corrected(set_folder: Path):
    with pytest.raises(DatasetError, match=r"toys is not a folder\. Did you mean \S*/toy\?"):
        folder(set_folder.with_name("toys"))
    (set_folder / "best.safetensors").touch()
    with pytest.raises(DatasetError, match=r"best\.safetensors is not a folder\. It is a model: --init begins"):
        folder(set_folder / "best.safetensors")
    with pytest.raises(CheckpointError, match=r"Did you mean \S*/best\.safetensors\?"):
        load(set_folder / "bets.safetensor")
    with pytest.raises(UnreadableImage, match=r"Did you mean \S*/tile3\.png\?"):
        read_image(set_folder / "images" / "tile3.jpg")
    with pytest.raises(UnreadableImage, match=r"does not exist\. Give"):
        read_image(set_folder / "nowhere" / "tile3.jpg")


@pytest.mark.parametrize(("size", "turned"), [((48, 40), True), ((40, 47), False)])
def test_a_mask_that_is_turned_is_said_to_be(set_folder: Path, size: tuple[int, int], turned: bool):
    save_image(set_folder / "masks" / "tile0.png", np.zeros(size))
    data = folder(set_folder)
    with pytest.raises(SizeMismatch) as refused:
        data.read(data.split("train")[0])
    assert ("rotated by 90 degrees" in str(refused.value)) == turned
