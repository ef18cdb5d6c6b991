"""Other class names than the model's are compared by a map of names; windows are those of the model's card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as reference_matrix

from regard.checkpoints.file import save
from regard.classes import ClassMap
from regard.cli import main
from regard.datasets.folder import folder
from regard.datasets.labelled_data import LabelledData
from regard.errors import ClassMismatch, ConfigError, UnknownName
from regard.evaluation.evaluate import evaluate
from regard.evaluation.matching import matched, parse_matching
from regard.inference.scores import scores_of
from regard.models import Segmenter
from regard.options import Views
from support import NAMES, tiny, write_set

THINGS = {"green thing": "thing", "*": "ground"}


@pytest.fixture
def two_classes(tmp_path: Path) -> LabelledData:
    """The set with the labels 0 and 1 alone, of other names."""
    root = write_set(tmp_path / "two")
    (root / "classes.json").write_text(json.dumps({"names": ["ground", "thing"]}))
    for path in (root / "masks").iterdir():
        from PIL import Image

        values = np.asarray(Image.open(path))
        Image.fromarray(np.where(values == 255, 255, values % 2).astype(np.uint8)).save(path)
    return folder(root)


def test_classes_are_compared_by_their_new_names(two_classes: LabelledData, tiny_model: Segmenter):
    scores = evaluate(tiny_model, two_classes, map=THINGS, boundary=2)
    truth, guesses, confidences = [], [], []
    for pair in two_classes.split("val"):
        sample = two_classes.read(pair)
        probabilities = scores_of(tiny_model, sample.pixels).softmax(dim=0).numpy()
        known = sample.labels != 255
        truth.append(sample.labels[known])
        guesses.append(np.array([0, 1, 0])[probabilities.argmax(axis=0)][known])
        together = np.stack([probabilities[0] + probabilities[2], probabilities[1]])
        confidences.append(together.max(axis=0)[known])
    expected = reference_matrix(np.concatenate(truth), np.concatenate(guesses), labels=[0, 1])
    np.testing.assert_array_equal(scores.confusion, expected)
    assert scores.classes.names == ("ground", "thing") and scores.boundary is not None
    assert scores.confidence == pytest.approx(np.concatenate(confidences).mean(), abs=1e-5)


def test_the_same_names_give_the_scores_without_a_map(toy: LabelledData, tiny_model: Segmenter):
    plain = evaluate(tiny_model, toy)
    named = evaluate(tiny_model, toy, map={name: name for name in NAMES})
    np.testing.assert_array_equal(plain.confusion, named.confusion)
    assert plain.calibration_error == pytest.approx(named.calibration_error, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        (None, ClassMismatch, "2 classes.*--map red thing=ground"),
        ({"green thing": "thing"}, ClassMismatch, r"leaves out red thing, blue thing\."),
        (
            {"gren thing": "thing", "*": "ground"},
            UnknownName,
            "no class of the model 'gren thing'. Did you mean 'green",
        ),
        ({"*": "grund"}, UnknownName, "'grund'. Did you mean 'ground'"),
    ],
)
def test_names_that_do_not_fit_are_told(given, error, told: str, two_classes: LabelledData, tiny_model: Segmenter):
    with pytest.raises(error, match=told):
        evaluate(tiny_model, two_classes, map=given)


def test_the_command_line_writes_it_as_pairs():
    assert parse_matching("a=b, *= c d") == {"a": "b", "*": "c d"}
    for wrong, told in (("a", "'a' is not NAME=NAME"), ("a=", "not NAME"), ("a=b,,", "not NAME"), ("a=b,a=c", "twice")):
        with pytest.raises(ConfigError, match=told):
            parse_matching(wrong)


def with_window(window: int | None) -> Segmenter:
    model = tiny()
    return model.with_card(model.card.model_copy(update={"window": window}))


def test_the_window_of_the_card_is_the_default(toy: LabelledData):
    model = with_window(32)
    as_trained, whole = evaluate(model, toy), evaluate(model, toy, window=0)
    np.testing.assert_array_equal(as_trained.confusion, evaluate(with_window(None), toy, window=32).confusion)
    np.testing.assert_array_equal(whole.confusion, evaluate(with_window(None), toy).confusion)
    np.testing.assert_array_equal(whole.confusion, evaluate(with_window(0), toy).confusion)
    assert (as_trained.confusion != whole.confusion).any()
    sample = toy.read(toy.split("val")[0])
    assert torch.equal(scores_of(model, sample.pixels, Views(window=0)), scores_of(model, sample.pixels))


@pytest.mark.parametrize(
    ("card", "words", "told", "fact"),
    [
        (32, [], "windows of 32 pixels, as the model's card says", 32),
        (32, ["--window", "0"], "(whole images)", 0),
        (None, [], "(whole images)", 0),
        (0, [], "whole images, as the model's card says", 0),
        (0, ["--window", "32"], "(windows of 32 pixels)", 32),
    ],
)
def test_the_command_says_in_which_windows(
    card: int | None, words: list[str], told: str, fact: int, set_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    path = save(with_window(card), tmp_path / "m.safetensors")
    said = []
    for json_too in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main(["evaluate", str(path), str(set_folder), "--no-progress", *words, *json_too])
        assert end.value.code == 0
        said.append(capsys.readouterr().out)
    assert told in said[0]
    facts = json.loads(said[1])
    assert facts["window"] == fact and facts["miou"] > 0


def test_each_class_is_the_one_that_is_named_or_that_of_the_rest():
    ours, theirs = ClassMap.of(["a", "b", "c", "d"]), ClassMap.of(["x", "y", "z"])
    assert matched(ours, theirs, {"b": "x", "*": "z", "d": "y"}, "data").tolist() == [2, 0, 2, 1]
    assert matched(ours, ours, None, "data").tolist() == [0, 1, 2, 3]
