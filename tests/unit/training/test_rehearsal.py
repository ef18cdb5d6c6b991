"""What --dry-run says of a training: measured numbers, and a smaller training where it asks for too much."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from regard.datasets.labelled_data import LabelledData
from regard.models import Segmenter
from regard.training import rehearsal
from regard.training.config import TrainConfig
from regard.training.rehearsal import Trial, in_own_process, rehearse, trial
from support import tiny

CONFIG = TrainConfig(steps=600, batch=2, crop=64, workers=0, evaluate_every=100, window=0, log=("none",))


def test_two_steps_are_measured_and_nothing_stays(toy: LabelledData, tiny_model: Segmenter):
    before = sorted(toy.root.rglob("*"))
    found = trial(tiny_model, toy, CONFIG, 1)
    assert 0 < found.step < 60 and 0 < found.load < 60 and 0 < found.score < 60
    assert 100 < found.memory_mb < 20_000
    assert sorted(toy.root.rglob("*")) == before


def test_minutes_are_steps_and_evaluations(toy: LabelledData):
    """Two images of val, scored six times."""
    found = Trial(step=2.0, load=3.0, score=5.0, memory_mb=1000)
    assert found.minutes(CONFIG, toy) == pytest.approx((600 * (2 + 3) + 6 * 2 * 5) / 60)
    assert found.seconds(CONFIG.model_copy(update={"workers": 1})) == 3.0
    assert found.seconds(CONFIG.model_copy(update={"workers": 4})) == 2.0
    longer = CONFIG.model_copy(update={"steps": 601})  # the last step is scored too
    assert found.minutes(longer, toy) == pytest.approx((601 * (2 + 3) + 7 * 2 * 5) / 60)


GOOD, SLOW, LARGE = (
    Trial(step, 0.0, 0.0, memory) for step, memory in ((1.0, 3200.0), (1e3, 900.0), (1.0, 3201.0))
)  # of 4000 MB 80 % may be taken


@pytest.mark.parametrize(
    ("trials", "suggestion"),
    [
        ([GOOD], "as asked"),
        ([SLOW, GOOD], "--backbone tf_efficientnet_lite0 --batch 8 --crop 512"),
        ([LARGE, LARGE, GOOD], "--backbone tf_efficientnet_lite0 --batch 8 --crop 256"),
        ([None, LARGE, SLOW, LARGE], "--backbone tf_efficientnet_lite0 --batch 4 --crop 256"),
    ],
)
def test_a_smaller_training_is_suggested_where_it_takes_too_long_or_too_much(
    toy: LabelledData, monkeypatch: pytest.MonkeyPatch, trials: list[Any], suggestion: str
):
    left = list(trials)
    monkeypatch.setattr(rehearsal, "free_memory_mb", lambda: 4000.0)
    monkeypatch.setattr(rehearsal, "in_own_process", lambda *_: left.pop(0))
    config = CONFIG.model_copy(update={"batch": 16, "crop": 512})
    facts = rehearse(tiny(), toy, config, lambda name: tiny())
    assert facts["suggestion"] == suggestion and not left
    assert ("minutes" in facts) == (trials[0] is not None) and ("suggested_minutes" in facts) == (len(trials) > 1)


@pytest.mark.slow
def test_the_steps_are_measured_in_a_process_of_their_own(toy: LabelledData, tiny_model: Segmenter):
    found = in_own_process(tiny_model, toy, CONFIG)
    assert found is not None and found.step > 0


def test_a_process_that_the_system_ends_is_told(
    toy: LabelledData, tiny_model: Segmenter, monkeypatch: pytest.MonkeyPatch
):
    class Ended(ThreadPoolExecutor):
        def submit(self, *_: Any) -> Any:
            raise BrokenProcessPool

    monkeypatch.setattr(rehearsal, "ProcessPoolExecutor", lambda *_: Ended(1))
    assert in_own_process(tiny_model, toy, CONFIG) is None
    assert "more than is free" in rehearse(tiny_model, toy, CONFIG)["memory_mb"]
