"""The pictures show what was predicted, pixel by pixel."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regard.data.image_folder import folder
from regard.data.sample import LabelledData, Sample
from regard.engine.evaluate import evaluate
from regard.errors import DatasetError
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


def test_the_images_confusions_add_up_to_the_scores_of_the_split(tiny_model: Segmenter, many: LabelledData):
    scored = gallery.score_images(tiny_model, many, "val")
    assert [pair.name for pair, _ in scored] == [pair.name for pair in many.split("val")]
    total = sum(scores.confusion for _, scores in scored)
    np.testing.assert_array_equal(total, evaluate(tiny_model, many).confusion)


def test_worst_come_first_best_last_and_none_twice(tiny_model: Segmenter, many: LabelledData):
    scored = gallery.score_images(tiny_model, many, "val")
    shown = gallery.extremes(tiny_model, many, scored)
    every = sorted(scores.miou for _, scores in scored)
    assert [scores.miou for _, scores, _ in shown["Worst"]] == every[:4]
    assert [scores.miou for _, scores, _ in shown["Best"]] == every[-1:-5:-1]
    names = [name for entries in shown.values() for name, _, _ in entries]
    assert len(names) == len(set(names)) == 8


@pytest.mark.parametrize(("count", "worst", "best"), [(1, 1, 0), (2, 1, 1), (5, 3, 2)])
def test_few_images_are_shared_between_worst_and_best(
    tiny_model: Segmenter, many: LabelledData, count: int, worst: int, best: int
):
    shown = gallery.extremes(tiny_model, many, gallery.score_images(tiny_model, many, "val")[:count])
    assert [len(shown.get(title, [])) for title in ("Worst", "Best")] == [worst, best]


def test_label_prediction_and_error_show_every_pixel(tiny_model: Segmenter, toy: LabelledData):
    scored = gallery.score_images(tiny_model, toy, "val")
    ((name, scores, pictures),) = gallery.extremes(tiny_model, toy, scored[:1])["Worst"]
    sample = toy.read(scored[0][0])
    image, label, prediction, error = (decoded(uri) for _, _, uri in pictures)
    palette = np.array([*toy.classes.palette, (0, 0, 0)])
    labelled = sample.labels != 255
    np.testing.assert_array_equal(label, palette[np.where(labelled, sample.labels, 3)])
    assert np.abs(image.astype(int) - sample.image.transpose(1, 2, 0)).mean() < 12  # JPEG
    wrong = (error == gallery.ERROR_COLOURS["wrong"]).all(axis=-1)
    np.testing.assert_array_equal(wrong, labelled & (prediction != label).any(axis=-1))
    assert wrong.sum() == scores.confusion.sum() - np.trace(scores.confusion)
    assert (error[~labelled] == 0).all()
    assert name in pictures[0][1] and f"{100 * (1 - scores.accuracy):.0f} %" in pictures[3][1]


def test_large_pictures_are_made_small_and_labels_keep_their_colours():
    colours = np.array([(200, 0, 0), (0, 0, 200)], dtype=np.uint8)
    labels = np.random.default_rng(6).integers(2, size=(64, 160)).repeat(10, axis=0).repeat(10, axis=1)
    small = decoded(gallery._uri(colours[labels]))
    assert small.shape == (128, 320, 3)
    assert {tuple(pixel) for pixel in small.reshape(-1, 3).tolist()} == {(200, 0, 0), (0, 0, 200)}


@pytest.mark.parametrize(
    ("bands", "shown"),
    [(("red", "green", "blue"), [0, 1, 2]), (("nir", "blue", "green", "red"), [3, 2, 1]), (("a", "b"), [0, 1, 0])],
)
def test_deep_images_are_stretched_and_bands_found_by_name(bands: tuple[str, ...], shown: list[int]):
    rng = np.random.default_rng(7)
    values = rng.uniform(0, 1, size=(len(bands), 30, 40)).astype(np.float32) * 3000
    valid = np.ones((30, 40), dtype=bool)
    values[:, 0, 0], valid[0, 0] = np.nan, False
    picture = gallery._photograph(Sample(values, np.zeros((30, 40), dtype=np.int64), valid, "deep"), bands)
    assert picture.dtype == np.uint8 and picture.shape == (30, 40, 3)
    for channel, band in enumerate(shown):
        low, high = np.percentile(values[band][valid], (2, 98))
        expected = (255 * (values[band][valid] - low) / (high - low)).clip(0, 255)
        np.testing.assert_allclose(picture[..., channel][valid], expected, atol=1.01)


def test_a_split_without_labels_is_refused(tiny_model: Segmenter, set_folder: Path):
    for file in (set_folder / "masks").iterdir():
        save_image(file, np.full((40, 48), 255))
    with pytest.raises(DatasetError, match="no labelled pixel"):
        gallery.score_images(tiny_model, folder(set_folder), "val")
