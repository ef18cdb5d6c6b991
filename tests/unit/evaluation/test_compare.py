"""Agreement of faster ways with float32, counted again by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import regard
from regard.checkpoints.file import save
from regard.errors import ClassMismatch
from regard.evaluation.compare import compare
from regard.evaluation.evaluate import evaluate
from regard.inference.scores import prepare
from support import tiny, write_set


@pytest.mark.slow
def test_labels_and_scores_are_those_of_each_way(tmp_path: Path) -> None:
    data = regard.folder(write_set(tmp_path / "set"))
    path = save(tiny(), tmp_path / "m.safetensors")
    rows = {row.way: row for row in compare(path, data)}
    assert list(rows) == ["float32", "fast", "auto"]
    assert rows["float32"].equal == 1.0
    for way, how in (("float32", {}), ("fast", {"fast": True}), ("auto", {"precision": "auto"})):
        assert rows[way].miou == pytest.approx(evaluate(regard.load(path, **how), data).miou, abs=1e-12)
    plain, auto = regard.load(path), regard.load(path, precision="auto")
    same = []
    for pair in data.split("val"):
        sample = data.read(pair)
        image = prepare(sample.image, sample.valid, plain.scaling)[None]
        with torch.inference_mode():
            same.append((plain(image).argmax(1) == auto(image).argmax(1)).numpy())
    assert rows["auto"].equal == pytest.approx(np.mean(same))


def test_other_classes_are_refused(tmp_path: Path) -> None:
    data = regard.folder(write_set(tmp_path / "set"))
    with pytest.raises(ClassMismatch, match="the model has 2"):
        compare(save(tiny(classes=("a", "b")), tmp_path / "m.safetensors"), data)
