"""Scores of a split against a computation by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.segmentation import mean_iou

from regard.classes import ClassMap
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.errors import ClassMismatch, DatasetError, UnknownName
from regard.evaluation.evaluate import Scores, check_classes, evaluate
from regard.inference.scores import prepare
from regard.models import Segmenter
from support import NAMES, save_image, tiny


def by_hand(model: Segmenter, data: LabelledData) -> np.ndarray:
    """The confusion matrix, pixel by pixel."""
    counts = np.zeros((3, 3), dtype=int)
    for pair in data.split("val"):
        sample = data.read(pair)
        with torch.no_grad():
            logits = model(prepare(sample.image, sample.valid, model.scaling)[None])[0].numpy()
        for true, guess in zip(sample.labels.flatten(), logits.argmax(axis=0).flatten(), strict=True):
            if true != 255:
                counts[true, guess] += 1
    return counts


def test_equals_the_count_by_hand_and_leaves_the_model_as_it_was(toy: LabelledData, tiny_model: Segmenter):
    tiny_model.train()
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    scores = evaluate(tiny_model, toy)
    assert tiny_model.training and all(
        torch.equal(before[name], value) for name, value in tiny_model.state_dict().items()
    )
    np.testing.assert_array_equal(scores.confusion, by_hand(tiny_model.eval(), toy))
    assert scores.as_dict()["pixels"] == 2 * 38 * 48  # two rows of each mask are ignored


def test_a_perfect_and_a_hopeless_prediction():
    classes = ClassMap.of(NAMES)
    perfect = Scores(classes, np.diag([5, 7, 9]))
    assert perfect.miou == perfect.accuracy == perfect.mean_f1 == 1
    hopeless = Scores(classes, np.array([[0, 5, 0], [0, 0, 7], [9, 0, 0]]))
    assert hopeless.miou == hopeless.accuracy == hopeless.mean_f1 == 0


def test_a_class_that_does_not_occur_is_none_and_counts_in_no_mean():
    scores = Scores(ClassMap.of(NAMES), np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    assert scores.iou == {NAMES[0]: pytest.approx(6 / 9), NAMES[1]: pytest.approx(3 / 6), NAMES[2]: None}
    assert scores.miou == pytest.approx((6 / 9 + 3 / 6) / 2) and scores.accuracy == pytest.approx(9 / 12)
    assert scores.recall[NAMES[2]] is None and scores.precision[NAMES[2]] is None
    called = Scores(ClassMap.of(NAMES), np.array([[6, 2, 1], [1, 3, 0], [0, 0, 0]]))
    assert called.iou[NAMES[2]] == 0 and called.recall[NAMES[2]] is None  # called where it is not: wrong, not absent


def test_mean_iou_is_torchmetrics(toy: LabelledData):
    rng = np.random.default_rng(0)
    truth, guess = torch.from_numpy(rng.integers(0, 3, (1, 40, 40))), torch.from_numpy(rng.integers(0, 3, (1, 40, 40)))
    counts = np.zeros((3, 3), dtype=np.int64)
    np.add.at(counts, (truth.numpy(), guess.numpy()), 1)
    expected = mean_iou(guess, truth, num_classes=3, input_format="index")
    assert Scores(toy.classes, counts).miou == pytest.approx(float(expected))


def test_what_is_saved_is_json_without_nan(tmp_path: Path):
    scores = Scores(ClassMap.of(NAMES), np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    text = scores.save(tmp_path / "new" / "scores.json").read_text()
    facts = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert facts["iou"][NAMES[2]] is None and facts["confusion"] == [[6, 2, 0], [1, 3, 0], [0, 0, 0]]
    assert {"miou", "accuracy", "mean_f1"} <= set(facts) and 0 < facts["miou"] < 1


def test_the_table_has_a_line_per_class_and_the_means():
    lines = Scores(ClassMap.of(NAMES), np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])).table().splitlines()
    assert len(lines) == 8 and lines[2].startswith("| red thing | 66.7 | 66.7 | 80.0 | 85.7 | 75.0 |")
    assert "–" in lines[4] and "**58.3**" in lines[5] and "75.0" in lines[5]
    assert lines[7] == "mean accuracy 75.0; frequency-weighted IoU 61.1"


def test_pixels_without_data_are_not_scored(set_folder: Path, tiny_model: Segmenter):
    path = set_folder / "images" / "tile4.png"
    values = folder(set_folder).read(folder(set_folder).split("val")[0]).image.transpose(1, 2, 0)
    alpha = np.full((40, 48, 1), 255)
    alpha[10:20] = 0
    save_image(path, np.concatenate([values, alpha], axis=2))
    assert evaluate(tiny_model, folder(set_folder)).confusion.sum() == 2 * 38 * 48 - 10 * 48


def test_a_split_without_a_label_is_refused(set_folder: Path, tiny_model: Segmenter):
    for stem in ("tile4", "tile5"):
        save_image(set_folder / "masks" / f"{stem}.png", np.full((40, 48), 255))
    with pytest.raises(DatasetError, match="the split val has no labelled pixel"):
        evaluate(tiny_model, folder(set_folder))


def test_an_unknown_split_is_refused(toy: LabelledData, tiny_model: Segmenter):
    with pytest.raises(UnknownName, match="no split 'test'"):
        evaluate(tiny_model, toy, split="test")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("red thing", "green thing"), r"has 3 classes \(red thing, .*\); the model has 2 \(red thing, green thing\)"),
        (("red thing", "blue thing", "green thing"), "has 'green thing' as class 1; the model has 'blue thing'"),
    ],
)
def test_other_classes_are_refused_before_any_image_is_read(toy: LabelledData, names: tuple[str, ...], message: str):
    with pytest.raises(ClassMismatch, match=message):
        check_classes(tiny(classes=names), toy)
