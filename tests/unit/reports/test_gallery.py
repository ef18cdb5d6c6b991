"""The pictures show what was predicted, pixel by pixel."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.classes import ClassMap
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.evaluation.evaluate import evaluate
from regard.inference.pictures import visible
from regard.models import Segmenter
from regard.reports import gallery
from support import save_image, write_set


def decoded(uri: str) -> np.ndarray:
    head, body = uri.split(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))


@pytest.fixture
def many(tmp_path: Path) -> LabelledData:
    """Twelve images, ten of them to be scored."""
    root = write_set(tmp_path / "many", count=12, seed=4)
    stems = [f"tile{index}" for index in range(12)]
    (root / "train.txt").write_text("\n".join(stems[:2]))
    (root / "val.txt").write_text("\n".join(stems[2:]))
    return folder(root)


def shown_of(model: Segmenter, data: LabelledData, window: int = 0) -> dict[str, list[gallery.Entry]]:
    return gallery.extremes(model, data, "val", evaluate(model, data, window=window), window=window)


def test_worst_come_first_best_last_and_none_twice(tiny_model: Segmenter, many: LabelledData):
    each = {
        pair.name: scores for pair, scores in zip(many.split("val"), evaluate(tiny_model, many).by_image(), strict=True)
    }
    shown = shown_of(tiny_model, many)
    every = sorted(scores.miou for scores in each.values())
    assert [scores.miou for _, scores, _ in shown["Worst"]] == every[:4]
    assert [scores.miou for _, scores, _ in shown["Best"]] == every[-1:-5:-1]
    names = [name for entries in shown.values() for name, _, pictures in entries if pictures]
    assert len(names) == len(set(names)) >= 8
    assert [name for name, _, _ in shown["Least confident"]] == sorted(each, key=lambda name: each[name].confidence)[:4]
    pictured = {name for title in ("Worst", "Best") for name, _, _ in shown[title]}
    assert all(bool(pictures) == (name not in pictured) for name, _, pictures in shown["Least confident"])


@pytest.mark.parametrize(("count", "worst", "best"), [(1, 1, 0), (2, 1, 1), (5, 3, 2)])
def test_few_images_are_shared_between_worst_and_best(
    tiny_model: Segmenter, many: LabelledData, count: int, worst: int, best: int
):
    (many.root / "val.txt").write_text("\n".join(f"tile{index}" for index in range(2, 2 + count)))
    shown = shown_of(tiny_model, folder(many.root))
    assert [len(shown.get(title, [])) for title in ("Worst", "Best")] == [worst, best]


@pytest.mark.parametrize("window", [0, 32])
def test_label_prediction_and_error_show_every_pixel(tiny_model: Segmenter, toy: LabelledData, window: int):
    ((name, scores, pictures),) = shown_of(tiny_model, toy, window)["Worst"]
    sample = toy.read(next(pair for pair in toy.split("val") if pair.name == name))
    image, label, prediction, error, confidence = (decoded(uri) for _, _, uri in pictures)
    palette = np.array([*toy.classes.palette, (0, 0, 0)])
    labelled = sample.labels != 255
    np.testing.assert_array_equal(label, palette[np.where(labelled, sample.labels, 3)])
    assert np.abs(image.astype(int) - sample.image.transpose(1, 2, 0)).mean() < 12  # JPEG
    wrong = (error == gallery.ERROR_COLOURS["misclassified"]).all(axis=-1)
    np.testing.assert_array_equal(wrong, labelled & (prediction != label).any(axis=-1))
    assert wrong.sum() == scores.confusion.sum() - np.trace(scores.confusion)
    assert (error[~labelled] == 0).all()
    assert confidence.shape == image.shape and pictures[4][1].endswith("% on average")
    assert name in pictures[0][1] and f"{100 * (1 - scores.accuracy):.0f} %" in pictures[3][1]


def test_every_picture_of_errors_shows_what_was_scored_in_windows(tiny_model: Segmenter, many: LabelledData):
    for mask in (many.root / "masks").iterdir():  # where predictions differ, errors do
        save_image(mask, np.random.default_rng(1).integers(3, size=(40, 48)))
    shown = shown_of(tiny_model, many, window=32)
    for _, scores, pictures in [*shown["Worst"], *shown["Best"]]:
        wrong = (decoded(pictures[3][2]) == gallery.ERROR_COLOURS["misclassified"]).all(axis=-1)
        assert wrong.sum() == scores.confusion.sum() - np.trace(scores.confusion)


def test_a_map_in_words_has_its_three_largest_classes():
    labels = np.repeat([0, 1, 2, 3, 255], [10, 40, 5, 45, 900])
    assert gallery.summary(labels.reshape(10, 100), ClassMap.of(["a", "b", "c", "d"])) == "d 45 %, b 40 %, a 10 %"


def test_large_pictures_are_made_small_and_labels_keep_their_colours():
    colours = np.array([(200, 0, 0), (0, 0, 200)], dtype=np.uint8)
    labels = np.random.default_rng(6).integers(2, size=(64, 160)).repeat(10, axis=0).repeat(10, axis=1)
    small = decoded(gallery.embedded(colours[labels]))
    assert small.shape == (128, 320, 3)
    assert {tuple(pixel) for pixel in small.reshape(-1, 3).tolist()} == {(200, 0, 0), (0, 0, 200)}


@pytest.mark.parametrize(
    ("bands", "shown"),
    [(("red", "green", "blue"), [0, 1, 2]), (("nir", "blue", "green", "red"), [3, 2, 1]), (("a", "b"), [0, 1, 1])],
)
def test_deep_images_are_stretched_and_bands_found_by_name(bands: tuple[str, ...], shown: list[int]):
    rng = np.random.default_rng(7)
    values = rng.uniform(0, 1, size=(len(bands), 30, 40)).astype(np.float32) * 3000
    valid = np.ones((30, 40), dtype=bool)
    values[:, 0, 0], valid[0, 0] = np.nan, False
    picture = visible(values, valid, bands)
    assert picture.dtype == np.uint8 and picture.shape == (30, 40, 3)
    for channel, band in enumerate(shown):
        low, high = np.percentile(values[band][valid], (2, 98))
        expected = (255 * (values[band][valid] - low) / (high - low)).clip(0, 255)
        np.testing.assert_allclose(picture[..., channel][valid], expected, atol=1.01)


def test_images_without_a_label_are_not_shown(tiny_model: Segmenter, set_folder: Path):
    save_image(set_folder / "masks" / "tile4.png", np.full((40, 48), 255))
    shown = shown_of(tiny_model, folder(set_folder))
    assert [name for name, _, _ in shown["Worst"]] == ["tile5"] and "Best" not in shown


def test_a_transparent_picture_stays_so(tmp_path: Path):
    values = np.full((400, 1600, 4), 90, np.uint8)
    values[:, 800:, 3] = 0
    _, _, uri = gallery.picture("half", save_image(tmp_path / "half.png", values))
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert image.size == (gallery.WIDE, 320) and (alpha[:, :630] == 90).all() and not alpha[:, 650:].any()
